"""A service that is asked for more than it can do, and what it makes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np

from locore_client import rerank_body
from locore_client.bodies import to_json
from model.config import DEFAULT_CHECKPOINT
from model.config_file import read_config
from model.random_images import random_image
from service.cli.bench.open_loop import OpenLoop, open_loop
from tests.e2e.service import RunningService

CHECKPOINT = Path(DEFAULT_CHECKPOINT)
CONFIG = read_config(CHECKPOINT)
LONGEST = 100
_AT_A_TIME = 16
_QUERIES = 8


class Overload:
    """Lists of `lengths` images in turn, against a running service of the shipped checkpoint."""

    def __init__(self, service: RunningService, lengths: Sequence[int]) -> None:
        self._service = service
        self._lengths = lengths
        rng = np.random.default_rng(0)
        self._queries = [random_image(rng, CONFIG) for _ in range(_QUERIES)]

    def peak(self, requests: int) -> float:
        """Answers a second to clients that wait for theirs, some at a time."""
        bodies = self._bodies(600_000)

        async def work() -> float:
            loop, places = asyncio.get_running_loop(), asyncio.Semaphore(_AT_A_TIME)
            headers = {"Content-Type": "application/json"}
            async with httpx.AsyncClient(
                base_url=self._service.url, headers=headers, timeout=600
            ) as http:

                async def one(body: bytes) -> None:
                    async with places:
                        assert (await http.post("/rerank", content=body)).is_success

                started = loop.time()
                await asyncio.gather(*(one(bodies[n % len(bodies)]) for n in range(requests)))
                return requests / (loop.time() - started)

        return asyncio.run(work())

    def offered(self, rate: float, seconds: float, slo_seconds: float) -> OpenLoop:
        return open_loop(
            self._service.url,
            {},
            self._bodies(round(1000 * slo_seconds)),
            requests=max(1, round(rate * seconds)),
            rate=rate,
            slo_seconds=slo_seconds,
        )

    def _bodies(self, timeout_ms: int) -> list[bytes]:
        return [
            to_json(rerank_body(query, ids_of_length(length), "default", timeout_ms=timeout_ms))
            for query in self._queries
            for length in self._lengths
        ]


def ids_of_length(images: int) -> list[str]:
    return [f"image-{n}" for n in range(images)]


def register(service: RunningService) -> None:
    rng = np.random.default_rng(1)
    images = {image_id: random_image(rng, CONFIG) for image_id in ids_of_length(LONGEST)}
    assert service.register(images).is_success
