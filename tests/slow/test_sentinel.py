"""A service on the primary that real Sentinels name, and what it does when that is another."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path

import pytest

from service.gallery.store_connection import connect_store
from tests.e2e.service import code_of, free_port, ids_of, running, scores_of
from tests.factories import SIZES
from tests.slow.failover import (
    QUERY,
    WITHIN,
    check_failover,
    images,
    started_without_store,
    under_load,
)
from tests.slow.valkey_nodes import SERVICE, Node, until_true, valkey_sentinels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)
GALLERY = images(120)
WORD = "the-sentinels-own"


def url_of(sentinels: list[Node], query: str = "") -> str:
    nodes = ",".join(node.address for node in sentinels)
    return f"redis+sentinel://{nodes}/{SERVICE}/0{query}"


def is_primary(node: Node) -> bool:
    return bool(node.raw.info("replication")["role"] == "master")


@pytest.mark.parametrize(
    "loss", [signal.SIGKILL, signal.SIGSTOP, None], ids=["killed", "hangs", "demoted"]
)
def test_the_primary_is_lost_in_the_midst_of_load(
    loss: signal.Signals | None, checkpoint: Path, tmp_path: Path
) -> None:
    ids = list(GALLERY)
    with (
        valkey_sentinels(tmp_path / "nodes", password=WORD) as (primary, replicas, sentinels),
        running(
            checkpoint,
            tmp_path / "data",
            redis_url=url_of(sentinels, f"?sentinel_password={WORD}"),
            cache_bytes=0,
        ) as service,
    ):
        assert service.register(GALLERY).json()["registered"] == len(GALLERY)
        until_true(lambda: all(r.raw.dbsize() == primary.raw.dbsize() for r in replicas), 10)
        expected = scores_of(service.rerank(QUERY, ids))
        with under_load(service, ids) as load:
            time.sleep(2)
            if loss is None:
                sentinels[0].ask("SENTINEL FAILOVER", SERVICE)
            else:
                primary.process.send_signal(loss)
            lost_at = time.monotonic()
            until_true(lambda: any(map(is_primary, replicas)), WITHIN)
            promoted = time.monotonic()
            log.info("a replica was promoted %.1f s after the loss", promoted - lost_at)
            until_true(lambda: load.good_since(promoted), WITHIN)
        check_failover(load, lost_at, expected, f"Sentinel, {loss}")

        assert service.http.get("/health/ready").is_success
        assert service.metric("locore_store_up") == 1
        if loss is None:
            until_true(lambda: not is_primary(primary), WITHIN)
        # Writes go to the new primary; the old one, when it is back, follows it.
        new = images(10, 7, "after")
        assert service.register(new).json()["registered"] == 10
        (heir,) = filter(is_primary, replicas)
        assert heir.raw.exists(*(f"locore:image:default|{i}" for i in new)) == 10
        if loss == signal.SIGSTOP:
            primary.process.send_signal(signal.SIGCONT)
        elif loss == signal.SIGKILL:
            primary.start()
        until_true(lambda: not is_primary(primary), WITHIN)
        assert service.register(images(10, 8, "later")).json()["registered"] == 10
        assert set(ids_of(service.rerank(QUERY, ids + list(new)))) == {*ids, *new}


def test_a_service_starts_while_sentinels_and_primary_are_away(
    checkpoint: Path, tmp_path: Path
) -> None:
    with valkey_sentinels(tmp_path / "nodes", replicas=0) as (primary, _, sentinels):
        for node in (primary, *sentinels):
            node.kill()
        with started_without_store(checkpoint, tmp_path, url_of(sentinels)) as service:
            assert code_of(service.http.get("/health/ready")) == (503, "store_unavailable")
            assert code_of(service.register(GALLERY)) == (503, "store_unavailable")
            for node in (primary, *sentinels):
                node.start()
            until_true(lambda: service.http.get("/health/ready").is_success, WITHIN)
            assert service.register(GALLERY).is_success


def test_sentinels_that_are_away_from_the_url_or_know_of_no_such_service(
    checkpoint: Path, tmp_path: Path
) -> None:
    with valkey_sentinels(tmp_path / "nodes", replicas=0) as (_, _, sentinels):
        nobody = f"127.0.0.1:{free_port()}"
        url = f"redis+sentinel://{nobody},{sentinels[0].address}/{SERVICE}"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            assert service.register(GALLERY).is_success
        other = url_of(sentinels).replace(SERVICE, "other")
        with started_without_store(checkpoint, tmp_path, other) as service:
            assert code_of(service.http.get("/health/ready")) == (503, "store_unavailable")
            assert "No master found for 'other'" in service.log


def test_a_primary_that_turns_read_only_is_given_up(tmp_path: Path) -> None:
    """The connections to it stay open: only its refusals say that it is a replica now."""

    async def work(old: Node, new: Node, sentinel: Node) -> None:
        store = connect_store(url_of([sentinel]))
        assert await store.put("x", {"a": b"first"}, SIZES, None) == 0
        sentinel.ask("SENTINEL REMOVE", SERVICE)
        sentinel.ask("SENTINEL MONITOR", SERVICE, "127.0.0.1", new.port, 1)
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        assert await store.put("x", {"b": b"second"}, SIZES, None) == 0
        assert new.raw.exists("locore:image:x|b") == 1
        assert (await store.fetch("x", ["a", "b"])).records == [None, b"second"]
        await store.close()

    with valkey_sentinels(tmp_path / "nodes", replicas=0, sentinels=1) as (old, _, (sentinel,)):
        new = Node(tmp_path / "new")
        try:
            asyncio.run(work(old, new, sentinel))
        finally:
            new.raw.close()
            new.kill()
