"""Records of one size, one after another: as UDP segmentation offload sends and receives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ice_punch.datagram import Buffer
from ice_punch.dtls.bindings import GREATEST_RECORD
from ice_punch.dtls.records import APPLICATION_DATA, HEADER_SIZE

_DATA_1_2 = bytes((APPLICATION_DATA,)) + b"\xfe\xfd"


class Segments(NamedTuple):
    """Datagrams of one size that lie one after another."""

    buffer: memoryview
    size: int
    """Bytes of each; the last may be shorter."""


def cut(buffer: memoryview, sizes: Sequence[int], added: int = 0) -> list[Segments]:
    """``buffer`` by the sizes of the datagrams in it, which are at least one, in order.

    ``added`` bytes are to be added to every size.
    """
    first = sizes[0] + added
    if sizes.count(sizes[0]) == len(sizes):
        return [Segments(buffer, first)]
    segments: list[Segments] = []
    start = end = 0
    size = first
    for this in (each + added for each in sizes):
        # What is shorter ends a run, and what is longer begins another.
        if end > start and (this > size or (end - start) % size):
            segments.append(Segments(buffer[start:end], size))
            start = end
        if start == end:
            size = this
        end += this
    segments.append(Segments(buffer[start:end], size))
    return segments


class RecordShape:
    """What a whole protected record of application data looks like from outside.

    It must be right for all that OpenSSL is fed at once: it finds records by their lengths, and
    one that is a lie would cost those behind it.
    """

    __slots__ = ("_is_1_3", "_least")

    def __init__(self, *, is_1_3: bool, expansion: int) -> None:
        """``expansion`` is what the cipher adds to content, in bytes."""
        self._is_1_3 = is_1_3
        self._least = HEADER_SIZE + expansion

    def fits(self, datagram: Buffer) -> bool:
        """Whether a datagram is one record, and may be data. In DTLS 1.3 all protected ones may."""
        size = len(datagram)
        if not self._least <= size <= GREATEST_RECORD:
            return False
        if not self._is_1_3:
            return (
                datagram[:3] == _DATA_1_2
                and datagram[3:5] != b"\x00\x00"
                and HEADER_SIZE + (datagram[11] << 8 | datagram[12]) == size
            )
        # RFC 9147 section 4: a unified header without connection id, with a length
        first = datagram[0]
        at = 3 if first & 0x08 else 2
        return first & 0xF4 == 0x24 and at + 2 + (datagram[at] << 8 | datagram[at + 1]) == size

    def begins(self, buffer: bytearray, size: int) -> bool:
        """`fits` of the first ``size`` bytes of a buffer."""
        if self._is_1_3:
            return self.fits(buffer[:size])
        return (
            self._least <= size <= GREATEST_RECORD
            and buffer.startswith(_DATA_1_2)
            and buffer[3] | buffer[4] != 0
            and HEADER_SIZE + (buffer[11] << 8 | buffer[12]) == size
        )

    def fit(self, buffer: bytes | bytearray, end: int, size: int) -> bool:
        """`fits` of all datagrams of ``size`` bytes in the first ``end`` of ``buffer``, at once.

        ``end`` is a multiple of ``size``. Looks at the same byte of all headers at a time.
        """
        first = buffer[:size]
        if not self.fits(first):
            return False
        # RFC 6347 section 4.1: type, version, epoch, then 6 bytes of sequence number, and length
        fixed: tuple[int, ...] = (0, 1, 2, 3, 4, 11, 12)
        if self._is_1_3:
            fixed = (0, 3, 4) if first[0] & 0x08 else (0, 2, 3)
        count = end // size
        for at in fixed:  # noqa: SIM110 - a generator costs more than what it looks at
            if buffer[at:end:size].count(first[at]) != count:
                return False
        return True
