"""Imports run one way: no circle between modules, no arrow back up between rooms."""

from __future__ import annotations

import ast
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
    "service.extraction",
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
