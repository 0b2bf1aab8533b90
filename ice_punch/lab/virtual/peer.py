"""A peer of the virtual internet: an agent, its relays, and what a driver does for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import (
    Agent,
    Candidate,
    CandidatePair,
    CandidateType,
    DataReceived,
    Event,
    IceState,
    LocalCandidateFound,
    RestartAdvised,
    SelectedPairChanged,
    StateChanged,
)
from ice_punch.ice.candidate import interleaved_local_preferences
from ice_punch.ice.facts import is_public
from ice_punch.lab.peers import IceMachine
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.nat64 import embed
from ice_punch.lab.virtual.turn_path import StreamTurnPath, TurnPath
from ice_punch.turn import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    RelayedData,
    TurnClient,
)

ICE_PORT = 50000
TURN_PORT = 50100
RELAY_PREFERENCE = {"udp": 32767, "tcp": 16383}
DATA_MARK = b"\xc0lab"
"""No first byte of STUN, of ChannelData or of DTLS (RFC 7983)."""


@dataclass(frozen=True, slots=True)
class StunServer:
    uri: str
    address: Address


@dataclass(frozen=True, slots=True)
class TurnServerAt:
    uri: str
    address: Address
    transport: Literal["udp", "tcp"]
    username: str
    password: str


class VirtualPeer:
    """One end of a session, itself a machine on a host.

    What the agent sends from a relayed address goes through the relay's client; all else leaves
    as it is. ``on_candidate`` is told what has to be signalled, ``on_end`` that no more comes.
    """

    def __init__(
        self,
        host: VirtualHost,
        machine: IceMachine,
        *,
        stun: tuple[StunServer, ...] = (),
        turn: tuple[TurnServerAt, ...] = (),
        nat64: bool = False,
        on_candidate: Callable[[Candidate], None],
        on_end: Callable[[], None],
        on_advice: Callable[[RestartAdvised], None] = lambda _: None,
    ) -> None:
        self.host = host
        self.machine = machine
        self.events: list[tuple[float, Event]] = []
        self.received: set[int] = set()
        """Numbers of the application datagrams that came."""
        self.arrivals: list[float] = []
        """When each of them came for the first time."""
        self.sent = 0
        self.direct_at: float | None = None
        """When the first valid pair without a relay was found."""
        self._on_candidate = on_candidate
        self._on_end = on_end
        self._on_advice = on_advice
        self._gathers = False
        self._port = ICE_PORT
        self._stun = stun
        self._turn = turn
        self._nat64 = nat64
        self._paths: list[TurnPath] = []
        self._by_local: dict[Address, TurnPath] = {}
        self._by_relayed: dict[Address, TurnPath] = {}
        self._remote: list[Address] = []
        self._outbox: list[Transmit] = []
        self.attachment = host.internet.attach(host, self)

    # -- the life of a session ----------------------------------------------------------------

    def gather(self, now: float) -> None:
        """Open a socket per address, ask every server from each (RFC 8445 section 5.1.1)."""
        preferences = interleaved_local_preferences(self.host.addresses)
        bases = [(ip, ICE_PORT) for ip in self.host.addresses]
        for base in bases:
            self.machine.add_host_candidate(base, now, local_preference=preferences[base[0]])
        for server in self._stun:
            for base in bases:
                if (":" in base[0]) == (":" in server.address[0]):
                    self.machine.query_server(server.uri, server.address, base, now)
        for number, relay in enumerate(self._turn):
            ip = next(
                (ip for ip in self.host.addresses if (":" in ip) == (":" in relay.address[0])), None
            )
            if ip is not None:
                self._open_relay(relay, (ip, TURN_PORT + number), now)
        self._gathers = True

    def add_base(self, ip: str, now: float) -> None:
        """There is a new interface."""
        preferences = interleaved_local_preferences(self.host.addresses)
        base = (ip, self._port)
        self.machine.add_host_candidate(base, now, local_preference=preferences[ip])
        for server in self._stun:
            if (":" in ip) == (":" in server.address[0]):
                self.machine.query_server(server.uri, server.address, base, now)

    def open_fresh_sockets(self, now: float) -> None:
        """Another port for every address: the one before is spoiled for the peer."""
        self._port += 1
        for ip in self.host.addresses:
            self.add_base(ip, now)

    def remove_base(self, ip: str, now: float) -> None:
        """An interface is gone."""
        if isinstance(self.machine, Agent):
            for candidate in self.machine.local_candidates:
                if candidate.type is CandidateType.HOST and candidate.host == ip:
                    self.machine.remove_local_candidate(candidate.address, now)

    def _open_relay(self, relay: TurnServerAt, local: Address, now: float) -> None:
        client = TurnClient(
            relay.address,
            local,
            relay.username,
            relay.password,
            self.host.internet.random(f"{self.host.name} turn {relay.uri}"),
            now,
            transport=relay.transport,
        )
        path = (
            StreamTurnPath(self.host, client, relay, self.attachment.flush)
            if relay.transport == "tcp"
            else TurnPath(client, relay)
        )
        self._paths.append(path)
        self._by_local[local] = path

    @property
    def gathering(self) -> bool:
        """Whether a server has yet to answer."""
        return self.machine.queries_busy or any(path.pending for path in self._paths)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """The peer has signalled a candidate: every relay is told to let it in."""
        self._remote.append(candidate.address)
        for path in self._by_relayed.values():
            path.permit(candidate.address, now)
        self.machine.add_remote_candidate(candidate, now)
        if self._nat64 and candidate.ip_version == 4 and is_public(candidate.host):
            # As the connection does, for whom a name server has made up an address of NAT64.
            translated = replace(candidate, host=embed(candidate.host))
            self.machine.add_remote_candidate(translated, now)

    def send_data(self, now: float) -> bool:
        """Send one numbered application datagram; False while there is no path."""
        pair = self.machine.data_pair()
        if pair is None:
            return False
        payload = DATA_MARK + self.sent.to_bytes(4, "big")
        self.sent += 1
        if isinstance(self.machine, Agent):
            self.machine.data_sent(now)
        self._dispatch(Transmit(payload, pair.base, pair.remote.address), now)
        return True

    def close(self, now: float) -> None:
        self.machine.close(now)

    # -- what there is to see -----------------------------------------------------------------

    @property
    def state(self) -> IceState:
        return self.machine.state

    @property
    def valid_at(self) -> float | None:
        """When the first valid pair was found."""
        return self._when(IceState.CONNECTED, IceState.COMPLETED)

    @property
    def selected_at(self) -> float | None:
        return next((t for t, e in self.events if isinstance(e, SelectedPairChanged)), None)

    @property
    def reason(self) -> str:
        """Of the last change of state."""
        changes = [event for _, event in self.events if isinstance(event, StateChanged)]
        return changes[-1].reason if changes else ""

    def _when(self, *states: IceState) -> float | None:
        return next(
            (t for t, e in self.events if isinstance(e, StateChanged) and e.state in states), None
        )

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        path = self._by_local.get(local)
        if path is None:
            self.machine.receive_datagram(data, source, local, now)
        else:
            path.client.receive_datagram(data, source, local, now)
        self._pump(now)

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        error = getattr(self.machine, "receive_icmp_error", None)
        if local not in self._by_local and error is not None:
            error(local, destination, now)
        self._pump(now)

    def handle_timer(self, now: float) -> None:
        for machine in self._machines:
            due = machine.get_timer()
            if due is not None and due <= now:
                machine.handle_timer(now)
        self._pump(now)

    def get_timer(self) -> float | None:
        timers = [machine.get_timer() for machine in self._machines]
        return min((timer for timer in timers if timer is not None), default=None)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        self._pump(now)
        sent, self._outbox = self._outbox, []
        return sent

    # -- inside -------------------------------------------------------------------------------

    @property
    def _machines(self) -> list[IceMachine | TurnClient]:
        return [self.machine, *(path.client for path in self._paths)]

    def _pump(self, now: float) -> None:
        """Until nothing more follows from anything: candidates are told before their checks."""
        while True:
            while (event := self.machine.next_event()) is not None:
                self._on_event(event, now)
            for path in self._paths:
                self._pump_path(path, now)
            transmits = self.machine.datagrams_to_send(now)
            for transmit in transmits:
                self._dispatch(transmit, now)
            if not transmits:
                break
        for path in self._paths:
            self._outbox.extend(path.datagrams_to_send(now))
        if self._gathers and not self.gathering:
            self._gathers = False
            self._on_end()
        if self.direct_at is None and any(not pair.relayed for pair in self._valid_pairs()):
            self.direct_at = now

    def _valid_pairs(self) -> list[CandidatePair]:
        valid: list[CandidatePair] | None = getattr(self.machine, "valid_list", None)
        if valid is not None:
            return valid
        pair = self.machine.data_pair()
        return [] if pair is None else [pair]

    def _dispatch(self, transmit: Transmit, now: float) -> None:
        path = self._by_relayed.get(transmit.local)
        if path is None:
            self._outbox.append(transmit)
        else:
            path.client.send(transmit.data, transmit.destination, now)

    def _on_event(self, event: Event, now: float) -> None:
        if isinstance(event, DataReceived):
            if event.data.startswith(DATA_MARK):
                number = int.from_bytes(event.data[len(DATA_MARK) :], "big")
                if number not in self.received:
                    self.received.add(number)
                    self.arrivals.append(now)
            return
        self.events.append((now, event))
        if isinstance(event, RestartAdvised):
            self._on_advice(event)
        if (
            isinstance(event, LocalCandidateFound)
            and event.candidate.type is not CandidateType.PRFLX
        ):
            self._on_candidate(event.candidate)

    def _pump_path(self, path: TurnPath, now: float) -> None:
        while (event := path.client.next_event()) is not None:
            match event:
                case Allocated():
                    self._allocated(path, event, now)
                case AllocationFailed() | AllocationLost():
                    path.pending = False
                case RelayedData(data=data, peer=peer, relayed=relayed):
                    self.machine.receive_datagram(data, peer, relayed, now)

    def _allocated(self, path: TurnPath, event: Allocated, now: float) -> None:
        path.pending = False
        for relayed in event.relayed:
            self._by_relayed[relayed] = path
            self.machine.add_relayed_candidate(
                relayed,
                now,
                server=path.server.uri,
                mapped=event.mapped,
                local_preference=RELAY_PREFERENCE[path.server.transport],
            )
        for address in self._remote:
            path.permit(address, now)
