"""docs/architecture.md names every module of the service."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
ELSEWHERE = {"cli", "page"}


def test_every_module_has_its_line() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    folder = ROOT / "service"
    modules = {path.relative_to(folder) for path in folder.rglob("*.py")}
    names = {str(m) for m in modules if m.parts[0] not in ELSEWHERE and m.name != "__init__.py"}
    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert names == {row for row in rows if row.endswith(".py")}
