"""A UDP socket on an event loop: every readiness event drains it, errors name their destination."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import sys
from collections.abc import Callable, Container, Sequence

from ice_punch.datagram import Address, Buffer
from ice_punch.net import icmp
from ice_punch.net.udp import offload
from ice_punch.net.udp.binding import bind
from ice_punch.net.udp.receiving import AloneHandler, Receiver
from ice_punch.net.udp.sending import Fate, Sender
from ice_punch.net.udp.stats import UdpStats

DatagramHandler = Callable[[bytes, Address, Address], None]
"""Data, source, and the local address it arrived at."""
SegmentsHandler = Callable[[bytearray, int, int, Address, Address], None]
"""A buffer, how many of its bytes came, the bytes of each datagram among them (the last may be
shorter), source, and local address. The buffer is valid only during the call."""
ErrorHandler = Callable[[Address | None, OSError], None]

DRAIN_LIMIT = 64
"""Datagrams read before other work of the event loop gets its turn."""
DRAIN_LIMIT_OFFLOAD = 256
"""The same with receive offload; the packet that reaches it is the last."""
RELEASE_TRIES = 16
"""Times that a socket is emptied before it is given away, in case more comes in between."""
RELEASE_READS = 4096
"""Reads after which it counts as empty, however much still comes."""
SEND_QUEUE = 256
"""Datagrams held while the kernel's send buffer is full."""

_SO_MAX_PACING_RATE = 47
_UNPACED = 0xFFFFFFFF


