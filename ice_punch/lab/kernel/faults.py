"""What happens to a network in the middle of a session."""

from __future__ import annotations

from collections.abc import Iterable

from ice_punch.lab.kernel import namespaces
from ice_punch.lab.kernel.internet import KernelInternet, load_rules
from ice_punch.lab.kernel.layout import PUBLIC, TURN_IP, TURN_IP_V6, Router
from ice_punch.lab.kernel.nat_rules import HOLD, LET_GO, rebinding_rules
from ice_punch.lab.kernel.segments import End, Wire
from ice_punch.lab.scenario import Event, Happening

TOOLS = {Event.NAT_REBOOTS: "conntrack", Event.NAT_REBINDS: "conntrack"}
"""The programs that events need besides those of the laboratory."""


def happen(internet: KernelInternet, happening: Happening) -> None:
    """Raises :class:`LaboratoryError` when a tool does not do what it should."""
    seat = internet.layout.seats["ab".index(happening.side)]
    nats = seat.routers or internet.layout.shared
    match happening.event:
        case Event.NAT_REBOOTS:
            reboot(internet, nats)
        case Event.NAT_REBINDS:
            rebind(internet, nats)
        case Event.LINK_DOWN | Event.LINK_UP:
            set_link(internet, seat.wires[0], up=happening.event is Event.LINK_UP)
        case Event.SECOND_LINK_DOWN | Event.SECOND_LINK_UP:
            set_link(internet, seat.wires[1], up=happening.event is Event.SECOND_LINK_UP)
        case Event.TURN_SERVER_DIES:
            silence_turn_server(internet)


def reboot(internet: KernelInternet, routers: Iterable[Router]) -> None:
    """The routers forget every mapping, filter and connection."""
    for router in routers:
        namespace = internet.namespace(router.role)
        rules = "".join(internet.layout.namespaces[router.role].rules)
        tables = [line.split(" {")[0] for line in rules.splitlines() if line.startswith("table")]
        removal = "".join(f"delete {table}\n" for table in tables)
        _forget(namespace, removal + rules, holds=router.nat is not None)


def rebind(internet: KernelInternet, routers: Iterable[Router]) -> None:
    """Every mapping moves to another port, and none comes back to one it had."""
    for router in routers:
        if router.nat is not None:
            namespace = internet.namespace(router.role)
            _forget(namespace, rebinding_rules(router.external))


def set_link(internet: KernelInternet, wire: Wire, *, up: bool) -> None:
    """A link that is down loses everything, and nobody is told."""
    for end in (wire.inner, wire.outer):
        load_rules(internet.namespace(end.role), _deaf(end, up=up))


def _deaf(end: End, *, up: bool) -> str:
    table = f"table netdev deaf-{end.device}"
    drop = f'type filter hook ingress device "{end.device}" priority 0; policy drop'
    fresh = f"{table}\ndelete {table}\n"
    return fresh if up else f"{fresh}{table} {{\nchain ingress {{\n {drop}\n}}\n}}\n"


def silence_turn_server(internet: KernelInternet) -> None:
    """Its host is gone: nothing refuses, nothing resets."""
    load_rules(
        internet.namespace(PUBLIC),
        f"""
table inet silence {{
chain input {{
 type filter hook input priority filter; policy accept
 ip daddr {TURN_IP} drop
 ip6 daddr {TURN_IP_V6} drop
}}
chain output {{
 type filter hook output priority filter; policy accept
 ip saddr {TURN_IP} drop
 ip6 saddr {TURN_IP_V6} drop
}}
}}
""",
    )


def _forget(namespace: str, rules: str, *, holds: bool = True) -> None:
    load_rules(namespace, rules + (HOLD if holds else ""))
    with namespaces.enter(namespace):
        namespaces.run_tool("conntrack", "-F")
    if holds:
        load_rules(namespace, LET_GO)
