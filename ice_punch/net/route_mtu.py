"""What the first link of a way takes, as this host's kernel knows it."""

from __future__ import annotations

import socket
import sys

from ice_punch.datagram import Address

ETHERNET = 1500
"""Bytes: assumed where the system does not tell."""
# ip(7) and ipv6(7); Python 3.11 does not name them.
_IP_MTU = 14
_IPV6_MTU = 24


def route_mtu(ip: str, destination: Address) -> int:
    """Bytes of an IP packet from our address ``ip`` that the kernel lets go to ``destination``."""
    if sys.platform != "linux":
        return ETHERNET
    ipv6 = ":" in ip
    level, name = (socket.IPPROTO_IPV6, _IPV6_MTU) if ipv6 else (socket.IPPROTO_IP, _IP_MTU)
    try:
        # A connected socket is asked; it sends nothing.
        with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
            sock.connect(destination)
            return sock.getsockopt(level, name)
    except OSError:
        return ETHERNET
