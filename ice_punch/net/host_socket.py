"""The socket behind a host candidate. TURN servers may be asked from it too."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.udp import DatagramHandler, SegmentsHandler, UdpSocket
from ice_punch.stun import COOKIE, Method

SETTLING = 3.0
"""Seconds after an address came in which its routes may still be missing."""

_VANISHED = (errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENETDOWN, errno.ENODEV)
"""What a send says once the socket's own address is gone."""
_UNROUTED = (errno.ENETUNREACH, errno.EHOSTUNREACH)

MessageHandler = Callable[[bytes, Address], None]
LossHandler = Callable[[OSError], None]


@dataclass(frozen=True, slots=True)
class _TurnServer:
    on_message: MessageHandler
    on_loss: LossHandler


class HostSocket:
    """A UDP socket on one address of this host, as long as that address lives.

    What comes from a TURN server that is asked from it is told apart by its source and its kind
    (RFC 8656 section 12); everything else is the agent's.
    """

    def __init__(
        self,
        address: InterfaceAddress,
        *,
        on_datagram: DatagramHandler,
        on_icmp_error: Callable[[Address, Address], None],
        on_vanished: Callable[[], None],
        on_segments: SegmentsHandler | None = None,
        port_range: tuple[int, int] | None = None,
        new: bool = False,
    ) -> None:
        """``on_vanished`` is told of every send that failed because the address, or with a ``new``
        one its route, is not there. With ``on_segments`` datagrams come as the kernel has them, and
        ``on_datagram`` is not called. Raises what ``UdpSocket.open`` does."""
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._on_datagram = on_datagram
        self._on_segments = on_segments
        self._on_icmp_error = on_icmp_error
        self._on_vanished = on_vanished
        self._settled_at = self._loop.time() + (SETTLING if new else 0.0)
        self._servers: dict[Address, _TurnServer] = {}
        self.socket = UdpSocket.open(
            address.ip,
            on_datagram,
            on_error=self._on_error,
            on_segments=None if on_segments is None else self._sort_segments,
            port_range=port_range,
            loop=self._loop,
        )
        self.socket.keep_from_alone_handler(self._servers)
        self.local = self.socket.local

    @property
    def ip(self) -> str:
        return self.local[0]

    def send(self, data: bytes, destination: Address) -> bool:
        return self.socket.send(data, destination)

    def attach(self, server: Address, on_message: MessageHandler, on_loss: LossHandler) -> bool:
        """Give what this TURN server sends to ``on_message``, and errors of sending there to
        ``on_loss``. False: it is asked from here already, and one 5-tuple has one allocation."""
        if server in self._servers:
            return False
        self._servers[server] = _TurnServer(on_message, on_loss)
        self.socket.on_datagram = self._sort
        return True

    def asks(self, server: Address) -> bool:
        """Whether a TURN server is asked from here already."""
        return server in self._servers

    def detach(self, server: Address) -> None:
        self._servers.pop(server, None)
        if not self._servers:
            self.socket.on_datagram = self._on_datagram

    def close(self) -> None:
        self._servers.clear()
        self.socket.close()

    def _sort(self, data: bytes, source: Address, local: Address) -> None:
        server = self._servers.get(source)
        if server is not None and is_turn(data):
            server.on_message(data, source)
        else:
            self._on_datagram(data, source, local)

    def _sort_segments(
        self, buffer: bytearray, size: int, segment: int, source: Address, local: Address
    ) -> None:
        assert self._on_segments is not None
        server = self._servers.get(source) if self._servers else None
        if server is None:
            self._on_segments(buffer, size, segment, source, local)
            return
        for start in range(0, size, segment or 1):
            data = bytes(buffer[start : min(start + segment, size)])
            if is_turn(data):
                server.on_message(data, source)
            else:
                copy = bytearray(data)
                self._on_segments(copy, len(copy), len(copy), source, local)

    def _on_error(self, destination: Address | None, error: OSError) -> None:
        unrouted = error.errno in _UNROUTED and self._loop.time() < self._settled_at
        if error.errno in _VANISHED or unrouted:
            self._on_vanished()
            return
        if destination is None:
            return
        server = self._servers.get(destination)
        if server is not None:
            server.on_loss(error)
        self._on_icmp_error(self.local, destination)


def is_turn(data: bytes) -> bool:
    """Whether a TURN server says this as such: ChannelData, or STUN of another method than
    Binding."""
    if not data:
        return False
    if 0x40 <= data[0] < 0x50:
        return True
    if data[0] >= 4 or len(data) < 20 or data[4:8] != COOKIE:
        return False
    kind = int.from_bytes(data[:2], "big")
    return kind & 0x3EEF != Method.BINDING  # without the two bits of the class
