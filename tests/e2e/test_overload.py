"""More is asked for than can be done: what is answered is in time, and the rest hears so at once.

The bounds are loose: `tests/slow/test_overload.py` has those that the service is to keep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from locore_client import rerank_body
from model.descriptors import ImageDescriptors
from tests.e2e.overload import CHECKPOINT, Overload, register
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
