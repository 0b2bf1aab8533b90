"""What :class:`signaling.rooms.Rooms` asks of the shell around it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple

import msgspec

from signaling.messages import IceInfo


class Send(msgspec.Struct, frozen=True, gc=False):
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


class AwaitIce(NamedTuple):
    """Await the ICE servers, then report them with ``on_ice_servers``."""

    connection: int
    servers: Awaitable[IceInfo]


class Note(NamedTuple):
    """A fact for the log: no secret, no payload, no room name, only a room's fingerprint."""

    event: str
    fields: dict[str, str | int]


Effect = Send | Close | Pause | AwaitIce | Note
