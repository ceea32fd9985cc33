"""The web application: what each address answers. Starlette is imported when it is made."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from paropt.errors import ParoptError
from paropt.serving.batching import Batcher
from paropt.serving.limits import Limits, Refused
from paropt.serving.metrics import CONTENT_TYPE, Metrics
from paropt.serving.requests import read_request
from paropt.training.recommending.answering import Answer, Answerer

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)


class Service:
    """A model's answers over HTTP. It keeps nothing of what it was asked."""

    def __init__(self, answerer: Answerer, about: Mapping[str, Any], limits: Limits) -> None:
        """``about`` is what ``/health`` says of the model."""
        self.answerer, self.about, self.limits = answerer, about, limits
        self.metrics = Metrics({name: str(about[name]) for name in ("model", "version")})

    def app(self) -> Starlette:
        """The application."""
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/recommend", self.recommend, methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.show_metrics),
            ],
            exception_handlers={HTTPException: _not_found},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.batcher = Batcher(self.answerer, self.limits, self.metrics)
        self.batcher.start()
        yield
        await self.batcher.stop()

    async def health(self, request: Request) -> Response:
        """That it works, and with what."""
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok", **self.about})

    async def show_metrics(self, request: Request) -> Response:
        """Counts and times, for Prometheus."""
        from starlette.responses import Response

        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def recommend(self, request: Request) -> Response:
        """The next items of one session or of several."""
        from starlette.responses import JSONResponse

        began = time.perf_counter()
        try:
            status, told = 200, await self._recommended(request)
        except Refused as refused:
            status, told = refused.status, {"error": str(refused)}
        except Exception:
            log.exception("a request failed")
            status, told = 500, {"error": "this request failed; the server's log says why"}
        self.metrics.requested(status, time.perf_counter() - began)
        return JSONResponse(told, status)

    async def _recommended(self, request: Request) -> dict[str, Any]:
        asked = read_request(await self._body(request), self.limits)
        prepared = []
        for number, (_, ask) in enumerate(asked, 1):
            try:
                prepared.append(self.answerer.prepare(ask))
            except ParoptError as error:
                where = f"session {number}: " if len(asked) > 1 else ""
                said = str(error).replace("--want", "'want'")  # as the command line has it
                raise Refused(422, f"{where}{said}") from None
        answers = await self.batcher.answer(prepared)
        for answer in answers:
            self.metrics.answered(answer.popular, answer.unknown)
        pairs = zip(asked, answers, strict=True)
        return {"sessions": [_told(name, answer) for (name, _), answer in pairs]}

    async def _body(self, request: Request) -> bytes:
        from starlette.requests import ClientDisconnect

        most = self.limits.body
        said = request.headers.get("content-length", "0")
        body = bytearray()
        try:
            if said.isdigit() and int(said) > most:
                raise Refused(413, f"a request has at most {most:,} bytes, not {int(said):,}")
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Refused(413, f"a request has at most {most:,} bytes")
        except ClientDisconnect:
            raise Refused(400, "the request ended before its body did") from None
        return bytes(body)


def _told(name: str | None, answer: Answer) -> dict[str, Any]:
    pairs = zip(answer.items, answer.scores, strict=True)
    return {
        **({} if name is None else {"id": name}),
        "popular": answer.popular,
        "unknown_items": answer.unknown,
        "unknown_listed": answer.unlisted,
        "items": [{"item": item, "score": score} for item, score in pairs],
    }


async def _not_found(request: Request, error: Exception) -> Response:
    """What there is, to who asked for something else."""
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse

    assert isinstance(error, HTTPException)
    there = "POST /recommend, GET /health and GET /metrics"
    said = f"there is no {request.method} {request.url.path}; there are {there}"
    return JSONResponse({"error": said}, error.status_code, headers=error.headers)
