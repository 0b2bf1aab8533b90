"""The page of a matrix, as Chromium shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab_pages import Open, opener
from lab_pictures import HOSTILE, hostile_timeline, matrix

from ice_punch.lab.behaviour import NINE
from ice_punch.lab.matrix import Matrix
from ice_punch.lab.page import matrix_page, timeline_page
from ice_punch.lab.timeline import Timeline
from support.browser import artifacts, chromium, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Open:
    return opener(browser, tmp_path)


@pytest.fixture(scope="module")
def nine() -> Matrix:
    return matrix()


def cell(page: Page, row: int, column: int) -> Any:
    return page.locator(f'button.cell[data-cell="{row},{column}"]')


def parts(page: Page, row: int, column: int) -> list[str]:
    names = ("letter", "share", "median", "worst", "packets")
    return [cell(page, row, column).locator(f".{name}").inner_text() for name in names]


def title(page: Page) -> str:
    return page.locator("#timeline-title").inner_text()


def test_the_heat_map_has_its_81_cells_with_the_right_text(opened: Open, nine: Matrix) -> None:
    with opened(matrix_page(nine)) as visit:
        page = visit.page
        assert page.locator("button.cell").count() == 81
        assert parts(page, 0, 0) == ["D", "", "191", "197", "40"]
        assert parts(page, 2, 1) == ["R", "2/20", "191", "197", "40"]
        assert parts(page, 2, 4) == ["R", "", "266", "272", "54"]
        assert parts(page, 8, 8) == ["F", "", "-", "", "52"]
        letters = page.locator("button.cell .letter").all_inner_texts()
        assert (letters.count("D"), letters.count("R"), letters.count("F")) == (56, 24, 1)
        names = [nat.short for nat in NINE]
        assert page.locator(".heat thead th").all_inner_texts() == names
        assert page.locator(".heat tbody th").all_inner_texts() == names
        heading = page.locator("header").inner_text()
        assert "81 pairings: 56 direct, 24 relayed, 1 failed." in heading
        assert re.search(r"round trip\s+100 ms", heading)
        assert cell(page, 2, 1).get_attribute("aria-label") == (
            "a EIM/APDF, b EIM/ADF: relayed in 2 of 20, median 191 ms, worst 197 ms, 40 packets"
        )


def test_the_slower_a_cell_the_stronger_its_shade(opened: Open, nine: Matrix) -> None:
    with opened(matrix_page(nine)) as visit:
        assert cell(visit.page, 0, 0).get_attribute("data-shade") == "0"
        assert cell(visit.page, 2, 4).get_attribute("data-shade") == "4"
        assert "Faint is 191 ms, strong is 266 ms" in visit.page.locator(".legend").inner_text()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 4), (8, 8)])
def test_a_click_opens_the_timeline_with_every_arrow(
    opened: Open, nine: Matrix, row: int, column: int
) -> None:
    timeline = nine.cell(row, column).timeline
    assert timeline is not None
    with opened(matrix_page(nine)) as visit:
        page = visit.page
        assert page.locator("#timeline").is_hidden()
        cell(page, row, column).click()
        page.wait_for_selector(".picture")
        assert title(page) == f"a behind {NINE[row].short}, b behind {NINE[column].short}"
        assert page.url.endswith(f"#cell={row},{column}")
        assert page.locator(".picture .arrow").count() == len(timeline.arrows)
        dropped = sum(bool(arrow.dropped) for arrow in timeline.arrows)
        assert page.locator(".picture .arrow .cross").count() == dropped > 0
        assert page.locator(".picture .arrow .head").count() == len(timeline.arrows) - dropped
        assert page.locator(".picture .mark").count() == len(timeline.marks)
        assert page.locator(".picture .rail").count() == len(timeline.lanes)


def test_arrow_keys_move_through_the_cells_and_enter_opens(opened: Open, nine: Matrix) -> None:
    with opened(matrix_page(nine)) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        focused = page.evaluate("document.activeElement.dataset.cell")
        assert focused == "2,1"
        page.keyboard.press("Enter")
        page.wait_for_selector(".picture")
        assert title(page) == "a behind EIM/APDF, b behind EIM/ADF"
        page.locator("#close").click()
        assert page.locator("#timeline").is_hidden()
        assert page.evaluate("document.activeElement.dataset.cell") == "2,1"
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.dataset.cell") == "2,0"
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.cell") == "2,8"


def test_the_address_opens_a_cell_and_the_way_back_leads_to_the_one_before(
    opened: Open, nine: Matrix
) -> None:
    with opened(matrix_page(nine), "#cell=2,4") as visit:
        page = visit.page
        assert title(page) == "a behind EIM/APDF, b behind ADM/ADF"
        assert cell(page, 2, 4).get_attribute("aria-current") == "true"
        cell(page, 8, 8).click()
        page.wait_for_function(
            "document.getElementById('timeline-title').textContent.includes('APDM/APDF')"
        )
        page.go_back()
        page.wait_for_function(
            "document.getElementById('timeline-title').textContent.includes('ADM/ADF')"
        )


@pytest.mark.parametrize("fragment", ["#cell=9,0", "#cell=-1,0", "#cell=1", "#timeline", "#%00"])
def test_an_address_that_names_no_cell_opens_none(
    opened: Open, nine: Matrix, fragment: str
) -> None:
    with opened(matrix_page(nine), fragment) as visit:
        assert visit.page.locator("#timeline").is_hidden()


def test_a_cell_without_a_timeline_says_so(opened: Open, nine: Matrix) -> None:
    bare = replace(nine, cells=tuple(replace(one, timeline=None) for one in nine.cells))
    with opened(matrix_page(bare), "#cell=0,0") as visit:
        assert visit.page.locator("#nothing").is_visible()
        assert visit.page.locator("#nothing").inner_text() == "No timeline was kept of this cell."
        assert visit.page.locator("#stage").is_hidden()


CONTRAST = """() => {
  const light = (colour) => {
    const part = (value) => {
      const c = value / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    };
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const look = (element) => {
    const style = getComputedStyle(element);
    return ratio(style.color, style.backgroundColor);
  };
  return {
    body: look(document.body),
    dark: light(getComputedStyle(document.body).backgroundColor) < 0.1,
    cells: Math.min(...[...document.querySelectorAll('.cell')].map(look)),
  };
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_readable_by_day_and_by_night(opened: Open, nine: Matrix, dark: bool) -> None:
    with opened(matrix_page(nine), dark=dark) as visit:
        seen = visit.page.evaluate(CONTRAST)
        assert seen["dark"] is dark
        assert seen["body"] > 7
        assert seen["cells"] > 4.5, "WCAG 2 AA, also for the samples of every shade in the legend"


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_screen_scrolls_in_one_direction_only(
    opened: Open, nine: Matrix, width: int
) -> None:
    with opened(matrix_page(nine), "#cell=2,4", width=width, height=700) as visit:
        page = visit.page
        page.locator("#table summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        corner = cell(page, 8, 8).bounding_box()
        assert corner is not None
        assert corner["x"] + corner["width"] <= width
        overflowing = page.evaluate(
            """() => [...document.querySelectorAll('button.cell')]
              .filter((cell) => cell.scrollWidth > cell.clientWidth + 1).length"""
        )
        assert overflowing == 0


def test_on_paper_the_whole_picture_is_there_and_the_tools_are_not(
    opened: Open, nine: Matrix
) -> None:
    with opened(matrix_page(nine), "#cell=2,4") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.locator(".tools").is_hidden()
        assert (
            visit.page.evaluate("getComputedStyle(document.querySelector('#scroll')).maxHeight")
            == "none"
        )


def test_texts_that_attack_the_page_are_only_texts(opened: Open, nine: Matrix) -> None:
    hostile = replace(
        nine,
        cells=(replace(nine.cells[0], timeline=hostile_timeline()), *nine.cells[1:]),
        conditions=((HOSTILE, HOSTILE),),
        backend=HOSTILE,
    )
    for text, fragment in (
        (matrix_page(hostile), "#cell=0,0"),
        (timeline_page(hostile_timeline()), ""),
    ):
        with opened(text, fragment) as visit:
            page = visit.page
            page.locator('[data-arrow="1"] .cross').click(force=True)
            page.locator("#table summary").click()
            assert page.locator("img").count() == 0
            assert page.locator("script").count() == 2
            assert page.title() != "owned"
            assert HOSTILE in page.locator("#details").inner_text()
            assert HOSTILE in page.locator("#lanes").inner_text()
            assert HOSTILE in page.locator("header").inner_text()


def test_the_policy_lets_nothing_out_and_nothing_else_run(
    browser: Browser, tmp_path: Path, nine: Matrix
) -> None:
    file = tmp_path / "page.html"
    file.write_text(matrix_page(nine), "utf-8")
    with visiting(browser, file.as_uri()) as visit:
        blocked = visit.page.evaluate(
            """async () => {
              const found = [];
              document.addEventListener('securitypolicyviolation',
                (event) => found.push(event.effectiveDirective));
              await fetch('https://example.invalid/').catch(() => null);
              const style = document.createElement('style');
              style.textContent = 'body { display: none }';
              document.head.append(style);
              try { document.body.innerHTML = '<b>'; } catch { found.push('innerHTML'); }
              const script = document.createElement('script');
              script.append('window.ran = true');
              document.body.append(script);
              await new Promise((done) => setTimeout(done, 50));
              return [found, window.ran === undefined];
            }"""
        )
        directives, nothing_ran = blocked
        assert {"connect-src", "style-src-elem", "innerHTML"} <= set(directives)
        assert nothing_ran


def test_81_timelines_of_100_packets_stay_below_2_megabytes(nine: Matrix) -> None:
    def busy(timeline: Timeline | None) -> Timeline:
        assert timeline is not None
        arrows = timeline.arrows
        while len(arrows) < 100:
            arrows += tuple(
                replace(
                    arrow,
                    label=f"{arrow.label}{number}",
                    transaction=f"{number:x}{arrow.transaction}",
                )
                for number, arrow in enumerate(arrows, len(arrows))
            )
        return replace(timeline, arrows=arrows[:100])

    cells = tuple(replace(one, timeline=busy(one.timeline)) for one in nine.cells)
    assert 400_000 < len(matrix_page(replace(nine, cells=cells)).encode()) < 2_000_000


def test_the_same_matrix_gives_the_same_page(nine: Matrix) -> None:
    assert matrix_page(nine) == matrix_page(matrix())


def test_a_screenshot_is_kept(opened: Open, nine: Matrix, tmp_path: Path) -> None:
    """In the directory that ICE_PUNCH_ARTIFACTS names, or else in pytest's own."""
    directory = artifacts(tmp_path)
    for name, how in {
        "light": {},
        "dark": {"dark": True},
        "phone": {"width": 375, "height": 812},
    }.items():
        with opened(matrix_page(nine), "#cell=2,4", **how) as visit:
            visit.page.locator(".picture").wait_for()
            file = directory / f"nat-matrix-{name}.png"
            visit.page.screenshot(path=file, full_page=True)
            assert file.read_bytes().startswith(b"\x89PNG")
            assert file.stat().st_size > 50_000
