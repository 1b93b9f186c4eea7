"""The page on collections of one's own, also behind a proxy that serves it under a path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.page.sample.sample_folders import SampleFolders
from tests.slow.browser import looking, serious, serving_sample
from tests.slow.own_collections import labelled_pictures, register_descriptors, register_pictures
from tests.slow.page_steps import (
    PHONE,
    drop,
    ids,
    lines_end_on_the_pictures,
    open_matches,
    settled,
    until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = "/looks/here"


@pytest.fixture(scope="module")
def pictures(data_dir: Path) -> list[tuple[str, Path]]:
    return labelled_pictures(data_dir)


@pytest.fixture(scope="module")
def url(data_dir: Path, pictures: list[tuple[str, Path]]) -> Iterator[str]:
    """Of the page, under a path; an extra collection of each kind is registered."""
    with serving_sample(data_dir, root_path=ROOT) as address:
        queries = SampleFolders(data_dir / "sample").queries_file
        register_pictures(address, "mine", pictures)
        register_descriptors(address, "described", queries, with_global=True)
        register_descriptors(address, "no-globals", queries, with_global=False)
        yield f"{address}{ROOT}/"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with looking(browser, url) as tab:
        tab.wait_for_selector("#picks button")
        yield tab


def test_another_collection_can_be_chosen_where_there_is_no_such_one(
    browser: Browser, url: str
) -> None:
    with looking(browser, f"{url}#collection=none") as page:
        page.get_by_text("There is no such collection").wait_for()
        assert not page.locator("#drop").is_visible()
        assert serious(page) == []
        page.select_option("#collection", "mine")
        page.wait_for_selector("#picks button")
        assert page.locator("#drop").is_visible()
        assert not page.locator("#problem").is_visible()


def choose(page: Page, collection: str) -> None:
    page.select_option("#collection", collection)
    until(page, f"location.hash.includes('{collection}')")
    page.wait_for_selector('#picks button:not([data-id$="astronaut-1.jpg"])')


def search(page: Page, image_id: str) -> None:
    page.click(f'#picks [data-id="{image_id}"]')
    until(page, "document.querySelectorAll('#second button').length > 0")
    settled(page)


def label(image_id: str) -> str:
    return image_id.split("/")[0]


def test_collections_are_listed(page: Page) -> None:
    options = page.locator("#collection option").all_inner_texts()
    assert [option.split(" ")[0] for option in options] == [
        *("described", "mine", "no-globals", "sample")
    ]
    assert page.locator("#collection").input_value() == "sample"


def test_pick_a_picture_of_a_collection(page: Page, pictures: list[tuple[str, Path]]) -> None:
    choose(page, "mine")
    assert page.locator("#picks button").count() == 60
    until(page, "document.querySelector('#picks img')?.naturalWidth > 0")
    page.click("#more")
    until(page, f"document.querySelectorAll('#picks button').length === {len(pictures)}")
    query = sorted(image_id for image_id, _ in pictures)[3]
    search(page, query)
    first, second = ids(page, "first"), ids(page, "second")
    assert len(first) == 50
    assert sorted(first) == sorted(second)
    assert query not in first
    before, after = (sum(label(i) == label(query) for i in x[:10]) for x in (first, second))
    verdict = page.locator("#verdict").inner_text()
    assert verdict == f"Right among the first ten: {before} before, {after} after re-ranking."
    assert page.locator("#second .right-mark").count() == sum(
        label(i) == label(query) for i in second
    )
    until(page, "document.querySelector('#second img').naturalWidth > 0")


def test_ids_from_a_text_on(page: Page, pictures: list[tuple[str, Path]]) -> None:
    choose(page, "mine")
    last = max(label(image_id) for image_id, _ in pictures)
    page.fill("#start", last)
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('#picks button')?.dataset.id.startsWith('{last}/')")
    page.fill("#start", "zzz")
    page.keyboard.press("Enter")
    page.get_by_text("No id comes after this.").wait_for()


def test_see_what_matched_and_search_with_a_result(
    page: Page, pictures: list[tuple[str, Path]]
) -> None:
    choose(page, "mine")
    search(page, min(image_id for image_id, _ in pictures))
    best = ids(page, "second")[0]
    open_matches(page, best)
    page.locator("#least").fill("0")
    assert page.locator("#lines g").count() > 3
    assert lines_end_on_the_pictures(page)
    assert serious(page) == []
    page.click("#search-with")
    until(page, f"document.getElementById('chosen-name').textContent === '{best}'")
    settled(page)
    until(
        page,
        f"![...document.querySelectorAll('#first button')].some(b => b.dataset.id === '{best}')",
    )
    page.go_back()
    until(page, f"document.getElementById('chosen-name').textContent !== '{best}'")


def test_drop_a_picture_and_take_it_to_another_collection(
    page: Page, pictures: list[tuple[str, Path]]
) -> None:
    choose(page, "mine")
    image_id, file = pictures[5]
    drop(page, file, "image/jpeg")
    settled(page)
    assert ids(page, "second")[0] == image_id
    assert page.locator("#second .right-mark").count() == 0
    assert "moved up" in page.locator("#verdict").inner_text()
    page.select_option("#collection", "sample")
    until(page, "document.querySelector('#second button')?.dataset.id.includes('-')")
    settled(page)
    assert page.locator("#chosen-name").inner_text() == file.name


def test_of_descriptors_alone_there_are_plain_tiles(page: Page) -> None:
    choose(page, "described")
    tiles = page.locator("#picks .plain-tile")
    assert tiles.first.inner_text() == "astronaut-1.jpg"
    search(page, "coffee-1.jpg")
    assert page.locator("#second img").count() == 0
    page.click("#second button >> nth=0")
    page.wait_for_selector("#pairs button, #pairs .none")
    page.get_by_text("there are no lines").wait_for()
    assert page.locator("#lines g").count() == 0
    assert serious(page) == []


def test_without_globals_the_page_says_so(page: Page) -> None:
    choose(page, "no-globals")
    assert "no globals" in page.locator("#collection-note").inner_text()
    search(page, "coffee-1.jpg")
    assert ids(page, "first") == sorted(ids(page, "first"))
    assert "by id" in page.locator("#first-title").inner_text()
    assert page.locator("#first .score").count() == 0


def test_a_look_can_be_passed_on(
    browser: Browser, url: str, pictures: list[tuple[str, Path]]
) -> None:
    image_id, _ = pictures[-1]
    with looking(browser, f"{url}#collection=mine&image={image_id}") as page:
        settled(page)
        assert page.locator("#chosen-name").inner_text() == image_id
    with looking(browser, f"{url}#collection=none") as page:
        page.get_by_text("There is no such collection").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(
    browser: Browser, url: str, pictures: list[tuple[str, Path]], scheme: str, width: int
) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 740}}
    with looking(browser, f"{url}#collection=mine&image={pictures[0][0]}", **options) as page:
        settled(page)
        page.wait_for_timeout(400)
        assert serious(page) == []


@pytest.mark.parametrize("collection", ["mine", "described"])
def test_at_phone_width(browser: Browser, url: str, collection: str) -> None:
    with looking(browser, f"{url}#collection={collection}", **PHONE) as page:
        page.wait_for_selector("#picks button")
        page.click("#picks button >> nth=2")
        settled(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") == 360
