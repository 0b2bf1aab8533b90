"""The virtual internet of a :class:`Scenario`: its hosts, gateways and links."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ice_punch.lab.behaviour import Blocking, NatBehaviour
from ice_punch.lab.links import PERFECT, AccessLink
from ice_punch.lab.scenario import Ip, PeerSetup, Scenario
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.gateway import Gateway
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.internet import VirtualInternet

STUN_IPS = ("203.0.113.10", "203.0.113.11")
STUN_IPS_V6 = ("2001:db8:f::10", "2001:db8:f::11")
TURN_IP = "203.0.113.20"
TURN_IP_V6 = "2001:db8:f::20"


@dataclass(frozen=True, slots=True)
class Place:
    """One peer's host and what it is behind, from the inside out."""

    host: VirtualHost
    gateways: tuple[Gateway, ...]
    second_gateways: tuple[Gateway, ...] = ()
    nat64: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    internet: VirtualInternet
    a: Place
    b: Place
    stun: VirtualHost
    turn: VirtualHost
    shared: tuple[Gateway, ...] = ()
    """The NATs that both are behind."""


def build(scenario: Scenario, seed: int = 0, *, start: float = 0.0) -> Topology:
    """The servers are half way between the peers: their round trip is half of the peers'."""
    internet = VirtualInternet(seed, start=start)
    v6 = any(setup.ip in (Ip.V6, Ip.DUAL) for setup in (scenario.a, scenario.b))
    stun = internet.host("stun", *STUN_IPS, *(STUN_IPS_V6 if v6 else ()))
    turn = internet.host("turn", TURN_IP, *((TURN_IP_V6,) if v6 else ()))
    way = scenario.rtt / 4
    shared = _nats(
        internet, "shared", scenario.shared_nats, "198.51.100.64", "100.64.0.", None, PERFECT, way
    )
    outside = shared[0] if shared else None
    inner_way = 0.0 if shared else way
    places = [
        _place(internet, index, setup, outside, inner_way)
        for index, setup in enumerate((scenario.a, scenario.b))
    ]
    return Topology(internet, places[0], places[1], stun, turn, shared)


def _place(
    internet: VirtualInternet,
    index: int,
    setup: PeerSetup,
    outside: Gateway | None,
    way: float,
) -> Place:
    letter = "ab"[index]
    net = index + 1
    link = _longer(setup.link, way)
    gateways = _gateways(internet, letter, net, setup, outside, setup.link, way)
    innermost = gateways[0] if gateways else outside
    at_home = PERFECT if gateways else link
    host = internet.host(
        letter,
        *_addresses(setup, net, public=innermost is None, lan=not gateways),
        behind=innermost,
        link=at_home,
    )
    second: tuple[Gateway, ...] = ()
    if setup.second_link is not None:
        second = _gateways(
            internet, f"{letter} second", net + 10, setup, outside, setup.second_link, way
        )
        beyond = second[0] if second else outside
        internet.interface(
            host,
            *_addresses(setup, net + 10, public=beyond is None, lan=not second),
            behind=beyond,
            link=PERFECT if second else _longer(setup.second_link, way),
        )
    return Place(host, gateways, second, nat64=setup.ip is Ip.NAT64)


def _addresses(setup: PeerSetup, net: int, *, public: bool, lan: bool) -> tuple[str, ...]:
    """``lan``: both peers are on one local network, so their addresses must differ in it."""
    v4 = f"198.51.100.{net}" if public else f"10.0.0.{net + 1}" if lan else f"10.{net}.0.2"
    v6 = f"2001:db8:{net}::2"
    match setup.ip:
        case Ip.V4:
            return (v4,)
        case Ip.V6 | Ip.NAT64:
            return (v6,)
        case Ip.DUAL:
            return (v4, v6)


def _gateways(
    internet: VirtualInternet,
    name: str,
    net: int,
    setup: PeerSetup,
    outside: Gateway | None,
    link: AccessLink,
    way: float,
) -> tuple[Gateway, ...]:
    """From the inside out. The link is that of the outermost."""
    external = f"198.51.100.{net * 16}" if outside is None else f"100.64.0.{net * 16}"
    prefix = f"2001:db8:{net}::/64"
    carriers = f"100.64.{net}."
    if setup.ip is Ip.V4:
        return _nats(internet, f"nat {name}", setup.nats, external, carriers, outside, link, way)
    firewall = StatefulFirewall(blocking=setup.nats[0].blocking if setup.nats else Blocking.NOTHING)
    if setup.ip is Ip.NAT64:
        behaviour = setup.nats[0] if setup.nats else NatBehaviour()
        made = internet.nat64(
            f"nat64 {name}",
            external,
            behaviour,
            prefix=prefix,
            behind=outside,
            link=_longer(link, way),
            firewall=firewall,
        )
        return (made,)
    if setup.ip is Ip.V6 or not setup.nats:
        if not setup.nats:
            return ()
        made = internet.router(
            f"firewall {name}", prefix, behind=outside, link=_longer(link, way), firewall=firewall
        )
        return (made,)
    return _nats(
        internet,
        f"nat {name}",
        setup.nats,
        external,
        carriers,
        outside,
        link,
        way,
        prefix=prefix,
        firewall=firewall,
    )


def _nats(
    internet: VirtualInternet,
    name: str,
    behaviours: tuple[NatBehaviour, ...],
    external: str,
    carriers: str,
    outside: Gateway | None,
    link: AccessLink,
    way: float,
    *,
    prefix: str | None = None,
    firewall: StatefulFirewall | None = None,
) -> tuple[Gateway, ...]:
    """A chain of NATs, given and returned from the inside out, made from the outside in."""
    made: list[Gateway] = []
    behind = outside
    for depth, behaviour in enumerate(reversed(behaviours)):
        innermost = depth == len(behaviours) - 1
        nat = internet.nat(
            name if innermost else f"{name} carrier {depth + 1}",
            external if depth == 0 else f"{carriers}{16 * depth}",
            behaviour,
            behind=behind,
            link=_longer(link, way) if depth == 0 else PERFECT,
            firewall=firewall if innermost else None,
        )
        if prefix is not None:
            nat.network.add_route(prefix, nat)
        made.insert(0, nat)
        behind = nat
    return tuple(made)


def _longer(link: AccessLink, way: float) -> AccessLink:
    """An access link with the way to the middle of the internet at its end."""
    return AccessLink(
        replace(link.up, delay=link.up.delay + way), replace(link.down, delay=link.down.delay + way)
    )
