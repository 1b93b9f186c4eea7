"""The pages link to what is there, and the README's comparison is that of docs/results.md."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("client/*.md")]
METHODS = {
    "first stage": "first stage",
    "Chamfer": "Chamfer",
    "k-reciprocal": "k-reciprocal encoding",
    "ELViS": "ELViS, trained on the same lists",
    "relations": "ours (237,249 weights)",
}
"""A column of docs/results.md, and the README's row."""


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    texts = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_the_comparison_has_the_means_of_the_results() -> None:
    script = runpy.run_path(str(ROOT / "recipes/default_checkpoint/plot.py"))
    by_domain = script["means"]((ROOT / "docs/results.md").read_text())
    readme = (ROOT / "README.md").read_text().replace("*", "")
    for method, name in METHODS.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| {name} |"))
        figures = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) / ([\d.]+)", row)]
        domains = ("all", "grocery", "butterflies_moths", "eth80_objects")
        for domain, quality in zip(domains, figures, strict=True):
            assert quality == pytest.approx(by_domain[domain][method], abs=0.1)
