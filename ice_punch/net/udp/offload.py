"""UDP segmentation and receive offload: many datagrams of one size as one packet of the kernel's.

Linux's UDP_SEGMENT (since 4.18) and UDP_GRO (since 5.0), see udp(7). Other systems have neither.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
MAX_SEGMENTS = 64
"""Datagrams in one packet: what the first kernels with UDP_SEGMENT take."""
MAX_BYTES = 65535 - 40 - 8
"""Bytes of them together: one IP packet, as long as it is inside the kernel."""
ANCILLARY_SPACE = 64
SWITCH = "ICE_PUNCH_UDP_OFFLOAD"
"""An environment variable: ``off`` has every socket do without."""

_log = logging.getLogger("ice_punch.net.udp")
_SEGMENT_SIZE = struct.Struct("=H")
_told: set[str] = set()


def tell_once(what: str) -> None:
    """To the log, once in the life of this process."""
    if what not in _told:
        _told.add(what)
        _log.info("%s", what)


def _absent() -> str | None:
    """Why this host has no offload at all, as far as is known without a socket."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no", "false"):
        return f"{SWITCH} says so"
    return None if sys.platform == "linux" else f"{sys.platform} has none"


def can_segment(sock: socket.socket) -> bool:
    """Whether UDP_SEGMENT may be tried on a socket; why not goes to the log."""
    why = _absent()
    if why is None:
        try:
            sock.getsockopt(SOL_UDP, UDP_SEGMENT)
        except OSError as error:
            why = error.strerror or str(error)
    if why is not None:
        tell_once(f"no UDP segmentation offload: {why}")
    return why is None


def enable_receive(sock: socket.socket) -> bool:
    """Have datagrams of one size and source come in one piece; why not goes to the log."""
    why = _absent()
    if why is None:
        try:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError as error:
            why = error.strerror or str(error)
    if why is not None:
        tell_once(f"no UDP receive offload: {why}")
    return why is None


def disable_receive(sock: socket.socket) -> None:
    """Have every datagram come by itself again."""
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_UDP, UDP_GRO, 0)


def segment_control(size: int) -> list[tuple[int, int, bytes]]:
    """The control message that has the kernel cut a packet every ``size`` bytes."""
    return [(SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(size))]


def segment_size(ancillary: Sequence[tuple[int, int, bytes]], size: int) -> int:
    """Bytes of each datagram in a packet of ``size`` bytes, of which the last may be shorter."""
    for level, name, data in ancillary:
        if level == SOL_UDP and name == UDP_GRO:
            return int.from_bytes(data[:4], sys.byteorder) or size
    return size


def split(buffer: bytearray | memoryview, size: int, segment: int) -> tuple[bytes, ...]:
    """The datagrams of ``segment`` bytes that lie back to back in the first ``size`` bytes of
    ``buffer``; the last may be shorter."""
    if size <= segment:
        return (bytes(memoryview(buffer)[:size]),)
    # One call of C for all of them: a third of what slicing costs.
    return _cutter(segment, size).unpack_from(buffer)


@lru_cache(maxsize=256)
def _cutter(segment: int, size: int) -> struct.Struct:
    whole, rest = divmod(size, segment)
    return struct.Struct(f"{segment}s" * whole + (f"{rest}s" if rest else ""))


def runs(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Datagrams of so many bytes, in parts that may leave as one packet, in order: first, end, and
    the size of all but the last.

    In a part all datagrams have one size, but the last may be shorter, and none is empty unless
    it is alone.
    """
    count, first = len(sizes), 0
    while first < count:
        size = sizes[first]
        most = min(MAX_SEGMENTS, max(1, MAX_BYTES // size)) if size else 1
        end = min(first + most, count)
        if sizes[first:end].count(size) != end - first:
            limit, end = end, first + 1
            while end < limit and sizes[end] == size:
                end += 1
            if end < limit and 0 < sizes[end] < size:
                end += 1
        yield first, end, size
        first = end
