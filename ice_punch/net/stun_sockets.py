"""The sockets of a STUN server: definite addresses and wildcards, and where datagrams arrived."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Sequence
from functools import lru_cache

from ice_punch.errors import InterfaceNotFound, PortRangeExhausted, ServerUnreachable
from ice_punch.net import udp
from ice_punch.net.dns import resolve
from ice_punch.net.interfaces import local_addresses

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104
MOST_BESIDE = 64
"""Addresses of this host that get a socket of their own next to a wildcard."""
ANCILLARY_SIZE = 128

# in_pktinfo of ip(7): index, the address to answer from, the address in the header.
_IPV4_INFO = struct.Struct("=i4s4s")
_IPV6_INFO = struct.Struct("=16sI")
_IP_PKTINFO = {"linux": 8, "darwin": 26}.get(sys.platform)

Ancillary = tuple[int, int, bytes]


async def addresses_to_bind(hosts: list[str]) -> list[str]:
    """The IP addresses to bind to."""
    found: list[str] = []
    for host in hosts:
        if host == "":
            found += ["0.0.0.0"] + (["::"] if _has_ipv6() else [])  # noqa: S104
            continue
        try:
            found += [ip for ip, _ in await resolve(host, 0)]
        except ServerUnreachable as error:
            raise InterfaceNotFound(str(error)) from None
    if _IP_PKTINFO is None:
        # Without the arrival address, answers from a wildcard socket may leave from another one.
        everything = [a.ip for a in local_addresses(lambda _: True)]
        found = [
            ip
            for name in found
            for ip in (
                [ip for ip in everything if (":" in ip) == (":" in name)]
                if name in WILDCARDS
                else [name]
            )
        ]
    return list(dict.fromkeys(found))


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def open_socket(ip: str, port: int) -> socket.socket:
    sock = udp.bind(ip, port=port)
    if ip in WILDCARDS:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif _IP_PKTINFO is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return sock


def open_all(ips: list[str], port: int) -> list[socket.socket]:
    """The same port on every address; for port 0 one that all of them have free."""
    if port == 0:
        for _ in range(7):
            with contextlib.suppress(PortRangeExhausted):
                return _open_each(ips, 0)
    return _open_each(ips, port)


def _open_each(ips: list[str], port: int) -> list[socket.socket]:
    with contextlib.ExitStack() as stack:
        sockets = []
        for ip in ips:
            sockets.append(stack.enter_context(open_socket(ip, port)))
            port = port or sockets[0].getsockname()[1]
        stack.pop_all()
    return sockets


def open_beside(wildcard: socket.socket) -> list[socket.socket]:
    """A socket at the wildcard's port for each address of this host, which gets what comes to that
    address: cheaper to read and to answer from, as nothing need be said of the address each time.
    The wildcard gets the rest, addresses that come later included. Linux only; elsewhere none."""
    if sys.platform != "linux":
        return []
    port = wildcard.getsockname()[1]
    is_ipv6 = wildcard.family == socket.AF_INET6
    ips = [a.ip for a in local_addresses(lambda _: True, ipv4=not is_ipv6, ipv6=is_ipv6)]
    found: list[socket.socket] = []
    # Two sockets may overlap while both have this option. Then it is taken away again, so that no
    # other process can slip in.
    wildcard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for ip in ips[:MOST_BESIDE]:
        with contextlib.suppress(OSError, InterfaceNotFound, PortRangeExhausted):
            found.append(udp.bind(ip, port=port, reuse_port=True))
    for sock in (wildcard, *found):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    return found


@lru_cache(maxsize=1024)
def arrival(ancillary: tuple[int, int, bytes]) -> tuple[str, Sequence[tuple[int, int, bytes]]]:
    """The local IP address of a datagram, and what has its answer leave from there."""
    level, kind, data = ancillary
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        _, local, _ = _IPV4_INFO.unpack_from(data)
        departure = _IPV4_INFO.pack(0, local, bytes(4))
        return socket.inet_ntop(socket.AF_INET, local), ((level, kind, departure),)
    local, index = _IPV6_INFO.unpack_from(data)
    ip = ipaddress.IPv6Address(local)
    # The interface matters where the address has a zone
    departure = _IPV6_INFO.pack(local, index if ip.is_link_local else 0)
    return str(ip), ((level, kind, departure),)
