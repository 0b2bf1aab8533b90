"""Many datagrams looked at together, in few calls of C."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ice_punch.datagram import Buffer
from ice_punch.stun import COOKIE

_BEGINS = COOKIE[0]


def may_hold_stun(buffer: bytes | bytearray, end: int, size: int) -> bool:
    """Whether one of the datagrams of ``size`` bytes back to back in the first ``end`` of
    ``buffer`` may be STUN (RFC 7983 section 7). False is certain; the last may be shorter."""
    fifths = buffer[4:end:size]
    at = fifths.find(_BEGINS)
    while at >= 0:
        start = at * size
        if buffer[start] < 4 and buffer[start + 4 : start + 8] == COOKIE:
            return True
        at = fifths.find(_BEGINS, at + 1)
    return False


def as_sequence(datagrams: Iterable[Buffer]) -> Sequence[Buffer]:
    """Datagrams that can be counted and cut into parts."""
    return datagrams if isinstance(datagrams, (list, tuple)) else list(datagrams)


def as_bytes_of_views(datagrams: Sequence[Buffer]) -> Sequence[Buffer]:
    """The same, with bytes in place of views: items and length of those need not be bytes."""
    if memoryview in set(map(type, datagrams)):
        return [bytes(data) if type(data) is memoryview else data for data in datagrams]
    return datagrams


def size_of_each(datagrams: Sequence[Buffer]) -> int:
    """The bytes of every datagram, where all are bytes objects of one size; else 0."""
    count = len(datagrams)
    if not count or list(map(type, datagrams)).count(bytes) != count:
        return 0
    size = len(datagrams[0])
    return size if list(map(len, datagrams)).count(size) == count else 0
