"""A UDP socket on an event loop: every readiness event drains it, errors name their destination."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import random
import select
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.errors import InterfaceNotFound, InvalidConfiguration, PortRangeExhausted
from ice_punch.net import icmp

DatagramHandler = Callable[[bytes, Address, Address], None]
"""Data, source, and the local address it arrived at."""
ErrorHandler = Callable[[Address | None, OSError], None]

BUFFER_SIZE = 4 * 1024 * 1024
"""Bytes asked of the kernel for each direction; it gives what it allows."""
MAX_DATAGRAM = 65535
DRAIN_LIMIT = 64
"""Datagrams read before other work of the event loop gets its turn."""
SEND_QUEUE = 256
"""Datagrams held while the kernel's send buffer is full."""

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)
_TRANSIENT = (errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINTR)
"""The datagram is lost, as if in the network: a full queue, or a packet filter of this host."""

# Constants that Python 3.11 does not name; the values are Linux's, then macOS's and Windows'.
_DONT_FRAGMENT = {
    "linux": ((socket.IPPROTO_IP, 10, 2), (socket.IPPROTO_IPV6, 23, 2)),
    "darwin": ((socket.IPPROTO_IP, 28, 1), (socket.IPPROTO_IPV6, 62, 1)),
    "win32": ((socket.IPPROTO_IP, 14, 1), (socket.IPPROTO_IPV6, 14, 1)),
}


@dataclass(slots=True)
class UdpStats:
    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped: int = 0
    """Sends given up: a full queue or buffer, or a packet filter of this host."""
    too_large: int = 0
    """Sends refused because the path carries no datagram of that size (EMSGSIZE)."""
    refused: int = 0
    """Sends refused for another reason: no route, or an address that nothing can be sent to."""
    icmp_errors: int = 0
    """Hard ICMP errors."""
    icmp_ignored: int = 0
    """Soft ICMP errors, RFC 1122 section 3.2.2.1: they may pass."""


