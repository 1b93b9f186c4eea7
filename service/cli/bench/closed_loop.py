"""Requests of a number of clients, each of which waits for its answer before it asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from locore_client import ClientError
from locore_client.exchange import sendable
from locore_client.proxies import way_to


async def closed_loop(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    requests: int,
    concurrency: int,
    advance: Callable[[int], None],
) -> tuple[list[float], int]:
    """POST /rerank, the bodies in turn, `concurrency` at a time: the seconds of every answered
    request, and how many were refused. Raises ClientError for any other answer."""
    places = asyncio.Semaphore(concurrency)
    latencies: list[float] = []
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
                else:
                    raise ClientError("failed", f"{url}: {response.text}", response.status_code)

        answers = [answer_of(bodies[n % len(bodies)]) for n in range(requests)]
        for answer in asyncio.as_completed(answers):
            await answer
            advance(1)
    return latencies, refused
