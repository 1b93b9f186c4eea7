"""Requests of a number of clients, each of which waits for its answer before it asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvloop

from locore_client import ClientError
from locore_client.contract import RerankResponse, Timings
from service.cli.bench.client_pool import Answer, Pool, Target

_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class ClosedLoop:
    """`seconds` and `timings` of each answer; `refused`: how many requests got 429; `wall`: seconds
    of them all."""

    seconds: list[float]
    timings: list[Timings]
    refused: int
    wall: float


def closed_loop(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    requests: int,
    concurrency: int,
    advance: Callable[[int], None],
) -> ClosedLoop:
    """POST /rerank, the bodies in turn, `concurrency` at a time. Raises ClientError for an answer
    that is neither a result nor 429."""
    target = Target(url, headers)
    ready = [target.request(body) for body in bodies]
    places = iter(range(requests))
    answers: list[Answer] = []

    async def client(pool: Pool, places: Iterator[int]) -> None:
        for place in places:
            answer = await pool.answer(ready[place % len(ready)], _PATIENCE_SECONDS)
            if answer.status == 0:
                raise ClientError("unreachable", f"{url}: no answer")
            if answer.status not in (200, 429):
                why = answer.content.decode(errors="replace")
                raise ClientError("failed", f"{url}: {why}", answer.status)
            answers.append(answer)
            advance(1)

    async def work() -> float:
        pool = Pool(target)
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as clients:
                for _ in range(concurrency):
                    clients.create_task(client(pool, places))
            return time.perf_counter() - started
        except* ClientError as errors:
            raise errors.exceptions[0] from None
        finally:
            pool.close()

    wall = uvloop.run(work())
    results = [answer for answer in answers if answer.status == 200]
    return ClosedLoop(
        [answer.seconds for answer in results],
        [RerankResponse.model_validate_json(answer.content).timings_ms for answer in results],
        len(answers) - len(results),
        wall,
    )
