"""docs/architecture.md names every module of the library and of the service."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line.split("`")[1]
    for line in (ROOT / "docs/architecture.md").read_text().splitlines()
    if line.startswith("| `") and line.split("`")[1].endswith(".py")
]
ELSEWHERE = ("service/cli/", "service/page/")


@pytest.mark.parametrize(("package", "prefix"), [("model", ""), ("service", "service/")])
def test_every_module_has_its_line(package: str, prefix: str) -> None:
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")]
    names = [name for name in modules if not name.startswith(ELSEWHERE)]
    rows = [f"{prefix}{row}" for row in ROWS if row.startswith("model/") == (package == "model")]
    assert sorted(rows) == sorted(name for name in names if not name.endswith("/__init__.py"))
