"""More is asked for than can be done: what is answered is in time, and the rest hears so at once.

The bounds are loose: `tests/slow/test_overload.py` has those that the service is to keep."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pytest

from locore_client import rerank_body
from locore_client.bodies import to_json
from model.descriptors import ImageDescriptors
from model.random_images import random_image
from tests.e2e.overload import CHECKPOINT, CONFIG, Overload, ids_of_length, register
from tests.e2e.service import RunningService, code_of, ids_of, running

Images = dict[str, ImageDescriptors]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The shipped checkpoint, by default settings."""
    with running(CHECKPOINT, tmp_path_factory.mktemp("shipped")) as service:
        register(service)
        yield service


def test_goodput_outlasts_an_overload(shipped: RunningService) -> None:
    overload = Overload(shipped, [100])
    before = overload.peak(30)
    offered = overload.offered(4 * before, 5, slo_seconds=2)
    # Other work on the machine comes and goes.
    peak = min(before, overload.peak(30))
    assert offered.goodput > 0.4 * peak
    assert offered.count(429) > offered.count(504)
    assert offered.count(200, 429, 504) == len(offered.answers)
    refused = [answer.seconds for answer in offered.answers if answer.status == 429]
    assert np.median(refused) < 0.5
    # And it is soon as it was before.
    assert shipped.metric("locore_queue_tokens") == 0
    assert overload.offered(1, 3, slo_seconds=2).count(200) == 3
    assert shipped.metric('locore_rejected_total{reason="too_late"}') > 0


@contextmanager
def busy(
    service: RunningService, statuses: Collection[int] = (200,)
) -> Iterator[Callable[[], bool]]:
    """Lists wait for a second or more; yields whether any still do. `statuses`: of their
    answers."""
    query = random_image(np.random.default_rng(2), CONFIG)
    patient = rerank_body(query, ids_of_length(100), "default", timeout_ms=600_000)
    with ThreadPoolExecutor(80) as pool:
        lists = [
            pool.submit(httpx.post, f"{service.url}/rerank", json=patient, timeout=600)
            for _ in range(80)
        ]
        while service.metric("locore_queue_tokens") < 50 * 1000:
            assert not any(one.done() for one in lists[40:])
        yield lambda: not all(one.done() for one in lists)
    assert {one.result().status_code for one in lists} <= set(statuses)


def test_a_refusal_on_the_connection_is_like_any_other(shipped: RunningService) -> None:
    query = random_image(np.random.default_rng(3), CONFIG)
    body = to_json(rerank_body(query, ids_of_length(10), "default", timeout_ms=100))
    refusals = 'locore_requests_total{endpoint="rerank",status="429"}'
    before = shipped.metric(refusals)
    with busy(shipped) as lists_wait:
        connection = HTTPConnection(shipped.url.removeprefix("http://"))
        for request_id in ("first", "second"):
            connection.request("POST", "/rerank", body, {"X-Request-ID": request_id})
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["error"]["code"]) == (429, "overloaded")
            assert answer.headers["X-Request-ID"] == request_id
            assert answer.headers["Content-Type"] == "application/json"
            assert int(answer.headers["Retry-After"]) >= 1
            assert not answer.will_close
        # The next request on the connection may be any other, and so may the last one.
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
        connection.request("POST", "/rerank", body, {"Origin": "https://elsewhere.example"})
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["error"]["code"]) == (403, "forbidden")
        connection.request("POST", "/rerank", body, {"X-Request-ID": "?", "Connection": "close"})
        answer = connection.getresponse()
        assert (answer.status, answer.will_close) == (429, True)
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert lists_wait()
        connection.close()
    assert shipped.metric(refusals) == before + 3
    assert shipped.metric("locore_inflight_requests") == 0


def test_a_body_that_comes_in_pieces_is_answered_while_others_wait(
    shipped: RunningService,
) -> None:
    query = random_image(np.random.default_rng(4), CONFIG)
    body = to_json(rerank_body(query, ids_of_length(10), "default", timeout_ms=600_000))
    pieces = [body[:1000], body[1000:30_000], body[30_000:]]
    with busy(shipped) as lists_wait:
        connection = HTTPConnection(shipped.url.removeprefix("http://"))
        connection.putrequest("POST", "/rerank")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
            time.sleep(0.02)
        assert lists_wait()
        # And one that is larger than what is kept of a body.
        large = json.dumps({**json.loads(body), "collection": "default"}).encode()
        large = b" " * 300_000 + large
        other = httpx.post(f"{shipped.url}/rerank", content=large, timeout=600)
        answer = connection.getresponse()
        assert len(json.load(answer)["results"]) == 10
        assert ids_of(other)
        connection.close()


def test_a_drain_is_told_to_those_who_were_held(tmp_path: Path) -> None:
    query = random_image(np.random.default_rng(6), CONFIG)
    body = to_json(rerank_body(query, ids_of_length(10), "default", timeout_ms=100))
    with running(CHECKPOINT, tmp_path) as service:
        register(service)
        # Some of its lists may come after the signal.
        with busy(service, statuses=(200, 503)) as lists_wait:
            connection = HTTPConnection(service.url.removeprefix("http://"))
            connection.putrequest("POST", "/rerank")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:1000])
            assert service.http.get("/health/ready").is_success
            service.process.send_signal(signal.SIGTERM)
            while service.http.get("/health/ready").is_success:
                pass
            connection.send(body[1000:])
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["error"]["code"]) == (503, "shutting_down")
            assert lists_wait()
            connection.close()


def test_a_body_that_never_comes_takes_nobody_s_place(shipped: RunningService) -> None:
    overload = Overload(shipped, [100])
    overload.peak(30)
    host, port = shipped.url.removeprefix("http://").split(":")
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(200):
            idle = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            idle.sendall(head)
        # After five seconds the application has what has come of them.
        time.sleep(6)
        query = random_image(np.random.default_rng(5), CONFIG)
        body = rerank_body(query, ids_of_length(10), "default", timeout_ms=2000)
        assert shipped.http.post("/rerank", json=body).is_success


def test_a_long_list_keeps_nobody_waiting(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    """Some 800 passes of two images, and lists that take one."""
    long = rerank_body(
        query,
        list(gallery),
        "default",
        window=2,
        stride=1,
        direction="end-to-start-to-end",
        timeout_ms=600_000,
    )
    short = list(gallery)[:10]
    with ThreadPoolExecutor(1) as pool:
        running_long = pool.submit(httpx.post, f"{service.url}/rerank", json=long, timeout=600)
        while not service.metric("locore_queue_tokens"):
            assert not running_long.done()
        waits = []
        while not running_long.done():
            started = time.monotonic()
            assert len(ids_of(service.rerank(query, short))) == 10
            waits.append(time.monotonic() - started)
        whole = running_long.result()
    assert len(ids_of(whole)) == len(gallery)
    assert len(waits) > 20
    assert np.median(waits) < whole.json()["timings_ms"]["total"] / 1000 / 20


def test_a_list_that_can_never_be_done_in_time_is_told_so_at_once(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    started = time.monotonic()
    answer = service.rerank(query, list(gallery), window=1, stride=1, timeout_ms=300)
    assert code_of(answer) == (504, "deadline_exceeded")
    assert "alone the list takes" in answer.json()["error"]["message"]
    assert time.monotonic() - started < 0.3
