"""The page as a person uses it: in a browser, on a service with the sample gallery."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from service.page.sample.sample_views import PHOTOGRAPHS
from tests.slow.browser import looking
from tests.slow.page_steps import (
    QUERY,
    SUBJECT,
    drop,
    focused,
    ids,
    lines_end_on_the_pictures,
    open_matches,
    pick,
    settled,
    until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

QUERIES = sum(columns * rows for columns, rows in PHOTOGRAPHS.values())


def test_load(page: Page) -> None:
    page.wait_for_selector("#picks button")
    assert page.title() == "LOCORE: a look at re-ranking"
    assert page.locator("#picks button").count() == QUERIES
    assert page.get_by_text("Pick a query to see what re-ranking changes.").is_visible()
    assert not page.locator("#outcome").is_visible()
    assert not page.locator("#problem").is_visible()
    until(page, "document.querySelector('#picks img').naturalWidth > 0")


def test_pick_and_re_rank(page: Page, url: str) -> None:
    pick(page)
    first, second = ids(page, "first"), ids(page, "second")
    assert len(first) == 50
    assert sorted(first) == sorted(second)
    described = httpx.get(f"{url}/page/sample/query?id={QUERY}").json()
    answer = httpx.post(
        f"{url}/rerank",
        json={"collection": "sample", "query": described["query"], "gallery_ids": first},
        timeout=60,
    ).json()
    assert second == [result["id"] for result in answer["results"]]
    # What moved, in signs and figures.
    for place, image_id in enumerate(second[:12]):
        by = first.index(image_id) - place
        sign = "=" if by == 0 else f"▲ {by}" if by > 0 else f"▼ {-by}"
        card = page.locator(f'#second button[data-id="{image_id}"]')
        assert card.locator(".line [aria-hidden]").inner_text() == sign
        score = answer["results"][place]["relevance_score"]
        assert float(card.locator(".score").inner_text().split()[-1]) == pytest.approx(
            score, abs=6e-4
        )
    before, after = (sum(i.startswith(f"{SUBJECT}/") for i in x[:10]) for x in (first, second))
    assert f"{before} before, {after} after" in page.locator("#verdict").inner_text()
    assert after > before
    counts = {
        kind: sum(
            (first.index(i) > second.index(i)) - (first.index(i) < second.index(i)) == by
            for i in first
        )
        for kind, by in (("up", 1), ("down", -1), ("same", 0))
    }
    text = page.locator("#details").inner_text()
    assert f"{counts['up']} moved up, {counts['down']} down, {counts['same']} stayed" in text
    # A line for each image, from its place above to that below, and all of them in sight.
    assert page.locator("#moves path").count() == 50
    for image_id in (second[0], first[-1], second[-1]):
        ends = page.eval_on_selector(
            f'#moves path[data-id="{image_id}"]',
            "p => [0, p.getTotalLength()].map((at) => p.getPointAtLength(at).x / 1000)",
        )
        expected = [(order.index(image_id) + 0.5) / 50 for order in (first, second)]
        assert ends == pytest.approx(expected, abs=0.002)
    box = page.locator("#moves").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    stages = page.locator("#stages").inner_text()
    for stage in ("First stage", "Decode", "Fetch", "Queue", "Inference", "Together"):
        assert re.search(rf"{stage}\s+\d+(\.\d)? ms", stages), stages


def test_the_length_of_the_shortlist(page: Page) -> None:
    pick(page)
    page.select_option("#size", "20")
    until(page, "document.querySelectorAll('#second button').length === 20")
    assert len(ids(page, "first")) == 20


def test_a_look_can_be_passed_on(browser: Browser, url: str) -> None:
    with looking(browser, f"{url}/#collection=sample&query=coffee-2.jpg") as page:
        settled(page)
        assert page.locator("#chosen-name").inner_text() == "coffee 2"
        assert page.locator('#picks [aria-pressed="true"]').count() == 1


def test_with_the_keyboard_alone(page: Page) -> None:
    page.wait_for_selector("#picks button")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#picks') !== null"):
            break
    assert focused(page) == "astronaut-1.jpg"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    assert focused(page) == "astronaut-2.jpg"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "astronaut-2.jpg"
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    settled(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    first = ids(page, "first")
    assert focused(page) == first[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == first[2]
    # A list has five images a row.
    page.keyboard.press("ArrowDown")
    assert focused(page) == first[7]
    assert page.locator("#first .on, #second .on").count() == 2
    assert page.locator("#moves .on").get_attribute("data-id") == first[7]
    page.keyboard.press("Tab")
    second = ids(page, "second")
    assert focused(page) == second[0]
    page.keyboard.press("Enter")
    page.wait_for_selector("#matches[open]")
    assert page.locator("#matches-title").inner_text() == second[0]
    page.wait_for_selector("#pairs button, #pairs .none")
    page.keyboard.press("ArrowRight")
    until(page, f"document.getElementById('matches-title').textContent === '{second[1]}'")
    title = page.locator("#matches-title").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#matches", state="hidden")
    assert focused(page) == title


def test_open_matches(page: Page, url: str) -> None:
    pick(page)
    best = ids(page, "second")[0]
    open_matches(page, best)
    described = httpx.get(f"{url}/page/sample/query?id={QUERY}").json()
    asked = {name: described[name] for name in ("query", "keypoints")}
    body = {"collection": "sample", "id": best, **asked}
    matches = httpx.post(f"{url}/page/matches", json=body).json()["matches"]
    strong = [match for match in matches if match["cosine"] >= 0.5]
    assert page.locator("#lines g").count() == len(strong) > 3
    assert lines_end_on_the_pictures(page)
    page.locator("#least").fill("0.8")
    assert page.locator("#lines g").count() == sum(m["cosine"] >= 0.8 for m in matches)
    page.locator("#least").fill("0")
    assert page.locator("#lines g").count() == len(matches)
    page.hover("#pairs li:first-child button")
    assert page.locator("#lines g.on").get_attribute("data-place") == "0"
    page.click("#next")
    until(page, f"document.getElementById('matches-title').textContent !== '{best}'")
    page.click("#matches-close")
    page.wait_for_selector("#matches", state="hidden")


def test_drop_an_image(page: Page, photograph: Path) -> None:
    page.wait_for_selector("#picks button")
    drop(page, photograph, "image/png")
    settled(page)
    assert page.locator("#chosen-name").inner_text() == "my holiday.png"
    assert ids(page, "second")[0] == f"{SUBJECT}/2.jpg"
    assert "Extraction" in page.locator("#stages").inner_text()
    assert page.locator("#second .right-mark").count() == 0
    open_matches(page, f"{SUBJECT}/2.jpg")
    assert lines_end_on_the_pictures(page)
    assert page.locator("#lines g").count() > 10


def test_choose_a_file(page: Page, photograph: Path) -> None:
    page.wait_for_selector("#picks button")
    page.set_input_files("#file", photograph)
    settled(page)
    assert ids(page, "second")[0] == f"{SUBJECT}/2.jpg"
    pick(page)
    assert page.locator("#chosen-name").inner_text() == "retina 1"
