"""Standard input and output beside an event loop: in threads, for what epoll can not watch.

Regular files are among that, and making a terminal non-blocking would change it for the shell
too. The threads are daemons that hold no lock of the interpreter, so they never keep the program
from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

CHUNK = 64 * 1024
READ_AHEAD = 4
"""Chunks read before anybody asks for them."""
HIGH_WATER = 1024 * 1024
"""Bytes waiting for a slow standard output before ``write`` waits too."""


def descriptor(name: str) -> int | None:
    """The file descriptor of ``stdin`` or ``stdout``, in binary; None when it was closed from the
    start: the number may be a socket's by now."""
    stream = getattr(sys, name)
    if stream is None:
        return None
    number = {"stdin": 0, "stdout": 1}[name]
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(number, os.O_BINARY)
    return number


class InputReader:
    """Standard input, chunk by chunk."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._room = threading.Semaphore(READ_AHEAD)
        if fd is None:
            self._take(b"")
        else:
            threading.Thread(target=self._read, args=(fd,), name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """The next chunk; empty at the end, and ever after."""
        while not self._chunks:
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks[0]
        if chunk:
            self._chunks.popleft()
            self._room.release()
        return chunk

    @property
    def ready(self) -> bool:
        """Whether more input is there already."""
        return bool(self._chunks) and self._chunks[0] != b""

    def _take(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._news.set()

    def _read(self, fd: int) -> None:
        chunk = b"."
        while chunk:
            self._room.acquire()
            chunk = _read_some(fd)
            if not _tell(self._loop, partial(self._take, chunk)):
                return


class OutputWriter:
    """Standard output. What is written while it is slow is joined into larger pieces."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        """Done when nobody reads standard output any more."""
        self._pending: list[bytes] = []
        self._size = 0
        self._changed = threading.Condition()
        self._drained = asyncio.Event()
        if fd is not None:
            threading.Thread(target=self._write, args=(fd,), name="stdout", daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Soon. Waits while too much is pending."""
        if self._fd is None or self.failed.done() or not data:
            return
        with self._changed:
            self._pending.append(data)
            self._size += len(data)
            size = self._size
            self._changed.notify()
        if size > HIGH_WATER:
            await self.drain()

    async def drain(self) -> None:
        """Wait until everything is written, or never will be."""
        while not self.failed.done():
            self._drained.clear()
            with self._changed:
                if not self._size:
                    return
            await self._drained.wait()

    def _write(self, fd: int) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    self._changed.wait()
                pending, self._pending = self._pending, []
            data = memoryview(b"".join(pending))
            total = len(data)
            try:
                while data:
                    data = data[_write_some(fd, data) :]
            except OSError:
                _tell(self._loop, self._fail)
                return
            with self._changed:
                self._size -= total
            if not _tell(self._loop, self._drained.set):
                return

    def _fail(self) -> None:
        if not self.failed.done():
            self.failed.set_result(None)
        self._drained.set()


def _read_some(fd: int) -> bytes:
    """Empty at the end, and for what can not be read."""
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            select.select([fd], [], [])
        except OSError:
            return b""


def _write_some(fd: int, data: memoryview) -> int:
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            select.select([], [fd], [])


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    """False when the loop is closed: nobody listens any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
        return True
    return False
