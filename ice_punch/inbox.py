"""Datagrams between a socket that never waits and a reader that may be slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

RECEIVE_QUEUE = 1024
"""Datagrams held for a slow reader; past that the oldest go."""


class Inbox:
    """A bounded queue of datagrams, newest wins. ``raise_end`` raises once no more can come."""

    def __init__(self, limit: int, raise_end: Callable[[], None]) -> None:
        self.dropped = 0
        """Datagrams that nobody read in time."""
        self._limit = limit
        self._raise_end = raise_end
        self._datagrams: deque[bytes] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()

    def put(self, data: bytes) -> None:
        if len(self._datagrams) >= self._limit:
            self._datagrams.popleft()
            self.dropped += 1
        self._datagrams.append(data)
        if self._readers:
            self._wake_one()

    async def get(self) -> bytes:
        """The oldest datagram held, or the next to come. Raises what ``raise_end`` raises, once
        everything that came before is read."""
        while not self._datagrams:
            self._raise_end()
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if self._datagrams and reader.done() and not reader.cancelled():
                    self._wake_one()  # we were woken for a datagram that another may have now
                raise
        return self._datagrams.popleft()

    def drain(self, handler: Callable[[bytes], None]) -> None:
        """Give everything held to ``handler``."""
        while self._datagrams:
            handler(self._datagrams.popleft())

    def wake(self) -> None:
        """The end may have come: let every reader look."""
        while self._readers:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return
