"""Which peers a TURN server relays to: RFC 8656 sections 10.2, 12.2, 21.4 and 21.2.2."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final

PeerFilter = Callable[[str], bool]
"""Whether to relay to the peer with this IP address."""

_NEVER: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "::/127",  # unspecified, loopback
            "::ffff:0:0/96",  # IPv4 by another name
            "ff00::/8",
        ),
    )
)
_TUNNELED: Final = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))


@lru_cache(maxsize=4096)
def is_tunneled(ip: str) -> bool:
    """Teredo and 6to4, which RFC 8656 section 21.4 forbids as clients and as peers."""
    address = ipaddress.ip_address(ip)
    return any(address in network for network in _TUNNELED)


@lru_cache(maxsize=4096)
def default_peer_filter(ip: str) -> bool:
    """Everything but loopback, unspecified, multicast and broadcast addresses, and tunnels."""
    address = ipaddress.ip_address(ip)
    return not any(address in network for network in _NEVER) and not is_tunneled(ip)


def allow_every_peer(ip: str) -> bool:
    """For tests on one machine, whose peers are on its loopback interface."""
    return True
