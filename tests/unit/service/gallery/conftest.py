"""A store of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.slow.valkey_nodes import Node, valkey_cluster
from tests.unit.service.gallery.rig import On, run_on


@pytest.fixture(scope="module", params=["one", "cluster"])
def on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[On]:
    folder = tmp_path_factory.mktemp("nodes")
    if request.param == "cluster":
        with valkey_cluster(folder / "cluster", primaries=1) as ((node,), _):
            yield partial(run_on, f"redis+cluster://{node.address}", node.port)
        return
    node = Node(folder / "one", "--save", "")
    try:
        yield partial(run_on, f"redis://{node.address}", node.port)
    finally:
        node.raw.close()
        node.kill()
