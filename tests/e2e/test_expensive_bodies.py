"""What is cheap to send stops nobody else: the service answers others while it refuses it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import RunningService, code_of, running
from tests.expensive_bodies import expensive_registrations, honest_registration, image_with

MIB = 1 << 20
SILENCE = 0.5
"""Seconds; the loop itself is silent for less than 0.1, but here the client shares the cores."""


@contextmanager
def nobody_waits(service: RunningService) -> Iterator[None]:
    """Asks all the while for an answer that takes no work, and compares with how long that takes
    before: the machine may be busy with other things."""
    before, over = threading.Event(), threading.Event()
    threading.Timer(0.5, before.set).start()
    usual = _longest_wait(service.url, before)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(_longest_wait, service.url, over)
        try:
            yield
        finally:
            over.set()
    longest = asking.result()
    assert longest < SILENCE + 5 * usual, f"{longest:.2f} s without an answer"


def _longest_wait(url: str, over: threading.Event) -> float:
    longest = 0.0
    with httpx.Client(base_url=url, timeout=60) as http:
        while not over.wait(0.005):
            started = time.perf_counter()
            assert http.get("/health/live").is_success
            longest = max(longest, time.perf_counter() - started)
    return longest


def memory(service: RunningService) -> int:
    """The most that the process has ever taken, in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def post(service: RunningService, path: str, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return httpx.post(service.url + path, content=body, headers=headers, timeout=60)


def test_sixteen_expensive_bodies_at_once_keep_nobody_waiting(service: RunningService) -> None:
    expensive = [body for body, _ in expensive_registrations(MIB).values()][:16]
    before = memory(service)
    with nobody_waits(service), ThreadPoolExecutor(16) as pool:
        for path in ("/gallery", "/rerank"):
            for response in pool.map(lambda body, to=path: post(service, to, body), expensive):
                assert code_of(response)[0] in (400, 413, 422), response.text
    assert memory(service) - before < 200 * MIB


def test_large_expensive_bodies_keep_nobody_waiting(service: RunningService) -> None:
    expensive = expensive_registrations(31 * MIB)
    before = memory(service)
    with nobody_waits(service):
        for name in ("unknown fields", "rows of one", "no rows", "metadata", "empty images"):
            response = post(service, "/gallery", expensive[name][0])
            assert code_of(response)[0] in (413, 422), name
    assert memory(service) - before < 400 * MIB


def test_bodies_beyond_what_is_held_at_a_time_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with running(checkpoint, tmp_path, max_payload_bytes=MIB) as service:
        body = honest_registration(900_000)
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: post(service, "/gallery", body), range(24)))
        codes = {response.status_code for response in answers}
        assert codes <= {200, 422, 429}
        refused = [response for response in answers if response.status_code == 429]
        assert all(response.headers["Retry-After"] for response in refused)


def test_a_rerank_has_a_limit_of_its_own(service: RunningService) -> None:
    limits = service.http.get("/info").json()["limits"]
    assert limits["max_rerank_bytes"] == 8 * MIB
    body = b'{"query":' + b" " * limits["max_rerank_bytes"] + b"{}}"
    assert code_of(post(service, "/rerank", body)) == (413, "payload_too_large")
    assert code_of(post(service, "/gallery", body))[0] == 422


def zipped(service: RunningService, body: bytes, encoding: str = "gzip") -> httpx.Response:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return service.http.post("/gallery", content=body, headers=headers)


def test_a_gzip_body_is_decoded_under_the_limit(service: RunningService) -> None:
    body = image_with("[[1,2,3,4,5,6,7,8]]").replace(b'{"images"', b'{"collection":"zip","images"')
    assert zipped(service, gzip.compress(body)).json()["registered"] == 1
    assert service.http.delete("/gallery/a", params={"collection": "zip"}).status_code == 204
    before = memory(service)
    bomb = gzip.compress(b" " * (200 * MIB), 1)
    assert len(bomb) < MIB
    assert code_of(zipped(service, bomb)) == (413, "payload_too_large")
    assert memory(service) - before < 100 * MIB
    for damaged in (body, gzip.compress(body)[:-4], gzip.compress(body) * 2):
        assert code_of(zipped(service, damaged)) == (400, "invalid_json")


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_415_of_other_encodings(service: RunningService, encoding: str) -> None:
    response = zipped(service, b"{}", encoding)
    assert code_of(response) == (415, "unsupported_media_type")
    assert "gzip" in response.headers["Accept-Encoding"]
