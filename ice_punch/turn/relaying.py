"""What passes between a TURN client and its peers, with the permissions and channels for it: RFC
8656 sections 9 to 12."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    CHANNEL_NUMBER,
    DATA,
    ICMP,
    XOR_PEER_ADDRESS,
    Message,
    MessageClass,
    Method,
)
from ice_punch.turn.channel_data import decode_channel_data, encode_channel_data
from ice_punch.turn.constants import MAX_DATA, family_of
from ice_punch.turn.events import PeerRefused, PeerUnreachable, RelayedData, TurnEvent
from ice_punch.turn.exchange import Attribute, Exchange, Outcome, Route
from ice_punch.turn.exchanges import Exchanges
from ice_punch.turn.peers import QUEUE_PER_PEER, RETRY_DELAY, Peer, Peers, Permission, in_batches

PEER_BYTES: Final = 300
"""What the addresses in one CreatePermission may take, so that with the longest usual credentials
it stays below 576 bytes (RFC 8489 section 6.1)."""

_NO_CHANNEL: Final = frozenset((400, 500, 508))
"""Refusals of a channel that say nothing of the peer: it is served without one."""
_MISMATCH: Final = 437


@dataclass(slots=True)
class TurnClientStats:
    sent: int = 0
    """Datagrams on their way to peers."""
    received: int = 0
    """Datagrams of peers."""
    dropped: int = 0
    """Datagrams given up: no permission yet and the queue full, too many peers, a refused peer."""
    refused: int = 0
    """Times that the server would not relay to a peer."""
    malformed: int = 0
    """Messages from the server that make no sense."""
    unwanted: int = 0
    """Data of peers that have no permission, or on channels that are not bound."""
    strangers: int = 0
    """What came from somewhere else than the server."""


class Relaying:
    """The data of one allocation."""

    def __init__(
        self,
        exchanges: Exchanges,
        route: Route,
        random: RandomSource,
        *,
        emit: Callable[[TurnEvent], None],
        on_mismatch: Callable[[float], None],
    ) -> None:
        """``on_mismatch`` is called when the server said 437: it may have lost the allocation."""
        self.stats = TurnClientStats()
        self.outbox: list[Transmit] = []
        self._exchanges = exchanges
        self._route = route
        self._random = random
        self._emit = emit
        self._on_mismatch = on_mismatch
        self._peers = Peers()
        self._relayed: dict[int, Address] = {}
        self._wanted_permissions: list[Permission] = []
        self._wanted_channels: list[Peer] = []

    def start(self, relayed: tuple[Address, ...]) -> None:
        """The allocation stands; what ``permit`` was told before takes effect."""
        self._relayed = {family_of(address[0]): address for address in relayed}

    def stop(self) -> None:
        self._relayed = {}
        self._wanted_permissions.clear()
        self._wanted_channels.clear()
        self.outbox.clear()

    # -- sending ------------------------------------------------------------------------------

    def permit(self, peer: Address, now: float) -> bool:
        """Ask for a permission, unless there is one or it was refused. False: too many peers."""
        known = self._peers.add(peer)
        if known is None:
            return False
        self._want_permission(known.permission, now)
        return True

    def refusal(self, peer: Address, now: float) -> tuple[int, str] | None:
        known = self._peers.by_address.get(peer)
        return None if known is None else known.refusal_at(now)

    def send(self, data: bytes, address: Address, now: float) -> bool:
        peer = self._peers.by_address.get(address)
        if (
            peer is not None
            and peer.bound_until > now
            and peer.permission.granted_until > now
            and len(data) <= MAX_DATA
        ):
            peer.used = True
            self._send_on_channel(peer, data)
            return True
        return self._send_without_channel(data, address, now)

    def _send_without_channel(self, data: bytes, address: Address, now: float) -> bool:
        reachable = family_of(address[0]) in self._relayed and 0 < address[1] <= 0xFFFF
        peer = self._peers.add(address) if reachable and len(data) <= MAX_DATA else None
        if peer is None or peer.refusal_at(now) is not None:
            self.stats.dropped += 1
            return False
        if not peer.binding and peer.bound_until <= now and peer.no_bind_until <= now:
            peer.binding = True
            self._wanted_channels.append(peer)
        if peer.permission.granted_until > now:
            self._send_indication(peer, data)
            return True
        self._want_permission(peer.permission, now)
        if len(peer.waiting) == QUEUE_PER_PEER:
            self.stats.dropped += 1
        peer.waiting.append(data)
        return True

    def _send_on_channel(self, peer: Peer, data: bytes) -> None:
        self._send(encode_channel_data(peer.header, data))

    def _send_indication(self, peer: Peer, data: bytes) -> None:
        """RFC 8656 section 11.1."""
        indication = Message(Method.SEND, MessageClass.INDICATION, self._random.randbytes(12))
        indication.add(XOR_PEER_ADDRESS, peer.address)
        indication.add(DATA, data)
        self._send(indication.to_bytes(fingerprint=False))

    def _send(self, message: bytes) -> None:
        self.outbox.append(Transmit(message, self._route.local, self._route.server))
        self.stats.sent += 1

    def _send_waiting(self, permission: Permission, now: float) -> None:
        for peer in permission.peers:
            while peer.waiting:
                data = peer.waiting.popleft()
                if peer.bound_until > now:
                    peer.used = True
                    self._send_on_channel(peer, data)
                else:
                    self._send_indication(peer, data)

    # -- permissions --------------------------------------------------------------------------

    def _want_permission(self, permission: Permission, now: float) -> None:
        if (
            not permission.asking
            and permission.granted_until <= now
            and permission.refused_until <= now
        ):
            permission.asking = True
            self._wanted_permissions.append(permission)

    def flush(self, now: float) -> bool:
        """Ask for what was wanted since the last time, all permissions together. True if anything
        was."""
        if not self._relayed or not (self._wanted_permissions or self._wanted_channels):
            return False
        wanted, self._wanted_permissions = self._wanted_permissions, []
        foreign = [p for p in wanted if family_of(p.ip) not in self._relayed]
        for permission in foreign:
            permission.asking = False
        wanted = [p for p in wanted if p.asking]
        for batch in in_batches(wanted, PEER_BYTES):
            self._create_permissions(batch, now)
        channels, self._wanted_channels = self._wanted_channels, []
        for peer in channels:
            self._bind_channel(peer, now)
        return True

    def _create_permissions(self, batch: list[Permission], now: float) -> None:
        """RFC 8656 section 10.1."""
        attributes: list[Attribute] = [(XOR_PEER_ADDRESS, p.peers[0].address) for p in batch]
        done = partial(self._permissions_answered, batch)
        self._exchanges.start(Exchange(Method.CREATE_PERMISSION, attributes, done), now)

    def _permissions_answered(
        self, batch: list[Permission], outcome: Outcome, asked_at: float, now: float
    ) -> None:
        if isinstance(outcome, Message):
            for permission in batch:
                permission.asking = False
                permission.grant(asked_at)
                self._send_waiting(permission, now)
        elif outcome.code is not None and len(batch) > 1:
            # Which of them is refused is not told. Asked for one by one, the others do not suffer.
            for permission in batch:
                self._create_permissions([permission], now)
        else:
            for permission in batch:
                permission.asking = False
                if outcome.code is None:
                    permission.renew_at = now if permission.granted_until > now else None
                    self._drop_waiting(permission.peers, now)
                else:
                    permission.refuse(outcome.code, outcome.reason, now)
                    self._refuse(permission.peers, outcome.code, outcome.reason, now)

    def _refuse(self, peers: list[Peer], code: int, reason: str, now: float) -> None:
        for peer in peers:
            if peer.refused_until <= now:  # else the other of two requests was first
                peer.refuse(code, reason, now)
                self.stats.refused += 1
                self._emit(PeerRefused(peer.address, code, reason))
        self._drop_waiting(peers, now)
        if code == _MISMATCH:
            self._on_mismatch(now)

    def _drop_waiting(self, peers: list[Peer], now: float) -> None:
        for peer in peers:
            if peer.permission.granted_until <= now or peer.refusal_at(now) is not None:
                self.stats.dropped += len(peer.waiting)
                peer.waiting.clear()

    # -- channels -----------------------------------------------------------------------------

    def _bind_channel(self, peer: Peer, now: float) -> None:
        """RFC 8656 section 12.1."""
        peer.binding = True
        attributes: list[Attribute] = [
            (CHANNEL_NUMBER, peer.number),
            (XOR_PEER_ADDRESS, peer.address),
        ]
        done = partial(self._channel_answered, peer)
        self._exchanges.start(Exchange(Method.CHANNEL_BIND, attributes, done), now)

    def _channel_answered(self, peer: Peer, outcome: Outcome, asked_at: float, now: float) -> None:
        peer.binding = False
        if isinstance(outcome, Message):
            peer.bind(asked_at)
            peer.permission.grant(asked_at)
            self._send_waiting(peer.permission, now)
            return
        peer.no_bind_until = now + RETRY_DELAY
        if outcome.code is None or outcome.code in _NO_CHANNEL:
            return
        self._refuse([peer], outcome.code, outcome.reason, now)

    # -- receiving ----------------------------------------------------------------------------

    def receive_channel_data(self, message: bytes, now: float) -> None:
        """RFC 8656 section 12.6; a channel counts from the ChannelBind on (section 12)."""
        peer = self._peers.by_number.get(message[0] << 8 | message[1])
        if peer is None or not (peer.binding or self._is_open(peer, now)):
            self.stats.unwanted += 1
            return
        data = decode_channel_data(message)
        if data is None:
            self.stats.malformed += 1
            return
        peer.used = True
        self._deliver(data, peer.address)

    @staticmethod
    def _is_open(peer: Peer, now: float) -> bool:
        permission = peer.permission
        return peer.bound_until > now and (permission.granted_until > now or permission.asking)

    def receive_indication(self, message: Message, now: float) -> None:
        """RFC 8656 sections 11.4 and 11.6."""
        address = message.get(XOR_PEER_ADDRESS)
        if address is None or message.unknown_required:
            self.stats.malformed += 1
            return
        permission = self._peers.permissions.get(address[0])
        if permission is None or not (permission.granted_until > now or permission.asking):
            self.stats.unwanted += 1
            return
        data, icmp = message.get(DATA), message.get(ICMP)
        if data is not None:
            self._deliver(data, address)
        elif icmp is not None and family_of(address[0]) in self._relayed:
            relayed = self._relayed[family_of(address[0])]
            self._emit(PeerUnreachable(address, relayed, icmp.type, icmp.code))
        else:
            self.stats.malformed += 1

    def _deliver(self, data: bytes, peer: Address) -> None:
        relayed = self._relayed.get(family_of(peer[0]))
        if relayed is None:
            self.stats.unwanted += 1
            return
        self.stats.received += 1
        self._emit(RelayedData(data, peer, relayed))

    # -- renewing -----------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        due = self._peers.permissions_due(now)
        for permission in due:
            permission.asking = True
        for batch in in_batches(due, PEER_BYTES):
            self._create_permissions(batch, now)
        for peer in self._peers.channels_due(now):
            self._bind_channel(peer, now)

    def timers(self) -> list[float]:
        return self._peers.timers()
