"""A store of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.slow.valkey_nodes import Node, valkey_cluster, valkey_node
from tests.unit.service.gallery.rig import On, run_on


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node by itself."""
    with valkey_node(tmp_path_factory.mktemp("one") / "node") as node:
        yield node


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The one node of a cluster."""
    with valkey_cluster(tmp_path_factory.mktemp("cluster") / "node", primaries=1) as ((node,), _):
        yield node


@pytest.fixture(scope="module", params=["one", "cluster"])
def on(request: pytest.FixtureRequest) -> On:
    node: Node = request.getfixturevalue(request.param)
    scheme = "redis" if request.param == "one" else "redis+cluster"
    return partial(run_on, f"{scheme}://{node.address}", node.port)
