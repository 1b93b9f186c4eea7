"""Re-ranking by descriptors while 64 pictures wait to be extracted."""

from __future__ import annotations

import base64
import logging
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image

from locore_client import packed_image
from model.extraction.registry import load_extractor
from tests.e2e.overload import CHECKPOINT, CONFIG
from tests.e2e.service import RunningService, running
from tests.pictures import EXTRACTOR, photograph

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

AT_ONCE = 64
LIST = 50
ROUNDS = 3
LONGEST_RATIO = {50: 1.5, 99: 2.5}
"""Of the time of an answer to descriptors, by percentile: beside pictures over alone."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(CHECKPOINT, tmp_path_factory.mktemp("picture-queries")) as started:
        views = [photograph("coffee", side) for side in range(100, 100 + LIST)]
        images = [{"id": f"{n}", "image": in_json(data)} for n, data in enumerate(views)]
        assert started.http.post("/gallery", json={"images": images}).is_success
        yield started


def in_json(data: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode()}


def by_picture(service: RunningService, data: bytes) -> int:
    ids = [str(n) for n in range(LIST)]
    body = {"query": {"image": in_json(data)}, "gallery_ids": ids, "timeout_ms": 600_000}
    return httpx.post(f"{service.url}/rerank", json=body, timeout=600).status_code


def seconds_of_answers(service: RunningService, until: threading.Event, least: int) -> list[float]:
    """One query after the other, by descriptors."""
    image = Image.fromarray(skimage.data.coffee())
    query = load_extractor(EXTRACTOR).extract(image, CONFIG.descriptors_per_image)
    body = {
        "query": packed_image(query.for_reranking()),
        "gallery_ids": [str(n) for n in range(LIST)],
    }
    spent: list[float] = []
    while len(spent) < least or not until.is_set():
        started = time.perf_counter()
        assert service.http.post("/rerank", json=body).is_success
        spent.append(time.perf_counter() - started)
        time.sleep(0.02)
    return spent


def test_no_reranking_by_descriptors_waits_for_pictures(service: RunningService) -> None:
    """Alone and beside the pictures in turns: other work on the machine comes and goes."""
    pictures = [photograph("astronaut", 480 + n) for n in range(AT_ONCE)]
    over = threading.Event()
    over.set()
    ratios: dict[int, list[float]] = {percentile: [] for percentile in LONGEST_RATIO}
    seconds_of_answers(service, over, 20)
    for _ in range(ROUNDS):
        alone = seconds_of_answers(service, over, 200)
        done = threading.Event()
        with ThreadPoolExecutor(AT_ONCE + 1) as pool:
            started = time.perf_counter()
            asked = [pool.submit(by_picture, service, data) for data in pictures]
            beside = pool.submit(seconds_of_answers, service, done, 0)
            assert [each.result() for each in asked] == [200] * AT_ONCE
            took = time.perf_counter() - started
            done.set()
        for percentile, ratios_found in ratios.items():
            with_pictures, without = (
                float(np.percentile(spent, percentile)) for spent in (beside.result(), alone)
            )
            ratios_found.append(with_pictures / without)
            log.info(
                "p%d alone %.1f ms, beside %d pictures (%.1f s) %.1f ms: %.2f times, %d answers",
                *(
                    percentile,
                    1000 * without,
                    AT_ONCE,
                    took,
                    1000 * with_pictures,
                    ratios_found[-1],
                ),
                len(beside.result()),
            )
    for percentile, most in LONGEST_RATIO.items():
        assert statistics.median(ratios[percentile]) <= most, (percentile, ratios)