class UdpSocket:
    """One UDP socket, bound to one IP address.

    ``on_error`` may be replaced at any time. It is told hard errors: an ICMP error that says a
    datagram to ``destination`` can not arrive (RFC 8445 section 7.2.5.2.2; Linux only), or a
    destination that this host has no way to. Never from within ``send``, always from the event
    loop. A datagram too large for the path is no such error: ``send`` returns False and
    ``stats.too_large`` counts it.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_datagram: DatagramHandler,
        on_error: ErrorHandler | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Takes over a bound, non-blocking socket; ``open`` makes one."""
        self.on_datagram = on_datagram
        self.on_error = on_error
        self.stats = UdpStats()
        host, port = sock.getsockname()[:2]
        self.local: Address = (host, port)
        self._socket = sock
        self._loop = loop
        self._closed = False
        self._buffer = bytearray(MAX_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._reports_icmp = icmp.enable(sock)
        self._epoll: select.epoll | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start()

    @classmethod
    def open(
        cls,
        ip: str,
        on_datagram: DatagramHandler,
        *,
        on_error: ErrorHandler | None = None,
        port_range: tuple[int, int] | None = None,
        port: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> UdpSocket:
        """Bind to ``ip`` and a free port of ``port_range`` (both ends included), or to ``port``.

        Raises PortRangeExhausted when no port is free, InvalidConfiguration for a range that is
        none, InterfaceNotFound when ``ip`` is not an address of this host, OSError for the rest.
        """
        loop = loop or asyncio.get_running_loop()
        sock = bind(ip, port_range, port)
        try:
            return cls(sock, on_datagram, on_error, loop)
        except BaseException:
            sock.close()
            raise

    def send(self, data: bytes, destination: Address) -> bool:
        """Send a datagram, or queue it while the kernel can take no more.

        False: it was dropped, ``stats`` counts why. Never raises and never blocks.
        ``destination`` has an IP address, not a name.
        """
        if self._closed:
            return False
        if self._unsent or self._starting is not None:
            return self._queue(data, destination)
        # An ICMP error for an earlier datagram surfaces here and tells nothing about this one.
        for attempt in range(4):
            try:
                if self._transport is not None:
                    self._transport.sendto(data, destination)
                else:
                    self._socket.sendto(data, destination)
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return self._queue(data, destination)
                if self._reports_icmp and (self._drain_errors() or attempt == 0):
                    continue
                self._refuse(destination, error)
                return False
            except OverflowError:  # a port that is none
                self.stats.refused += 1
                return False
            self.stats.sent += 1
            self.stats.sent_bytes += len(data)
            return True
        self.stats.dropped += 1
        return False

    def close(self) -> None:
        """Stop and close; what is still queued is dropped. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._unsent.clear()
        if self._starting is not None:
            self._starting.cancel()
        if self._transport is not None:
            self._transport.abort()
        elif self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        else:
            with contextlib.suppress(NotImplementedError):
                self._loop.remove_reader(self._socket.fileno())
                self._loop.remove_writer(self._socket.fileno())
        self._socket.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def fileno(self) -> int:
        return self._socket.fileno()

    # -- the event loop -----------------------------------------------------------------------

    def _start(self) -> None:
        try:
            if self._reports_icmp and not isinstance(self._loop, asyncio.SelectorEventLoop):
                # libuv stops polling a descriptor for good once it reports POLLERR, which is how
                # an ICMP error shows. Around the socket, an epoll descriptor is merely readable.
                self._epoll = select.epoll()
                self._epoll.register(self._socket.fileno(), select.EPOLLIN)
                self._loop.add_reader(self._epoll.fileno(), self._on_ready)
            else:
                self._loop.add_reader(self._socket.fileno(), self._on_readable)
        except NotImplementedError:  # Windows' proactor loop
            self._starting = self._loop.create_task(self._start_transport())

    async def _start_transport(self) -> None:
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Protocol(self), sock=self._socket
        )
        self._transport = transport
        self._starting = None
        unsent, self._unsent = self._unsent, deque()
        for data, destination in unsent:
            self.send(data, destination)

    def _on_ready(self) -> None:
        if self._unsent:
            self._flush()
        self._on_readable()

    def _on_readable(self) -> None:
        stats = self.stats
        receive = self._socket.recvfrom_into
        before = stats.received
        for _ in range(DRAIN_LIMIT):
            if self._closed:
                return
            try:
                size, source = receive(self._buffer)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for something sent earlier; what was received waits behind it.
                self._drain_errors()
                continue
            stats.received += 1
            stats.received_bytes += size
            self.on_datagram(bytes(self._view[:size]), source[:2], self.local)
        if stats.received == before:
            self._drain_errors()

    def _queue(self, data: bytes, destination: Address) -> bool:
        if len(self._unsent) >= SEND_QUEUE:
            self.stats.dropped += 1
            return False
        if not self._unsent and self._starting is None:
            if self._epoll is not None:
                self._epoll.modify(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
            else:
                self._loop.add_writer(self._socket.fileno(), self._flush)
        self._unsent.append((data, destination))
        return True

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, deque()
        if self._epoll is not None:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN)
        else:
            self._loop.remove_writer(self._socket.fileno())
        for data, destination in unsent:
            self.send(data, destination)

    # -- errors -------------------------------------------------------------------------------

    def _drain_errors(self) -> bool:
        """Report what waits in the socket's error queue; True if there was an ICMP error."""
        found = False
        for _ in range(DRAIN_LIMIT):
            if self._closed or not self._reports_icmp:
                break
            queued = icmp.read(self._socket)
            if queued is None:
                break
            if queued.is_local:
                continue  # `send` has seen it
            found = True
            if queued.is_hard:
                self.stats.icmp_errors += 1
                self._report(queued.destination, queued.error)
            else:
                self.stats.icmp_ignored += 1
        return found

    def _refuse(self, destination: Address | None, error: OSError) -> None:
        if error.errno == errno.EMSGSIZE:
            self.stats.too_large += 1
        elif error.errno in _TRANSIENT:
            self.stats.dropped += 1
        else:
            self.stats.refused += 1
            self._report(destination, error)

    def _report(self, destination: Address | None, error: OSError) -> None:
        self._loop.call_soon(self._call_on_error, destination, error)

    def _call_on_error(self, destination: Address | None, error: OSError) -> None:
        if self.on_error is not None and not self._closed:
            self.on_error(destination, error)


class _Protocol(asyncio.DatagramProtocol):
    """The same socket where the event loop can not watch descriptors."""

    def __init__(self, owner: UdpSocket) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        owner = self._owner
        if not owner.closed:
            owner.stats.received += 1
            owner.stats.received_bytes += len(data)
            owner.on_datagram(data, addr[:2], owner.local)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self._owner._refuse(None, exc)


def bind(
    ip: str,
    port_range: tuple[int, int] | None = None,
    port: int = 0,
    *,
    kind: socket.SocketKind = socket.SOCK_DGRAM,
) -> socket.socket:
    """A bound, non-blocking socket; a UDP one has large buffers and never fragments.

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
