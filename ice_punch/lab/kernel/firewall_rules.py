"""A stateful IPv6 firewall as homes have it (RFC 6092), as nftables rules for a router."""

from __future__ import annotations

from ice_punch.lab.behaviour import Blocking
from ice_punch.lab.kernel.nat_rules import LAN, WAN, blocking_rules


def firewall_rules(blocking: Blocking) -> str:
    """What is not blocked gets out, and in what answers it."""
    blocked = "\n".join(f" {rule}" for rule in blocking_rules(blocking))
    return f"""
table ip6 lab {{
chain forward {{
 type filter hook forward priority filter; policy drop
{blocked}
 ct state established,related accept
 iifname "{LAN}" oifname "{WAN}" accept
}}
}}
"""
