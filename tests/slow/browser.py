"""Headless Chromium and a service with its sample gallery, for the tests of the page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.service import LOCORE, free_port

if TYPE_CHECKING:  # the driver comes with install_browser.sh; to collect the tests needs none
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(sys.prefix) / "share/axe-core/axe.min.js"
FONTS = Path(__file__).with_name("fonts.conf")
# Chromium's own services are not to be reached from where tests run.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browsing() -> Iterator[Browser]:
    if not CHROMIUM.exists() or not AXE.exists():
        pytest.fail("no browser: run tests/slow/install_browser.sh")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM),
            args=_FLAGS,
            env={**os.environ, "FONTCONFIG_FILE": str(FONTS)},
        )
        yield browser
        browser.close()


@contextmanager
def looking(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A tab of its own. Whatever the page complains of, a broken policy too, fails the test."""
    options = {"viewport": {"width": 1280, "height": 900}} | options
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        # A request that is refused is said here too, by the browser; that is what is tested.
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning")
            and "Failed to load resource" not in message.text
            else None
        ),
    )
    try:
        page.goto(url)
        yield page
        assert complaints == []
    finally:
        context.close()


@contextmanager
def serving_sample(data_dir: Path, **settings: object) -> Iterator[str]:
    """The URL of `locore serve --sample`, once the sample is registered."""
    port = free_port()
    environment = {n: v for n, v in os.environ.items() if not n.startswith("LOCORE_")}
    environment |= {f"LOCORE_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONUNBUFFERED": "1", "LOCORE_DATA_DIR": str(data_dir)}
    printed = data_dir / f"printed-{port}.txt"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [LOCORE, "serve", "--sample", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while "Paste this" not in (text := printed.read_text()):
            assert process.poll() is None, text
            assert "could not be registered" not in text, text
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical, in a line each."""
    # Through the driver and not as a script element, which the page's policy would refuse.
    page.evaluate(AXE.read_text())
    violations = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
