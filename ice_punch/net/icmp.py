"""ICMP errors for datagrams of a UDP socket: Linux's error queue, see ip(7) under IP_RECVERR."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass

from ice_punch.datagram import Address

# Constants of Linux that Python 3.11 does not name.
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_MSG_ERRQUEUE = 0x2000
_EXTENDED_ERROR = struct.Struct("=IBBBBII")

_ORIGIN_ICMP = 2
_ORIGIN_ICMP6 = 3
_HARD = {
    # RFC 1122 section 3.2.2.1: protocol and port unreachable; codes 0, 1 and 5 may pass.
    _ORIGIN_ICMP: {(3, 2), (3, 3)},
    # RFC 4443 sections 3.1 and 3.4: port unreachable, unrecognized next header.
    _ORIGIN_ICMP6: {(1, 4), (4, 1)},
}


@dataclass(frozen=True, slots=True)
class QueuedError:
    destination: Address
    """Where the datagram that caused the error was sent to."""
    error: OSError
    is_local: bool
    """Raised by this host, not by an ICMP message."""
    is_hard: bool
    path_mtu: int | None = None
    """Bytes of an IP packet that the path takes, where that is the error (EMSGSIZE)."""


def enable(sock: socket.socket) -> bool:
    """Have ICMP errors queued on the socket; False where the system can not."""
    return sys.platform == "linux" and _set(sock, 1)


def disable(sock: socket.socket) -> None:
    """Queue no ICMP errors any more, and forget those that are queued."""
    _set(sock, 0)


def _set(sock: socket.socket, value: int) -> bool:
    ipv6 = sock.family == socket.AF_INET6
    level, name = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
    try:
        sock.setsockopt(level, name, value)
    except OSError:
        return False
    return True


def read(sock: socket.socket) -> QueuedError | None:
    """Take the oldest error off the queue; None when it is empty."""
    try:
        _, ancillary, _, destination = sock.recvmsg(0, 512, _MSG_ERRQUEUE)
    except OSError:
        return None
    number, origin, kind, code, info = 0, 0, 0, 0, 0
    for level, name, data in ancillary:
        if (level, name) in (
            (socket.IPPROTO_IP, _IP_RECVERR),
            (socket.IPPROTO_IPV6, _IPV6_RECVERR),
        ) and len(data) >= _EXTENDED_ERROR.size:
            number, origin, kind, code, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
    return QueuedError(
        destination=destination[:2],
        error=OSError(number, os.strerror(number)),
        is_local=origin not in _HARD,
        is_hard=(kind, code) in _HARD.get(origin, ()),
        path_mtu=info if number == errno.EMSGSIZE and info else None,
    )
