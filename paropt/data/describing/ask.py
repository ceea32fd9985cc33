"""Many questions: some at a time, not too many a minute, tried again, each answer kept at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from paropt.data.describing.answers import Answers
from paropt.data.describing.endpoint import Endpoint, NoText, TryLater

SECONDS = 5.0  # between two remarks on progress
LETTERS_PER_TOKEN = 4.0  # of English, roughly; other scripts need up to a token a letter


@dataclass(frozen=True)
class Limits:
    """How hard an endpoint is pressed; ``wait`` are the seconds before the first new try."""

    parallel: int = 4
    per_minute: float = 0.0
    tries: int = 4
    wait: float = 1.0


@dataclass
class Outcome:
    """Texts by the question's name, and how many have none, by the reason."""

    texts: dict[str, str] = field(default_factory=dict)
    without: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Cost:
    """What asking would take; tokens are estimated from letters."""

    questions: int
    kept: int
    tokens_in: int
    tokens_out: int

    def money(self, price_in: float, price_out: float) -> float:
        """With prices per million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


def cost(prompts: Mapping[str, str], answers: Answers, max_tokens: int) -> Cost:
    """What the prompts that have no answer yet would take, at most."""
    new = {prompt for prompt in prompts.values() if answers.get(prompt) is None}
    letters = sum(map(len, new))
    kept = len(set(prompts.values())) - len(new)
    return Cost(len(new), kept, round(letters / LETTERS_PER_TOKEN), len(new) * max_tokens)


class Pace:
    """Lets at most so many begin a minute, evenly; 0: any number."""

    def __init__(self, per_minute: float) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next, self.lock = time.monotonic(), threading.Lock()

    def turn(self, stop: threading.Event) -> None:
        """Wait for a turn, or until it is to stop."""
        with self.lock:
            begin = max(self.next, time.monotonic())
            self.next = begin + self.gap
        stop.wait(max(0.0, begin - time.monotonic()))


def ask_all(
    prompts: Mapping[str, str],
    endpoint: Endpoint,
    answers: Answers,
    limits: Limits,
    note: Callable[[str], None],
) -> Outcome:
    """The answers to ``prompts`` by name. What has none is counted, and asked again the next time.

    Raises:
        DataError: the endpoint takes no question at all; what was answered before is kept.
    """
    outcome, waiting = Outcome(), dict[str, list[str]]()
    for name, prompt in prompts.items():
        if (known := answers.get(prompt)) is None:
            waiting.setdefault(prompt, []).append(name)
        else:
            outcome.texts[name] = known
    began = said = time.monotonic()
    for number, (prompt, text, why) in enumerate(_asked(waiting, endpoint, limits), 1):
        if text is None:
            outcome.without[why] += len(waiting[prompt])
        else:
            answers.put(prompt, text)
            outcome.texts.update(dict.fromkeys(waiting[prompt], text))
        if (now := time.monotonic()) - said >= SECONDS and number < len(waiting):
            said = now
            rate = number / (now - began) * 60
            note(f"{number:,} of {len(waiting):,} asked, {rate:,.0f} a minute")
    return outcome


def _asked(
    prompts: Mapping[str, object], endpoint: Endpoint, limits: Limits
) -> Iterator[tuple[str, str | None, str]]:
    """Each prompt with its text, or why it has none, as they come."""
    pace, stop = Pace(limits.per_minute), threading.Event()
    left = iter(prompts)
    with ThreadPoolExecutor(limits.parallel) as pool:
        running: dict[Future[str], str] = {}
        try:
            while True:
                while len(running) < limits.parallel and (prompt := next(left, None)) is not None:
                    running[pool.submit(_ask, prompt, endpoint, limits, pace, stop)] = prompt
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    prompt = running.pop(one)
                    try:
                        yield prompt, one.result(), ""
                    except NoText as error:
                        yield prompt, None, str(error)
        finally:
            stop.set()  # threads that wait for their turn go at once


def _ask(prompt: str, endpoint: Endpoint, limits: Limits, pace: Pace, stop: threading.Event) -> str:
    for number in range(1, limits.tries + 1):
        pace.turn(stop)
        try:
            return endpoint.ask(prompt)
        except TryLater as error:
            if number == limits.tries or stop.is_set():
                raise NoText(str(error)) from None
            stop.wait(max(error.wait, limits.wait * 2 ** (number - 1)))
    raise AssertionError("unreachable")
