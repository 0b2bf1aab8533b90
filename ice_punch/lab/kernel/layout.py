"""What is where in the kernel internet of a scenario, as plain data. The addresses are those of
the virtual internet, as far as they can be."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass, replace

from ice_punch.lab.behaviour import EarlyInbound, Hairpinning, NatBehaviour
from ice_punch.lab.kernel.firewall_rules import firewall_rules
from ice_punch.lab.kernel.nat_rules import HAIRPIN_IN, HAIRPIN_OUT, LAN, WAN, nat_rules
from ice_punch.lab.kernel.segments import (
    Internet,
    LocalNetwork,
    Namespace,
    Plug,
    Segment,
    Wire,
    longer,
    neighbour,
)
from ice_punch.lab.links import PERFECT, AccessLink
from ice_punch.lab.scenario import Ip, PeerSetup, Scenario

STUN_IPS = ("203.0.113.10", "203.0.113.11")
STUN_IPS_V6 = ("2001:db8:f::10", "2001:db8:f::11")
TURN_IP = "203.0.113.20"
TURN_IP_V6 = "2001:db8:f::20"
PUBLIC = "public"
SECOND_TABLE = 101
HAIRPIN_TABLE = 102
HAIRPIN_MACS = ("02:00:00:00:00:f0", "02:00:00:00:00:f1")


@dataclass(frozen=True, slots=True)
class Router:
    """A namespace between two networks."""

    role: str
    nat: NatBehaviour | None
    """``None``: a firewall for IPv6."""
    external: tuple[str, ...]
    seed: int

    @property
    def rules(self) -> str:
        """The NAT's nftables rules."""
        assert self.nat is not None
        return nat_rules(self.nat, self.external, seed=self.seed)

    @property
    def hairpins(self) -> bool:
        return self.nat is not None and self.nat.hairpinning is not Hairpinning.NONE

    @property
    def udp_timeout(self) -> int:
        """Seconds for nf_conntrack_udp_timeout. Where mappings end, the sets say when: conntrack
        must not hold on for longer."""
        if self.nat is None or self.nat.early_inbound is EarlyInbound.CLAIM:
            return 180 if self.nat is None or self.nat.lifetime is None else int(self.nat.lifetime)
        return 3600 if self.nat.lifetime is None else 1


@dataclass(slots=True)
class Seat:
    """One peer and what it is behind."""

    node: Namespace
    addresses: tuple[str, ...] = ()
    """What it sees as its own."""
    routers: tuple[Router, ...] = ()
    """From the inside out."""
    second_routers: tuple[Router, ...] = ()
    wires: tuple[Wire, ...] = ()
    """The access link, and the second one."""


