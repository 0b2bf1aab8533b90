"""Chromium for tests that look at pages, driven by Playwright.

A module of tests makes a fixture of :func:`chromium` with the scope of the module, no larger: while
it is open Playwright's event loop runs, and no other test can start one of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BINARY = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """A page that is open, and what came of it so far."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Of the console and of scripts that raised."""
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a profile of its own. Skips the test where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not Path(BINARY).exists():
        pytest.skip(f"no browser at {BINARY}: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BINARY, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def visiting(
    browser: Browser,
    url: str,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    touch: bool = False,
) -> Iterator[Visit]:
    """The page at ``url`` in a fresh context without any network."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        has_touch=touch,
    )
    context.set_default_timeout(10_000)
    context.set_offline(True)
    visit = Visit(context.new_page())
    visit.page.on("console", lambda said: visit.complaints.append(f"{said.type}: {said.text}"))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    try:
        visit.page.goto(url)
        yield visit
    finally:
        context.close()


def artifacts(tmp_path: Path) -> Path:
    """Where a test keeps what people may want to look at: the directory that the environment
    variable ``ICE_PUNCH_ARTIFACTS`` names, or else the test's own."""
    named = os.environ.get("ICE_PUNCH_ARTIFACTS")
    directory = Path(named) if named else tmp_path
    directory.mkdir(parents=True, exist_ok=True)
    return directory
