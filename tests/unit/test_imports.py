"""Modules: imports run one way, from room to room, and no two names differ by an ending."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("model", "service")

ROOMS = (
    "service.cli",
    "service.app",
    "service.server",
    "service.openapi",
    "service.routes",
    "service.page",
    "service.request",
    "service.state",
    "service.body",
    "service.settings",
    "service.offline",
    "service.picture_extraction",
    "service.gallery",
    "service.batching",
    "service.machine",
    "service.watch",
    "service.api",
    "service",
    "model.training",
    "model.evaluation",
    "model.extraction",
    "model",
)
"""From the top to the bottom: a room imports itself and what stands below it."""


def modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports, also within functions."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {name if name in known else node.module for name in whole}
    return targets & known.keys()


MODULES = modules()
GRAPH = {name: imports(path, MODULES) for name, path in MODULES.items()}


def room(name: str) -> str:
    return next(room for room in ROOMS if name == room or name.startswith(f"{room}."))


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
    by_stem = defaultdict(list)
    for name in names:
        package, _, base = name.rpartition(".")
        if package.rpartition(".")[2] == base or package not in by_stem[stem(name)]:
            by_stem[stem(name)].append(name)
    assert [names for names in by_stem.values() if len(names) > 1] == []
