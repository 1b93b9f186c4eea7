"""What a person does on the page, step by step."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUERY, SUBJECT = "retina-1.jpg", "retina-1"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "device_scale_factor": 2}


def pick(page: Page, query: str = QUERY) -> None:
    page.click(f'#picks [data-id="{query}"]')
    settled(page)


def until(page: Page, condition: str) -> None:
    """The driver's own waiting for a condition needs `eval`, which the page's policy forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def settled(page: Page) -> None:
    page.wait_for_selector("#outcome:not([hidden])")
    page.wait_for_selector("#results:not([aria-busy])")


def ids(page: Page, listed: str) -> list[str]:
    ids_shown: list[str] = page.eval_on_selector_all(
        f"#{listed} button", "buttons => buttons.map((b) => b.dataset.id)"
    )
    return ids_shown


def focused(page: Page, what: str = "dataset.id") -> str:
    return str(page.evaluate(f"document.activeElement.{what}"))


def drop(page: Page, file: Path, kind: str) -> None:
    """As a file manager does it: over the page, then let go."""
    transfer = page.evaluate_handle(
        """([data, name, type]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [base64.b64encode(file.read_bytes()).decode(), file.name, kind],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    page.wait_for_selector("#over:not([hidden])")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#over", state="hidden")


def lines_end_on_the_pictures(page: Page) -> bool:
    return bool(
        page.evaluate(
            """() => {
                const box = (id) => document.querySelector(`#${id} img`).getBoundingClientRect();
                const inside = (c, b) => {
                    const { left, top, width, height } = c.getBoundingClientRect();
                    const [x, y] = [left + width / 2, top + height / 2];
                    return x >= b.left && x <= b.right && y >= b.top && y <= b.bottom;
                };
                return [...document.querySelectorAll('#lines g')].every((g) => {
                    const [from, to] = g.querySelectorAll('circle.core');
                    return inside(from, box('matches-query')) && inside(to, box('matches-result'));
                });
            }"""
        )
    )


def open_matches(page: Page, image_id: str) -> None:
    page.click(f'#second button[data-id="{image_id}"]')
    page.wait_for_selector("#pairs button")
    until(
        page,
        "['matches-query', 'matches-result'].every((i) => document.querySelector(`#${i} img`)"
        "?.naturalWidth)",
    )
