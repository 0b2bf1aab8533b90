"""NATs of every kind as nftables rules for a router with ``lan0`` inside and ``wan0`` outside.

Conntrack alone knows one kind of NAT. Here it only translates, in one zone for what goes out and
in another for what comes in, so that an answer does not go out by the mapping that its question
came in by. Sets and maps, filled by the packets themselves, know the mappings and whom an internal
endpoint has sent to. What is sent from inside to the NAT's own address leaves through ``hair0``
and comes in again by ``hair1``, as if from outside.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from ice_punch.lab.behaviour import (
    Blocking,
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    Pooling,
    PortAllocation,
    Refresh,
)

WAN = "wan0"
LAN = "lan0"
HAIRPIN_OUT, HAIRPIN_IN = "hair0", "hair1"
FOREVER = 86400.0
"""Seconds that a mapping without lifetime stays."""
FIRST_PORT, LAST_PORT = 1024, 65535
FIRST_SEQUENTIAL_PORT = 40000
TABLE_SIZE = 4096
"""Ports in the table of an allocation that a kernel has no words for; then it starts anew."""

_SPAN = LAST_PORT - FIRST_PORT + 1
_ENDPOINT = "ipv4_addr . inet_service"
_OUTWARD = f'oifname {{ "{WAN}", "{HAIRPIN_OUT}" }}'
_INWARD = f'iifname {{ "{WAN}", "{HAIRPIN_IN}" }}'
_INSIDE = "ct original ip saddr . ct original proto-src"
_OUTSIDE = "ct original ip daddr . ct original proto-dst"


def nat_rules(behaviour: NatBehaviour, external: Sequence[str], *, seed: int = 0) -> str:
    """The rules of a NAT with these outside addresses; :func:`ability.why_not` says which
    behaviours a kernel has. ``seed`` is for what nftables draws from a table of ours."""
    if behaviour.early_inbound is EarlyInbound.CLAIM:
        return _masquerade(behaviour)
    return f"""
table ip lab {{
{_state(behaviour)}
chain early {{
{_lines(_early(behaviour))}
}}
chain held {{
}}
chain arrive {{
 type filter hook prerouting priority raw; policy accept
 jump held
{_lines(_arrive(behaviour, external))}
}}
chain inward {{
 type nat hook prerouting priority dstnat; policy accept
 {_INWARD} meta l4proto udp dnat ip to ip daddr . udp dport map @owners
}}
chain input {{
 type filter hook input priority filter; policy accept
 {_INWARD} jump early
 {_INWARD} drop
}}
chain forward {{
 type filter hook forward priority filter; policy drop
{_lines(_forward(behaviour))}
}}
chain rebound {{
}}
chain outward {{
 type nat hook postrouting priority srcnat; policy accept
{_lines(_outward(behaviour, external, seed))}
}}
chain note {{
 type filter hook postrouting priority srcnat + 50; policy accept
{_lines(_note(behaviour))}
}}
}}
"""


def rebinding_rules(external: Sequence[str]) -> str:
    """What makes a running NAT forget its mappings and use none of their ports again. Whom
    internal endpoints have sent to it still knows."""
    flushed = "\n".join(f"flush {what} ip lab {name}" for what, name in _MAPPINGS)
    ip = _range(external)
    return f"{flushed}\nadd rule ip lab rebound udp sport @spent {_anywhere(ip, ())}\n"


HOLD = "add rule ip lab held drop\n"
"""Lets nothing pass. While conntrack and the maps forget, a packet must not remind one of them of
what the other still knows."""
LET_GO = "flush chain ip lab held\n"

_MAPPINGS = (("map", "owners"), ("set", "live"), ("set", "taken"), ("map", "mappings"))


def _masquerade(behaviour: NatBehaviour) -> str:
    """A Linux router as it is found in the field, with its weakness: what comes too early is
    accepted as the router's own, and conntrack then gives our flow to that peer another port."""
    how = "" if behaviour.allocation is PortAllocation.PRESERVING else " fully-random"
    return f"""
table ip lab {{
chain held {{
}}
chain arrive {{
 type filter hook prerouting priority raw; policy accept
 jump held
}}
chain forward {{
 type filter hook forward priority filter; policy drop
{_lines(blocking_rules(behaviour.blocking))}
 ct state established,related accept
 iifname "{LAN}" oifname "{WAN}" accept
}}
chain outward {{
 type nat hook postrouting priority srcnat; policy accept
 oifname "{WAN}" masquerade{how}
}}
}}
"""


