"""The scenarios that have a name."""

from __future__ import annotations

from typing import Final

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import (
    NINE,
    Blocking,
    EarlyInbound,
    Filtering,
    Hairpinning,
    NatBehaviour,
    NatKind,
    PortAllocation,
)
from ice_punch.lab.links import PERFECT, PRESETS
from ice_punch.lab.scenario import (
    Event,
    Habit,
    Happening,
    Ip,
    Relays,
    Scenario,
    Verdict,
    peer,
)

DIRECT, RELAYED, FAILED = Verdict.DIRECT, Verdict.RELAYED, Verdict.FAILED

_HAIRPINS = NatBehaviour(hairpinning=Hairpinning.EXTERNAL_SOURCE)
_ONLY_443 = NatBehaviour(blocking=Blocking.ALL_BUT_TCP_443)
_OPEN = NatKind.FULL_CONE
_ADDRESS = NatKind.ADDRESS_RESTRICTED
_PORT = NatKind.PORT_RESTRICTED
_SYMMETRIC = NatKind.SYMMETRIC

_KINDS = (
    Scenario(
        "public-hosts",
        "no NAT on either side",
        peer(NatKind.NONE),
        peer(NatKind.NONE),
        expects=DIRECT,
    ),
    Scenario(
        "full-cones", "whoever knows the port gets in", peer(_OPEN), peer(_OPEN), expects=DIRECT
    ),
    Scenario(
        "address-restricted",
        "filters that look at the address only",
        peer(_ADDRESS),
        peer(_ADDRESS),
        expects=DIRECT,
    ),
    Scenario("port-restricted", "the NATs most homes have", expects=DIRECT),
    Scenario(
        "port-restricted-late",
        "the same, and b learns of a 600 ms after a of b",
        skew=0.6,
        expects=DIRECT,
    ),
    Scenario(
        "symmetric-and-full-cone",
        "one NAT that maps by destination, one that lets anyone in",
        peer(_SYMMETRIC),
        peer(_OPEN),
        expects=DIRECT,
    ),
    Scenario(
        "symmetric-and-address-restricted",
        "the symmetric side starts 300 ms early and has to knock",
        peer(_SYMMETRIC),
        peer(_ADDRESS),
        skew=0.3,
        expects=DIRECT,
    ),
    Scenario(
        "symmetric-and-port-restricted",
        "neither can know what the other's filter wants",
        peer(_SYMMETRIC),
        peer(_PORT),
        relays=Relays.UDP,
        expects=RELAYED,
    ),
    Scenario(
        "symmetric",
        "two NATs that map by destination, with a relay at hand",
        peer(_SYMMETRIC),
        peer(_SYMMETRIC),
        relays=Relays.UDP,
        expects=RELAYED,
    ),
    Scenario(
        "symmetric-without-relay",
        "the same without a relay",
        peer(_SYMMETRIC),
        peer(_SYMMETRIC),
        expects=FAILED,
    ),
    Scenario(
        "relay-not-needed",
        "a relay at hand, and a direct path that works",
        relays=Relays.UDP,
        expects=DIRECT,
    ),
)

