"""What a picture of a timeline or a matrix needs before it is drawn, in a terminal or on a page.

Who stands where, what is a resend, where nothing happens, how numbers are written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ice_punch.lab.matrix import Cell, Matrix
from ice_punch.lab.scenario import Verdict
from ice_punch.lab.timeline import Arrow, Lane, Place, Timeline

PLACES: Final = (Place.A, Place.SERVER, Place.B)
"""From left to right."""
SILENCE: Final = 0.3
"""Seconds without anything that are worth a word instead of empty space."""
LETTERS: Final = {Verdict.DIRECT: "D", Verdict.RELAYED: "R", Verdict.FAILED: "F"}

EXPLANATIONS: Final[dict[str, str]] = {
    "lost": "The link lost it.",
    "queue full": "More was sent than the link carries; its queue was full.",
    "too big": "It is larger than the link's MTU.",
    "link down": "The link was down.",
    "filtered": "The NAT has this mapping, and nothing went out through it to this sender before"
    " (RFC 4787 section 5).",
    "no mapping": "The NAT has no mapping with this port (RFC 4787 section 4).",
    "no hairpin": "It came from inside for an outside address of the NAT itself, which turns no"
    " packets around (RFC 4787 section 6).",
    "no port": "The NAT has no external port left.",
    "no route": "Nobody in this network has the address: it is private to another one.",
    "no listener": "The host has no socket at this port.",
    "no permission": "The relay was not asked to accept this sender (RFC 8656 section 9).",
    "udp blocked": "The firewall lets no UDP out.",
    "blocked": "The firewall lets nothing of the kind out.",
    "blacklisted": "The NAT has put its sender on a black list.",
    "too many hops": "It went in circles.",
}
"""What a ``DropReason`` means, for people. Other reasons speak for themselves."""


@dataclass(frozen=True, slots=True)
class TaggedLane:
    tag: str
    """``a1`` is the first lane of peer a, ``s1`` the first server."""
    lane: Lane


def tagged_lanes(timeline: Timeline) -> list[TaggedLane]:
    """The lanes from left to right: a's, the servers, b's."""
    tagged = []
    for place in PLACES:
        lanes = [lane for lane in timeline.lanes if lane.place is place]
        tagged += [
            TaggedLane(f"{place.value[0]}{number}", lane) for number, lane in enumerate(lanes, 1)
        ]
    return tagged


def attempts(arrows: Sequence[Arrow]) -> list[int]:
    """For each arrow which attempt it is: 1, or 2 and more for resends of one transaction."""
    seen: Counter[tuple[str, str, str]] = Counter()
    numbers = [1] * len(arrows)
    for index in in_order(arrows):
        arrow = arrows[index]
        if arrow.transaction:
            key = (arrow.transaction, arrow.kind, arrow.source)
            seen[key] += 1
            numbers[index] = seen[key]
    return numbers


def in_order(arrows: Sequence[Arrow]) -> list[int]:
    """Indices of the arrows by the time they were sent."""
    return sorted(range(len(arrows)), key=lambda index: arrows[index].sent_at)


def drop_place(arrow: Arrow) -> Place | None:
    """At whose end of the way a packet was dropped; ``None``: in between.

    Nodes are called after the peer they belong to: ``b``, ``nat-b``, ``a's second NAT``.
    """
    words = set(re.split(r"[^a-z0-9]+", arrow.dropped_by.lower()))
    for place in PLACES:
        if place.value in words:
            return place
    return Place.SERVER if words & {"turn", "stun", "relay"} else None


def silences(timeline: Timeline) -> list[tuple[float, float]]:
    """The stretches of at least ``SILENCE`` in which nothing is sent, arrives or changes."""
    busy = [(arrow.sent_at, arrow.ended_at or arrow.sent_at) for arrow in timeline.arrows]
    busy += [(mark.at, mark.at) for mark in timeline.marks]
    busy.append((timeline.seconds, timeline.seconds))
    found = []
    quiet_since = 0.0
    for begin, end in sorted(busy):
        if begin - quiet_since >= SILENCE:
            found.append((quiet_since, begin))
        quiet_since = max(quiet_since, end)
    return found


def milliseconds(seconds: float | None, width: int = 0) -> str:
    """``120``; where that is wider than ``width``, the same in seconds: ``39.5s``, ``120s``."""
    if seconds is None:
        return "-"
    text = f"{seconds * 1000:.0f}"
    if not width or len(text) <= width:
        return text
    return next(
        (shorter for digits in (2, 1) if len(shorter := f"{seconds:.{digits}f}s") <= width),
        f"{seconds:.0f}s",
    )


def duration(seconds: float) -> str:
    """``480 ms`` or ``4.80 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def ordinal(number: int) -> str:
    """``2nd``."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def times(cell: Cell, width: int = 0) -> str:
    """Median and worst connect time: ``120/170``."""
    return f"{milliseconds(cell.median, width)}/{milliseconds(cell.worst, width)}"


def packets(cell: Cell) -> str:
    """The median of what both sides sent, as a whole number."""
    return str(int(cell.packets + 0.5))


def share(cell: Cell) -> str:
    """How many of the outcomes have the cell's verdict, ``2/20``; empty if all have."""
    count = cell.count(cell.verdict)
    return "" if count == len(cell.outcomes) else f"{count}/{len(cell.outcomes)}"


def totals(matrix: Matrix) -> str:
    """``81 pairings: 63 direct, 18 relayed, 0 failed. 1620 sessions: ...``"""
    cells = Counter(cell.verdict for cell in matrix.cells)
    sessions = Counter(outcome.verdict for cell in matrix.cells for outcome in cell.outcomes)
    return (
        f"{cells.total()} pairings: {_counts(cells)}. "
        f"{sessions.total()} sessions: {_counts(sessions)}."
    )


def _counts(counter: Counter[Verdict]) -> str:
    return ", ".join(f"{counter[verdict]} {verdict}" for verdict in Verdict)


LEGEND: Final = "D direct, R relayed, F failed: the worst of all seeds"
NAMES: Final = (
    "Names are mapping/filtering (RFC 4787): EI endpoint-independent, AD address-dependent, "
    "APD address-and-port-dependent; M mapping, F filtering."
)
