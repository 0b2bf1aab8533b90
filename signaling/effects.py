"""What :class:`signaling.rooms.Rooms` asks of the shell around it."""

from __future__ import annotations

from typing import NamedTuple


class Send(NamedTuple):
    """Send a text frame. Frames of one connection leave in the order given.

    A ``replay`` comes all at once and is no sign of a slow reader.
    """

    connection: int
    text: str
    replay: bool = False


class Close(NamedTuple):
    """Close after what was sent. The rooms have forgotten the connection already."""

    connection: int
    code: int
    reason: str


class Pause(NamedTuple):
    """Read nothing from the connection for this many seconds."""

    connection: int
    seconds: float


class Note(NamedTuple):
    """A fact for the log: no secret, no payload, no room name, only a room's fingerprint."""

    event: str
    fields: dict[str, str | int]


Effect = Send | Close | Pause | Note