_PLACES = (
    Scenario(
        "carrier-grade",
        "a is behind its own NAT and its carrier's",
        peer((NatBehaviour(), NatBehaviour(filtering=Filtering.ENDPOINT_INDEPENDENT))),
        expects=DIRECT,
    ),
    Scenario(
        "one-lan",
        "both on one local network behind one NAT",
        peer(NatKind.NONE),
        peer(NatKind.NONE),
        shared_nats=(NatBehaviour(),),
        expects=DIRECT,
    ),
    Scenario(
        "one-carrier",
        "two homes behind one carrier's NAT, which does not hairpin: their own NATs are neighbours",
        shared_nats=(NatBehaviour(),),
        relays=Relays.UDP,
        expects=RELAYED,
    ),
    Scenario(
        "one-carrier-hairpins",
        "the same, and the carrier's NAT turns packets around (RFC 4787 REQ-9)",
        shared_nats=(_HAIRPINS,),
        relays=Relays.UDP,
        expects=DIRECT,
    ),
    Scenario(
        "two-uplinks",
        "a has two interfaces, each behind a NAT of its own",
        peer(_PORT, second_link=PRESETS["cellular"]),
        expects=DIRECT,
    ),
    Scenario(
        "ipv6",
        "no NAT, and a stateful firewall on either side (RFC 6092)",
        peer(_PORT, ip=Ip.V6),
        peer(_PORT, ip=Ip.V6),
        expects=DIRECT,
    ),
    Scenario(
        "dual-stack",
        "IPv4 behind symmetric NATs, IPv6 behind firewalls",
        peer(_SYMMETRIC, ip=Ip.DUAL),
        peer(_SYMMETRIC, ip=Ip.DUAL),
        expects=DIRECT,
    ),
    Scenario(
        "ipv4-meets-ipv6",
        "no family in common, and no relay between them",
        peer(_PORT, ip=Ip.V4),
        peer(_PORT, ip=Ip.V6),
        expects=FAILED,
    ),
    Scenario(
        "nat64",
        "a has nothing but IPv6, NAT64 and DNS64",
        peer(_PORT, ip=Ip.NAT64),
        relays=Relays.UDP,
        expects=DIRECT,
    ),
)

_FIREWALLS = (
    Scenario(
        "udp-blocked",
        "a's firewall lets no UDP out",
        peer(NatKind.UDP_BLOCKED),
        relays=Relays.TCP_443,
        expects=RELAYED,
    ),
    Scenario(
        "only-tcp-443",
        "nothing but TCP to port 443 gets out, on either side",
        peer(_ONLY_443),
        peer(_ONLY_443),
        relays=Relays.TCP_443,
        expects=RELAYED,
    ),
    Scenario(
        "udp-blocked-without-relay",
        "no UDP, and no relay over TCP",
        peer(NatKind.UDP_BLOCKED),
        expects=FAILED,
    ),
)

_MOODS = (
    Scenario(
        "rejecting",
        "an early packet is answered with ICMP port unreachable",
        peer(NatBehaviour(early_inbound=EarlyInbound.REJECT)),
        peer(NatBehaviour(early_inbound=EarlyInbound.REJECT)),
        skew=0.15,
        expects=DIRECT,
    ),
    Scenario(
        "resetting",
        "an early TCP segment is answered with RST; datagrams do not care",
        peer(NatBehaviour(early_inbound=EarlyInbound.RESET)),
        peer(NatBehaviour(early_inbound=EarlyInbound.RESET)),
        skew=0.15,
        expects=DIRECT,
    ),
    Scenario(
        "blacklisting",
        "who comes early is shut out for 3 s, the relay included",
        peer(NatBehaviour(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=3.0)),
        peer(NatBehaviour(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=3.0)),
        skew=0.15,
        relays=Relays.UDP,
        expects=DIRECT,
    ),
    Scenario(
        "claiming",
        "a Linux router that masquerades and accepts input, and both start together",
        peer(NatBehaviour(early_inbound=EarlyInbound.CLAIM)),
        peer(NatBehaviour(early_inbound=EarlyInbound.CLAIM)),
        relays=Relays.UDP,
        expects=DIRECT,
    ),
    Scenario(
        "claiming-late",
        "the same, and a's early check spoils b's port: fresh sockets get through",
        peer(NatBehaviour(early_inbound=EarlyInbound.CLAIM)),
        peer(NatBehaviour(early_inbound=EarlyInbound.CLAIM)),
        skew=0.15,
        relays=Relays.UDP,
        datagrams_per_second=20,
        seconds=8,
        expects=DIRECT,
    ),
)

