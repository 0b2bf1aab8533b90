"""One run of a scenario in the virtual internet."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from ice_punch.ice import CandidatePair, Credentials, IceState, RestartAdvised
from ice_punch.lab.outcome import Outcome, SideOutcome, ends_of, name_of
from ice_punch.lab.peers import make_machine
from ice_punch.lab.scenario import Event, Happening, Relays, Scenario, Side, Verdict
from ice_punch.lab.virtual.nat64 import Dns64
from ice_punch.lab.virtual.node import VirtualNode
from ice_punch.lab.virtual.peer import StunServer, TurnServerAt, VirtualPeer
from ice_punch.lab.virtual.servers import serve_stun, serve_turn
from ice_punch.lab.virtual.signaling import VirtualSignaling, other
from ice_punch.lab.virtual.topology import (
    STUN_IPS,
    STUN_IPS_V6,
    TURN_IP,
    TURN_IP_V6,
    Place,
    Topology,
    build,
)
from ice_punch.sdp import make_pwd, make_ufrag

GATHERING_TIMEOUT = 5.0
"""Seconds, as ``GatheringOptions.timeout``: a silent server holds nothing back for longer."""
PAUSE = 0.5
"""Seconds between the end of gathering and the start."""
AFTERMATH = 1.0
"""Seconds that a settled session still runs, so that the last answers count."""
USER = ("lab", "relay password")
STUN_PORT = 3478
TURN_PORT = 3478
SETTLED = (IceState.COMPLETED, IceState.FAILED)


class VirtualSession:
    """Two peers of a scenario, from gathering to the end.

    ``started_at`` is when the first of them learns of the other, in the internet's own seconds.
    """

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.scenario = scenario
        self.seed = seed
        self.topology: Topology = build(scenario, seed)
        self.internet = self.topology.internet
        serve_stun(self.topology.stun, STUN_PORT)
        self.relay = None
        if scenario.relays is not Relays.NONE:
            self.relay = serve_turn(
                self.topology.turn,
                {USER[0]: USER[1]},
                tcp_port=443 if scenario.relays is Relays.TCP_443 else None,
            )
        self.peers: dict[Side, VirtualPeer] = {}
        self.signaling = VirtualSignaling(
            self.internet, self.peers, scenario.rtt / 2, self._reaches_server
        )
        self.started_at = 0.0
        self.first_packet = 0
        """Index in the trace of the first packet after the start."""
        self._make_peer("a", self.topology.a)
        self._make_peer("b", self.topology.b)

    def _make_peer(self, side: Side, place: Place) -> None:
        source = self.internet.random(f"{side} agent")
        machine = make_machine(
            self.scenario.setup(side).habit,
            controlling=side == "a",
            credentials=Credentials(make_ufrag(source), make_pwd(source)),
            random=source,
        )
        self.peers[side] = VirtualPeer(
            place.host,
            machine,
            stun=self._stun_servers(place),
            turn=self._turn_servers(place),
            nat64=place.nat64,
            on_candidate=partial(self.signaling.candidate, side),
            on_end=partial(self.signaling.end, side),
            on_advice=partial(self._restart, side),
        )

    def _resolve(self, place: Place, ips: tuple[str, ...]) -> tuple[str, ...]:
        """What DNS says of a server with these addresses, where ``place`` is."""
        if place.nat64:
            return Dns64({"server": tuple(ip for ip in ips if ":" not in ip)}).resolve("server")
        own = place.host.addresses
        return tuple(ip for ip in ips if any((":" in ip) == (":" in mine) for mine in own))

    def _stun_servers(self, place: Place) -> tuple[StunServer, ...]:
        servers: list[StunServer] = []
        if self.scenario.stun:
            known = [*zip(STUN_IPS, STUN_IPS_V6, strict=True)][: self.scenario.stun_servers]
            servers += [
                StunServer(f"stun:stun{number}.lab", (ip, STUN_PORT))
                for number, ips in enumerate(known, 1)
                for ip in self._resolve(place, ips)
            ]
        if self.scenario.relays is not Relays.NONE:
            # A TURN server is asked as well, as the gatherer does.
            found = self._resolve(place, (TURN_IP, TURN_IP_V6))
            servers += [StunServer("turn:turn.lab", (ip, TURN_PORT)) for ip in found]
        return tuple(servers)

    def _turn_servers(self, place: Place) -> tuple[TurnServerAt, ...]:
        if self.scenario.relays is Relays.NONE:
            return ()
        ip = self._resolve(place, (TURN_IP, TURN_IP_V6))[0]
        servers = [TurnServerAt("turn:turn.lab", (ip, TURN_PORT), "udp", *USER)]
        if self.scenario.relays is Relays.TCP_443:
            uri = "turn:turn.lab:443?transport=tcp"
            servers.append(TurnServerAt(uri, (ip, 443), "tcp", *USER))
        return tuple(servers)

    # -- the run ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Gather, start, and run until both sides have settled or the time is over."""
        self.gather()
        self.start()
        scenario, internet = self.scenario, self.internet
        end = self.started_at + scenario.seconds
        if scenario.happenings or scenario.datagrams_per_second:
            internet.run(end)
        elif internet.run(end, stop=self._settled):
            internet.run(min(end, internet.now + AFTERMATH))
        return self.outcome()

    def gather(self) -> None:
        internet = self.internet
        for peer in self.peers.values():
            peer.gather(internet.now)
        internet.run(
            GATHERING_TIMEOUT, stop=lambda: not any(p.gathering for p in self.peers.values())
        )
        internet.run(internet.now + PAUSE)

    def start(self) -> None:
        """Note when what is going to happen, from now on."""
        internet, skew = self.internet, self.scenario.skew
        self.started_at = internet.now
        self.first_packet = len(internet.trace)
        internet.at(internet.now + max(0.0, -skew), lambda: self.signaling.meet("a"))
        internet.at(internet.now + max(0.0, skew), lambda: self.signaling.meet("b"))
        for happening in self.scenario.happenings:
            internet.at(internet.now + happening.at, partial(self._happen, happening))
        if self.scenario.datagrams_per_second:
            for side in self.peers:
                self._tick(side)

    def _settled(self) -> bool:
        return all(peer.state in SETTLED for peer in self.peers.values())

    def _tick(self, side: Side) -> None:
        """Send a datagram, again and again until shortly before the end."""
        internet = self.internet
        self.peers[side].send_data(internet.now)
        due = internet.now + 1 / self.scenario.datagrams_per_second
        aftermath = max(AFTERMATH, 2 * self.scenario.path_round_trip)
        if due < self.started_at + self.scenario.seconds - aftermath:
            internet.at(due, lambda: self._tick(side))

    def _happen(self, happening: Happening) -> None:
        place = self.topology.a if happening.side == "a" else self.topology.b
        match happening.event:
            case Event.NAT_REBOOTS:
                for gateway in place.gateways or self.topology.shared:
                    gateway.reboot()
            case Event.NAT_REBINDS:
                for gateway in place.gateways or self.topology.shared:
                    gateway.rebind()
            case Event.LINK_DOWN | Event.LINK_UP:
                self._outermost(place, second=False).up = happening.event is Event.LINK_UP
            case Event.SECOND_LINK_DOWN | Event.SECOND_LINK_UP:
                up = happening.event is Event.SECOND_LINK_UP
                self._outermost(place, second=True).up = up
            case Event.INTERFACE_LOST | Event.INTERFACE_FOUND:
                up = happening.event is Event.INTERFACE_FOUND
                self._outermost(place, second=False).up = up
                self._interface(happening.side, up=up)
            case Event.TURN_SERVER_DIES:
                self.topology.turn.interfaces[0].up = False

    def _interface(self, side: Side, *, up: bool) -> None:
        """The operating system tells that the first interface of ``side`` has come or gone."""
        peer = self.peers[side]
        for ip in peer.host.interfaces[0].addresses:
            if up:
                peer.add_base(ip, self.internet.now)
            else:
                peer.remove_base(ip, self.internet.now)

    def _reaches_server(self, side: Side) -> bool:
        """Whether the signaling server is within reach of ``side``, over any of its links."""
        place = self.topology.a if side == "a" else self.topology.b
        links = [False] if len(place.host.interfaces) == 1 else [False, True]
        return any(self._outermost(place, second=second).up for second in links)

    def _restart(self, side: Side, advice: RestartAdvised) -> None:
        """The agent of ``side`` advises it, in the middle of something."""
        begin = partial(self.signaling.restart, side, fresh_sockets=advice.fresh_sockets)
        self.internet.after(0.0, begin)

    def _outermost(self, place: Place, *, second: bool) -> VirtualNode:
        gateways = place.second_gateways if second else place.gateways
        return gateways[-1] if gateways else place.host.interfaces[1 if second else 0]

    # -- the end ------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        pairs = {side: _final_pair(peer) for side, peer in self.peers.items()}
        if any(pair is None for pair in pairs.values()):
            verdict = Verdict.FAILED
        elif any(pair is not None and pair.relayed for pair in pairs.values()):
            verdict = Verdict.RELAYED
        else:
            verdict = Verdict.DIRECT
        a, b = self._side("a", pairs["a"]), self._side("b", pairs["b"])
        return Outcome(self.scenario, self.seed, verdict, a, b)

    def _side(self, side: Side, pair: CandidatePair | None) -> SideOutcome:
        peer, far = self.peers[side], self.peers[other(side)]
        skew = self.scenario.skew if side == "b" else -self.scenario.skew
        packets = self.internet.trace.packets[self.first_packet :]

        def after_start(at: float | None) -> float | None:
            # Far below any delay, and above what floats make of sums.
            return None if at is None else round(at - self.started_at, 9)

        return SideOutcome(
            started_at=max(0.0, skew),
            valid_at=after_start(peer.valid_at),
            direct_at=after_start(peer.direct_at),
            selected_at=after_start(peer.selected_at),
            relayed=pair is not None and pair.relayed,
            pair=name_of(pair),
            ends=ends_of(pair),
            state=str(peer.state),
            reason=peer.reason,
            packets_sent=sum(1 for packet in packets if packet.sender == side),
            received=len(peer.received),
            lost=peer.sent - len(far.received),
            longest_gap=max(
                (round(later - at, 9) for at, later in pairwise(peer.arrivals)), default=None
            ),
        )


def _final_pair(peer: VirtualPeer) -> CandidatePair | None:
    if peer.state is IceState.FAILED:
        return None
    return peer.machine.selected_pair() or peer.machine.data_pair()


def run(scenario: Scenario, seed: int = 0) -> Outcome:
    """Run a scenario in virtual time: a pure function of its arguments."""
    return VirtualSession(scenario, seed).run()
