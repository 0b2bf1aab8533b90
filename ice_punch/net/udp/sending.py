"""The system calls that send, one datagram or many at a time, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from enum import Enum

from ice_punch.datagram import Address, Buffer
from ice_punch.net.udp import offload
from ice_punch.net.udp.stats import UdpStats

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)
_TRANSIENT = (errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINTR)
"""The datagram is lost, as if in the network: a full queue, or a packet filter of this host."""
_OFFLOAD_REFUSED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)
"""What datagrams that leave as one packet may fail with where one by one they would not."""
_ATTEMPTS = 4


class Fate(Enum):
    SENT = "sent"
    BLOCKED = "blocked"
    """The kernel takes no more for now."""
    LOST = "lost"
    ALONE = "alone"
    """It has to be sent datagram by datagram."""


class Sender:
    """Sends on a socket that does not block. Never raises; ``stats`` counts what is lost."""

    def __init__(
        self,
        sock: socket.socket,
        stats: UdpStats,
        *,
        segment: bool,
        drain_errors: Callable[[], bool] | None,
        report: Callable[[Address | None, OSError], None],
    ) -> None:
        """``drain_errors`` takes what waits in the socket's error queue, and tells whether there
        was an ICMP error; ``report`` is told errors that are the destination's."""
        self.segments_work = segment
        """Whether datagrams may leave as one packet, for the kernel to cut."""
        self.transport: asyncio.DatagramTransport | None = None
        """Instead of the socket, where the event loop can not watch descriptors."""
        self._socket = sock
        self._stats = stats
        self._control: list[tuple[int, int, bytes]] = []
        self._control_for = 0
        """Bytes of the datagrams that the control message is made for."""
        self._drain_errors = drain_errors
        self._report = report

    def one(self, data: Buffer, destination: Address) -> Fate:
        send = self._socket.sendto if self.transport is None else self.transport.sendto
        return self._attempt(lambda: send(data, destination), data, 1, destination)

    def now(self, data: Buffer, size: int, destination: Address) -> bool:
        """Whether the kernel takes a datagram at once; if not, nothing is counted."""
        if self.transport is not None:
            return False
        try:
            self._socket.sendto(data, destination)
        except (OSError, OverflowError):
            return False
        self._stats.sent += 1
        self._stats.sent_bytes += size
        return True

    def packet_now(self, data: Buffer, size: int, destination: Address) -> bool:
        """`now` for datagrams of ``size`` bytes back to back, the last of which may be shorter, as
        one packet; False too where they are more than that can hold."""
        total = len(data)
        count = -(-total // size)
        if not self.segments_work or count > offload.MAX_SEGMENTS or total > offload.MAX_BYTES:
            return False
        if size != self._control_for:
            self._control, self._control_for = offload.segment_control(size), size
        try:
            self._socket.sendmsg((data,), self._control, 0, destination)
        except (OSError, OverflowError):
            return False
        self._stats.sent += count
        self._stats.sent_bytes += total
        return True

    def many(self, datagrams: Sequence[Buffer], sizes: Sequence[int], destination: Address) -> int:
        """How many are dealt with: sent, or lost and counted. The rest waits for the kernel."""
        if len(datagrams) == 1 and self.transport is None:
            if self.now(datagrams[0], sizes[0], destination):
                return 1
            return int(self.one(datagrams[0], destination) is not Fate.BLOCKED)
        if not self.segments_work or len(datagrams) == 1:
            return self._each(datagrams, sizes, destination)
        for first, end, size in offload.runs(sizes):
            run = datagrams[first:end]
            fate = Fate.ALONE
            if len(run) > 1:
                fate = self._packet(b"".join(run), size, len(run), destination)
            if fate is Fate.BLOCKED:
                return first
            if fate is Fate.ALONE:
                done = self._alone(run, sizes[first:end], destination)
                if done < len(run):
                    return first + done
        return len(datagrams)

    def segments(self, view: memoryview, size: int, destination: Address) -> int:
        """How many bytes are dealt with, of datagrams of ``size`` bytes back to back."""
        if len(view) <= size and self.now(view, len(view), destination):
            return len(view)
        step = size * min(offload.MAX_SEGMENTS, max(1, offload.MAX_BYTES // size))
        for start in range(0, len(view), step):
            part = view[start : start + step]
            fate = Fate.ALONE
            if len(part) > size:
                fate = self._packet(part, size, -(-len(part) // size), destination)
            if fate is Fate.BLOCKED:
                return start
            if fate is Fate.ALONE:
                pieces = [part[n : n + size] for n in range(0, len(part), size)]
                done = self._alone(pieces, [*map(len, pieces)], destination)
                if done < len(pieces):
                    return start + done * size
        return len(view)

    def refuse(self, destination: Address | None, error: OSError, count: int = 1) -> None:
        """Count datagrams that could not be sent."""
        if error.errno == errno.EMSGSIZE:
            self._stats.too_large += count
        elif error.errno in _TRANSIENT:
            self._stats.dropped += count
        else:
            self._stats.refused += count
            self._report(destination, error)

    def _each(self, datagrams: Sequence[Buffer], sizes: Sequence[int], destination: Address) -> int:
        """One by one; few steps for each, as long as nothing goes wrong."""
        send = self._socket.sendto if self.transport is None else self.transport.sendto
        done = 0
        while done < len(datagrams):
            first = done
            try:
                for data in datagrams[first:] if first else datagrams:
                    send(data, destination)
                    done += 1
            except (OSError, OverflowError):
                pass
            self._stats.sent += done - first
            self._stats.sent_bytes += sum(sizes[first:done])
            if done < len(datagrams):
                if self.one(datagrams[done], destination) is Fate.BLOCKED:
                    return done
                done += 1
        return done

    def _alone(
        self, datagrams: Sequence[Buffer], sizes: Sequence[int], destination: Address
    ) -> int:
        """What did not leave as one packet. If it does one by one, offload is what is refused."""
        sent = self._stats.sent
        done = self._each(datagrams, sizes, destination)
        if self.segments_work and len(datagrams) > 1 and self._stats.sent - sent == len(datagrams):
            self._give_up_offload(errno.EINVAL)
        return done

    def _packet(self, data: Buffer, size: int, count: int, destination: Address) -> Fate:
        """``count`` datagrams of ``size`` bytes, for the kernel to cut."""
        if not self.segments_work:
            return Fate.ALONE
        control = offload.segment_control(size)
        return self._attempt(
            lambda: self._socket.sendmsg((data,), control, 0, destination),
            data,
            count,
            destination,
        )

    def _attempt(
        self, call: Callable[[], object], data: Buffer, count: int, destination: Address
    ) -> Fate:
        # An ICMP error for an earlier datagram surfaces here and tells nothing about this one.
        number = 0
        for attempt in range(_ATTEMPTS):
            try:
                call()
            except OSError as error:
                number = error.errno or 0
                if error.errno in _WOULD_BLOCK:
                    return Fate.BLOCKED
                if count > 1 and error.errno in _OFFLOAD_REFUSED:
                    if error.errno == errno.EMSGSIZE and attempt == 0:
                        # It may be the path's word on an earlier datagram (ICMP "too big").
                        if self._drain_errors is not None:
                            self._drain_errors()
                        continue
                    if error.errno == errno.EIO:
                        self._give_up_offload(errno.EIO)
                    return Fate.ALONE
                if self._drain_errors is not None and (self._drain_errors() or attempt == 0):
                    continue
                self.refuse(destination, error, count)
                return Fate.LOST
            except OverflowError:  # a port that is none
                self._stats.refused += count
                return Fate.LOST
            self._stats.sent += count
            self._stats.sent_bytes += len(data)
            return Fate.SENT
        if number == errno.EMSGSIZE:
            self._stats.too_large += count
        else:
            self._stats.dropped += count
        return Fate.LOST

    def _give_up_offload(self, number: int) -> None:
        """The kernel has UDP_SEGMENT, and the device or the way there has not."""
        self.segments_work = False
        offload.tell_once(f"UDP segmentation offload was refused: {errno.errorcode[number]}")
