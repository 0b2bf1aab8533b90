"""A timeline as lines of text: a time, the lanes with one packet, and what became of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from ice_punch.lab.picture import (
    PLACES,
    TaggedLane,
    attempts,
    drop_place,
    duration,
    ordinal,
    silences,
    tagged_lanes,
)
from ice_punch.lab.timeline import Arrow, Kind, Mark, Place, Timeline

_TIME_WIDTH: Final = 9
_LEAST_NOTE: Final = 40
_ROOM_FOR_LABEL: Final = 50
"""Columns beside the lanes from which every packet is told in full, not only dropped ones."""
_GROUP_GAP: Final = 3


@dataclass(frozen=True, slots=True)
class _Ink:
    """Characters, for terminals that have them all and for those with ASCII only."""

    lane: str
    crossing: str
    right: str
    left: str
    tail: str
    cross: str
    silence: str
    rule: str
    good: str
    bad: str
    neutral: str
    lines: dict[Kind, str]


_UNICODE: Final = _Ink(
    lane="│",
    crossing="┼",
    right="►",
    left="◄",
    tail="●",
    cross="\N{MULTIPLICATION SIGN}",
    silence="⋮",
    rule="─",
    good="✓",
    bad="✗",
    neutral="•",
    lines={
        Kind.CHECK: "─",
        Kind.NOMINATION: "═",
        Kind.ANSWER: "┄",
        Kind.ERROR: "!",
        Kind.QUERY: "·",
        Kind.INDICATION: "╌",
        Kind.TURN: "~",
        Kind.DATA: "━",
        Kind.STREAM: "≈",
        Kind.ICMP: "*",
    },
)
_ASCII: Final = _Ink(
    lane="|",
    crossing="+",
    right=">",
    left="<",
    tail="o",
    cross="X",
    silence=":",
    rule="-",
    good="+",
    bad="!",
    neutral="*",
    lines={
        Kind.CHECK: "-",
        Kind.NOMINATION: "=",
        Kind.ANSWER: "'",
        Kind.ERROR: "!",
        Kind.QUERY: ".",
        Kind.INDICATION: '"',
        Kind.TURN: "~",
        Kind.DATA: "#",
        Kind.STREAM: "%",
        Kind.ICMP: "*",
    },
)
_STYLES: Final = {
    Kind.CHECK: "blue",
    Kind.NOMINATION: "bold magenta",
    Kind.ANSWER: "green",
    Kind.ERROR: "bold red",
    Kind.QUERY: "cyan",
    Kind.INDICATION: "cyan",
    Kind.TURN: "yellow",
    Kind.DATA: "bold green",
    Kind.STREAM: "dim green",
    Kind.ICMP: "red",
}
_DROPPED: Final = "red"


def ladder(timeline: Timeline, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
    """The lines, each at most ``width`` columns wide."""
    return _Ladder(timeline, width, _ASCII if ascii_only else _UNICODE).lines()


class _Ladder:
    def __init__(self, timeline: Timeline, width: int, ink: _Ink) -> None:
        self._timeline = timeline
        self._ink = ink
        self._width = width
        self._lanes = tagged_lanes(timeline)
        self._columns = _columns(self._lanes, width - _TIME_WIDTH - _LEAST_NOTE)
        self._lanes_width = max(self._columns.values(), default=0) + 2
        self._note_width = max(width - _TIME_WIDTH - 1 - self._lanes_width, 10)
        self._edges = _edges(self._lanes, self._columns)

    def lines(self) -> Iterator[Text]:
        timeline = self._timeline
        yield Text(_printable(timeline.title), "bold")
        for tagged in self._lanes:
            label = f"  {tagged.tag}  {_printable(tagged.lane.label)}"
            yield Text(label[: self._width])
        yield Text()
        yield self._heading()
        for _, _, item in sorted(self._items(), key=lambda entry: entry[:2]):
            yield from item
        yield Text()
        yield from self._legend()

    def _heading(self) -> Text:
        row = [" "] * (self._lanes_width + 1)
        for tagged in self._lanes:
            at = self._columns[tagged.lane.id]
            row[at : at + len(tagged.tag)] = tagged.tag
        return Text(f"{'ms':>{_TIME_WIDTH - 2}}  {''.join(row)}".rstrip(), "bold")

    def _items(self) -> Iterator[tuple[float, int, Iterator[Text]]]:
        """Everything that gets a line, with its time, and its rank among what has the same."""
        arrows = self._timeline.arrows
        for arrow, attempt in zip(arrows, attempts(arrows), strict=True):
            yield arrow.sent_at, 1, self._arrow(arrow, attempt)
        for mark in self._timeline.marks:
            yield mark.at, 2, self._mark(mark)
        for begin, end in silences(self._timeline):
            yield begin, 3, self._silence(end - begin)

    def _arrow(self, arrow: Arrow, attempt: int) -> Iterator[Text]:
        row = self._empty_row()
        begin, end = self._span(arrow)
        line = self._ink.lines[arrow.kind]
        step = 1 if end >= begin else -1
        for at in range(begin, end, step):
            row[at] = self._ink.crossing if at in self._columns.values() else line
        row[begin] = self._ink.tail
        head = self._ink.right if step > 0 else self._ink.left
        row[end] = self._ink.cross if arrow.dropped else head
        style = _DROPPED if arrow.dropped else _STYLES[arrow.kind]
        first, *further = self._notes(arrow, attempt)
        text = Text.assemble(_time(arrow.sent_at), "  ", ("".join(row), "dim"), (first, style))
        begin, end = sorted((begin, end))
        text.stylize(f"not dim {style}", _TIME_WIDTH + begin, _TIME_WIDTH + end + 1)
        yield text
        for note in further:
            yield self._without_time(self._empty_row(), note, style)

    def _notes(self, arrow: Arrow, attempt: int) -> list[str]:
        words = [arrow.kind.value]
        if attempt > 1:
            words.append(f"({ordinal(attempt)})")
        ended = "" if arrow.ended_at is None else f"at {_time(arrow.ended_at).strip()}"
        if arrow.dropped:
            words.append(f"{self._ink.cross} {_printable(arrow.dropped)}")
            if arrow.dropped_by:
                words.append(f"by {_printable(arrow.dropped_by)}")
            words.append(ended)
        else:
            words.append(f"arrives {ended}" if ended else "still under way")
        note = " ".join(filter(None, words))
        label = _printable(arrow.label).removeprefix(f"{arrow.kind},").strip()
        if self._note_width >= _ROOM_FOR_LABEL:
            return textwrap.wrap(f"{note}: {label}", self._note_width)
        notes = textwrap.wrap(note, self._note_width)
        return notes + textwrap.wrap(label, self._note_width) if arrow.dropped else notes

    def _mark(self, mark: Mark) -> Iterator[Text]:
        ink = self._ink
        sign = {True: ink.good, False: ink.bad, None: ink.neutral}[mark.good]
        style = {True: "bold green", False: "bold red", None: "bold"}[mark.good]
        room = self._width - _TIME_WIDTH - 4
        text = f"{mark.place} {sign} {_printable(mark.text)}"
        for number, part in enumerate(textwrap.wrap(text, room)):
            rule = f"{ink.rule * 2} {part} ".ljust(self._width - _TIME_WIDTH, ink.rule)
            time = _time(mark.at) if number == 0 else ""
            yield Text.assemble(time.ljust(_TIME_WIDTH), (rule, style))

    def _silence(self, seconds: float) -> Iterator[Text]:
        row = self._empty_row(self._ink.silence)
        yield self._without_time(row, f"{duration(seconds)} of silence", "dim")

    def _legend(self) -> Iterator[Text]:
        arrows = self._timeline.arrows
        used = [kind for kind in Kind if any(arrow.kind is kind for arrow in arrows)]
        samples = [f"{self._ink.lines[kind] * 2}{self._ink.right} {kind}" for kind in used]
        samples.append(f"{self._ink.lines[Kind.CHECK] * 2}{self._ink.cross} dropped")
        line = ""
        for sample in samples:
            if line and len(line) + len(sample) > self._width - 3:
                yield Text(line, "dim")
                line = ""
            line += f"{sample}   "
        yield Text(line, "dim")
        dropped = sum(bool(arrow.dropped) for arrow in arrows)
        yield Text(
            f"{len(arrows)} packets, {dropped} dropped, in {duration(self._timeline.seconds)}",
            "bold",
        )

    def _without_time(self, row: list[str], note: str, style: str) -> Text:
        return Text.assemble(" " * _TIME_WIDTH, ("".join(row), "dim"), (note, style))

    def _empty_row(self, sign: str = "") -> list[str]:
        row = [" "] * (self._lanes_width + 1)
        for column in self._columns.values():
            row[column] = sign or self._ink.lane
        return row

    def _span(self, arrow: Arrow) -> tuple[int, int]:
        """The columns where the arrow begins and ends."""
        middle = self._lanes_width // 2
        begin = self._columns.get(arrow.source)
        end = self._columns.get(arrow.target)
        if begin is None:
            begin = middle if end is None else self._outside(end)
        to_nobody = end is None
        if end is None:
            end = self._outside(begin)
        if arrow.dropped:
            place = drop_place(arrow)
            if place is not None:
                end = self._at_edge(place, begin)
            elif not to_nobody:
                end = (begin + end) // 2
        if begin == end:
            end = begin + 1 if begin < middle else begin - 1
        return begin, max(0, min(end, self._lanes_width))

    def _at_edge(self, place: Place, begin: int) -> int:
        """Where the internet ends and ``place`` begins, for somebody who comes from ``begin``."""
        left, right = self._edges.get(place, (begin, begin))
        if place is Place.A or (place is Place.SERVER and begin > right):
            return right + 2
        return left - 2

    def _outside(self, column: int) -> int:
        """A column of the internet near ``column``."""
        for left, right in self._edges.values():
            if left <= column <= right:
                return right + 2 if column < self._lanes_width // 2 else left - 2
        return self._lanes_width // 2


def _columns(lanes: list[TaggedLane], room: int) -> dict[str, int]:
    """A column for each lane, by its id."""
    gaps = len({tagged.lane.place for tagged in lanes}) - 1
    step = max(3, min(9, (room - gaps * _GROUP_GAP - 3) // max(1, len(lanes) - 1)))
    columns: dict[str, int] = {}
    at = 0
    for before, tagged in zip([None, *lanes], lanes, strict=False):
        if before is not None:
            at += step + _GROUP_GAP * (before.lane.place is not tagged.lane.place)
        columns[tagged.lane.id] = at
    return columns


def _edges(lanes: list[TaggedLane], columns: dict[str, int]) -> dict[Place, tuple[int, int]]:
    """The first and last column of each place."""
    edges = {}
    for place in PLACES:
        inside = [columns[tagged.lane.id] for tagged in lanes if tagged.lane.place is place]
        if inside:
            edges[place] = (min(inside), max(inside))
    return edges


def _time(seconds: float) -> str:
    return f"{seconds * 1000:{_TIME_WIDTH - 2}.1f}"


def _printable(text: str) -> str:
    """Labels may come from a recording; no escape sequence of one reaches the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
