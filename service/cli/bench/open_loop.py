"""Requests that come when they come, whether or not earlier ones were answered.

A service that falls behind is not spared, as it is by clients that wait for their answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import uvloop

from service.cli.bench.client_pool import Answer, Pool, Target

_GRACE_SECONDS = 5.0
"""So long after its deadline an answer is waited for."""


@dataclass(frozen=True)
class OpenLoop:
    """`seconds`: from the first request to the last answer; `slo_seconds`: of an answer in time."""

    answers: Sequence[Answer]
    seconds: float
    slo_seconds: float

    @property
    def in_time(self) -> list[float]:
        """Seconds of the answers with a result that came within the deadline."""
        return [a.seconds for a in self.answered if a.seconds <= self.slo_seconds]

    @property
    def answered(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def goodput(self) -> float:
        """Results in time, a second."""
        return len(self.in_time) / self.seconds

    def count(self, *statuses: int) -> int:
        return sum(answer.status in statuses for answer in self.answers)


def open_loop(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    *,
    requests: int,
    rate: float,
    slo_seconds: float,
) -> OpenLoop:
    """POST /rerank at `rate` requests a second on average, at times that do not know of each other
    (Poisson), the bodies in turn."""
    target = Target(url, headers)
    ready = [target.request(body) for body in bodies]
    pauses = np.random.default_rng(0).exponential(1 / rate, requests)

    async def work() -> OpenLoop:
        pool = Pool(target)
        started = time.perf_counter()
        due, sent = started, []
        for place, pause in enumerate(pauses):
            due += pause
            delay = due - time.perf_counter()
            # One that is overdue goes at once, but answers get their turn.
            await asyncio.sleep(max(0.0, delay))
            request = ready[place % len(ready)]
            answer = pool.answer(request, slo_seconds + _GRACE_SECONDS)
            sent.append(asyncio.create_task(answer))
        answers = await asyncio.gather(*sent)
        seconds = time.perf_counter() - started
        pool.close()
        return OpenLoop(answers, seconds, slo_seconds)

    return uvloop.run(work())
