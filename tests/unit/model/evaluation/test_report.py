"""The page holds everything itself, and shows what it says."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.evaluation.judgement import Judgement
from model.evaluation.report import report
from model.evaluation.verdict import verdict
from tests.own_folders import write_picture
from tests.verdict_cases import around, circumstances, judgement

FIRST = around(0.5, seed=1)
VOID = {"meta", "img", "line", "circle", "path", "br", "link"}


class Page(HTMLParser):
    """What is on a page: its tags with their attributes, and its text; every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [
            attributes
            for of, attributes in self.tags
            if of == tag and name in ("", *(attributes.get("class") or "").split())
        ]


def pages(folder: Path, of: Judgement) -> tuple[str, Page]:
    names = (*of.queries, *of.gallery)
    for seed, name in enumerate(names):
        write_picture(folder / name, seed)
    where = circumstances(folder, names=names)
    html = report(of, where, verdict(of, where))
    return html, Page(html)


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    html, page = pages(tmp_path, judgement(FIRST, FIRST + around(0.08)))
    assert "http" not in re.sub("http-equiv", "", html)
    sources = [attributes["src"] for attributes in page.of("img")]
    assert sources
    for source in sources:
        assert source is not None
        kind, _, data = source.partition(",")
        assert kind == "data:image/webp;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 144
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}


def test_figures_plots_and_words(tmp_path: Path) -> None:
    of = judgement(FIRST, FIRST + around(0.08), in_metric=FIRST + 0.2)
    _, page = pages(tmp_path, of)
    answer = verdict(of, circumstances(tmp_path))
    for words in (answer.headline, answer.reasons, answer.next, answer.command):
        assert words is not None
        assert words in page.text
    assert page.of("section", "yes")
    assert len(page.of("tr")) == 1 + len(of.contenders)
    for one in of.contenders:
        assert f"{100 * one.figures[2].mean():.1f}" in page.text
    assert len(page.of("svg")) == 2
    assert len(page.of("circle")) == len(of.contenders) - 1
    gained = int((of.served.figures[2] > FIRST).sum())
    assert f"{gained} gained, {60 - gained} lost, 0 are as they were" in page.text


def test_examples_are_those_that_changed_most_with_right_pictures_marked(tmp_path: Path) -> None:
    gains = np.zeros(60)
    gains[:15] = np.linspace(0.3, 0.02, 15)
    gains[40:43] = (-0.1, -0.3, -0.2)
    html, page = pages(tmp_path, judgement(FIRST, FIRST + gains))
    assert "The 10 queries that gained most" in page.text
    assert "The 3 queries that lost most" in page.text
    order = re.findall(r"</span>(q\d+)\.png</figcaption>", html)
    assert order == [*(f"q{q}" for q in range(10)), "q41", "q42", "q40"]
    # Before the right two are third and fourth, after first and second.
    marks = [
        attributes["class"] == "frame right"
        for attributes in page.of("li")
        if "frame" in (attributes.get("class") or "")
    ]
    assert marks == 13 * [False, False, True, True, True, True, False, False]
    assert len(page.of("span", "mark")) == 13 * 4
    before, after = 100 * FIRST[0], 100 * (FIRST[0] + 0.3)
    assert f"mAP@R {before:.0f} → {after:.0f}" in page.text


def test_what_did_not_change_has_no_examples(tmp_path: Path) -> None:
    _, page = pages(tmp_path, judgement(FIRST, FIRST))
    assert "No query gained" in page.text
    assert "No query lost" in page.text
    assert page.of("article") == []
    assert page.of("section", "no")


def test_names_are_text_and_a_picture_that_is_gone_leaves_its_place(tmp_path: Path) -> None:
    of = judgement(FIRST, FIRST + around(0.08))
    folder = tmp_path / "<b>mine & yours"
    pages(folder, of)
    (folder / "g0.png").unlink()
    where = circumstances(folder, names=(*of.queries, *of.gallery))
    html = report(of, where, verdict(of, where))
    assert "<b>" not in html
    assert "&lt;b&gt;mine &amp; yours" in html
    assert Page(html).text.count("no picture") == 2 * len(Page(html).of("article"))


@pytest.mark.parametrize("count", [2, 1000])
def test_any_number_of_queries(tmp_path: Path, count: int) -> None:
    first = around(0.5, count=count, seed=1)
    html, page = pages(tmp_path, judgement(first, first + around(0.08, count=count)))
    assert len(page.of("article")) <= 20
    assert len(html) < 1_000_000
