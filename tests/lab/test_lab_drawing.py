"""The matrix and the timeline as a terminal shows them, and the matrix in Markdown."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from lab_pictures import hostile_timeline, matrix, session
from rich.console import Console
from rich.text import Text

from ice_punch.lab.behaviour import NINE
from ice_punch.lab.drawing import matrix_markdown, print_matrix, print_timeline
from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.picture import (
    EXPLANATIONS,
    attempts,
    drop_place,
    milliseconds,
    silences,
    tagged_lanes,
)
from ice_punch.lab.timeline import Arrow, Kind, Lane, Mark, Place, Timeline
from ice_punch.lab.trace import DropReason

CROSS = "\N{MULTIPLICATION SIGN}"
SMALL = Timeline(
    "two peers",
    1.6,
    (
        Lane("b", Place.B, "host 10.2.0.2:50000"),
        Lane("s", Place.SERVER, "stun 203.0.113.10:3478"),
        Lane("a", Place.A, "host 10.1.0.2:50000"),
    ),
    (
        Arrow(0.0, 0.025, "a", "s", Kind.QUERY, "Binding", transaction="1"),
        Arrow(0.01, 0.06, "a", "b", Kind.CHECK, "check, x > y", "filtered", "nat-b", "2"),
        Arrow(0.51, 0.56, "a", "b", Kind.CHECK, "check, x > y", transaction="2"),
        Arrow(0.56, 0.61, "b", "a", Kind.ANSWER, "answer, y > x", transaction="2"),
        Arrow(0.62, 0.62, "b", "", Kind.CHECK, "check, y > z", "no route", "internet", "3"),
        Arrow(1.5, None, "a", "b", Kind.NOMINATION, "check with USE-CANDIDATE", transaction="4"),
    ),
    (Mark(0.61, Place.A, "connected: a valid pair was found", True),),
)
SMALL_DRAWN = """\
two peers
  a1  host 10.1.0.2:50000
  s1  stun 203.0.113.10:3478
  b1  host 10.2.0.2:50000

     ms  a1          s1          b1
    0.0  ●···········►           │  query arrives at 25.0
   10.0  ●───────────┼─────────X │  check X filtered by nat-b at 60.0
         │           │           │  x > y
         ⋮           ⋮           ⋮  450 ms of silence
  510.0  ●───────────┼───────────►  check (2nd) arrives at 560.0
  560.0  ◄┄┄┄┄┄┄┄┄┄┄┄┼┄┄┄┄┄┄┄┄┄┄┄●  answer arrives at 610.0
  610.0  ── a ✓ connected: a valid pair was found ──────────────────────────────
  620.0  │           │         X─●  check X no route by internet at 620.0
         │           │           │  y > z
         ⋮           ⋮           ⋮  880 ms of silence
 1500.0  ●═══════════┼═══════════►  nomination still under way

