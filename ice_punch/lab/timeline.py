"""What happened in a session as a picture's worth of data: lanes, arrows and marks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Place(StrEnum):
    """Which column a lane stands in."""

    A = "a"
    B = "b"
    SERVER = "server"


class Kind(StrEnum):
    CHECK = "check"
    NOMINATION = "nomination"
    """A check with USE-CANDIDATE."""
    ANSWER = "answer"
    ERROR = "error"
    """An error response."""
    QUERY = "query"
    """A Binding request to a server, and its answer."""
    INDICATION = "indication"
    TURN = "turn"
    """Between a client and its TURN server, other than relayed data."""
    DATA = "data"
    STREAM = "stream"
    """A TCP segment."""
    ICMP = "icmp"


@dataclass(frozen=True, slots=True)
class Lane:
    """A candidate's base, or a server."""

    id: str
    place: Place
    label: str
    """``host 10.1.0.2:50000``"""


@dataclass(frozen=True, slots=True)
class Arrow:
    """One packet. Times are seconds after the start of the timeline."""

    sent_at: float
    ended_at: float | None
    """When it arrived or was dropped; ``None``: it still travels, or nobody knows."""
    source: str
    """A lane's id; empty where it came from outside of the picture."""
    target: str
    """A lane's id; empty when it was on its way to nobody."""
    kind: Kind
    label: str
    """One line: what it was, from where to where."""
    dropped: str = ""
    """Why, if it was dropped."""
    dropped_by: str = ""
    """Where."""
    transaction: str = ""
    """Hexadecimal; a resend has the same."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that one side noticed or that happened to its network."""

    at: float
    place: Place
    text: str
    good: bool | None = None
    """True for a success, False for a failure."""


@dataclass(frozen=True, slots=True)
class Timeline:
    title: str
    seconds: float
    """How long it is."""
    lanes: tuple[Lane, ...]
    arrows: tuple[Arrow, ...]
    marks: tuple[Mark, ...]
