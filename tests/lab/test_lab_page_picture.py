"""The picture of a timeline in the page, as Chromium shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab_pages import Open, first_drop, of_session, opener

from ice_punch.lab.page import timeline_page
from ice_punch.lab.timeline import Arrow, Kind, Lane, Mark, Place, Timeline
from support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Open:
    return opener(browser, tmp_path)


def test_a_drop_shows_where_and_why_when_it_is_clicked(opened: Open) -> None:
    timeline = of_session(2, 1)
    number = first_drop(timeline, "filtered")
    with opened(timeline_page(timeline)) as visit:
        arrow = visit.page.locator(f'[data-arrow="{number}"]')
        assert arrow.locator(".why").text_content() == "filtered by nat-b"
        arrow.locator(".cross").click(force=True)
        told = visit.page.locator("#details").inner_text()
        assert "filtered by nat-b at 79.0 ms" in told
        assert "RFC 4787 section 5" in told
        assert "check, 10.1.0.2:50000 > 198.51.100.2:50000" in told


def test_a_drop_shows_where_and_why_under_the_pointer_and_no_longer(opened: Open) -> None:
    timeline = of_session(2, 1)
    number = first_drop(timeline, "filtered")
    with opened(timeline_page(timeline)) as visit:
        page = visit.page
        page.locator(f'[data-arrow="{number}"] .cross').hover(force=True)
        assert "filtered by nat-b" in page.locator("#details").inner_text()
        page.locator("h1").hover()
        assert "filtered" not in page.locator("#details").inner_text()


def test_a_drop_shows_where_and_why_to_the_keyboard(opened: Open) -> None:
    timeline = of_session(2, 1)
    with opened(timeline_page(timeline)) as visit:
        page = visit.page
        page.locator(".picture [tabindex='0']").focus()
        told = []
        for _ in range(len(timeline.arrows) + len(timeline.marks)):
            told.append(page.locator("#details").inner_text())
            page.keyboard.press("ArrowDown")
        assert sum("filtered by nat-" in text for text in told) == 4
        assert any("connected: first valid pair" in text for text in told)
        page.keyboard.press("Home")
        spoken = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert spoken == "0.0 ms, query, a1 to s1, arrived at 25.0 ms"
        page.keyboard.press("Escape")
        assert "41 packets" in page.locator("#details").inner_text()


def test_a_drop_shows_where_and_why_when_it_is_tapped_on_a_phone(opened: Open) -> None:
    timeline = of_session(2, 1)
    number = first_drop(timeline, "filtered")
    with opened(timeline_page(timeline), width=375, height=812, touch=True) as visit:
        page = visit.page
        page.locator(f'[data-arrow="{number}"] .cross').tap(force=True)
        panel = page.locator("#details")
        assert "filtered by nat-b at 79.0 ms" in panel.inner_text()
        box = panel.bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 812 - 100, "the panel is on the screen with the arrow"


def test_resends_and_the_answer_of_a_transaction_are_shown_as_one(opened: Open) -> None:
    timeline = of_session(8, 8)
    first = timeline.arrows[first_drop(timeline, "filtered")]
    same = [a for a in timeline.arrows if a.transaction == first.transaction]
    assert len(same) == 6
    with opened(timeline_page(timeline)) as visit:
        page = visit.page
        page.locator(f'[data-arrow="{timeline.arrows.index(same[1])}"] .cross').click(force=True)
        assert page.locator("#details h3").inner_text().lower() == "check, sent for the 2nd time"
        assert page.locator(".picture .arrow.same").count() == 6
        assert page.locator(".transaction li").count() == 6
        page.locator(".transaction button").nth(5).click()
        assert page.locator("#details h3").inner_text().lower() == "check, sent for the 6th time"
        seconds = page.locator(".picture .kind", has_text="check, 2nd").count()
        assert seconds > 0, "resends are recognised without a click, too"


def test_kinds_differ_in_more_than_their_colour(opened: Open) -> None:
    arrows = tuple(
        Arrow(number / 100, number / 100 + 0.05, "a", "b", kind, str(kind))
        for number, kind in enumerate(Kind)
    )
    lanes = (Lane("a", Place.A, "host a"), Lane("b", Place.B, "host b"))
    with opened(timeline_page(Timeline("all", 0.2, lanes, arrows, ()))) as visit:
        looks = visit.page.evaluate(
            """() => [...document.querySelectorAll('.picture .arrow')].map((arrow) => {
              const line = getComputedStyle(arrow.querySelector('.line'));
              const head = arrow.querySelector('.head');
              return [line.strokeDasharray, line.strokeWidth, head.getAttribute('d'),
                      getComputedStyle(head).fill === 'none'].join();
            })"""
        )
        assert len(set(looks)) == len(Kind) == len(looks)
        words = visit.page.locator(".picture .kind").all_text_contents()
        assert set(words) == set(Kind)


def test_kinds_can_be_hidden(opened: Open) -> None:
    timeline = of_session(0, 0)
    turn = sum(arrow.kind is Kind.TURN for arrow in timeline.arrows)
    with opened(timeline_page(timeline)) as visit:
        page = visit.page
        assert page.locator(".arrow.turn:visible").count() > turn, "and a sample in the key"
        page.locator('input[data-kind="turn"]').uncheck()
        assert page.locator(".picture .arrow.turn:visible").count() == 0
        shown = page.locator(".picture .arrow:not(.away)").count()
        assert shown == len(timeline.arrows) - turn


def test_time_is_zoomed_by_buttons_keys_and_wheel(opened: Open) -> None:
    with opened(timeline_page(of_session(2, 1))) as visit:
        page = visit.page

        def height() -> float:
            box = page.locator(".picture").bounding_box()
            assert box is not None
            return box["height"]

        heights = [height()]
        page.locator("#zoom-in").click()
        heights.append(height())
        page.locator(".picture [tabindex='0']").focus()
        page.keyboard.press("+")
        heights.append(height())
        page.locator("#scroll").hover()
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)
        page.keyboard.up("Control")
        page.wait_for_function(
            f"document.querySelector('.picture').getBoundingClientRect().height > {heights[-1]}"
        )
        heights.append(height())
        assert heights == sorted(set(heights))
        page.locator("#zoom-fit").click()
        fits = "document.querySelector('#scroll')"
        assert page.evaluate(f"{fits}.scrollHeight <= {fits}.clientHeight + 1")


def test_silence_is_cut_out_unless_it_is_wanted(opened: Open) -> None:
    with opened(timeline_page(of_session(2, 1))) as visit:
        page = visit.page
        silences = page.locator(".picture .silence")
        assert silences.all_text_contents()[-1] == "5.10 s of silence"
        page.locator("#cut").uncheck()
        assert silences.count() == 0
        assert page.locator(".picture .arrow").count() == len(of_session(2, 1).arrows)


def test_the_table_has_a_row_for_every_packet(opened: Open) -> None:
    timeline = of_session(2, 1)
    with opened(timeline_page(timeline)) as visit:
        page = visit.page
        page.locator("#table summary").click()
        rows = page.locator("#table tbody tr")
        assert rows.count() == len(timeline.arrows)
        number = first_drop(timeline, "filtered")
        assert rows.nth(number).locator("td").all_inner_texts() == [
            "30.0",
            "79.0",
            "a1 host 10.1.0.2:50000, srflx 198.51.100.1:50000",
            "b1 host 10.2.0.2:50000, srflx 198.51.100.2:50000",
            "check",
            "check, 10.1.0.2:50000 > 198.51.100.2:50000",
            "dropped by nat-b: filtered at 79.0 ms",
        ]


def test_odd_packets_do_not_break_the_picture(opened: Open) -> None:
    """From outside, to nobody, to itself, still travelling; without servers, lanes or length."""
    lanes = (Lane("a", Place.A, ""), Lane("b", Place.B, "host [2001:db8::1]:50000"))
    arrows = (
        Arrow(0.0, 0.05, "", "a", Kind.CHECK, "from outside"),
        Arrow(0.0, 0.05, "b", "", Kind.CHECK, "to nobody"),
        Arrow(0.0, None, "a", "b", Kind.DATA, "still travelling"),
        Arrow(0.0, 0.0, "a", "a", Kind.DATA, "to itself"),
        Arrow(0.0, None, "", "", Kind.ICMP, "from nowhere to nowhere", "lost", "somewhere"),
        Arrow(0.0, 0.0, "a", "b", Kind.CHECK, "at once", "lost", "nat-a"),
        Arrow(0.0, 0.0, "a", "b", Kind.CHECK, "at once again", "lost", "nat-a"),
    )
    marks = (Mark(0.0, Place.SERVER, "a server that has no lane", False),)
    for timeline in (
        Timeline("odd", 0.05, lanes, arrows, marks),
        Timeline("no lanes", 0.0, (), arrows[:1], ()),
        Timeline("nothing", 0.0, (), (), ()),
    ):
        with opened(timeline_page(timeline)) as visit:
            page = visit.page
            assert page.locator(".picture .arrow").count() == len(timeline.arrows)
            for arrow in page.locator(".picture .arrow").all():
                arrow.dispatch_event("click", {"bubbles": True})
                assert page.locator("#details .label").count() == 1
            shapes = page.evaluate(
                """() => [...document.querySelectorAll('.picture [d]')]
                  .map((path) => path.getAttribute('d')).join()"""
            )
            assert not re.search("NaN|undefined|Infinity", shapes)
