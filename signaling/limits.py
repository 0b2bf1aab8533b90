"""Every limit of the signaling server, as a number, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass

ROOM_MIN_LENGTH = 22
"""Characters of base64url that hold 128 bits: a room's name is the right to enter it."""
ROOM_MAX_LENGTH = 128
LINK_MAX_LENGTH = 64
TOKEN_MAX_LENGTH = 4096
SERVER_FRAME = 2 * 1024 * 1024
"""Bytes a client must be ready to read in one frame: a ``welcome`` lists every peer of the room."""
GENERATION_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server grants. Sizes in bytes of UTF-8, times in seconds."""

    frame: int = 64 * 1024
    """Largest WebSocket message from a client."""
    data: int = 32 * 1024
    """Largest payload of one signal."""
    meta: int = 1024
    """Largest note a peer leaves at joining."""
    candidates: int = 128
    """``cand`` signals per link, generation and addressee."""

    peers_per_room: int = 16
    """Seats of a room; its first peer may ask for fewer."""
    rooms: int = 10_000
    closed_rooms: int = 10_000
    """Rooms that were closed for good and are remembered; past that the oldest are forgotten."""
    closed_for: float = 3600.0
    """How long a room that was closed for good is remembered where rooms are shared."""
    sessions: int = 20_000
    sessions_per_address: int = 400
    """Sessions, present or away, opened from one IPv4 address or IPv6 /64."""
    connections: int = 20_000
    connections_per_address: int = 200
    """Open connections from one IPv4 address or IPv6 /64."""

    accept_rate: float = 20.0
    """Connections per second that one address may open in the long run."""
    accept_burst: int = 200

    message_rate: float = 20.0
    """Messages per second that one session may send in the long run."""
    message_burst: int = 60
    byte_rate: float = 64 * 1024.0
    byte_burst: int = 256 * 1024
    faults: int = 10
    """Frames that can not be understood before the connection is closed."""

    handshake_timeout: float = 5.0
    """For the TLS and HTTP handshakes."""
    hello_timeout: float = 5.0
    """From the open WebSocket to a complete ``hello``."""
    ping: float = 25.0
    """How often a client is asked to send ``ping``."""
    idle_timeout: float = 75.0
    """Silence after which a connection is taken for dead: three pings."""

    session_lifetime: float = 12 * 3600.0
    """How long a session lasts at most: whoever was let in is judged again after that."""
    resume_window: float = 30.0
    """How long a session outlives its connection."""
    resume_messages: int = 64
    """Messages kept for replay, per session."""
    resume_bytes: int = 256 * 1024
    seat_grace: float = 5.0
    """How long the seat of an absent peer is safe from a newcomer to a full room."""

    ice_interval: float = 10.0
    """Between two requests of a session for fresh ICE servers."""

    out_queue: int = 256 * 1024
    """Bytes waiting for a slow reader before its connection is closed."""


_ROOM_NAME = re.compile(rf"[A-Za-z0-9_-]{{{ROOM_MIN_LENGTH},{ROOM_MAX_LENGTH}}}", re.ASCII)


def is_room_name(name: str) -> bool:
    """Whether ``name`` is base64url and long enough to be a capability (128 bits)."""
    return _ROOM_NAME.fullmatch(name) is not None