──► check   ══► nomination   ┄┄► answer   ··► query   ──X dropped
6 packets, 2 dropped, in 1.60 s
""".replace("X", CROSS)


def lines(thing: Timeline | Matrix, width: int, *, colours: bool = False) -> list[str]:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        legacy_windows=False,
    )
    if isinstance(thing, Timeline):
        print_timeline(console, thing)
    else:
        print_matrix(console, thing)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def of_session(row: int, column: int) -> Timeline:
    return session(NINE[row], NINE[column])[0]


def test_a_small_session_is_drawn_like_this() -> None:
    assert lines(SMALL, 80) == SMALL_DRAWN.splitlines()


@pytest.mark.parametrize("width", [80, 100, 160, 240])
@pytest.mark.parametrize("cell", [(0, 0), (2, 4), (8, 8)])
def test_every_packet_has_its_line_in_terminals_of_any_width(
    cell: tuple[int, int], width: int
) -> None:
    timeline = of_session(*cell)
    drawn = lines(timeline, width)
    assert max(map(len, drawn)) <= width
    steps = [line for line in drawn if re.match(r" *\d+\.\d  [^─]", line)]
    assert len(steps) == len(timeline.arrows)
    dropped = [arrow for arrow in timeline.arrows if arrow.dropped]
    crosses = [line for line in steps if line.count(CROSS) == 2]
    assert len(crosses) == len(dropped) > 0
    for line, arrow in zip(crosses, dropped, strict=True):
        assert f"{arrow.dropped} by {arrow.dropped_by}" in line
    marks = [line for line in drawn if re.match(r" *\d+\.\d  ── [ab] [✓✗•] ", line)]
    assert len(marks) == len(timeline.marks)


def test_a_wide_terminal_tells_every_packet_in_full() -> None:
    timeline = of_session(2, 4)
    drawn = "\n".join(lines(timeline, 160))
    for arrow in timeline.arrows:
        assert arrow.label.removeprefix(f"{arrow.kind}, ") in drawn


def test_a_narrow_terminal_tells_at_least_the_dropped_ones_in_full() -> None:
    timeline = of_session(2, 4)
    drawn = "\n".join(lines(timeline, 80))
    for arrow in timeline.arrows:
        if arrow.dropped:
            assert arrow.label.removeprefix("check, ") in drawn


def test_a_terminal_with_colours_gets_the_same_text_and_colours_on_top() -> None:
    timeline = of_session(2, 4)
    colourful = lines(timeline, 100, colours=True)
    assert any("\x1b[" in line for line in colourful)
    plain = [Text.from_ansi(line).plain.rstrip() for line in colourful]
    assert plain == lines(timeline, 100)


def test_a_terminal_with_ascii_only_gets_nothing_else() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_timeline(Console(file=file, width=80), SMALL)
    file.seek(0)
    drawn = file.read()
    assert "   10.0  o-----------+---------X |  check X filtered by nat-b at 60.0" in drawn
    assert "  560.0  <'''''''''''+'''''''''''o  answer arrives at 610.0" in drawn


def test_no_escape_sequence_of_a_label_reaches_the_terminal() -> None:
    drawn = "".join(lines(hostile_timeline(), 200))
    assert "onerror" in drawn
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", drawn)


def test_odd_packets_have_their_line_too() -> None:
    """From outside, to nobody, to itself, between lanes that do not exist."""
    lanes = (Lane("a", Place.A, "host a"), Lane("b", Place.B, "host b"))
    ends = [("", "a"), ("b", ""), ("a", "a"), ("b", "b"), ("", ""), ("?", "!")]
    arrows = tuple(Arrow(0.0, 0.1, *end, Kind.CHECK, "odd") for end in ends)
    arrows += tuple(replace(arrow, dropped="lost", dropped_by="nat-a") for arrow in arrows)
    for some_lanes in (lanes, lanes[:1], ()):
        drawn = lines(Timeline("odd", 0.1, some_lanes, arrows, ()), 80)
        assert sum("check" in line and "0.0  " in line for line in drawn) == len(arrows)
        assert max(map(len, drawn)) <= 80


def test_the_matrix_fits_100_columns() -> None:
    drawn = lines(matrix(), 100)
    assert max(map(len, drawn)) <= 100
    at = next(i for i, line in enumerate(drawn) if line.startswith("EIM/APDF"))
    times, letters = drawn[at].split()[1:], drawn[at + 1].split()
    assert times == ["191/197"] * 4 + ["266/272"] * 2 + ["191/197"] + ["266/272"] * 2
    assert " ".join(letters) == "D 40 R2 40 D 40 D 44 R 54 R 54 D 44 R 54 R 54"
    assert drawn[0] == "round trip 100 ms, skew 30 ms, link perfect, seeds 20, backend virtual"
    assert drawn[-1] == (
        "81 pairings: 56 direct, 24 relayed, 1 failed. "
        "1620 sessions: 1138 direct, 462 relayed, 20 failed."
    )


def slow(cell: Cell) -> Cell:
    """The same, two minutes later."""
    outcomes = tuple(
        replace(o, a=replace(o.a, valid_at=o.a.valid_at and o.a.valid_at + 123, packets_sent=4000))
        for o in cell.outcomes
    )
    return replace(cell, outcomes=outcomes)


def test_the_matrix_fits_100_columns_however_long_it_took() -> None:
    nine = matrix()
    slower = replace(nine, cells=tuple(map(slow, nine.cells)))
    drawn = lines(slower, 100)
    assert max(map(len, drawn)) <= 100
    assert any("123s" in line for line in drawn)


def test_the_matrix_fits_80_columns_with_the_times_below_each_other() -> None:
    drawn = lines(matrix(), 80)
    assert max(map(len, drawn)) <= 80
    at = drawn.index(next(line for line in drawn if re.match("EIM +D +R2", line)))
    assert drawn[at].split() == ["EIM", "D", "R2", "D", "D", "R", "R", "D", "R", "R"]
    assert drawn[at + 1].split()[:5] == ["APDF", "191", "191", "191", "191"]
    assert drawn[at + 2].split()[3:6] == ["197", "272", "272"]
    assert drawn[at + 3].split()[3:6] == ["44", "54", "54"]


def test_verdicts_have_colours_where_there_are_any() -> None:
    drawn = "\n".join(lines(matrix(), 100, colours=True))
    for number, text in (("42", "D 40"), ("43", "R2 40"), ("41", "F 52")):
        assert re.search(rf"\x1b\[[\d;]*{number}m *{re.escape(text)} *\x1b\[0m", drawn)


def test_the_markdown_of_four_pairings() -> None:
    nats = (NINE[2], NINE[8])
    assert matrix_markdown(matrix(nats, seeds=3)) == (
        "round trip 100 ms, skew 30 ms, link perfect, seeds 3. "
        "4 pairings: 1 direct, 2 relayed, 1 failed. 12 sessions: 3 direct, 6 relayed, 3 failed.\n"
        "\n"
        "| a \\ b | EIM/APDF | APDM/APDF |\n"
        "|---|---|---|\n"
        "| **EIM/APDF** | D 187/189 (40) | R 262/264 (54) |\n"
        "| **APDM/APDF** | R 262/264 (54) | F -/- (52) |\n"
        "\n"
        "Rows are peer a's NAT, columns peer b's. Names are mapping/filtering (RFC 4787): EI "
        "endpoint-independent, AD address-dependent, APD address-and-port-dependent; M mapping, "
        "F filtering. D direct, R relayed, F failed: the worst of all seeds; then median/worst "
        "time in ms until both sides have a valid pair, and (packets sent by both, median).\n"
    )


def test_the_markdown_of_nine_by_nine_is_one_table_and_always_the_same() -> None:
    text = matrix_markdown(matrix())
    assert text == matrix_markdown(matrix())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 11
    assert {line.count("|") for line in table} == {11}
    assert "R2/20 191/197 (40)" in text


@pytest.mark.parametrize(
    ("seconds", "width", "text"),
    [
        (None, 0, "-"),
        (0.1204, 0, "120"),
        (39.5, 0, "39500"),
        (9.9994, 4, "9999"),
        (39.5, 4, "40s"),
        (39.5, 5, "39500"),
        (139.5, 5, "140s"),
        (12.345, 4, "12s"),
    ],
)
def test_long_times_are_written_in_seconds(seconds: float | None, width: int, text: str) -> None:
    assert milliseconds(seconds, width) == text


def test_lanes_stand_in_order_and_have_names() -> None:
    assert [(lane.tag, lane.lane.id) for lane in tagged_lanes(SMALL)] == [
        ("a1", "a"),
        ("s1", "s"),
        ("b1", "b"),
    ]


def test_attempts_count_the_sends_of_one_sender_in_one_transaction() -> None:
    assert attempts(SMALL.arrows) == [1, 1, 2, 1, 1, 1]
    assert attempts(SMALL.arrows[::-1]) == [1, 1, 1, 2, 1, 1]
    bare = [replace(arrow, transaction="") for arrow in SMALL.arrows]
    assert attempts(bare) == [1] * 6


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ("nat-a", Place.A),
        ("b", Place.B),
        ("nat-b-2", Place.B),
        ("turn", Place.SERVER),
        ("internet", None),
        ("", None),
    ],
)
def test_a_drop_is_at_the_end_of_whom_the_node_is_called_after(
    node: str, place: Place | None
) -> None:
    arrow = Arrow(0.0, 0.1, "a", "b", Kind.CHECK, "check", "lost", node)
    assert drop_place(arrow) is place


def test_silence_is_what_is_long_and_has_nothing_in_it() -> None:
    assert silences(SMALL) == [(0.06, 0.51), (0.62, 1.5)]
    empty = Timeline("nothing", 5.0, (), (), ())
    assert silences(empty) == [(0.0, 5.0)]


def test_every_reason_for_a_drop_is_explained() -> None:
    assert set(DropReason) <= EXPLANATIONS.keys()
