"""Re-rankings without end against a service whose store loses a node."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from locore_client import rerank_body
from model.descriptors import ImageDescriptors
from tests.e2e.service import LOCORE, RunningService, code_of, free_port, scores_of
from tests.factories import image, tiny_config
from tests.slow.valkey_nodes import until_true

log = logging.getLogger(__name__)

CONFIG = tiny_config()
CLIENTS = 6
WITHIN = 20.0
"""Seconds from the loss of a node after which all answers must be right again."""

LONGEST = 12.0
"""Seconds that an answer may take: a socket's timeout (5), the tries after it, two busy cores."""


def images(count: int, seed: int = 0, prefix: str = "image") -> dict[str, ImageDescriptors]:
    rng = np.random.default_rng(seed)
    return {f"{prefix}-{number:03}": image(rng, CONFIG) for number in range(count)}


QUERY = image(np.random.default_rng(99), CONFIG)


@dataclass(frozen=True)
class Answer:
    """`asked` and `answered` by the monotonic clock; `scores` where `status` is 200."""

    asked: float
    answered: float
    status: tuple[int, str]
    scores: dict[str, float] | None


class Load:
    """What the clients were answered."""

    def __init__(self, service: RunningService, ids: list[str]) -> None:
        self.answers: list[Answer] = []
        self._url = service.url
        self._body = rerank_body(QUERY, ids, "default") | {"timeout_ms": 60_000}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def good_since(self, moment: float) -> bool:
        """The last answers, several for each client, were asked for since then and are good."""
        last = self.answers[-3 * CLIENTS :]
        return all(answer.asked > moment and answer.scores is not None for answer in last)

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._url, timeout=90) as http:
            while not self._over.is_set():
                asked = time.monotonic()
                response = http.post("/rerank", json=self._body)
                good = response.status_code == 200
                status = (200, "") if good else code_of(response)
                scores = scores_of(response) if good else None
                self.answers.append(Answer(asked, time.monotonic(), status, scores))


@contextmanager
def started_without_store(
    checkpoint: Path, folder: Path, redis_url: str
) -> Iterator[RunningService]:
    """A service that is live and cannot be ready yet."""
    port = free_port()
    flags = {"checkpoint": checkpoint, "port": port, "redis-url": redis_url, "device": "cpu"}
    command = [LOCORE, "serve"] + [f"--{name}={value}" for name, value in flags.items()]
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output)
    service = RunningService(process, f"http://127.0.0.1:{port}", log)
    try:
        until_true(lambda: _is_live(service), 60)
        yield service
    finally:
        service.http.close()
        process.kill()
        process.wait()


def _is_live(service: RunningService) -> bool:
    assert service.process.poll() is None, service.log
    with suppress(httpx.HTTPError):
        return service.http.get("/health/live").is_success
    return False


@contextmanager
def under_load(service: RunningService, ids: list[str]) -> Iterator[Load]:
    load = Load(service, ids)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def check_failover(load: Load, lost_at: float, expected: dict[str, float], what: str) -> None:
    """Raises AssertionError unless all went as the contract says, and says how long it took."""
    answers = load.answers
    assert {answer.status for answer in answers} <= {(200, ""), (503, "store_unavailable")}
    for answer in answers:
        if answer.scores is not None:
            # Which windows share a forward pass moves the last digits.
            assert answer.scores == pytest.approx(expected, rel=1e-5)
    longest = max(answer.answered - answer.asked for answer in answers)
    refused = [answer for answer in answers if answer.scores is None]
    bad_until = max((a.answered for a in answers if a.scores is None), default=lost_at) - lost_at
    log.info(
        "%s: %d answers, %d of them 503, the last one after %.1f s; the longest took %.1f s",
        *(what, len(answers), len(refused), bad_until, longest),
    )
    assert longest < LONGEST
    assert bad_until < WITHIN
    assert any(answer.asked > lost_at + bad_until for answer in answers)
