"""An alias is swapped under load, over and over, on each kind of store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.service import free_port, running
from tests.e2e.swap import swap_under_load
from tests.e2e.valkey import plain_valkey
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
