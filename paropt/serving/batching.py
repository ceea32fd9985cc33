"""Requests that come at the same time are answered together: the model reads its table once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from paropt.serving.limits import Limits, Refused
from paropt.serving.metrics import Metrics
from paropt.training.recommending.answering import Answer, Answerer, Prepared

Waiting = tuple[Prepared, "asyncio.Future[Answer]"]


class Batcher:
    """One thread answers; what comes while it does waits, and is its next batch.

    So nobody waits for others while the model is idle, and the busier it is, the larger its
    batches are.
    """

    def __init__(self, answerer: Answerer, limits: Limits, metrics: Metrics) -> None:
        self._answerer, self._limits, self._metrics = answerer, limits, metrics
        self._waiting: deque[Waiting] = deque()
        self._come = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Stop once what runs is over."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def answer(self, asks: Sequence[Prepared]) -> list[Answer]:
        """The answers of one request.

        Raises:
            Refused: 503, too much waits already.
        """
        if len(self._waiting) + len(asks) > self._limits.waiting:
            raise Refused(503, f"{len(self._waiting):,} sessions wait already; try again shortly")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in asks]
        self._waiting.extend(zip(asks, futures, strict=True))
        self._metrics.waiting = len(self._waiting)
        self._come.set()
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:  # whoever asked may have gone
                future.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._come.wait()
            batch = self._next()
            if not batch:
                self._come.clear()
                continue
            asks = [ask for ask, _ in batch]
            self._metrics.batched(len(batch))
            try:
                answers = await loop.run_in_executor(self._thread, self._answerer.answer, asks)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self._limits.batch:
            ask, future = self._waiting.popleft()
            if not future.done():
                batch.append((ask, future))
        self._metrics.waiting = len(self._waiting)
        return batch
