"""What a client hears, as small frozen objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from signaling.errors import SignalingError
from signaling.messages import IceServerInfo, Kind


@dataclass(frozen=True, slots=True)
class Peer:
    """Another session in the room. The peer with the larger ``order`` makes the offers."""

    id: str
    order: int
    meta: str = ""
    away: bool = False


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A new session: this is who you are, and who is there at this instant.

    A second one means that the old session is gone, and with it every signal not yet delivered.
    """

    self_id: str
    order: int
    peers: tuple[Peer, ...]
    ice_servers: tuple[IceServerInfo, ...]
    ice_ttl: int | None
    """Seconds for which their credentials are good; :class:`IceServersChanged` brings new ones."""
    observed: tuple[str, int]
    """The transport address the server sees this client at."""
    seats: int
    """How many peers the room holds, this one included."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session goes on over a new connection; nothing was lost. ``peers`` are there now."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class PeerJoined:
    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """``reason``: ``left``, ``closed`` (and the room with it), ``expired``, ``unseated``,
    ``refused``, ``gap`` or ``overflow``."""

    peer_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PeerAway:
    """The peer lost its connection to the server and may come back; signals wait for it."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class PeerBack:
    peer_id: str


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal from a peer, exactly once and in the order it was sent."""

    sender: str
    link: str
    generation: int
    kind: Kind
    data: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The signal ``ref`` was passed on, or waits for a peer that is away.

    Not told of signals whose confirmation was lost with a connection.
    """

    ref: int
    status: Literal["delivered", "queued"]


@dataclass(frozen=True, slots=True)
class IceServersChanged:
    """New ICE servers, before the credentials of those before expire."""

    ice_servers: tuple[IceServerInfo, ...]
    ice_ttl: int | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The signal ``ref`` was not delivered: ``code`` is the protocol's, ``message`` its words."""

    to: str
    ref: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """No connection to the server; the next try is ``retry_in`` seconds away."""

    reason: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server refused this client for good. Nothing comes after this."""

    error: SignalingError


Event = (
    Welcomed
    | Resumed
    | PeerJoined
    | PeerLeft
    | PeerAway
    | PeerBack
    | SignalReceived
    | Acknowledged
    | IceServersChanged
    | Unavailable
    | Disconnected
    | Rejected
)
