"""Modules: imports run one way, from room to room, and no two names differ by an ending."""

from __future__ import annotations

import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.import_graph import GRAPH, MODULES, ROOMS, room


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_arrow_runs_back_up() -> None:
    upward = [
        f"{name} imports {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if ROOMS.index(room(target)) < ROOMS.index(room(name))
    ]
    assert upward == []


def stem(module: str) -> str:
    return re.sub(r"(ing|ions?|ers?|ors?|es?|s)$", "", module.rpartition(".")[2])


@pytest.mark.parametrize("folder", ["service.routes.", "service.cli.", ""])
def test_no_two_modules_differ_by_an_ending(folder: str) -> None:
    """A route and a command may have the name of what they serve; the main module of a package may
    differ from it by an ending."""
    if folder:
        names = [name for name in MODULES if name.startswith(folder)]
    else:
        names = [n for n in MODULES if not n.startswith(("service.routes.", "service.cli."))]
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        package, _, base = name.rpartition(".")
        if package.rpartition(".")[2] == base or package not in by_stem[stem(name)]:
            by_stem[stem(name)].append(name)
    assert [names for names in by_stem.values() if len(names) > 1] == []
