"""What may stand in the way of a path, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What stands in the way."""

    NO_CANDIDATES = "no-candidates"
    """A side has no address to be reached at."""
    NO_COMMON_FAMILY = "no-common-family"
    """One side has IPv4 only, the other IPv6 only."""
    UDP_BLOCKED = "udp-blocked"
    """Nothing comes over UDP from anywhere, and something does over TCP, or several servers are
    silent."""
    NO_RELAY = "no-relay"
    """Only relays may be used, and there is none."""
    RELAY_REFUSED = "relay-refused"
    """By a TURN server: the user name, the password, or the allocation."""
    SERVER_NAME_UNKNOWN = "server-name-unknown"
    SERVER_UNREACHABLE = "server-unreachable"
    """A STUN or TURN server that did not answer, or can not be reached."""
    NO_PUBLIC_ADDRESS = "no-public-address"
    """A side has private addresses, and no server told it another."""
    SAME_NAT = "same-nat"
    """Both sides are behind one NAT, which does not hairpin (RFC 4787 section 6)."""
    MAPPING_VARIES = "mapping-varies"
    """A NAT gives a new port for every destination (RFC 4787 section 4.1), and the other side does
    not let in what comes from there."""
    FILTERED = "filtered"
    """Checks arrive in one direction only."""
    PEER_SILENT = "peer-silent"
    """Nothing came from the peer, and nothing tells why."""
    NOBODY_THERE = "nobody-there"
    """Nobody answers in signaling."""
    RELAY_ONLY = "relay-only"
    """A side was told to use nothing but relays."""
    DIRECT_LATE = "direct-late"
    """A direct path works, and the relay was ready first."""
    NO_DIRECT_ANSWER = "no-direct-answer"
    """No direct path has answered, and nothing tells why."""


class Side(StrEnum):
    HERE = "here"
    THERE = "there"
    BOTH = "both"

    @property
    def mirrored(self) -> Side:
        """The same, from the other side."""
        return {Side.HERE: Side.THERE, Side.THERE: Side.HERE}.get(self, self)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What stood in the way, for programs and for people. ``str`` is one line."""

    cause: Cause
    side: Side
    """Where it is to be mended."""
    sentence: str
    """What is the matter, without a full stop."""
    advice: str
    """What to do about it."""
    also: tuple[tuple[Cause, Side], ...] = ()
    """What else stood in the way."""

    def __str__(self) -> str:
        return f"{self.sentence}; {self.advice}" if self.advice else self.sentence


@dataclass(frozen=True, slots=True)
class Finding:
    """One obstacle: half a sentence about it, and what helps."""

    cause: Cause
    side: Side
    clause: str
    remedy: str
    host: str = ""
    """Of the server that it is about."""
