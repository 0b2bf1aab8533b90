"""How tests of the laboratory's pages open them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_pictures import session

from ice_punch.lab.behaviour import NINE
from ice_punch.lab.timeline import Timeline
from support.browser import Visit, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[..., contextlib.AbstractContextManager[Visit]]


def opener(browser: Browser, directory: Path) -> Open:
    """Opens a page from a file, and holds against it every complaint and every request but the
    first."""

    @contextlib.contextmanager
    def open_page(text: str, fragment: str = "", **how: Any) -> Iterator[Visit]:
        file = directory / "page.html"
        file.write_text(text, "utf-8")
        with visiting(browser, f"{file.as_uri()}{fragment}", **how) as visit:
            yield visit
            assert visit.complaints == []
            assert visit.requests == [file.as_uri()]

    return open_page


def of_session(row: int, column: int) -> Timeline:
    return session(NINE[row], NINE[column])[0]


def first_drop(timeline: Timeline, reason: str) -> int:
    """The number of the first arrow that was dropped for it."""
    return next(i for i, arrow in enumerate(timeline.arrows) if arrow.dropped == reason)
