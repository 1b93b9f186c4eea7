"""An alias is swapped under load, over and over, on each kind of store: answers and thumbnails."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import free_port, running
from tests.e2e.swap import swap_under_load
from tests.e2e.valkey import plain_valkey
from tests.pictures import EXTRACTOR, PHOTOGRAPHS, photograph
from tests.slow.valkey_nodes import SERVICE, valkey_cluster, valkey_sentinels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)
# Longer than the sweeper waits: what was dropped first is removed while the load goes on.
SECONDS = 40


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """The URL of one."""
    match kind:
        case "cluster":
            with valkey_cluster(folder) as (nodes, _):
                yield "redis+cluster://" + ",".join(node.address for node in nodes)
        case "sentinel":
            with valkey_sentinels(folder) as (_, _, sentinels):
                addresses = ",".join(node.address for node in sentinels)
                yield f"redis+sentinel://{addresses}/{SERVICE}"
        case _:
            port = free_port()
            folder.mkdir()
            with plain_valkey(port, folder):
                yield f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("cache_bytes", [0, 256 << 20], ids=["no-cache", "cache"])
@pytest.mark.parametrize("kind", ["one", "sentinel", "cluster"])
def test_every_answer_is_of_the_old_gallery_or_the_new_one_whole(
    kind: str, cache_bytes: int, checkpoint: Path, tmp_path: Path
) -> None:
    with (
        store(kind, tmp_path / "nodes") as url,
        running(checkpoint, tmp_path / "one", redis_url=url, cache_bytes=cache_bytes) as one,
        running(checkpoint, tmp_path / "other", redis_url=url, cache_bytes=cache_bytes) as other,
    ):
        swaps, answers = swap_under_load([one, other], SECONDS, clients=6)
        log.info("%s: %d swaps, %d answers", kind, swaps, answers)
        assert swaps > 20
        assert '"event": "swept"' in one.log + other.log


@pytest.mark.parametrize("kind", ["one", "sentinel", "cluster"])
def test_a_thumbnail_is_of_the_old_gallery_or_the_new_one(
    kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    """Every gallery has another picture under the same id; it is asked for through the alias."""
    with (
        store(kind, tmp_path / "nodes") as url,
        running(checkpoint, tmp_path / "data", redis_url=url, extractor=EXTRACTOR) as service,
    ):
        answers: list[tuple[float, int, bytes]] = []
        over = threading.Event()

        def ask_on() -> None:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
                while not over.is_set():
                    asked = time.monotonic()
                    answer = http.get("/page/thumbnail?collection=shop&id=cover")
                    answers.append((asked, answer.status_code, answer.content))

        swapped: list[float] = []
        covers: list[bytes] = []
        threads = [threading.Thread(target=ask_on) for _ in range(4)]
        try:
            for version, name in enumerate(PHOTOGRAPHS):
                image = {"data": base64.b64encode(photograph(name)).decode()}
                own = f"shop-{version}"
                body = {"collection": own, "images": [{"id": "cover", "image": image}]}
                service.http.post("/gallery", json=body).raise_for_status()
                covers.append(
                    service.http.get(f"/page/thumbnail?collection={own}&id=cover").content
                )
                service.http.put("/aliases/shop", json={"collection": own}).raise_for_status()
                swapped.append(time.monotonic())
                if version == 0:
                    for thread in threads:
                        thread.start()
                else:
                    service.http.delete(f"/collections/shop-{version - 1}").raise_for_status()
                time.sleep(1)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert len(set(covers)) == len(PHOTOGRAPHS)
        for asked, status, webp in answers:
            assert status == 200, webp
            newest = sum(at <= asked for at in swapped) - 1
            assert covers.index(webp) >= newest
        assert {webp for *_, webp in answers} == set(covers)
        assert service.metric('locore_thumbnails_total{result="kept"}') == len(PHOTOGRAPHS)
        assert service.metric('locore_thumbnails_total{result="refused"}') == 0
        asked_for = len(answers) + len(covers)
        assert service.metric('locore_requests_total{endpoint="page",status="200"}') == asked_for
        assert service.metric("locore_thumbnail_bytes") > sum(map(len, covers))