class UdpSocket:
    """One UDP socket, bound to one IP address.

    ``on_error`` may be replaced at any time. It is told hard errors: an ICMP error that says a
    datagram to ``destination`` can not arrive (RFC 8445 section 7.2.5.2.2; Linux only), or a
    destination that this host has no way to. Never from within ``send``, always from the event
    loop. A datagram too large for the path is no such error: ``send`` returns False and
    ``stats.too_large`` counts it, and ``on_path_mtu`` is told how large a packet may be, where the
    kernel knows.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_datagram: DatagramHandler,
        on_error: ErrorHandler | None,
        loop: asyncio.AbstractEventLoop,
        *,
        on_segments: SegmentsHandler | None = None,
        segment: bool = True,
    ) -> None:
        """Takes over a bound, non-blocking socket; ``open`` makes one."""
        self.on_datagram = on_datagram
        self.on_error = on_error
        self._on_writable: Callable[[], None] | None = None
        self.on_path_mtu: Callable[[Address, int, bool], None] | None = None
        """Told the bytes of the largest IP packet that a destination's path takes, and whether this
        host knows it, or an ICMP message says so, which anybody may have sent."""
        self.stats = UdpStats()
        host, port = sock.getsockname()[:2]
        self.local: Address = (host, port)
        self._socket = sock
        self._loop = loop
        self._closed = False
        self.congested = False
        """Whether the kernel takes no more for now."""
        self._unsent: list[tuple[bytes, Address]] = []
        self._blocked = False
        self._on_segments = on_segments
        self._send: Callable[[Buffer, Address], int] | None = sock.sendto
        """None where the event loop can not watch descriptors."""
        self._reports_icmp = icmp.enable(sock)
        self._receiver = Receiver(
            sock,
            loop,
            self.stats,
            segments=on_segments is not None and segment and offload.enable_receive(sock),
            drain_errors=self._drain_errors,
        )
        self._sender = Sender(
            sock,
            self.stats,
            segment=segment and offload.can_segment(sock),
            drain_errors=self._drain_errors if self._reports_icmp else None,
            report=self._report,
        )
        self._epoll: select.epoll | None = None
        self._starting: asyncio.Task[None] | None = None
        self._paused = False
        """Whether the transport, where there is one, holds as much as it should."""
        self._start()

    @classmethod
    def open(
        cls,
        ip: str,
        on_datagram: DatagramHandler,
        *,
        on_error: ErrorHandler | None = None,
        on_segments: SegmentsHandler | None = None,
        port_range: tuple[int, int] | None = None,
        port: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
        segment: bool = True,
    ) -> UdpSocket:
        """Bind to ``ip`` and a free port of ``port_range`` (both ends included), or to ``port``.

        With ``on_segments`` datagrams come as the kernel has them, many at a time where it has
        receive offload, and ``on_datagram`` is not called. ``segment`` False does without either
        offload.

        Raises PortRangeExhausted when no port is free, InvalidConfiguration for a range that is
        none, InterfaceNotFound when ``ip`` is not an address of this host, OSError for the rest.
        """
        loop = loop or asyncio.get_running_loop()
        sock = bind(ip, port_range, port)
        try:
            return cls(sock, on_datagram, on_error, loop, on_segments=on_segments, segment=segment)
        except BaseException:
            sock.close()
            raise

    @property
    def segments(self) -> bool:
        """Whether datagrams of one size leave as one packet, for the kernel to cut."""
        return self._sender.segments_work

    @property
    def receives_segments(self) -> bool:
        """Whether the kernel may hand in several datagrams as one packet."""
        return self._receiver.segments

    # -- sending ------------------------------------------------------------------------------

    def send(self, data: bytes, destination: Address) -> bool:
        """Send a datagram, or queue it while the kernel can take no more.

        False: it was dropped, ``stats`` counts why. Never raises and never blocks.
        ``destination`` has an IP address, not a name.
        """
        if self._closed:
            return False
        if self._unsent or self._starting is not None or self._paused:
            return self._queue(data, destination)
        if self.send_now(data, len(data), destination):
            return True
        fate = self._sender.one(data, destination)
        if fate is Fate.BLOCKED:
            return self._queue(data, destination)
        return fate is Fate.SENT

    def send_now(self, data: Buffer, size: int, destination: Address) -> bool:
        """Send a datagram of ``size`` bytes if the kernel takes it at once; False: nothing was
        done, and ``send_many`` tells why."""
        if self._send is None or self._closed or self._unsent:
            return False
        try:
            self._send(data, destination)
        except (OSError, OverflowError):
            return False
        stats = self.stats
        stats.sent += 1
        stats.sent_bytes += size
        return True

    def send_packet_now(self, data: Buffer, size: int, destination: Address) -> bool:
        """``send_now`` for datagrams of ``size`` bytes back to back, which the kernel is to cut;
        the last may be shorter. False: nothing was done, and ``send_segments`` tells why."""
        if self._closed or self._unsent or self._starting is not None:
            return False
        return self._sender.packet_now(data, size, destination)

    def send_many(
        self,
        datagrams: Sequence[Buffer],
        destination: Address,
        sizes: Sequence[int] | None = None,
    ) -> int:
        """Send datagrams in order, in as few system calls as the kernel allows. Whoever knows
        their ``sizes`` already spares them being asked.

        Returns how many are dealt with: sent, or lost and counted in ``stats``. Where those are
        not all, the kernel takes no more for now, and whoever is told of room is called when it
        does.
        """
        if self._closed:
            return len(datagrams)
        if self._unsent or self._starting is not None or self._paused:
            return self._block(0)
        done = self._sender.many(datagrams, sizes or list(map(len, datagrams)), destination)
        return done if done == len(datagrams) else self._block(done)

    def send_segments(self, buffer: Buffer, size: int, destination: Address) -> int:
        """``send_many`` for datagrams of ``size`` bytes that lie back to back in ``buffer``; the
        last may be shorter. Returns how many of its bytes are dealt with."""
        if self._closed:
            return len(buffer)
        if self._unsent or self._starting is not None or self._paused:
            return self._block(0)
        done = self._sender.segments(memoryview(buffer), size, destination)
        return done if done == len(buffer) else self._block(done)

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        """Have ``handler`` called when what was `congested` is so no more."""
        self._on_writable = handler

    def set_alone_handler(self, handler: AloneHandler | None) -> None:
        """Who gets a datagram first that is the only one of its readiness event."""
        self._receiver.alone = handler

    def keep_from_alone_handler(self, sources: Container[Address]) -> None:
        """Whose datagrams go to ``on_segments`` all the same."""
        self._receiver.not_alone = sources

    def set_pacing_rate(self, rate: float | None) -> None:
        """Have the kernel spread packets to so many bytes a second, where its queueing does that
        (Linux with ``fq``); elsewhere nothing happens."""
        if sys.platform == "linux":
            value = _UNPACED if rate is None else min(max(1, int(rate)), _UNPACED - 1)
            with contextlib.suppress(OSError):
                self._socket.setsockopt(
                    socket.SOL_SOCKET, _SO_MAX_PACING_RATE, value.to_bytes(4, sys.byteorder)
                )

    def close(self) -> None:
        """Stop and close; what is still queued is dropped. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._unsent.clear()
        if self._starting is not None:
            self._starting.cancel()
        if self._sender.transport is not None:
            self._sender.transport.abort()
        else:
            self._stop_watching()
        self._socket.close()

    def release(self, peer: Address) -> socket.socket | None:
        """Connect the socket to ``peer`` and give it away as if it had never been here: nobody
        reads it, and neither offload nor ICMP errors surprise its next owner. What has come by now
        is handed over first; what is still queued is dropped. None where the event loop can not
        let go of it, or it is closed. Raises OSError where there is no way to ``peer``."""
        if self._closed or self._sender.transport is not None or self._starting is not None:
            return None
        self._socket.connect(peer)
        self._hand_over_the_rest()
        self._closed = True
        self._unsent.clear()
        self._stop_watching()
        if self._reports_icmp:
            icmp.disable(self._socket)
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # takes it off the socket
        return self._socket

    def _hand_over_the_rest(self) -> None:
        """Read what is there: strangers' datagrams too, and those that the kernel has put together,
        which the next owner could not part any more. Leaves without receive offload."""
        self._receiver.alone = None
        for _ in range(RELEASE_TRIES):
            for _ in range(RELEASE_READS):
                before = self.stats.received
                self._read()
                if self.stats.received == before:
                    break
            if not self.receives_segments:
                return
            offload.disable_receive(self._socket)
            if not self._take_one(socket.MSG_PEEK):
                return
            offload.enable_receive(self._socket)  # came in between, perhaps put together
        offload.disable_receive(self._socket)
        for _ in range(RELEASE_READS):
            if not self._take_one(0):
                return

    def _take_one(self, flags: int) -> bool:
        """Whether a datagram, or an error, was there."""
        try:
            self._socket.recv(1, flags)
        except BlockingIOError:
            return False
        except OSError:
            self._drain_errors()
        return True

    def _stop_watching(self) -> None:
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        else:
            with contextlib.suppress(NotImplementedError):
                self._loop.remove_reader(self._socket.fileno())
                self._loop.remove_writer(self._socket.fileno())

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
            self._send = None
            self.congested = True
            self._starting = self._loop.create_task(self._start_transport())

    async def _start_transport(self) -> None:
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Protocol(self), sock=self._socket
        )
        self._sender.transport = transport
        self._sender.segments_work = False  # what goes past the transport would overtake
        self._starting = None
        self._flush()

    def _on_ready(self) -> None:
        if self.congested:
            self._flush()
        if not self._receiver.lone(self._hand_over):
            self._read()

    def _on_readable(self) -> None:
        if not self._receiver.lone(self._hand_over):
            self._read()

    def _read(self) -> None:
        before = self.stats.received
        if self._on_segments is None:
            self._receiver.datagrams(self._deliver, DRAIN_LIMIT)
        else:
            limit = DRAIN_LIMIT_OFFLOAD if self.receives_segments else DRAIN_LIMIT
            self._receiver.packets(self._hand_over, limit)
        if self.stats.received == before:
            self._drain_errors()

    def _deliver(self, data: bytes, source: Address) -> bool:
        self.on_datagram(data, source, self.local)
        return not self._closed

    def _hand_over(self, buffer: bytearray, size: int, segment: int, source: Address) -> bool:
        assert self._on_segments is not None
        self._on_segments(buffer, size, segment, source, self.local)
        return not self._closed

    def receive(self, data: bytes, source: Address) -> None:
        """A datagram that came another way than from the socket's own readiness."""
        self.stats.received += 1
        self.stats.received_bytes += len(data)
        if self._on_segments is None:
            self.on_datagram(data, source, self.local)
        else:
            self._on_segments(bytearray(data), len(data), len(data), source, self.local)

    def pause(self) -> None:
        """The transport holds enough until `resume`."""
        self._paused = self.congested = True

    def resume(self) -> None:
        self._paused = False
        if not self._closed:
            self._flush()

    def fail(self, error: OSError) -> None:
        """What was sent earlier has failed, and nobody knows where it should have gone."""
        self._sender.refuse(None, error)

    def _queue(self, data: bytes, destination: Address) -> bool:
        if len(self._unsent) >= SEND_QUEUE:
            self.stats.dropped += 1
            return False
        self._watch_for_room()
        self._unsent.append((data, destination))
        self.congested = True
        return True

    def _block(self, done: int) -> int:
        self._watch_for_room()
        self._blocked = self.congested = True
        return done

    def _watch_for_room(self) -> None:
        if self._unsent or self._blocked or self._send is None:
            return
        if self._epoll is not None:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        else:
            self._loop.add_writer(self._socket.fileno(), self._flush)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        blocked, self._blocked = self._blocked, False
        self.congested = False
        if self._epoll is not None:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN)
        elif self._sender.transport is None:
            self._loop.remove_writer(self._socket.fileno())
        for data, destination in unsent:
            self.send(data, destination)
        if self._unsent or self._paused:
            self._blocked, self.congested = blocked, True
        elif self._on_writable is not None:
            self._on_writable()

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
            if queued.path_mtu is not None and self.on_path_mtu is not None:
                told = queued.destination, queued.path_mtu, queued.is_local
                self._loop.call_soon(self._call_on_path_mtu, *told)
            if queued.is_local:
                continue  # `send` has seen it
            found = True
            if queued.is_hard:
                self.stats.icmp_errors += 1
                self._report(queued.destination, queued.error)
            else:
                self.stats.icmp_ignored += 1
        return found

    def _report(self, destination: Address | None, error: OSError) -> None:
        self._loop.call_soon(self._call_on_error, destination, error)

    def _call_on_error(self, destination: Address | None, error: OSError) -> None:
        if self.on_error is not None and not self._closed:
            self.on_error(destination, error)

    def _call_on_path_mtu(self, destination: Address, mtu: int, is_local: bool) -> None:
        if self.on_path_mtu is not None and not self._closed:
            self.on_path_mtu(destination, mtu, is_local)


class _Protocol(asyncio.DatagramProtocol):
    """The same socket where the event loop can not watch descriptors."""

    def __init__(self, owner: UdpSocket) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        owner = self._owner
        if not owner.closed:
            owner.receive(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self._owner.fail(exc)

    def pause_writing(self) -> None:
        self._owner.pause()

    def resume_writing(self) -> None:
        self._owner.resume()
