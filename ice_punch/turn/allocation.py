"""What a server keeps about an allocation: RFC 8656 sections 6, 9 and 12."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_punch.datagram import Address
from ice_punch.turn.authentication import FiveTuple
from ice_punch.turn.constants import CHANNEL_LIFETIME, PERMISSION_LIFETIME, family_of
from ice_punch.turn.users import Keys


@dataclass(slots=True)
class Channel:
    number: int
    header: bytes
    """The number as it stands in front of data."""
    peer: Address
    relayed: Address
    expires_at: float


@dataclass(slots=True)
class Relayed:
    """One relayed transport address; a dual allocation has two, each with its own end."""

    address: Address
    expires_at: float


@dataclass(slots=True, eq=False)
class Allocation:
    """Times are absolute, in seconds."""

    five_tuple: FiveTuple
    transaction_id: bytes
    """Of the Allocate request, to recognize it when it is repeated (RFC 8656 section 7.2)."""
    username: str
    keys: Keys
    owner: str
    """Whose quota it counts against."""
    relayed: dict[int, Relayed]
    """By family."""
    token: bytes | None = None
    """Of the reservation made along with it."""
    permissions: dict[str, float] = field(default_factory=dict)
    """When the permission for a peer's IP address expires."""
    channels: dict[int, Channel] = field(default_factory=dict)
    channel_of: dict[Address, Channel] = field(default_factory=dict)
    spent: float = 0.0
    """Bytes relayed beyond what the rate allows up to ``spent_at``."""
    spent_at: float = 0.0

    @property
    def expires_at(self) -> float:
        """When the first of its relayed addresses does."""
        return min(relayed.expires_at for relayed in self.relayed.values())

    def lifetime(self, now: float) -> int:
        """Whole seconds left; for a dual allocation, those of the address that lasts longer."""
        latest = max((relayed.expires_at for relayed in self.relayed.values()), default=now)
        return max(0, round(latest - now))

    def permits(self, ip: str, now: float) -> bool:
        return self.permissions.get(ip, now) > now

    def permit(self, ip: str, now: float, limit: int) -> bool:
        """Install or refresh a permission; False when there are too many."""
        permissions = self.permissions
        if ip not in permissions and len(permissions) >= limit:
            for stale in [ip for ip, expires_at in permissions.items() if expires_at <= now]:
                del permissions[stale]
            if len(permissions) >= limit:
                return False
        permissions[ip] = now + PERMISSION_LIFETIME
        return True

    def channel_to(self, peer: Address, now: float) -> Channel | None:
        """The channel bound to a peer."""
        channel = self.channel_of.get(peer)
        return channel if channel is not None and channel.expires_at > now else None

    def is_consistent(self, number: int, peer: Address, now: float) -> bool:
        """Whether neither the number nor the peer is bound to another (section 12.2)."""
        by_number, by_peer = self.channels.get(number), self.channel_of.get(peer)
        return (by_number is None or by_number.expires_at <= now or by_number.peer == peer) and (
            by_peer is None or by_peer.expires_at <= now or by_peer.number == number
        )

    def bind(self, number: int, peer: Address, now: float, limit: int) -> bool:
        """Bind or rebind what ``is_consistent``; False when there are too many channels."""
        expires_at = now + CHANNEL_LIFETIME
        channel = self.channels.get(number)
        if channel is not None and channel.peer == peer:
            channel.expires_at = expires_at
            return True
        for stale in (channel, self.channel_of.get(peer)):
            self._unbind(stale)
        if len(self.channels) >= limit:
            for stale in [c for c in self.channels.values() if c.expires_at <= now]:
                self._unbind(stale)
            if len(self.channels) >= limit:
                return False
        relayed = self.relayed[family_of(peer[0])].address
        bound = Channel(number, number.to_bytes(2, "big"), peer, relayed, expires_at)
        self.channels[number] = self.channel_of[peer] = bound
        return True

    def spend(self, size: int, rate: float, now: float) -> bool:
        """Whether ``size`` more bytes may be relayed at ``rate`` bytes a second."""
        owed = max(0.0, self.spent - (now - self.spent_at) * rate)
        if owed + size > rate:
            return False
        self.spent, self.spent_at = owed + size, now
        return True

    def drop_family(self, family: int) -> Address:
        """The end of one relayed address, with its permissions and channels (section 8.1)."""
        for ip in [ip for ip in self.permissions if family_of(ip) == family]:
            del self.permissions[ip]
        for channel in [c for c in self.channels.values() if family_of(c.peer[0]) == family]:
            self._unbind(channel)
        return self.relayed.pop(family).address

    def _unbind(self, channel: Channel | None) -> None:
        if channel is not None:
            self.channels.pop(channel.number, None)
            self.channel_of.pop(channel.peer, None)
