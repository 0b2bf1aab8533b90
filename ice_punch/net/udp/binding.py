"""Bound UDP sockets: a port of a range, large buffers, no fragmentation."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import random
import socket
import sys

from ice_punch.errors import InterfaceNotFound, InvalidConfiguration, PortRangeExhausted

BUFFER_SIZE = 4 * 1024 * 1024
"""Bytes asked of the kernel for each direction; it gives what it allows."""

# Constants that Python 3.11 does not name; the values are Linux's, then macOS's and Windows'.
# Linux's IP_PMTUDISC_PROBE has packets of any size that fit the first link leave: with
# IP_PMTUDISC_DO one forged ICMP message would have the kernel refuse what passes, for ten minutes.
_DONT_FRAGMENT = {
    "linux": ((socket.IPPROTO_IP, 10, 3), (socket.IPPROTO_IPV6, 23, 3)),
    "darwin": ((socket.IPPROTO_IP, 28, 1), (socket.IPPROTO_IPV6, 62, 1)),
    "win32": ((socket.IPPROTO_IP, 14, 1), (socket.IPPROTO_IPV6, 14, 1)),
}


def bind(
    ip: str,
    port_range: tuple[int, int] | None = None,
    port: int = 0,
    *,
    kind: socket.SocketKind = socket.SOCK_DGRAM,
    reuse_port: bool = False,
) -> socket.socket:
    """A bound, non-blocking socket; a UDP one has large buffers and never fragments. With
    ``reuse_port`` it may be bound beside another that has SO_REUSEPORT.

    Raises what ``UdpSocket.open`` does.
    """
    version = ipaddress.ip_address(ip).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    candidates = [port] if port_range is None else check_port_range(port_range)
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind is socket.SOCK_DGRAM:
            _configure(sock)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for candidate in candidates:
            try:
                sock.bind((ip, candidate))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise InterfaceNotFound(f"{ip} is not an address of this host") from None
                # EACCES: a port that the system keeps for itself
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return sock
    except BaseException:
        sock.close()
        raise
    sock.close()
    name = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
    if port_range is None:
        raise PortRangeExhausted(f"{name} port {port} of {ip} is taken")
    low, high = port_range
    raise PortRangeExhausted(f"no {name} port from {low} to {high} is free on {ip}")


def check_port_range(port_range: tuple[int, int]) -> list[int]:
    """The ports of a range in random order. Raises InvalidConfiguration if it is no range."""
    low, high = port_range
    if not 1 <= low <= high <= 65535:
        raise InvalidConfiguration(
            f"{low}-{high} is not a port range: 1 <= LOW <= HIGH <= 65535 is wanted"
        )
    ports = list(range(low, high + 1))
    # Ports that can not be guessed are harder to attack, RFC 6056.
    random.SystemRandom().shuffle(ports)
    return ports


def _configure(sock: socket.socket) -> None:
    ipv6 = sock.family == socket.AF_INET6
    if ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    options = [
        (socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_SIZE),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE),
    ]
    if sys.platform in _DONT_FRAGMENT:
        options.append(_DONT_FRAGMENT[sys.platform][ipv6])
    for level, name, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, name, value)
