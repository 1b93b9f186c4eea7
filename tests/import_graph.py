"""The imports between modules, and between rooms, as a picture:

    python -m tests.import_graph | tred | dot -Tsvg > docs/imports.svg

`tred` (of Graphviz too) leaves out an arrow where a longer way leads to the same room.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
    "service.inference",
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


def modules_of_packages() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports, also within functions."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {name if name in modules else node.module for name in names}
    return targets & modules.keys()


MODULES = modules_of_packages()
GRAPH = {name: imports(path, MODULES) for name, path in MODULES.items()}


def room(name: str) -> str:
    return next(room for room in ROOMS if name == room or name.startswith(f"{room}."))


def picture() -> str:
    """In Graphviz's language; grey, so that it is readable on white and on black."""
    arrows = {(room(name), room(target)) for name in GRAPH for target in GRAPH[name]}
    lines = [f'"{above}" -> "{below}"' for above, below in sorted(arrows) if above != below]
    counts = [sum(room(name) == each for name in MODULES) for each in ROOMS]
    labels = [
        f'"{name}" [label="{name}\\n{count} module{"s"[: count > 1]}"]'
        for name, count in zip(ROOMS, counts, strict=True)
    ]
    style = """
        bgcolor=transparent; ranksep=0.3; nodesep=0.15
        node [shape=box, style=rounded, fontname="sans-serif", fontsize=11, margin="0.08,0.04",
              height=0.3, color="#808080", fontcolor="#808080"]
        edge [color="#808080", arrowsize=0.6]
    """
    return "digraph {" + style + "\n".join(labels + lines) + "}"


if __name__ == "__main__":
    sys.stdout.write(picture())
