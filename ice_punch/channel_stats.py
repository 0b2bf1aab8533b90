"""What a channel counts."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class PathFigures:
    """What is known of the path that data takes. Times in seconds."""

    rtt: float | None = None
    """The latest measured round trip."""
    rtt_smoothed: float | None = None
    """RFC 6298 section 2."""
    rtt_min: float | None = None
    loss: float | None = None
    """The share of checks on the path that go unanswered, 0 to 1, smoothed: lost on the way there
    or back. While datagrams are sent there are some every second; otherwise it follows slowly."""
    path_mtu: int | None = None
    """Bytes of the largest IP packet that the path carries, as far as is known (RFC 8899)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats(PathFigures):
    """Counted since the channel opened."""

    datagrams_sent: int = 0
    """Handed to the kernel, or to a relay's connection."""
    datagrams_received: int = 0
    bytes_sent: int = 0
    """Of the application, like ``bytes_received``; with those that this host then lost."""
    bytes_received: int = 0
    queued: int = 0
    """Taken, and yet to be sent."""
    dropped_expired: int = 0
    """Not sent within their ``expires_in``."""
    dropped_queue_full: int = 0
    """Not sent because too many waited: the newest, or with ``newest_wins`` the oldest."""
    dropped_by_host: int = 0
    """Not sent: this host's kernel had no room, or a packet filter."""
    dropped_too_large: int = 0
    """Not sent: taken when the path was believed to carry them."""
    dropped_unroutable: int = 0
    """Not sent: no route, or the path was gone."""
    dropped_oldest: int = 0
    """Received, and dropped because nobody read them in time."""
    dropped_strangers: int = 0
    """Datagrams from addresses that the peer has not proven to own."""
    dropped_malformed: int = 0
    """STUN or DTLS that could not be parsed or authenticated, and datagrams that are neither."""

    @property
    def dropped(self) -> dict[str, int]:
        """How many were dropped by each reason: ``expired``, ``queue_full`` and so on."""
        return {
            field.name.removeprefix("dropped_"): getattr(self, field.name)
            for field in fields(self)
            if field.name.startswith("dropped_")
        }
