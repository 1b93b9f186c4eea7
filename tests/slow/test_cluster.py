"""A service on a real Valkey cluster: the same answers, spread records, and a failover."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from service.gallery.store_connection import connect_store
from tests.descriptor_files import write_descriptors
from tests.e2e.service import (
    LOCORE,
    RunningService,
    code_of,
    free_port,
    ids_of,
    running,
    scores_of,
)
from tests.e2e.valkey import plain_valkey
from tests.factories import SIZES
from tests.slow.failover import (
    QUERY,
    WITHIN,
    check_failover,
    images,
    started_without_store,
    under_load,
)
from tests.slow.valkey_nodes import Node, until_true, valkey_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)
GALLERY = images(120)


@pytest.fixture(scope="module")
def primaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with valkey_cluster(tmp_path_factory.mktemp("nodes") / "cluster") as (nodes, _):
        yield nodes


@pytest.fixture(scope="module")
def service(
    checkpoint: Path, primaries: list[Node], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    with running(
        checkpoint, tmp_path_factory.mktemp("data"), redis_url=url_of(primaries), cache_bytes=0
    ) as started:
        assert started.register(GALLERY).json()["registered"] == len(GALLERY)
        yield started


def url_of(nodes: list[Node]) -> str:
    return "redis+cluster://" + ",".join(node.address for node in nodes)


def listed(service: RunningService, collection: str = "default") -> list[str]:
    ids: list[str] = service.http.get("/gallery", params={"collection": collection}).json()["ids"]
    return ids


def stored_image(service: RunningService, image_id: str, collection: str) -> dict[str, Any]:
    image: dict[str, Any] = service.http.get(
        f"/gallery/{image_id}", params={"collection": collection, "include": "descriptors"}
    ).json()
    return image


def records_on(node: Node, collection: str = "default") -> set[str]:
    """The ids of a collection's images that lie on a node."""
    start = f"locore:image:{collection}|"
    return {key.removeprefix(start) for key in node.raw.scan_iter(f"{start}*", count=1000)}


def test_the_images_of_a_collection_lie_on_all_primaries(
    service: RunningService, primaries: list[Node]
) -> None:
    shares = [records_on(node) for node in primaries]
    assert sum(map(len, shares)) == len(GALLERY)
    assert set().union(*shares) == set(GALLERY)
    assert min(map(len, shares)) > len(GALLERY) // 6


def test_answers_are_those_of_a_single_node(
    service: RunningService, checkpoint: Path, tmp_path: Path
) -> None:
    port = free_port()
    with (
        plain_valkey(port, tmp_path),
        running(
            checkpoint, tmp_path / "data", redis_url=f"redis://127.0.0.1:{port}", cache_bytes=0
        ) as single,
    ):
        assert single.register(GALLERY).is_success
        for options in ({}, {"window": 7, "stride": 3}):
            theirs, ours = (s.rerank(QUERY, list(GALLERY), **options) for s in (single, service))
            assert ids_of(ours) == ids_of(theirs)
            assert scores_of(ours) == scores_of(theirs)
        assert listed(single) == listed(service) == list(GALLERY)


