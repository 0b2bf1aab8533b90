"""Many datagrams by one call of the kernel: recvmmsg(2) and sendmmsg(2), which Python lacks.

For servers: offload (``ice_punch.net.udp.offload``) does more for datagrams between two hosts, and
nothing for those of many. Linux, IPv4.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

MOST = 64
"""Datagrams of one call."""
MOST_ANSWER = 1024
"""Bytes of an answer."""
_MOST_DATAGRAM = 65535
# 64 KiB, and some, so that the beginnings do not all compete for the same lines of the cache
_STRIDE = 65536 + 192
_NAME_SIZE = 16
_SOURCE = struct.Struct("!2xHI8x")  # sockaddr_in: family, port, address, padding


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


_SIZE = struct.Struct(
    f"={_Message.size.offset}xI{ctypes.sizeof(_Message) - _Message.size.offset - 4}x"
)


def _find_calls() -> Any:
    """``recvmmsg`` and ``sendmmsg`` of the C library; None where they are not, or where a sandbox
    refuses them."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        calls = library.recvmmsg, library.sendmmsg
    except (OSError, AttributeError):
        return None
    for call in calls:
        call(-1, None, 0, 0, None)
        if ctypes.get_errno() != errno.EBADF:
            return None
    return calls


_CALLS = _find_calls()


class DatagramBatch:
    """Room for datagrams of an IPv4 socket and an answer to each of them.

    One after the other: ``receive``, ``datagrams``, ``answer`` to those that are answered, and
    ``send``. It may serve any number of sockets in turn.
    """

    def __init__(self) -> None:
        """Raises NotImplementedError where the system lacks the calls."""
        if _CALLS is None:
            raise NotImplementedError("recvmmsg and sendmmsg are Linux's")
        self._receive, self._send = _CALLS
        self._received = mmap.mmap(-1, MOST * _STRIDE)  # pages that nothing touches cost nothing
        self._answers = mmap.mmap(-1, MOST * MOST_ANSWER)
        self._names = mmap.mmap(-1, MOST * _NAME_SIZE)
        self._incoming, self._incoming_vectors = self._messages(
            self._received, _STRIDE, _MOST_DATAGRAM
        )
        self._outgoing, self._outgoing_vectors = self._messages(self._answers, MOST_ANSWER, 0)
        self._sizes = memoryview(self._incoming).cast("B")
        self._answer_sizes = memoryview(self._outgoing_vectors).cast("B").cast("L")

    def _messages(self, buffer: mmap.mmap, stride: int, size: int) -> tuple[Any, Any]:
        vectors, messages = (_Vector * MOST)(), (_Message * MOST)()
        names, data = _address(self._names), _address(buffer)
        for number in range(MOST):
            vectors[number].base = data + number * stride
            vectors[number].size = size
            header = messages[number].header
            header.name = names + number * _NAME_SIZE
            header.name_size = _NAME_SIZE
            header.vectors = ctypes.addressof(vectors) + number * ctypes.sizeof(_Vector)
            header.vector_count = 1
        return messages, vectors

    def receive(self, descriptor: int, most: int = MOST) -> int:
        """How many of the datagrams that waited were taken. Raises OSError, and BlockingIOError if
        there was none."""
        count: int = self._receive(
            descriptor, ctypes.byref(self._incoming), min(most, MOST), socket.MSG_DONTWAIT, None
        )
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return count

    def datagrams(self, count: int) -> Iterator[tuple[bytes, int, int]]:
        """Of each: the data, and the source's address, as a number, and port."""
        sizes = _SIZE.iter_unpack(self._sizes[: count * _SIZE.size])
        sources = _SOURCE.iter_unpack(self._names[: count * _NAME_SIZE])
        received, start = self._received, 0
        for (size,), (port, number) in zip(sizes, sources, strict=True):
            yield received[start : start + size], number, port
            start += _STRIDE

    def answer(self, index: int, data: bytes) -> None:
        """To where the datagram of that index came from; it leaves with ``send``. Raises
        ValueError for more than ``MOST_ANSWER`` bytes."""
        size = len(data)
        if size > MOST_ANSWER:
            raise ValueError(f"an answer of {size} bytes")
        start = index * MOST_ANSWER
        self._answers[start : start + size] = data
        self._answer_sizes[2 * index + 1] = size

    def send(self, descriptor: int, first: int, end: int) -> int:
        """Send the answers to the datagrams from ``first`` to before ``end``, each of which has
        one. How many the kernel took; the others are lost."""
        taken = 0
        while first < end:
            sent: int = self._send(
                descriptor,
                ctypes.byref(self._outgoing, first * ctypes.sizeof(_Message)),
                end - first,
                socket.MSG_DONTWAIT,
            )
            if sent > 0:
                taken += sent
                first += sent
            else:  # the first of them can not be sent
                first += 1
        return taken


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