def _state(behaviour: NatBehaviour) -> str:
    lifetime = behaviour.lifetime
    return "\n".join(
        (
            # By external endpoint its internal one; the endpoint alone, and its port.
            _dynamic("map", "owners", f"{_ENDPOINT} : {_ENDPOINT}", lifetime),
            _dynamic("set", "live", _ENDPOINT, lifetime),
            _dynamic("set", "taken", "inet_service", lifetime),
            _dynamic("set", "spent", "inet_service", None),
            # By internal endpoint, and what the mapping depends on, the external one.
            _dynamic("map", "mappings", f"{_type(behaviour.mapping)} : {_ENDPOINT}", lifetime),
            # Internal endpoints with whom they have sent to.
            _dynamic("set", "admitted", _type(behaviour.filtering), lifetime),
            _dynamic("set", "blacklist", "ipv4_addr", behaviour.blacklist_seconds),
        )
    )


def _arrive(behaviour: NatBehaviour, external: Sequence[str]) -> list[str]:
    """Before conntrack: which zone it is to look in."""
    rules = []
    if behaviour.hairpinning is Hairpinning.NONE:
        own = f"ip daddr {{ {', '.join(external)} }}"
        rules.append(f'iifname "{LAN}" {own} meta l4proto udp drop')
    if behaviour.early_inbound is EarlyInbound.BLACKLIST:
        rules.append(f"{_INWARD} ip saddr @blacklist drop")
    # One peer may send to several mappings of one internal endpoint. Conntrack holds those for the
    # same flow unless each mapping has a zone of its own.
    zone = "jhash ip daddr . udp dport mod 65534 offset 2"
    if behaviour.mapping is Mapping.ENDPOINT_INDEPENDENT:
        zone = "1"
        # An error from inside is about a packet that came in, RFC 5508 section 4.
        errors = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
        rules.append(f'iifname "{LAN}" {errors} ct zone set {zone}')
    rules += [
        f"{_INWARD} meta l4proto udp ip daddr . udp dport @live ct zone set {zone} accept",
        f"{_INWARD} meta l4proto udp notrack",
    ]
    return rules


def _forward(behaviour: NatBehaviour) -> list[str]:
    rules = blocking_rules(behaviour.blocking)
    if behaviour.filtering is not Filtering.ENDPOINT_INDEPENDENT:
        known = _key("ip daddr . udp dport", behaviour.filtering, "ip saddr", "udp sport")
        stranger = f"{_INWARD} meta l4proto udp {known} != @admitted"
        rules += [f"{stranger} jump early", f"{stranger} drop"]
    rules += [
        "meta l4proto icmp ct state invalid drop",
        f"{_INWARD} ct status dnat accept",
        "ct state established,related accept",
        f'iifname "{LAN}" {_OUTWARD} accept',
    ]
    return rules


def _early(behaviour: NatBehaviour) -> list[str]:
    """What becomes of a packet that nothing lets in. Conntrack never confirms it."""
    match behaviour.early_inbound:
        case EarlyInbound.REJECT:
            return [
                f'iifname "{WAN}" meta l4proto {{ tcp, udp }} reject with icmp port-unreachable'
            ]
        case EarlyInbound.RESET:
            return [f'iifname "{WAN}" meta l4proto tcp reject with tcp reset']
        case EarlyInbound.BLACKLIST:
            return ["meta l4proto udp update @blacklist { ip saddr }"]
        case _:
            return []


def _outward(behaviour: NatBehaviour, external: Sequence[str], seed: int) -> list[str]:
    udp = f"{_OUTWARD} meta l4proto udp"
    key = _key("ip saddr . udp sport", behaviour.mapping, "ip daddr", "udp dport")
    rules = [f"{udp} snat ip to {key} map @mappings", f"{udp} jump rebound"]
    rules += [f"{udp} {rule}" for rule in _new_mapping(behaviour, external, seed)]
    if behaviour.hairpinning is Hairpinning.INTERNAL_SOURCE:
        back = f'iifname "{HAIRPIN_IN}" meta l4proto udp'
        rules.append(f"{back} snat ip to ip saddr . udp sport map @owners")
    rules.append(f"{_OUTWARD} snat to {external[0]}")
    return rules


