"""The system calls that receive, and datagrams that are put together where the kernel has not."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable, Container

from ice_punch.datagram import Address
from ice_punch.net.udp import offload
from ice_punch.net.udp.stats import UdpStats

MAX_DATAGRAM = 65535
MANY = 32
"""Datagrams in one packet after which the event loop comes back for the next: by then these are
read, their memory is free again, and whether there are more is known without being asked."""
LONE = 8
"""After so many single datagrams it is seen only every so often whether a second one is there: to
be told that there is none costs as much as to read one."""

_common_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[memoryview]]
_common_buffers = weakref.WeakKeyDictionary()
"""What the sockets of an event loop receive into: one of them reads at a time."""


AloneHandler = Callable[[bytearray, int, Address], bool]
"""A buffer, how many of its bytes came, and their source. False: it is not for this handler. It is
the last that is done in a turn."""


class Receiver:
    """Reads a socket that does not block until it would. Handlers return False to stop it."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        stats: UdpStats,
        *,
        segments: bool,
        drain_errors: Callable[[], object],
    ) -> None:
        """``segments``: the kernel may hand in several datagrams as one packet. ``drain_errors``
        takes what waits in the socket's error queue."""
        self.segments = segments
        self._socket = sock
        self._stats = stats
        self._drain_errors = drain_errors
        if loop not in _common_buffers:
            _common_buffers[loop] = (memoryview(bytearray(2 * MAX_DATAGRAM)),)
        self._room = _common_buffers[loop]
        self._view = self._room[0]
        buffer = self._view.obj
        assert type(buffer) is bytearray
        self._buffer = buffer
        self.alone: AloneHandler | None = None
        """Gets the only datagram of a readiness event first."""
        self.not_alone: Container[Address] = ()
        """Sources whose datagrams it does not get."""
        self._first: tuple[int, int, Address] | None = None
        """What `lone` has received and leaves to `packets`."""
        self._lone = 0
        """Times in a row that exactly one datagram was there to be read."""

    def lone(self, handler: Callable[[bytearray, int, int, Address], bool]) -> bool:
        """Where datagrams came one by one lately: read no more than one, in few steps. False:
        `packets` has to be called."""
        if self._lone < LONE or not self._lone % LONE:
            return False
        try:
            if self.segments:
                size, ancillary, _, sender = self._socket.recvmsg_into(
                    self._room, offload.ANCILLARY_SPACE
                )
                if ancillary:
                    each = offload.segment_size(ancillary, size)
                    if each != size:
                        self._first = size, each, sender[:2]
                        return False
            else:
                size, sender = self._socket.recvfrom_into(self._buffer)
        except OSError:
            self._drain_errors()
            return True
        # It is alone, as those before it were; if it is not, the event loop comes back.
        self._lone += 1
        source = sender[:2]
        stats, alone = self._stats, self.alone
        stats.received += 1
        stats.received_bytes += size
        if alone is None or source in self.not_alone or not alone(self._buffer, size, source):
            handler(self._buffer, size, size, source)
        return True

    def datagrams(self, handler: Callable[[bytes, Address], bool], limit: int) -> None:
        """Up to ``limit`` datagrams, one by one."""
        receive, stats = self._socket.recvfrom_into, self._stats
        for _ in range(limit):
            try:
                size, source = receive(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error for something sent earlier; what was received waits behind it.
                self._drain_errors()
                continue
            stats.received += 1
            stats.received_bytes += size
            if not handler(bytes(self._view[:size]), source[:2]):
                return

    def packets(self, handler: Callable[[bytearray, int, int, Address], bool], limit: int) -> None:
        """Datagrams back to back, as long as they have one size, but the last, and one source:
        those that the kernel has put together, and those that it has not. ``handler`` gets the
        buffer, how many bytes there are, and the size of each. It ends with the packet that reaches
        ``limit`` datagrams."""
        first, self._first = self._first, None
        buffer, view = self._buffer, self._view
        filled = segment = 0
        source: Address = ("", 0)
        most = limit
        while limit > 0:
            try:
                if first is not None:
                    (size, each, sender), first = first, None
                else:
                    size, each, sender = self._next(view[filled:] if filled else view)
            except BlockingIOError:
                break
            except OSError:
                limit -= 1
                self._drain_errors()
                continue
            count = -(-size // each) if each else 1
            limit -= count
            if filled and sender == source and size and (each == segment or size == each < segment):
                filled += size
            else:
                if filled:
                    # What does not go with it is moved to the beginning, once that is free again.
                    kept = bytes(view[filled : filled + size])
                    if not self._hand_over(handler, filled, segment, source):
                        return
                    buffer[:size] = kept
                filled, segment, source = size, each, sender
            if count >= MANY:
                self._lone = 0
                self._hand_over(handler, filled, segment, source)
                return
            if not size or filled % segment or filled >= MAX_DATAGRAM:
                if not self._hand_over(handler, filled, segment, source):
                    return
                filled = 0
        if most - limit != 1:
            self._lone = 0
        else:
            self._lone += 1
            alone = self.alone
            if filled and alone is not None and source not in self.not_alone:
                self._stats.received += 1
                self._stats.received_bytes += filled
                if not alone(buffer, filled, source):
                    handler(buffer, filled, filled, source)
                return
        if filled:
            self._hand_over(handler, filled, segment, source)

    def _next(self, room: memoryview) -> tuple[int, int, Address]:
        """Bytes received, bytes of each datagram among them, and where they came from."""
        if not self.segments:
            size, source = self._socket.recvfrom_into(room)
            return size, size, source[:2]
        size, ancillary, _, source = self._socket.recvmsg_into((room,), offload.ANCILLARY_SPACE)
        return size, offload.segment_size(ancillary, size) if ancillary else size, source[:2]

    def _hand_over(
        self,
        handler: Callable[[bytearray, int, int, Address], bool],
        size: int,
        segment: int,
        source: Address,
    ) -> bool:
        self._stats.received += -(-size // segment) if segment else 1
        self._stats.received_bytes += size
        return handler(self._buffer, size, segment, source)
