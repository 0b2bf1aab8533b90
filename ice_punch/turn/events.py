"""What a TURN client tells its shell."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address


@dataclass(frozen=True, slots=True)
class Allocated:
    """The allocation stands (RFC 8656 section 7.3), and is kept until ``close``."""

    relayed: tuple[Address, ...]
    """One address, or one of each family."""
    mapped: Address | None
    """Ours as the server sees it; None from a server that does not say."""
    lifetime: float
    """Seconds that the server granted."""
    refused: tuple[int, ...] = ()
    """The families, as in RFC 8656 section 18.6, that the server says it will not give (section
    7.3); of one that it is silent about it may not know that one can ask for two."""


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    """There will be no allocation (RFC 8656 section 7.4). The client is at its end."""

    code: int | None
    """The server's error code. None when there was none: ``reason`` then begins with ``silent``,
    ``unreachable``, ``unauthenticated`` (answers came, and none was protected with our password)
    or ``unusable`` (an answer that makes no sense)."""
    reason: str


@dataclass(frozen=True, slots=True)
class Redirected:
    """ALTERNATE-SERVER over a stream (RFC 8489 section 10): a new client is to try there, over a
    new connection. Over UDP the client goes on by itself."""

    server: Address
    domain: str | None
    """The name that the other server's certificate has to have; None: the same as this one's."""


@dataclass(frozen=True, slots=True)
class RelayedData:
    """A peer's datagram."""

    data: bytes
    peer: Address
    relayed: Address
    """Which of our relayed addresses it came to."""


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The server does not relay to this peer; others are not touched by it."""

    peer: Address
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """The server got an ICMP error for a datagram to this peer (RFC 8656 section 11.6)."""

    peer: Address
    """The port may be 0: unknown."""
    relayed: Address
    type: int
    code: int


@dataclass(frozen=True, slots=True)
class AllocationLost:
    """The allocation is over: not renewed, or its connection ended. The client is at its end."""

    reason: str


TurnEvent = (
    Allocated
    | AllocationFailed
    | Redirected
    | RelayedData
    | PeerRefused
    | PeerUnreachable
    | AllocationLost
)