class Layout:
    """Namespaces, and the wires between them."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.namespaces: dict[str, Namespace] = {}
        self.wires: list[Wire] = []
        self.routers: dict[str, Router] = {}
        self.shared: tuple[Router, ...] = ()
        setups = (scenario.a, scenario.b)
        self.ipv6 = any(setup.ip is not Ip.V4 for setup in setups)
        self._seed = seed
        self._macs = (f"02:00:00:00:01:{n:02x}" for n in itertools.count(1))
        self._carriers = itertools.count(1)
        internet = Internet(self._namespace(PUBLIC, forwards=True), self._macs)
        internet.settle((*STUN_IPS, TURN_IP), (*STUN_IPS_V6, TURN_IP_V6) if self.ipv6 else ())
        outside: Segment = internet
        way = scenario.rtt / 4
        if scenario.shared_nats:
            carriers = any(setup.nats for setup in setups)
            chain = _Chain("shared", scenario.shared_nats, "198.51.100.64", longer(PERFECT, way))
            hosts = sum(1 if setup.second_link is None else 2 for setup in setups)
            self.shared, outside, _ = self._chain(
                chain, internet, "100.64.0" if carriers else "10.0.0", hosts
            )
            way = 0.0
        self.seats = tuple(
            self._seat(index, setup, outside, way) for index, setup in enumerate(setups)
        )

    def _namespace(self, role: str, *, forwards: bool = False) -> Namespace:
        made = self.namespaces[role] = Namespace(role, forwards, ["link set lo up"])
        return made

    # -- peers --------------------------------------------------------------------------------

    def _seat(self, index: int, setup: PeerSetup, outside: Segment, way: float) -> Seat:
        letter = "ab"[index]
        seat = Seat(self._namespace(f"peer-{letter}"))
        seat.routers = self._home(seat, letter, index + 1, setup, outside, way)
        if setup.second_link is not None:
            second = replace(setup, link=setup.second_link)
            seat.second_routers = self._home(seat, letter, index + 11, second, outside, way)
        return seat

    def _home(
        self, seat: Seat, letter: str, net: int, setup: PeerSetup, outside: Segment, way: float
    ) -> tuple[Router, ...]:
        """Plug a peer in, behind the NATs of its own that it has. ``net`` tells peers and links
        apart."""
        second = net > 10
        name = f"{letter} second" if second else letter
        access = longer(setup.link, way)
        on_internet = isinstance(outside, Internet)
        routers: tuple[Router, ...] = ()
        wire: Wire | None = None
        if setup.nats:
            base = "198.51.100" if on_internet else "100.64.0"
            prefix = None if setup.ip is Ip.V4 else f"2001:db8:{net}::"
            chain = _Chain(name, setup.nats, f"{base}.{net * 16}", access, setup.ip, prefix)
            routers, outside, wire = self._chain(chain, outside, f"10.{net}.0", 1)
            access = PERFECT
            ipv4 = f"10.{net}.0.2"
        elif isinstance(outside, LocalNetwork):
            ipv4 = f"{outside.subnet}.{net + 1}"
        else:
            ipv4 = f"198.51.100.{net}"
        plug = Plug(
            seat.node,
            "eth1" if second else "eth0",
            () if setup.ip is Ip.V6 else (ipv4,),
            () if setup.ip is Ip.V4 else (f"2001:db8:{net}::2",),
            access,
            f"{letter} 2" if second else letter,
            SECOND_TABLE if second else None,
        )
        plugged = self._plug(outside, plug)
        seat.addresses += (*plug.ipv4, *plug.ipv6)
        seat.wires += (wire or plugged,)
        return routers

    def _plug(self, outside: Segment, plug: Plug) -> Wire:
        wire = outside.plug(plug)
        self.wires.append(wire)
        return wire

    # -- routers ------------------------------------------------------------------------------

    def _chain(
        self, chain: _Chain, outside: Segment, subnet: str, hosts: int
    ) -> tuple[tuple[Router, ...], LocalNetwork, Wire]:
        """Routers, made from the outside in and returned from the inside out, with the network
        behind them and the wire in front. ``subnet`` is the innermost network's."""
        behaviours = chain.behaviours if chain.ip is not Ip.V6 else chain.behaviours[:1]
        routers: list[Router] = []
        wires: list[Wire] = []
        network = outside
        for depth, behaviour in enumerate(reversed(behaviours)):
            innermost = depth == len(behaviours) - 1
            first = chain.external
            if depth:
                assert isinstance(network, LocalNetwork)
                first = f"{network.subnet}.16"
            router = self._router(chain, depth, innermost, behaviour, first)
            node = self._namespace(router.role, forwards=True)
            plug = Plug(
                node,
                WAN,
                router.external,
                () if chain.prefix is None else (f"{chain.prefix}/64",),
                PERFECT if depth else chain.access,
                chain.name(depth, innermost),
            )
            wires.append(self._plug(network, plug))
            if router.nat is not None:
                node.rules.append(router.rules)
            if chain.prefix is not None and innermost:
                node.rules.append(firewall_rules(behaviour.blocking))
            if router.hairpins:
                node.setup += _hairpin(router.external)
            network = LocalNetwork(
                node,
                self._macs,
                subnet if innermost else f"100.64.{next(self._carriers)}",
                ipv6=f"{chain.prefix}1" if chain.prefix is not None and innermost else None,
                hosts=hosts if innermost else 1,
            )
            routers.insert(0, router)
        assert isinstance(network, LocalNetwork)
        return tuple(routers), network, wires[0]

    def _router(
        self, chain: _Chain, depth: int, innermost: bool, behaviour: NatBehaviour, first: str
    ) -> Router:
        role = chain.name(depth, innermost).replace(" ", "-")
        if chain.ip is Ip.V6:
            made = Router(role, None, (), self._seed)
        else:
            base = ipaddress.ip_address(first)
            external = tuple(str(base + n) for n in range(behaviour.external_addresses))
            made = Router(role, behaviour, external, self._seed)
        self.routers[role] = made
        return made


@dataclass(frozen=True, slots=True)
class _Chain:
    """NATs in a row, from the inside out."""

    of: str
    behaviours: tuple[NatBehaviour, ...]
    external: str
    """The outermost's first address."""
    access: AccessLink
    """The outermost's link."""
    ip: Ip = Ip.V4
    prefix: str | None = None
    """The IPv6 prefix inside, as far as its double colon."""

    def name(self, depth: int, innermost: bool) -> str:
        """What the virtual internet calls the node; ``depth`` counts from the outside."""
        kind = "firewall" if self.ip is Ip.V6 else "nat"
        name = self.of if self.of == "shared" else f"{kind} {self.of}"
        return name if innermost else f"{name} carrier {depth + 1}"


def _hairpin(external: tuple[str, ...]) -> list[str]:
    """The way of what is sent from inside to the router's own addresses: out by one device and in
    again by the other, before the local table can claim it."""
    there, back = HAIRPIN_MACS
    lines = [
        f"link add {HAIRPIN_OUT} address {there} type veth peer name {HAIRPIN_IN} address {back}",
        f"link set {HAIRPIN_OUT} up",
        f"link set {HAIRPIN_IN} up",
        "rule add pref 10 lookup local",
        "rule del pref 0",
    ]
    for ip in external:
        lines += [
            neighbour(ip, back, HAIRPIN_OUT),
            f"route add {ip}/32 dev {HAIRPIN_OUT} table {HAIRPIN_TABLE}",
            f"rule add pref 5 iif {LAN} to {ip} lookup {HAIRPIN_TABLE}",
        ]
    return lines
