"""The data of an open association, many records at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls import codec, openssl, records
from ice_punch.dtls.bindings import FEED, GREATEST_CONTENT
from ice_punch.dtls.events import DtlsCounters
from ice_punch.dtls.segments import RecordShape, Segments, cut
from ice_punch.errors import DatagramRefused, DatagramTooLarge

# Room for a record that OpenSSL adds of its own
_SPARE = 256


class Traffic:
    """Datagrams to records and back, with no more calls of OpenSSL than there are datagrams.

    ``on_data`` is called when some have arrived. What is no whole record of data goes to
    ``on_other``, in its turn, which returns what of it is for the application. ``on_dropped`` is
    told how many records OpenSSL took and gave nothing for, with the error if it ended over one.
    ``greatest`` is what a record may have in it, in bytes.
    """

    __slots__ = (
        "_added",
        "_codec",
        "_counters",
        "_greatest",
        "_is_1_3",
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
        greatest: int = GREATEST_CONTENT,
        on_data: Callable[[], None],
        on_other: Callable[[bytes, float], list[bytes]],
        on_dropped: Callable[[int, SSL.Error | None, float], None],
    ) -> None:
        self.expansion = mtu - records.HEADER_SIZE - connection.get_cleartext_mtu()
        """Bytes that the cipher adds to content, beside the header."""
        self._greatest = greatest
        self.set_mtu(mtu)
        self._is_1_3 = is_1_3 = connection.get_protocol_version() == openssl.DTLS_1_3
        self._shape = RecordShape(is_1_3=is_1_3, expansion=self.expansion)
        self._codec = codec.CODEC(connection)
        self._counters = counters
        self._on_data, self._on_other, self._on_dropped = on_data, on_other, on_dropped
        self._over = False

    def set_mtu(self, mtu: int) -> None:
        """Let records be as large as ``mtu`` bytes from now on."""
        added = records.HEADER_SIZE + self.expansion
        self._added = added + _SPARE
        self.max_datagram_size = min(mtu - added, self._greatest)

    def end(self) -> None:
        """Nothing is decrypted any more."""
        self._over = True

    # Out

    def encrypt(self, datagrams: Sequence[Buffer], into: bytearray | None) -> list[Segments]:
        """A record for each datagram, at least one of them, in ``into`` if they have room there.

        Raises `DatagramTooLarge`, `DatagramRefused` for an empty one, and SSL.Error; of the first
        two before anything is encrypted.
        """
        count = len(datagrams)
        if count == 1:
            record = self.encrypt_one(datagrams[0], into)
            return [Segments(memoryview(record), len(record))]
        types = set(map(type, datagrams))
        if memoryview in types:
            datagrams = [memoryview(datagram).cast("B") for datagram in datagrams]
        lengths = set(map(len, datagrams))
        if max(lengths) > self.max_datagram_size:
            raise DatagramTooLarge(max(lengths), self.max_datagram_size)
        if 0 in lengths:
            raise DatagramRefused("DTLS does not carry empty datagrams")
        if len(lengths) == 1 and types == {bytes}:
            return self.encrypt_alike(datagrams, lengths.pop(), into)
        sizes = list(map(len, datagrams))
        added = records.HEADER_SIZE + self.expansion
        total = sum(sizes) + added * count
        buffer = self._codec.encrypt(datagrams, total + _SPARE, into)
        self._counters.application_sent += count
        return cut(buffer, sizes, added) if len(buffer) == total else cut_by_header(buffer)

    def encrypt_alike(
        self, datagrams: Sequence[Buffer], size: int, into: bytearray | None
    ) -> list[Segments]:
        """`encrypt` for bytes objects of ``size`` bytes each, more than none."""
        if size > self.max_datagram_size:
            raise DatagramTooLarge(size, self.max_datagram_size)
        count, added = len(datagrams), records.HEADER_SIZE + self.expansion
        total = count * (size + added)
        buffer = self._codec.encrypt_alike(datagrams, size, total + _SPARE, into)
        self._counters.application_sent += count
        if len(buffer) == total:
            return [Segments(buffer, size + added)]
        return cut_by_header(buffer)

    def encrypt_one(self, datagram: Buffer, into: bytearray | None) -> Buffer:
        """`encrypt` for one datagram."""
        data = datagram if type(datagram) is bytes else bytes(datagram)
        size = len(data)
        if size > self.max_datagram_size:
            raise DatagramTooLarge(size, self.max_datagram_size)
        if not size:
            raise DatagramRefused("DTLS does not carry empty datagrams")
        record = self._codec.encrypt_one(data, self._added + size, into)
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
        data, error = self._codec.decrypt_one(record, len(record))
        if data:
            counters.application_received += 1
            counters.application_bytes += len(data)
            self._on_data()
            return [data]
        self._on_dropped(1, error, now)
        return []

    def decrypt_alone(self, buffer: bytearray, size: int, now: float) -> bytes | None:
        """The same for the first ``size`` bytes of a buffer: b"" where they bring nothing for the
        application, None, and nothing is done, where they are not a whole record of data."""
        if not self._shape.begins(buffer, size):
            return None
        data, error = self._codec.decrypt_one(buffer, size)
        counters = self._counters
        counters.datagrams_received += 1
        if data:
            counters.application_received += 1
            counters.application_bytes += len(data)
            self._on_data()
            return data
        self._on_dropped(1, error, now)
        return b""

    def decrypt(self, datagrams: Sequence[Buffer], now: float) -> list[bytes]:
        """What datagrams bring for the application, in order."""
        size = len(datagrams[0])
        if len(datagrams) > 1 and all(len(datagram) == size for datagram in datagrams):
            joined = b"".join(datagrams)
            if self._shape.fit(joined, len(joined), size):
                return self._decrypt_alike(joined, len(datagrams), size, now)
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
        received = self._decrypt_alike(buffer, whole // size, size, now)
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
                count = len(meal)
                if not self._late(count):
                    found = self._codec.decrypt(joined, ((0, len(joined), count),))
                    received.extend(self._tell(count, *found, now))
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

    def _decrypt_alike(self, buffer: Buffer, count: int, size: int, now: float) -> list[bytes]:
        """What ``count`` records of ``size`` bytes bring, which begin a buffer."""
        if self._late(count):
            return []
        content = size - records.HEADER_SIZE - self.expansion
        delivered, error = self._codec.decrypt_alike(buffer, size, count, content)
        # In DTLS 1.3 there may be padding (RFC 8446 section 5.4).
        alike = not self._is_1_3 and len(delivered) == count
        return self._tell(count, delivered, error, now, content * count if alike else None)

    def _late(self, count: int) -> bool:
        """Whether so many records have come after the end; they are counted."""
        self._counters.datagrams_received += count
        if self._over:
            self._counters.late += count
        return self._over

    def _tell(
        self,
        count: int,
        delivered: list[bytes],
        error: SSL.Error | None,
        now: float,
        size: int | None = None,
    ) -> list[bytes]:
        """``delivered``, of ``size`` bytes together if that is known, came of ``count`` records."""
        if delivered:
            self._counters.application_received += len(delivered)
            self._counters.application_bytes += sum(map(len, delivered)) if size is None else size
            self._on_data()
        if len(delivered) < count:
            self._on_dropped(count - len(delivered), error, now)
        return delivered


def cut_by_header(buffer: memoryview) -> list[Segments]:
    """Records by their own lengths: DTLS 1.3 may have added one of its own."""
    return cut(buffer, [len(record) for record in records.split_records(buffer.tobytes())[0]])


def cut_apart(buffer: Buffer, end: int, size: int) -> list[bytes]:
    """Datagrams of ``size`` bytes in the first ``end`` of ``buffer``; the last may be shorter."""
    return [bytes(buffer[at : min(at + size, end)]) for at in range(0, end, size or 1)]
