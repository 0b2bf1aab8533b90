"""Timelines as small JSON: a table of strings, and a row of integers for each packet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from ice_punch.lab.picture import (
    EXPLANATIONS,
    PLACES,
    attempts,
    drop_place,
    in_order,
    silences,
    tagged_lanes,
)
from ice_punch.lab.timeline import Kind, Timeline

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
_KINDS: Final = list(Kind)
_NOBODY: Final = -1
_UNKNOWN: Final = -1


def encode_timelines(timelines: Sequence[Timeline | None]) -> dict[str, Json]:
    """What the page's script reads. Times are microseconds; the order of the fields of each row
    is the one in ``scale.js``."""
    strings = _Strings()
    encoded: list[Json] = [
        None if timeline is None else _timeline(timeline, strings) for timeline in timelines
    ]
    return {
        "kinds": [kind.value for kind in _KINDS],
        "explanations": EXPLANATIONS,
        "timelines": encoded,
        "strings": strings.table,
    }


class _Strings:
    """Each text once."""

    def __init__(self) -> None:
        self.table: list[str] = []
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self.table))
        if number == len(self.table):
            self.table.append(text)
        return number


def _timeline(timeline: Timeline, strings: _Strings) -> Json:
    lanes = tagged_lanes(timeline)
    numbers = {tagged.lane.id: number for number, tagged in enumerate(lanes)}
    tries = attempts(timeline.arrows)
    rows: list[Json] = []
    for index in in_order(timeline.arrows):
        arrow = timeline.arrows[index]
        place = drop_place(arrow)
        sent = _micro(arrow.sent_at)
        took = _UNKNOWN if arrow.ended_at is None else _micro(arrow.ended_at) - sent
        rows.append(
            [
                sent,
                took,
                numbers.get(arrow.source, _NOBODY),
                numbers.get(arrow.target, _NOBODY),
                _KINDS.index(arrow.kind),
                strings(arrow.label),
                strings(arrow.dropped),
                strings(arrow.dropped_by),
                _UNKNOWN if place is None else PLACES.index(place),
                strings(arrow.transaction),
                tries[index],
            ]
        )
    marks = sorted(timeline.marks, key=lambda mark: mark.at)
    return {
        "title": timeline.title,
        "length": _micro(timeline.seconds),
        "lanes": [[lane.tag, PLACES.index(lane.lane.place), lane.lane.label] for lane in lanes],
        "arrows": rows,
        "marks": [[_micro(m.at), PLACES.index(m.place), m.text, m.good] for m in marks],
        "silences": [[_micro(begin), _micro(end)] for begin, end in silences(timeline)],
    }


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
