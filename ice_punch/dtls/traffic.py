"""The data of an open association, many records at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls import codec, openssl, records
from ice_punch.dtls.bindings import FEED, GREATEST_CONTENT, Meal
from ice_punch.dtls.events import DtlsCounters
from ice_punch.dtls.segments import RecordShape, Segments, cut, meals
from ice_punch.errors import DatagramRefused, DatagramTooLarge

# Room for a record that OpenSSL adds of its own
_SPARE = 256


class Traffic:
    """Datagrams to records and back, with no more calls of OpenSSL than there are datagrams.

    ``on_data`` is called when some have arrived. What is no whole record of data goes to
    ``on_other``, in its turn, which returns what of it is for the application. ``on_dropped`` is
    told how many records OpenSSL took and gave nothing for, with the error if it ended over one.
    """

    __slots__ = (
        "_codec",
        "_counters",
        "_on_data",
        "_on_dropped",
        "_on_other",
        "_over",
        "_shape",
        "expansion",
        "max_datagram_size",
    )

    def __init__(
        self,
        connection: SSL.Connection,
        mtu: int,
        counters: DtlsCounters,
        *,
        on_data: Callable[[], None],
        on_other: Callable[[bytes, float], list[bytes]],
        on_dropped: Callable[[int, SSL.Error | None, float], None],
    ) -> None:
        self.expansion = mtu - records.HEADER_SIZE - connection.get_cleartext_mtu()
        """Bytes that the cipher adds to content, beside the header."""
        self.set_mtu(mtu)
        is_1_3 = connection.get_protocol_version() == openssl.DTLS_1_3
        self._shape = RecordShape(is_1_3=is_1_3, expansion=self.expansion)
        self._codec = codec.CODEC(connection)
        self._counters = counters
        self._on_data, self._on_other, self._on_dropped = on_data, on_other, on_dropped
        self._over = False

    def set_mtu(self, mtu: int) -> None:
        """Let records be as large as ``mtu`` bytes from now on."""
        added = records.HEADER_SIZE + self.expansion
        self.max_datagram_size = min(mtu - added, GREATEST_CONTENT)

    def end(self) -> None:
        """Nothing is decrypted any more."""
        self._over = True

    # Out

    def encrypt(self, datagrams: Sequence[Buffer], into: bytearray | None) -> list[Segments]:
        """A record for each datagram, at least one of them, in ``into`` if they have room there.

        Raises `DatagramTooLarge`, `DatagramRefused` for an empty one, and SSL.Error; of the first
        two before anything is encrypted.
        """
        if len(datagrams) == 1:
            record = self.encrypt_one(datagrams[0], into)
            return [Segments(memoryview(record), len(record))]
        if memoryview in map(type, datagrams):
            datagrams = [memoryview(datagram).cast("B") for datagram in datagrams]
        sizes = list(map(len, datagrams))
        if max(sizes) > self.max_datagram_size:
            raise DatagramTooLarge(max(sizes), self.max_datagram_size)
        if not all(sizes):
            raise DatagramRefused("DTLS does not carry empty datagrams")
        added = records.HEADER_SIZE + self.expansion
        total = sum(sizes) + added * len(sizes)
        buffer = self._codec.encrypt(datagrams, total + _SPARE, into)
        if len(buffer) != total:
            # DTLS 1.3 may add a record of its own.
            sizes = [len(record) for record in records.split_records(buffer.tobytes())[0]]
            added = 0
        self._counters.application_sent += len(datagrams)
        return cut(buffer, sizes, added)

    def encrypt_one(self, datagram: Buffer, into: bytearray | None) -> Buffer:
        """`encrypt` for one datagram."""
        data = datagram if type(datagram) is bytes else bytes(datagram)
        size = len(data)
        if size > self.max_datagram_size:
            raise DatagramTooLarge(size, self.max_datagram_size)
        if not size:
            raise DatagramRefused("DTLS does not carry empty datagrams")
        room = records.HEADER_SIZE + self.expansion + size + _SPARE
        record = self._codec.encrypt_one(data, room, into)
        self._counters.application_sent += 1
        return record

    # In

    def is_data(self, datagram: Buffer) -> bool:
        """Whether a datagram is one whole record that may be data."""
        return self._shape.fits(datagram)

    def decrypt_one(self, record: bytes, now: float) -> list[bytes]:
        """What a datagram brings that `is_data`."""
        counters = self._counters
        counters.datagrams_received += 1
        if self._over:
            counters.late += 1
            return []
        delivered, error = self._codec.decrypt_one(record)
        if delivered:
            counters.application_received += 1
            self._on_data()
        else:
            self._on_dropped(1, error, now)
        return delivered

    def decrypt(self, datagrams: Sequence[Buffer], now: float) -> list[bytes]:
        """What datagrams bring for the application, in order."""
        size = len(datagrams[0])
        if len(datagrams) > 1 and all(len(datagram) == size for datagram in datagrams):
            joined = b"".join(datagrams)
            if self._shape.fit(joined, len(joined), size):
                count = len(datagrams)
                return self._decrypt(joined, count, meals(len(joined), size), now)
        return self._decrypt_each(datagrams, now)

    def decrypt_segments(self, buffer: Buffer, end: int, size: int, now: float) -> list[bytes]:
        """The same for datagrams of ``size`` bytes in ``buffer``; the last may be shorter."""
        if end <= size:
            datagram = bytes(memoryview(buffer)[:end])
            if self._shape.fits(datagram):
                return self.decrypt_one(datagram, now)
            return self._on_other(datagram, now)
        if isinstance(buffer, memoryview):
            # Looking at every size-th byte is slower there than this copy.
            buffer = buffer[:end].tobytes()
        whole = end - end % size
        if not (whole and self._shape.fit(buffer, whole, size)):
            return self._decrypt_each(cut_apart(buffer, end, size), now)
        received = self._decrypt(buffer, whole // size, meals(whole, size), now)
        if whole < end:
            received += self._decrypt_each((bytes(buffer[whole:end]),), now)
        return received

    def _decrypt_each(self, datagrams: Sequence[Buffer], now: float) -> list[bytes]:
        received: list[bytes] = []
        meal: list[Buffer] = []
        room = FEED

        def eat() -> None:
            if meal:
                joined = b"".join(meal)
                whole = [(0, len(joined), len(meal))]
                received.extend(self._decrypt(joined, len(meal), whole, now))
                meal.clear()

        for datagram in datagrams:
            if not self._shape.fits(datagram):
                eat()
                room = FEED
                received += self._on_other(bytes(datagram), now)
                continue
            if len(datagram) > room:
                eat()
                room = FEED
            meal.append(datagram)
            room -= len(datagram)
        eat()
        return received

    def _decrypt(
        self, buffer: Buffer, count: int, meals: Iterable[Meal], now: float
    ) -> list[bytes]:
        """What ``count`` records bring, in as many meals as OpenSSL takes them in."""
        self._counters.datagrams_received += count
        if self._over:
            self._counters.late += count
            return []
        delivered, error = self._codec.decrypt(buffer, meals)
        if delivered:
            self._counters.application_received += len(delivered)
            self._on_data()
        if len(delivered) < count:
            self._on_dropped(count - len(delivered), error, now)
        return delivered


def cut_apart(buffer: Buffer, end: int, size: int) -> list[bytes]:
    """Datagrams of ``size`` bytes in the first ``end`` of ``buffer``; the last may be shorter."""
    return [bytes(buffer[at : min(at + size, end)]) for at in range(0, end, size or 1)]