def test_images_are_replaced_listed_deleted_and_expire(service: RunningService) -> None:
    first, second = images(40), images(40, seed=1)
    x = {"collection": "x"}
    assert service.register(first, **x).json() == {
        "registered": 40,
        "replaced": 0,
        "truncated": 0,
    }
    before = stored_image(service, "image-007", "x")
    assert service.register(second, **x).json()["replaced"] == 40
    assert stored_image(service, "image-007", "x") != before
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = service.http.get("/gallery", params={"limit": 15, **x, **cursor}).json()
        assert page["count"] == 40
        ids += page["ids"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert ids == list(first)
    assert service.http.delete("/gallery/image-007", params=x).status_code == 204
    assert code_of(service.http.delete("/gallery/image-007", params=x)) == (404, "not_found")
    assert code_of(service.rerank(QUERY, ["image-007"], **x)) == (404, "gallery_ids_missing")
    assert service.register(images(20, prefix="short"), ttl_seconds=1, **x).is_success
    assert len(listed(service, "x")) == 59
    time.sleep(2.1)
    assert listed(service, "x") == [i for i in first if i != "image-007"]
    assert code_of(service.rerank(QUERY, ["short-001"], **x)) == (404, "gallery_ids_missing")


@pytest.mark.parametrize("place", range(3))
def test_a_registration_that_one_full_node_refuses_changes_nothing(
    service: RunningService, primaries: list[Node], place: int
) -> None:
    """Whether the full node has some of the records only, or the collection's lists as well."""
    collection = f"full-{place}"
    stay, go = images(15, prefix="stay"), images(15, prefix="go")
    assert service.register(stay, collection=collection).is_success
    assert service.register(go, collection=collection, ttl_seconds=600).is_success
    before = {i: stored_image(service, i, collection) for i in stay | go}
    keys = [records_on(node, collection) for node in primaries]
    replaced = images(15, 5, "stay") | images(15, 5, "go") | images(40, 5, "new")

    primaries[place].raw.config_set("maxmemory", 1)
    try:
        answer = service.register(replaced, collection=collection)
    finally:
        primaries[place].raw.config_set("maxmemory", 0)
    assert code_of(answer) == (507, "store_full")
    assert [records_on(node, collection) for node in primaries] == keys
    assert {i: stored_image(service, i, collection) for i in stay | go} == before
    assert listed(service, collection) == sorted(stay | go)
    for node, ids in zip(primaries, keys, strict=True):
        for i in ids:
            ttl = node.raw.ttl(f"locore:image:{collection}|{i}")
            assert ttl == -1 if i in stay else 500 < ttl <= 600
    assert service.register(replaced, collection=collection).json()["replaced"] == 30


def test_a_load_straight_to_the_cluster_serves(
    service: RunningService, primaries: list[Node], tmp_path: Path
) -> None:
    ids = [f"loaded/{number:02}" for number in range(30)]
    file = tmp_path / "some.h5"
    write_descriptors(file, ids)
    # One node is enough to find the others.
    for url, message in (
        (url_of(primaries[:1]), "30 images loaded"),
        (url_of(primaries), "30 were"),
    ):
        command = [LOCORE, "load", str(file), "--redis", url, "--collection", "loaded"]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.returncode == 0, process.stderr
        assert message in process.stderr
    assert listed(service, "loaded") == ids
    assert len(ids_of(service.rerank(QUERY, ids, collection="loaded"))) == 30


def test_a_service_starts_while_its_cluster_is_away_and_finds_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    with valkey_cluster(tmp_path / "nodes") as (nodes, _):
        for node in nodes:
            node.kill()
        with started_without_store(checkpoint, tmp_path, url_of(nodes)) as service:
            assert code_of(service.http.get("/health/ready")) == (503, "store_unavailable")
            assert code_of(service.register(GALLERY)) == (503, "store_unavailable")
            assert service.metric("locore_store_up") == 0
            for node in nodes:
                node.start()
            until_true(lambda: service.http.get("/health/ready").is_success, WITHIN)
            assert service.metric("locore_store_up") == 1
            assert service.register(GALLERY).is_success


def test_slots_that_move_are_followed(tmp_path: Path) -> None:
    """Amid the move of a slot, and after it, before the service has heard of it."""
    names = [f"image-{number:02}" for number in range(60)]

    async def work(nodes: list[Node]) -> None:
        source, target, _ = nodes
        store = connect_store(url_of(nodes))
        await store.put("x", {name: name.encode() for name in names}, SIZES, None)
        moving = records_on(source, "x")
        slots = {name: key_slot(f"locore:image:x|{name}".encode()) for name in names}
        source_id, target_id = (node.ask("CLUSTER MYID") for node in (source, target))
        for name in sorted(moving)[:5]:
            slot = slots[name]
            target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
            source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
            assert (await store.fetch("x", names)).records == [name.encode() for name in names]
            source.ask("MIGRATE", "127.0.0.1", target.port, f"locore:image:x|{name}", 0, 5000)
            assert (await store.fetch("x", names)).records == [name.encode() for name in names]
            await store.put("x", {name: b"changed"}, SIZES, None)
            assert (await store.fetch("x", [name])).records == [b"changed"]
            await store.put("x", {name: name.encode()}, SIZES, None)
            for node in nodes:
                node.ask("CLUSTER SETSLOT", slot, "NODE", target_id)
            assert (await store.fetch("x", names)).records == [name.encode() for name in names]
        assert (await store.page("x", 100, None)).ids == names
        await store.close()

    with valkey_cluster(tmp_path / "nodes") as (nodes, _):
        asyncio.run(work(nodes))


@pytest.mark.parametrize("loss", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_primary_is_lost_in_the_midst_of_load(
    loss: signal.Signals, checkpoint: Path, tmp_path: Path
) -> None:
    ids = list(GALLERY)
    with (
        valkey_cluster(tmp_path / "nodes", replicas=3) as (primaries, replicas),
        running(
            checkpoint, tmp_path / "data", redis_url=url_of(primaries), cache_bytes=0
        ) as service,
    ):
        assert service.register(GALLERY).is_success
        until_true(lambda: all(map(has_all, primaries, replicas)), 10)
        lost, heir = primaries[1], replicas[1]
        theirs = records_on(lost)
        assert len(theirs) > 20
        expected = scores_of(service.rerank(QUERY, ids))
        with under_load(service, ids) as load:
            time.sleep(2)
            lost.process.send_signal(loss)
            lost_at = time.monotonic()
            # Until the heir is elected; then every client must find it.
            until_true(lambda: heir.raw.info("replication")["role"] == "master", WITHIN)
            elected = time.monotonic()
            log.info("a replica was elected %.1f s after the loss", elected - lost_at)
            until_true(lambda: load.good_since(elected), WITHIN)
        check_failover(load, lost_at, expected, f"cluster, {loss.name}")

        assert service.http.get("/health/ready").is_success
        assert service.metric("locore_store_up") == 1
        assert service.metric("locore_queue_tokens") == 0
        # The images of the lost node are there, and its slots take new ones.
        assert set(ids_of(service.rerank(QUERY, sorted(theirs)))) == theirs
        new = images(60, 7, "after")
        assert service.register(new).json() == {"registered": 60, "replaced": 0, "truncated": 0}
        assert records_on(heir) > theirs
        assert listed(service) == sorted(GALLERY | new)

        # It comes back as a replica: nobody is sent to it.
        if loss == signal.SIGSTOP:
            lost.process.send_signal(signal.SIGCONT)
        else:
            lost.start()
        until_true(lambda: lost.raw.info("replication")["role"] == "slave", WITHIN)
        assert scores_of(service.rerank(QUERY, ids)) == pytest.approx(expected, rel=1e-5)


def has_all(primary: Node, replica: Node) -> bool:
    return bool(primary.raw.dbsize() == replica.raw.dbsize())
