"""The peers of a TURN client: their permissions (RFC 8656 section 9) and channels (section 12)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from ice_punch.datagram import Address
from ice_punch.turn.constants import (
    CHANNEL_LIFETIME,
    FIRST_CHANNEL,
    PERMISSION_LIFETIME,
    family_of,
)

MAX_PEERS: Final = 256
QUEUE_PER_PEER: Final = 32
"""Datagrams held until a peer's permission is there: about one round trip."""
REFRESH_AHEAD: Final = 60.0
"""Seconds before its end that a permission or a channel is renewed: a whole transaction fits."""
RETRY_DELAY: Final = 60.0
"""Seconds before the server is asked again for what it has refused."""
ALIGNMENT: Final = 60.0
"""Permissions that are due within so many seconds are renewed together."""


@dataclass(slots=True, eq=False)
class Permission:
    """For an IP address. Times in seconds, counted from when the request left: the server's own
    count begins later."""

    ip: str
    granted_until: float = float("-inf")
    renew_at: float | None = None
    asking: bool = False
    """A CreatePermission for it is out, or about to leave."""
    refusal: tuple[int, str] | None = None
    """Code and reason, where the server's last word was no."""
    refused_until: float = float("-inf")
    """It is not asked again before."""
    peers: list[Peer] = field(default_factory=list)

    def grant(self, asked_at: float) -> None:
        self.granted_until = max(self.granted_until, asked_at + PERMISSION_LIFETIME)
        self.renew_at = self.granted_until - REFRESH_AHEAD

    def refuse(self, code: int, reason: str, now: float) -> None:
        self.granted_until = float("-inf")
        self.renew_at = None
        self.refusal = (code, reason)
        self.refused_until = now + RETRY_DELAY


@dataclass(slots=True, eq=False)
class Peer:
    """A transport address and its channel. The channel's number is never another peer's, so no
    wait is needed before it is bound again (section 12)."""

    address: Address
    number: int
    header: bytes
    permission: Permission
    bound_until: float = float("-inf")
    binding: bool = False
    """A ChannelBind for it is out, or about to leave."""
    rebind_at: float | None = None
    no_bind_until: float = float("-inf")
    """The server has no channel to give, or was silent."""
    used: bool = False
    """Whether data went through the channel since it was bound last; else it may lapse."""
    refusal: tuple[int, str] | None = None
    """Of this very address, beside that of the permission."""
    refused_until: float = float("-inf")
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=QUEUE_PER_PEER))

    def bind(self, asked_at: float) -> None:
        self.bound_until = asked_at + CHANNEL_LIFETIME
        self.rebind_at = self.bound_until - REFRESH_AHEAD
        self.used = False

    def refuse(self, code: int, reason: str, now: float) -> None:
        self.bound_until = float("-inf")
        self.rebind_at = None
        self.refusal = (code, reason)
        self.refused_until = now + RETRY_DELAY

    def refusal_at(self, now: float) -> tuple[int, str] | None:
        """Code and reason, while the server is not asked again."""
        if self.refused_until > now:
            return self.refusal
        return self.permission.refusal if self.permission.refused_until > now else None


class Peers:
    def __init__(self) -> None:
        self.by_address: dict[Address, Peer] = {}
        self.by_number: dict[int, Peer] = {}
        self.permissions: dict[str, Permission] = {}

    def add(self, address: Address) -> Peer | None:
        """The peer at ``address``; None when there are too many. Raises ValueError for what is no
        IP address."""
        known = self.by_address.get(address)
        if known is not None or len(self.by_address) >= MAX_PEERS:
            return known
        ip_address(address[0])
        number = FIRST_CHANNEL + len(self.by_address)
        permission = self.permissions.get(address[0])
        if permission is None:
            permission = self.permissions[address[0]] = Permission(address[0])
        peer = Peer(address, number, number.to_bytes(2, "big"), permission)
        permission.peers.append(peer)
        self.by_address[address] = self.by_number[number] = peer
        return peer

    def permissions_due(self, now: float) -> list[Permission]:
        """Those to be renewed now, with those that soon will be; empty if none is pressing."""
        kept = [
            (p, p.renew_at)
            for p in self.permissions.values()
            if p.renew_at is not None and not p.asking
        ]
        if not any(renew_at <= now for _, renew_at in kept):
            return []
        due = [p for p, renew_at in kept if renew_at <= now + ALIGNMENT]
        for permission in due:
            permission.renew_at = None
        return due

    def channels_due(self, now: float) -> list[Peer]:
        """Those to be bound again now. One that was not used is left to lapse."""
        due = [
            peer
            for peer in self.by_address.values()
            if peer.rebind_at is not None and peer.rebind_at <= now and not peer.binding
        ]
        for peer in due:
            peer.rebind_at = None
        return [peer for peer in due if peer.used]

    def timers(self) -> list[float]:
        times = [p.renew_at for p in self.permissions.values() if p.renew_at is not None]
        times += [p.rebind_at for p in self.by_address.values() if p.rebind_at is not None]
        return times


def in_batches(permissions: list[Permission], size: int) -> list[list[Permission]]:
    """Batches whose XOR-PEER-ADDRESS attributes take at most ``size`` bytes."""
    batches: list[list[Permission]] = []
    room = 0
    for permission in permissions:
        needed = 24 if family_of(permission.ip) == 2 else 12
        if needed > room or not batches:
            batches.append([])
            room = size
        batches[-1].append(permission)
        room -= needed
    return batches