def _new_mapping(behaviour: NatBehaviour, external: Sequence[str], seed: int) -> list[str]:
    """RFC 4787 sections 4.1 and 4.2: the address and the port of a mapping that is made now."""
    ip, flags = _range(external), ("persistent",) if len(external) > 1 else ()
    if len(external) > 1 and behaviour.pooling is Pooling.ARBITRARY:
        choice = ", ".join(f"{n} : {address}" for n, address in enumerate(external))
        ip, flags = f"numgen random mod {len(external)} map {{ {choice} }}", ()
    match behaviour.allocation:
        case PortAllocation.PRESERVING:
            return [f"udp sport @taken {_anywhere(ip, flags)}", f"snat to {ip} {' '.join(flags)}"]
        case PortAllocation.RANDOM:
            return [_anywhere(ip, flags)]
        case PortAllocation.SEQUENTIAL:
            first = FIRST_SEQUENTIAL_PORT - FIRST_PORT
            return [
                _in_turn(
                    ip, (FIRST_PORT + (first + n * behaviour.step) % _SPAN for n in range(_SPAN))
                )
            ]
        case PortAllocation.PARITY_PRESERVING:
            return [
                f"udp sport & 1 == {odd} {_in_turn(ip, _of_parity(odd, seed))}" for odd in (0, 1)
            ]
        case PortAllocation.CONTIGUOUS:
            offset = random.Random(f"{seed}/offset").randrange(1, _SPAN)  # noqa: S311
            table = ", ".join(
                f"{FIRST_PORT + n} : {ip} . {FIRST_PORT + (n + offset) % _SPAN}"
                for n in range(_SPAN)
            )
            return [f"snat ip to udp sport map {{ {table} }}"]


def _range(external: Sequence[str]) -> str:
    return external[0] if len(external) == 1 else f"{external[0]}-{external[-1]}"


def _anywhere(ip: str, flags: Iterable[str]) -> str:
    return f"snat to {ip} : {FIRST_PORT}-{LAST_PORT} {','.join(('fully-random', *flags))}"


def _in_turn(ip: str, ports: Iterable[int]) -> str:
    distinct = list(dict.fromkeys(ports))[:TABLE_SIZE]
    table = ", ".join(f"{n} : {ip} . {port}" for n, port in enumerate(distinct))
    return f"snat ip to numgen inc mod {len(distinct)} map {{ {table} }}"


def _of_parity(odd: int, seed: int) -> list[int]:
    ports = list(range(FIRST_PORT + odd, LAST_PORT + 1, 2))
    random.Random(f"{seed}/ports {odd}").shuffle(ports)  # noqa: S311
    return ports


def _note(behaviour: NatBehaviour) -> list[str]:
    """What a packet that has been translated teaches."""
    # `add` leaves the time of what is there alone, `update` starts it anew.
    how = "add" if behaviour.refresh is Refresh.INBOUND else "update"
    key = _key(_INSIDE, behaviour.mapping, "ip daddr", "udp dport")
    contact = _key(_INSIDE, behaviour.filtering, "ip daddr", "udp dport")
    rules = [
        f"{_OUTWARD} meta l4proto udp {line}"
        for line in (
            f"{how} @owners {{ ip saddr . udp sport : {_INSIDE} }}",
            f"{how} @live {{ ip saddr . udp sport }}",
            f"{how} @taken {{ udp sport }}",
            "update @spent { udp sport }",
            f"{how} @mappings {{ {key} : ip saddr . udp sport }}",
            f"{how} @admitted {{ {contact} }}",
        )
    ]
    if behaviour.refresh is Refresh.OUTBOUND or behaviour.lifetime is None:
        return rules
    inside = "ip daddr . udp dport"
    contact = _key(inside, behaviour.filtering, "ct original ip saddr", "ct original proto-src")
    return rules + [
        f"{_INWARD} meta l4proto udp {line}"
        for line in (
            f"update @owners {{ {_OUTSIDE} : {inside} }}",
            f"update @live {{ {_OUTSIDE} }}",
            "update @taken { ct original proto-dst }",
            f"update @mappings {{ {inside} : {_OUTSIDE} }}",
            f"update @admitted {{ {contact} }}",
        )
    ]


def blocking_rules(blocking: Blocking) -> list[str]:
    match blocking:
        case Blocking.NOTHING:
            return []
        case Blocking.UDP:
            return [f'iifname "{LAN}" meta l4proto udp drop']
        case Blocking.ALL_BUT_TCP_443:
            return [
                f'iifname "{LAN}" meta l4proto != tcp drop',
                f'iifname "{LAN}" tcp dport != 443 drop',
            ]


def _key(endpoint: str, depends: Mapping | Filtering, ip: str, port: str) -> str:
    """An endpoint, with as much of the other side as mapping or filtering depends on."""
    match depends.value:
        case "endpoint-independent":
            return endpoint
        case "address-dependent":
            return f"{endpoint} . {ip}"
    return f"{endpoint} . {ip} . {port}"


def _type(depends: Mapping | Filtering) -> str:
    return _key(_ENDPOINT, depends, "ipv4_addr", "inet_service")


def _dynamic(kind: str, name: str, type_: str, seconds: float | None) -> str:
    timeout = round((FOREVER if seconds is None else seconds) * 1000)
    return (
        f"{kind} {name} {{\n type {type_}\n size 65535\n"
        f" flags dynamic,timeout\n timeout {timeout}ms\n}}"
    )


def _lines(rules: Iterable[str]) -> str:
    return "\n".join(f" {rule}" for rule in rules)
