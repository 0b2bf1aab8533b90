"""NAT kinds as nftables rules for a router namespace with ``lan0`` and ``wan0``.

Input from the wan side is dropped: were it accepted, an early packet from the other peer would
be confirmed in conntrack as a flow of the router itself, and masquerade would then move the port
of our own packets towards exactly that peer.
"""

from __future__ import annotations

from ice_punch.lab.behaviour import NatKind


def ruleset(kind: NatKind, *, wan: str, peer: str) -> str:
    """The rules of one NAT with the outside address ``wan`` and the single inside host ``peer``.

    The full cone lets the outside in even before the inside has sent anything.
    Raises :class:`ValueError` for ``none``, which is no NAT.
    """
    source_nat = f"snat to {wan}"
    prerouting = ""
    forward = ""
    sets = ""
    match kind:
        case NatKind.PORT_RESTRICTED:
            pass
        case NatKind.SYMMETRIC:
            source_nat = "masquerade fully-random"
        case NatKind.UDP_BLOCKED:
            forward = 'iifname "lan0" meta l4proto udp drop'
        case NatKind.FULL_CONE:
            prerouting = f'iifname "wan0" meta l4proto udp dnat to {peer}'
        case NatKind.ADDRESS_RESTRICTED:
            # Ports are preserved, so the inside port is also the mapped one.
            sets = (
                "set contacted {\n type inet_service . ipv4_addr\n flags dynamic,timeout\n"
                " timeout 5m\n}"
            )
            forward = 'iifname "lan0" meta l4proto udp update @contacted { udp sport . ip daddr }'
            prerouting = f'iifname "wan0" udp dport . ip saddr @contacted dnat to {peer}'
        case NatKind.NONE:
            raise ValueError("the kind none is no NAT")
    return f"""
table ip lab {{
{sets}
chain input {{
 type filter hook input priority filter; policy accept
 iifname "wan0" drop
}}
chain forward {{
 type filter hook forward priority filter; policy drop
 {forward}
 ct state established,related accept
 ct status dnat accept
 iifname "lan0" oifname "wan0" accept
}}
chain prerouting {{
 type nat hook prerouting priority dstnat; policy accept
 {prerouting}
}}
chain postrouting {{
 type nat hook postrouting priority srcnat; policy accept
 oifname "wan0" {source_nat}
}}
}}
"""
