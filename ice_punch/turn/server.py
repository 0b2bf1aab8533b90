"""A TURN server, RFC 8656, with long-term credentials and without sockets or clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    ALTERNATE_SERVER,
    DATA,
    ERROR_CODE,
    ICMP,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    XOR_PEER_ADDRESS,
    BindingServer,
    ErrorCode,
    IcmpError,
    Integrity,
    Message,
    MessageClass,
    Method,
    StunParseError,
    looks_like_stun,
    parse_message,
)
from ice_punch.turn.allocation import Allocation
from ice_punch.turn.allocations import Allocations, RelaySockets, ServerEvent
from ice_punch.turn.authentication import (
    NONCE_LIFETIME,
    Authenticated,
    Authenticator,
    FiveTuple,
    error_response,
)
from ice_punch.turn.channel_data import decode_channel_data, encode_channel_data, is_channel_data
from ice_punch.turn.constants import MAX_DATA, family_of
from ice_punch.turn.limits import TurnLimits
from ice_punch.turn.peer_filter import PeerFilter, default_peer_filter
from ice_punch.turn.relay_ports import FIRST_PORT, LAST_PORT, RelayPorts
from ice_punch.turn.requests import ALLOCATION_MISMATCH, Requests
from ice_punch.turn.users import Directory, PasswordSource

TRY_ALTERNATE: Final = ErrorCode(300, "Try Alternate")
UNKNOWN_ATTRIBUTE: Final = ErrorCode(420, "Unknown Attribute")
WRONG_CREDENTIALS: Final = ErrorCode(441, "Wrong Credentials")

MAX_QUEUE: Final = 4096
"""Messages that wait to be fetched; past that new ones are dropped."""

_METHODS: Final = frozenset(
    (Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND)
)


@dataclass(slots=True)
class TurnServerCounters:
    received: int = 0
    """Messages of clients and datagrams of peers."""
    relayed_to_peers: int = 0
    relayed_to_clients: int = 0
    requests: Counter[int] = field(default_factory=Counter)
    """Requests answered, by method."""
    errors: Counter[int] = field(default_factory=Counter)
    """Error responses, by code."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What came to nothing, by reason: ``not-stun``, ``malformed``, ``unexpected``,
    ``unsupported-method``, ``source-port``, ``no-allocation``, ``no-permission``, ``no-channel``,
    ``too-large``, ``rate``, ``overload``."""


class TurnServer:
    """Relays for clients that know a password.

    What a client sends arrives through ``receive_datagram`` with the listening address as ``local``
    and the ``transport`` it came over, a stream's messages whole (``StreamFraming``); what a peer
    sends, with a relayed address as ``local``. ``datagrams_to_send`` holds what leaves over UDP,
    from listening and relayed addresses alike. ``streams_to_send`` holds what is for clients over
    TCP or TLS: each a message for the connection between its ``local`` and ``destination``, to be
    framed.

    A relayed address costs no more than an entry here. A shell over real sockets is told through
    ``RelaySockets`` when to bind one and when to let it go.
    """

    def __init__(
        self,
        relay_ips: Iterable[str],
        users: Mapping[str, str],
        random: RandomSource,
        *,
        realm: str = "ice-punch",
        password_source: PasswordSource | None = None,
        limits: TurnLimits | None = None,
        peer_filter: PeerFilter = default_peer_filter,
        nonce_lifetime: float = NONCE_LIFETIME,
        port_range: tuple[int, int] = (FIRST_PORT, LAST_PORT),
        sockets: RelaySockets | None = None,
        binding_server: BindingServer | None = None,
        alternate_servers: Iterable[Address] = (),
        software: str | None = "ice-punch",
    ) -> None:
        """``relay_ips`` has one address of each family to relay at. ``users`` maps names to
        passwords; ``password_source`` is asked for other names, as ``SharedSecret`` answers.
        ``binding_server`` answers Binding requests over UDP (with RFC 5780, if it does that).
        Where there are ``alternate_servers``, every Allocate request is sent on to them.

        Raises ValueError for users, a realm, ports or relay addresses that can not be.
        """
        self.limits = limits or TurnLimits()
        self.counters = TurnServerCounters()
        directory = Directory(users, realm, password_source)
        self._authenticator = Authenticator(directory, random, nonce_lifetime)
        ports = RelayPorts(random, *port_range)
        self._allocations = Allocations(relay_ips, random, ports, self.limits, sockets)
        self._requests = Requests(
            self._allocations, self.limits, peer_filter, owner=directory.owner
        )
        self._random = random
        self._binding = binding_server or BindingServer(software=software)
        self._stream_binding = BindingServer(software=software)
        self._alternates = tuple(alternate_servers)
        self._software = software
        self._datagrams: list[Transmit] = []
        self._streams: list[Transmit] = []

    # -- what there is to see -----------------------------------------------------------------

    @property
    def allocations(self) -> int:
        """How many there are."""
        return len(self._allocations)

    def is_relayed(self, address: Address) -> bool:
        """Whether a relayed address is ours and allocated."""
        return self._allocations.is_relayed(address)

    def knows(self, source: Address, local: Address, now: float, *, transport: str = "udp") -> bool:
        """Whether a client has an allocation; others are strangers, whom a shell may limit."""
        return self._allocations.get(FiveTuple(source, local, transport), now) is not None

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(
        self, data: bytes, source: Address, local: Address, now: float, *, transport: str = "udp"
    ) -> None:
        """Whatever it holds, nothing is raised. ``transport`` is ``udp``, ``tcp`` or ``tls``."""
        counters = self.counters
        counters.received += 1
        if transport == "udp" and self._allocations.is_relayed(local):
            reason = self._relay_to_client(data, source, local, now)
        elif is_channel_data(data):
            reason = self._channel_data(data, FiveTuple(source, local, transport), now)
        else:
            reason = self._stun(data, FiveTuple(source, local, transport), now)
        if reason is not None:
            counters.dropped[reason] += 1

    def receive_icmp_error(
        self, relayed: Address, peer: Address, error: IcmpError, now: float
    ) -> None:
        """A datagram relayed to ``peer`` can not arrive: RFC 8656 section 11.5."""
        allocation = self._allocations.at_relayed(relayed, now)
        if allocation is None or not allocation.permits(peer[0], now):
            self.counters.dropped["no-permission"] += 1
            return
        indication = self._indication(peer)
        indication.add(ICMP, error)
        self._send(indication.to_bytes(fingerprint=False), allocation.five_tuple)

    def client_gone(
        self, source: Address, local: Address, now: float, *, transport: str = "tcp"
    ) -> None:
        """A client's connection ended, and its allocation with it."""
        allocation = self._allocations.get(FiveTuple(source, local, transport), now)
        if allocation is not None:
            self._allocations.remove(allocation, "its client's connection ended")

    def handle_timer(self, now: float) -> None:
        self._allocations.expire(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outgoing, self._datagrams = self._datagrams, []
        return outgoing

    def streams_to_send(self, now: float) -> list[Transmit]:
        """Messages for the connections of clients, each from ``local`` to ``destination``."""
        outgoing, self._streams = self._streams, []
        return outgoing

    def next_event(self) -> ServerEvent | None:
        events = self._allocations.events
        return events.popleft() if events else None

    def get_timer(self) -> float | None:
        return self._allocations.get_timer()

    # -- requests -----------------------------------------------------------------------------

    def _stun(self, data: bytes, five_tuple: FiveTuple, now: float) -> str | None:
        """Why the message is dropped, if it is."""
        if not looks_like_stun(data):
            return "not-stun"
        try:
            message = parse_message(data)
        except StunParseError:
            return "malformed"
        if message.message_class is MessageClass.INDICATION:
            if message.method == Method.SEND:
                return self._send_indication(message, five_tuple, now)
            return None if message.method == Method.BINDING else "unexpected"
        if message.message_class is not MessageClass.REQUEST:
            return "unexpected"
        if five_tuple.client[1] == 0:
            return "source-port"
        if message.method == Method.BINDING:
            return self._bind(data, five_tuple, now)
        if message.method not in _METHODS:
            return "unsupported-method"
        return self._respond(message, five_tuple, now)

    def _bind(self, data: bytes, five_tuple: FiveTuple, now: float) -> str | None:
        """RFC 8489 section 12."""
        udp = five_tuple.transport == "udp"
        server = self._binding if udp else self._stream_binding
        server.receive_datagram(data, five_tuple.client, five_tuple.server, now)
        queue = self._datagrams if udp else self._streams
        answers = server.datagrams_to_send(now)
        if len(queue) >= MAX_QUEUE:
            return "overload"
        queue += answers
        return None

    def _respond(self, request: Message, five_tuple: FiveTuple, now: float) -> str | None:
        allocation = self._allocations.get(five_tuple, now)
        holder = None if allocation is None else (allocation.username, allocation.keys)
        user = self._authenticator.check(request, five_tuple, now, holder=holder)
        key: bytes | None = None
        algorithms: tuple[Integrity, ...] = ()
        if isinstance(user, Message):
            response = user
        else:
            answer = self._answer(request, allocation, five_tuple, user, now)
            response = self._message(request, answer, five_tuple)
            key, algorithms = user.key, (user.integrity,)
        self.counters.requests[request.method] += 1
        error = response.get(ERROR_CODE)
        if error is not None:
            self.counters.errors[error.code] += 1
        if self._software is not None and request.method in (Method.ALLOCATE, Method.REFRESH):
            response.add(SOFTWARE, self._software)
        encoded = response.to_bytes(
            key=key, algorithms=algorithms, fingerprint=request.has_fingerprint
        )
        return self._send(encoded, five_tuple)

    def _answer(
        self,
        request: Message,
        allocation: Allocation | None,
        five_tuple: FiveTuple,
        user: Authenticated,
        now: float,
    ) -> Message | ErrorCode:
        """RFC 8656 section 5."""
        if request.unknown_required:
            return UNKNOWN_ATTRIBUTE
        if request.method == Method.ALLOCATE:
            if self._alternates:
                return TRY_ALTERNATE
            return self._requests.allocate(request, five_tuple, user, now)
        if allocation is None:
            return ALLOCATION_MISMATCH
        if allocation.username != user.username:
            return WRONG_CREDENTIALS
        if request.method == Method.REFRESH:
            return self._requests.refresh(request, allocation, now)
        if request.method == Method.CREATE_PERMISSION:
            return self._requests.create_permission(request, allocation, now)
        return self._requests.channel_bind(request, allocation, now)

    def _message(
        self, request: Message, answer: Message | ErrorCode, five_tuple: FiveTuple
    ) -> Message:
        """The response: an error with the attributes that belong to its code."""
        if isinstance(answer, Message):
            return answer
        response = error_response(request, answer)
        if answer is UNKNOWN_ATTRIBUTE:
            response.add(UNKNOWN_ATTRIBUTES, request.unknown_required)
        elif answer is TRY_ALTERNATE:
            # RFC 8489 section 10: the first is of the request's own family.
            family = family_of(five_tuple.client[0])
            for server in sorted(self._alternates, key=lambda a: family_of(a[0]) != family):
                response.add(ALTERNATE_SERVER, server)
        return response

    # -- data ---------------------------------------------------------------------------------

    def _channel_data(self, message: bytes, five_tuple: FiveTuple, now: float) -> str | None:
        """RFC 8656 section 12.6."""
        allocation = self._allocations.get(five_tuple, now)
        if allocation is None:
            return "no-allocation"
        channel = allocation.channels.get(message[0] << 8 | message[1])
        if channel is None or channel.expires_at <= now:
            return "no-channel"
        if not allocation.permits(channel.peer[0], now):
            return "no-permission"
        data = decode_channel_data(message)
        if data is None:
            return "malformed"
        return self._relay_to_peer(allocation, data, channel.relayed, channel.peer, now)

    def _send_indication(self, message: Message, five_tuple: FiveTuple, now: float) -> str | None:
        """RFC 8656 section 11.2."""
        allocation = self._allocations.get(five_tuple, now)
        if allocation is None:
            return "no-allocation"
        peer, data = message.get(XOR_PEER_ADDRESS), message.get(DATA)
        if peer is None or data is None or message.unknown_required or peer[1] == 0:
            return "malformed"
        relayed = allocation.relayed.get(family_of(peer[0]))
        if relayed is None or not allocation.permits(peer[0], now):
            return "no-permission"
        return self._relay_to_peer(allocation, data, relayed.address, peer, now)

    def _relay_to_peer(
        self, allocation: Allocation, data: bytes, relayed: Address, peer: Address, now: float
    ) -> str | None:
        if not self._affords(allocation, data, now):
            return "rate"
        if len(self._datagrams) >= MAX_QUEUE:
            return "overload"
        self._datagrams.append(Transmit(data, relayed, peer))
        self.counters.relayed_to_peers += 1
        return None

    def _relay_to_client(
        self, data: bytes, peer: Address, relayed: Address, now: float
    ) -> str | None:
        """RFC 8656 sections 11.3 and 12.7."""
        allocation = self._allocations.at_relayed(relayed, now)
        if allocation is None:
            return "no-allocation"
        if not allocation.permits(peer[0], now):
            return "no-permission"
        if len(data) > MAX_DATA:
            return "too-large"
        if not self._affords(allocation, data, now):
            return "rate"
        channel = allocation.channel_to(peer, now)
        if channel is not None:
            message = encode_channel_data(channel.header, data)
        else:
            indication = self._indication(peer)
            indication.add(DATA, data)
            message = indication.to_bytes(fingerprint=False)
        reason = self._send(message, allocation.five_tuple)
        self.counters.relayed_to_clients += reason is None
        return reason

    def _affords(self, allocation: Allocation, data: bytes, now: float) -> bool:
        rate = self.limits.bytes_per_second
        return rate is None or allocation.spend(len(data), rate, now)

    def _indication(self, peer: Address) -> Message:
        indication = Message(Method.DATA, MessageClass.INDICATION, self._random.randbytes(12))
        indication.add(XOR_PEER_ADDRESS, peer)
        return indication

    def _send(self, message: bytes, five_tuple: FiveTuple) -> str | None:
        client, local, transport = five_tuple
        queue = self._datagrams if transport == "udp" else self._streams
        if len(queue) >= MAX_QUEUE:
            return "overload"
        queue.append(Transmit(message, local, client))
        return None