_HAPPENINGS = (
    Scenario(
        "nat-reboots",
        "a's NAT forgets everything in mid-session, and preserves ports",
        happenings=(Happening(5.0, Event.NAT_REBOOTS),),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
    Scenario(
        "nat-rebinds",
        "a's NAT moves every mapping to a new port in mid-session: a restart finds it",
        happenings=(Happening(5.0, Event.NAT_REBINDS),),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
    Scenario(
        "nat-rebinds-open",
        "the same, and b's NAT lets anyone in: b follows",
        b=peer(_OPEN),
        happenings=(Happening(5.0, Event.NAT_REBINDS),),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
    Scenario(
        "link-dies",
        "a's link dies in mid-session, and its second one takes over",
        peer(_PORT, second_link=PERFECT),
        happenings=(Happening(5.0, Event.LINK_DOWN),),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
    Scenario(
        "interface-lost",
        "a's first interface goes and comes back, as a laptop leaves its desk",
        peer(_PORT, second_link=PERFECT),
        happenings=(
            Happening(5.0, Event.INTERFACE_LOST),
            Happening(10.0, Event.INTERFACE_FOUND),
        ),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
    Scenario(
        "outage",
        "a's link is down for 8 s",
        happenings=(Happening(5.0, Event.LINK_DOWN), Happening(13.0, Event.LINK_UP)),
        datagrams_per_second=20,
        seconds=25,
        expects=DIRECT,
    ),
    Scenario(
        "relay-dies",
        "the TURN server goes away, and the session with it",
        peer(_SYMMETRIC),
        peer(_SYMMETRIC),
        relays=Relays.UDP,
        happenings=(Happening(5.0, Event.TURN_SERVER_DIES),),
        datagrams_per_second=20,
        seconds=45,
        expects=FAILED,
    ),
    Scenario(
        "relay-dies-unused",
        "the TURN server goes away while the direct path carries the session",
        relays=Relays.UDP,
        happenings=(Happening(5.0, Event.TURN_SERVER_DIES),),
        datagrams_per_second=20,
        seconds=15,
        expects=DIRECT,
    ),
)

_HABITS = tuple(
    Scenario(
        f"peer-{habit.name.lower().replace('_', '-')}",
        summary,
        b=peer(NatKind.NONE if habit is Habit.LITE else _PORT, habit=habit),
        skew=skew,
        expects=verdict,
    )
    for habit, summary, skew, verdict in (
        (Habit.NO_TRIGGERED_CHECKS, "b makes no triggered checks (aioice 0.13)", -0.15, DIRECT),
        (Habit.AGGRESSIVE, "b nominates aggressively when it is in control", 0.0, DIRECT),
        (Habit.LITE, "b is a lite agent on a public address", 0.0, DIRECT),
        (Habit.SILENT, "b never answers", 0.0, FAILED),
        (Habit.SLOW, "b answers after 2 s", 0.0, DIRECT),
    )
)

_LINKS = tuple(
    Scenario(
        f"link-{name.replace('_', '-')}",
        f"a hangs on the internet by {name}",
        peer(_PORT, link),
        rtt=0.02,
        relays=Relays.UDP,
        expects=DIRECT,
    )
    for name, link in PRESETS.items()
    if name != "perfect"
)

_PORTS = tuple(
    Scenario(
        f"ports-{allocation.replace(' ', '-')}",
        f"port allocation is {allocation}",
        peer(NatBehaviour(allocation=allocation)),
        peer(NatBehaviour(allocation=allocation)),
        expects=DIRECT,
    )
    for allocation in PortAllocation
    if allocation is not PortAllocation.PRESERVING
)

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for group in (
        _KINDS,
        _PLACES,
        _FIREWALLS,
        _MOODS,
        _HAPPENINGS,
        _HABITS,
        _PORTS,
        _LINKS,
    )
    for scenario in group
}


def find(name: str) -> Scenario:
    """A scenario by its name, or by two NATs of the matrix: ``EIM/APDF x APDM/APDF``.

    Raises InvalidConfiguration for a name that is none.
    """
    known = SCENARIOS.get(name)
    if known is not None:
        return known
    nats = {behaviour.short: behaviour for behaviour in NINE}
    sides = [side.strip().upper() for side in name.replace("X", "x").split("x")]
    if len(sides) == 2 and all(side in nats for side in sides):
        return Scenario(
            f"{sides[0]} x {sides[1]}",
            "a cell of the matrix",
            peer(nats[sides[0]]),
            peer(nats[sides[1]]),
            relays=Relays.UDP,
        )
    raise InvalidConfiguration(
        f"no scenario is called {name}; ice-punch lab list names them, "
        "and 'EIM/APDF x APDM/APDF' is one of the matrix"
    )
