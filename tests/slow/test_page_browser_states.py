"""What the page says when something is wrong; contrast and phone width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from model.config import DEFAULT_CHECKPOINT
from tests.e2e.service import running
from tests.slow.browser import looking, serious, serving_sample
from tests.slow.page_steps import (
    PHONE,
    QUERY,
    SUBJECT,
    drop,
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


def test_what_is_no_image(page: Page, tmp_path: Path) -> None:
    page.wait_for_selector("#picks button")
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir or Madam")
    drop(page, letter, "text/plain")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.get_by_role("alert").is_visible()
    text = page.locator("#problem").inner_text()
    assert "This file is not an image that can be read" in text
    assert "JPEG, PNG" in text
    assert "422" not in text
    assert not page.locator("#again").is_visible()
    assert serious(page) == []
    page.click("#dismiss")
    assert not page.locator("#problem").is_visible()
    pick(page)


def test_what_is_too_large(page: Page, tmp_path: Path) -> None:
    page.wait_for_selector("#picks button")
    large = tmp_path / "large.bmp"
    Image.new("RGB", (3600, 3600)).save(large)
    page.set_input_files("#file", large)
    page.wait_for_selector("#problem:not([hidden])")
    text = page.locator("#problem").inner_text()
    assert "large.bmp has 37.1 MB; the service takes 16.0 MB" in text


def test_a_service_that_is_away(page: Page) -> None:
    page.wait_for_selector("#picks button")
    page.route("**/rerank", lambda route: route.abort())
    page.click(f'#picks [data-id="{QUERY}"]')
    page.wait_for_selector("#problem:not([hidden])")
    assert "The service does not answer" in page.locator("#problem").inner_text()
    page.unroute("**/rerank")
    page.click("#again")
    settled(page)
    assert not page.locator("#problem").is_visible()


def test_a_service_that_is_busy(page: Page) -> None:
    page.wait_for_selector("#picks button")
    page.route(
        "**/rerank",
        lambda route: route.fulfill(
            status=429,
            headers={"Retry-After": "3"},
            json={"error": {"code": "overloaded", "message": "full", "details": {}}},
        ),
    )
    page.click(f'#picks [data-id="{QUERY}"]')
    page.wait_for_selector("#problem:not([hidden])")
    text = page.locator("#problem").inner_text()
    assert "The service is busy" in text
    assert "Try again in 3 seconds." in text


def test_an_older_answer_does_not_come_over_a_newer_one(page: Page) -> None:
    page.wait_for_selector("#picks button")
    page.click('#picks [data-id="coffee-1.jpg"]')
    page.click('#picks [data-id="coins-1.jpg"]')
    page.click(f'#picks [data-id="{QUERY}"]')
    settled(page)
    page.wait_for_timeout(500)
    assert page.locator("#chosen-name").inner_text() == "retina 1"
    assert ids(page, "second")[0].startswith(SUBJECT)


def test_a_key(browser: Browser, other_data: Path) -> None:
    with (
        serving_sample(other_data, api_key="open-sesame") as url,
        looking(browser, url) as page,
    ):
        page.wait_for_selector("#ask[open]")
        assert serious(page) == []
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.get_by_text("That key is not the right one").wait_for()
        page.fill("#key", "open-sesame")
        page.click("#ask button")
        page.wait_for_selector("#picks button")
        pick(page)
        until(page, "document.querySelector('#second img').naturalWidth > 0")
        open_matches(page, ids(page, "second")[0])
        page.reload()
        settled(page)


def test_without_images_the_page_says_how_they_come_and_waits_for_them(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        running(DEFAULT_CHECKPOINT, tmp_path / "none") as service,
        looking(browser, service.url) as page,
    ):
        page.get_by_text("There are no images yet.").wait_for()
        text = page.locator("#nothing").inner_text()
        assert "locore serve --images FOLDER" in text
        assert "locore load" in text
        assert not page.locator("#query").is_visible()
        assert serious(page) == []

        def come(image_id: str) -> None:
            image = {"id": image_id, "descriptors": [[1.0, 0.0], [0.0, 1.0]]}
            assert service.http.post("/gallery", json={"images": [image]}).is_success

        # As while `locore serve --images` describes: nobody reloads the page.
        come("=C3=84pfel/s=C3=BC=C3=9F.jpg")
        page.get_by_role("button", name="Äpfel/süß.jpg").wait_for()
        page.get_by_text("Or pick its one image").wait_for()
        come("more")
        page.get_by_text("Or pick one of its 2 images").wait_for()
        page.click("#more")
        page.get_by_role("button", name="more", exact=True).wait_for()
        assert "default (2 images)" in page.locator("#collection").inner_text()


def empty(page: Page) -> None:
    page.get_by_text("Pick a query").wait_for()


def matches(page: Page) -> None:
    pick(page)
    open_matches(page, ids(page, "second")[1])


STATES: dict[str, Callable[[Page], None]] = {"empty": empty, "outcome": pick, "matches": matches}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(
    browser: Browser, url: str, state: str, scheme: str, width: int
) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 740}}
    with looking(browser, url, **options) as page:
        page.wait_for_selector("#picks button")
        STATES[state](page)
        page.wait_for_timeout(400)  # a fade has another contrast than what it ends in
        assert serious(page) == []


@pytest.mark.parametrize("state", STATES)
def test_at_phone_width(browser: Browser, url: str, state: str) -> None:
    with looking(browser, url, **PHONE) as page:
        page.wait_for_selector("#picks button")
        STATES[state](page)
        assert page.evaluate("document.scrollingElement.scrollWidth") == 360
        beyond = page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, h1, h2, h3, p, a')]
                .filter((e) => e.checkVisibility() && !e.closest('.picks, .away, .skip'))
                .filter((e) => !e.matches('.away, .skip'))
                .filter((e) => e.getBoundingClientRect().right > 361)
                .map((e) => e.outerHTML.slice(0, 100))"""
        )
        assert beyond == []
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, select')]
                .filter((e) => e.checkVisibility())
                .filter((e) => Math.min(e.offsetWidth, e.offsetHeight) < 24)
                .map((e) => e.outerHTML.slice(0, 100))"""
        )
        assert small == []
        if state == "matches":
            assert lines_end_on_the_pictures(page)
