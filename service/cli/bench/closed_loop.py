"""Requests of a number of clients, each of which waits for its answer before it asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from locore_client import ClientError
from locore_client.contract import RerankResponse, Timings
from locore_client.exchange import sendable
from locore_client.proxies import way_to


@dataclass(frozen=True)
class ClosedLoop:
    """`seconds` and `timings` of each answer; `refused`: how many requests got 429."""

    seconds: list[float]
    timings: list[Timings]
    refused: int


async def closed_loop(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    requests: int,
    concurrency: int,
    advance: Callable[[int], None],
) -> ClosedLoop:
    """POST /rerank, the bodies in turn, `concurrency` at a time. Raises ClientError for an answer
    that is neither a result nor 429."""
    places = asyncio.Semaphore(concurrency)
    latencies: list[float] = []
    contents: list[bytes] = []
    refused = 0
    sent = {"Content-Type": "application/json", **headers}

    async with httpx.AsyncClient(
        base_url=url, headers=sendable(sent), timeout=600, **way_to(url)
    ) as http:

        async def answer_of(body: bytes) -> None:
            nonlocal refused
            async with places:
                started = time.perf_counter()
                try:
                    response = await http.post("/rerank", content=body)
                except httpx.HTTPError as error:
                    raise ClientError("unreachable", f"{url}: {error}") from None
                if response.status_code == 429:
                    refused += 1
                elif response.is_success:
                    latencies.append(time.perf_counter() - started)
                    contents.append(response.content)
                else:
                    raise ClientError("failed", f"{url}: {response.text}", response.status_code)

        answers = [answer_of(bodies[n % len(bodies)]) for n in range(requests)]
        for answer in asyncio.as_completed(answers):
            await answer
            advance(1)
    # Not before: it would take the time of the service, which may be on this machine.
    timings = [RerankResponse.model_validate_json(content).timings_ms for content in contents]
    return ClosedLoop(latencies, timings, refused)
