"""The page that ``ice-punch lab matrix --html`` writes, in a browser: the whole real matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab_pages import opener

from ice_punch.cli import app
from support.browser import artifacts, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def test_the_heat_map_has_its_cells_and_a_cell_opens_its_timeline(
    browser: Browser, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "matrix.html"
    assert app.run(["lab", "matrix", "--seeds", "2", "--skew", "150ms", "--html", str(file)]) == 0
    assert file.stat().st_size < 2_000_000
    with opener(browser, tmp_path)(file.read_text("utf-8")) as visit:
        page = visit.page
        assert page.locator("button.cell").count() == 81
        letters = page.locator("button.cell .letter").all_inner_texts()
        assert (letters.count("D"), letters.count("R")) == (45, 36)
        page.locator('button.cell[data-cell="2,8"]').click()
        page.wait_for_selector(".picture")
        assert page.locator(".picture .arrow").count() > 40
        assert page.locator(".picture .arrow .cross").count() > 0
        table = page.locator("#timeline").inner_text()
        assert "EIM/APDF" in table
        directory = artifacts(tmp_path)
        page.screenshot(path=directory / "nat-matrix-real.png", full_page=True)
        assert (directory / "nat-matrix-real.png").stat().st_size > 20_000
