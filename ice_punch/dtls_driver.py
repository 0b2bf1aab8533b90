"""The thin shell around a DTLS association: the path below it, its clock, its events."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence

from ice_punch.carrier import Carrier
from ice_punch.datagram import Buffer
from ice_punch.dtls import (
    MIN_MTU,
    DatagramReceived,
    DtlsCounters,
    DtlsMachine,
    HandshakeCompleted,
    HandshakeFailedEvent,
    PeerClosed,
)
from ice_punch.errors import ChannelClosed, DatagramTooLarge, IcePunchError
from ice_punch.net.clock import clock_of
from ice_punch.net.udp.offload import MAX_BYTES, MAX_SEGMENTS

Event = HandshakeCompleted | HandshakeFailedEvent | PeerClosed

RECORDS = 2 * 65536
"""Bytes of the buffer that records leave from, one for all associations of an event loop."""
GREATEST_OVERHEAD = 40
"""Bytes that a record adds to a datagram, about."""

_common_records: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, bytearray]
_common_records = weakref.WeakKeyDictionary()


class DtlsDriver:
    """Runs an association over a connection. After every call to the machine comes ``_pump``.

    ``on_data`` gets what has arrived, and how many bytes that is, ``on_event`` everything else, in
    this order; ``on_alone`` what was the only datagram of a turn of the event loop. ``on_error`` is
    told that the connection below takes nothing any more.
    """

    def __init__(
        self,
        machine: DtlsMachine,
        carrier: Carrier,
        *,
        on_data: Callable[[list[bytes], int], None],
        on_alone: Callable[[bytes], None],
        on_event: Callable[[Event], None],
        on_error: Callable[[IcePunchError], None],
    ) -> None:
        self._machine = machine
        self._carrier = carrier
        self._path = carrier.data
        self._on_data, self._on_event, self._on_error = on_data, on_event, on_error
        self._on_one = on_alone
        self._loop = asyncio.get_running_loop()
        self._now = clock_of(self._loop)
        self._fit_most, self._fit_for = 1, 0
        self._records = _common_records.setdefault(self._loop, bytearray(RECORDS))
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._stopped = False
        carrier.set_segments_handler(self._on_segments, self._on_alone)

    @property
    def counters(self) -> DtlsCounters:
        return self._machine.counters

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram that fits the path, as it is now, once it is encrypted."""
        limit = self._carrier.max_datagram_size
        if limit != self._machine.mtu and limit >= MIN_MTU:
            self._machine.set_mtu(limit)
        return self._machine.max_datagram_size

    def start(self) -> None:
        """Begin the handshake."""
        now = self._loop.time()
        self._machine.start(now)
        self._pump(now)

    def send_many(self, datagrams: Sequence[Buffer]) -> None:
        """Encrypt datagrams together and send them in order, in as few system calls as the kernel
        allows. Those for which the path has become too narrow are dropped and counted."""
        if len(datagrams) == 1 and self.send_one(datagrams[0]):
            return
        if not datagrams:
            return
        # What fills one packet of the kernel's is still in the processor's cache when it leaves.
        part = self._fit(len(datagrams[0]))
        for start in range(0, len(datagrams), part):
            self._send_part(datagrams[start : start + part])

    def send_some(self, datagrams: Sequence[Buffer]) -> int:
        """`send_many` as long as there is room below; how many are dealt with. Of what was
        encrypted when that ended the socket below holds the rest."""
        part = self._fit(len(datagrams[0]))
        for start in range(0, len(datagrams), part):
            if self._path.congested:
                return start
            self.send_many(datagrams[start : start + part])
        return len(datagrams)

    def send_alike(self, datagrams: Sequence[Buffer], each: int) -> int:
        """`send_many` for bytes objects of ``each`` bytes, as long as there is room below; how many
        are dealt with."""
        count, part = len(datagrams), self._fit(each)
        for start in range(0, count, part):
            if self._path.congested:
                return start
            self._send_part(datagrams if count <= part else datagrams[start : start + part], each)
        return count

    def _fit(self, size: int) -> int:
        """How many datagrams of ``size`` bytes one packet of the kernel's holds."""
        if size != self._fit_for:
            most = min(MAX_SEGMENTS, MAX_BYTES // (size + GREATEST_OVERHEAD))
            self._fit_most, self._fit_for = max(1, most), size
        return self._fit_most

    def send_one(self, data: Buffer) -> bool:
        """`send_many` for one datagram, as long as there is room below; whether there was."""
        path = self._path
        if path.congested:
            return False
        try:
            record = self._machine.encrypt_one(data, self._records)
        except DatagramTooLarge:
            self._carrier.losses.too_large += 1
            return True
        except ChannelClosed:
            self._pump(self._loop.time())
            return True
        if path.send_one(record):
            return True
        try:
            self._carrier.send_record(record)
        except IcePunchError as error:
            self._on_error(error)
        return True

    def _send_part(self, datagrams: Sequence[Buffer], each: int = 0) -> None:
        try:
            segments = self._machine.encrypt_many(datagrams, self._now(), self._records, each=each)
        except DatagramTooLarge as error:
            fitting = [data for data in datagrams if len(data) <= error.limit]
            self._carrier.losses.too_large += len(datagrams) - len(fitting)
            if fitting:
                self._send_part(fitting)
            return
        except ChannelClosed:
            self._pump(self._loop.time())
            return
        try:
            for buffer, size in segments:
                done = self._path.send_segments(buffer, size)
                if done < len(buffer):
                    self._carrier.send_segments(buffer[done:], size)
        except IcePunchError as error:
            self._on_error(error)

    def close(self) -> None:
        """Tell the peer that this is the end."""
        now = self._loop.time()
        self._machine.close(now)
        self._pump(now)

    def stop(self) -> None:
        """No timer runs any more."""
        self._stopped = True
        self._set_timer()

    def _on_segments(self, buffer: bytes | bytearray, end: int, size: int) -> None:
        now, machine = self._now(), self._machine
        before = machine.counters.application_bytes
        if received := machine.decrypt_segments(buffer, end, size, now):
            self._on_data(received, machine.counters.application_bytes - before)
        if not machine.quiet or machine.get_timer() != self._timer_at:
            self._pump(now)

    def _on_alone(self, buffer: bytearray, size: int, now: float) -> None:
        data = self._machine.decrypt_alone(buffer, size, now)
        if data is None:
            self._on_segments(bytes(buffer[:size]), size, size)
        elif not data or self._timer_at is not None:
            if data:
                self._on_data([data], len(data))
            self._pump(now)
        else:
            self._on_one(data)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        now = self._loop.time()
        self._machine.handle_timer(now)
        self._pump(now)

    def _pump(self, now: float) -> None:
        for data in self._machine.datagrams_to_send(now):
            try:
                self._carrier.send_record(data)
            except IcePunchError as error:
                self._on_error(error)
                break
        while (event := self._machine.next_event()) is not None:
            if isinstance(event, DatagramReceived):
                self._on_data([event.data], len(event.data))
            else:
                self._on_event(event)
        self._set_timer()

    def _set_timer(self) -> None:
        due = None if self._stopped else self._machine.get_timer()
        if due == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)
        self._timer_at = due
