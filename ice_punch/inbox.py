"""Datagrams between a socket that never waits and a reader that may be slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

RECEIVE_QUEUE = 1024
"""Datagrams held for a slow reader; past that the oldest go."""


class Inbox:
    """A bounded queue of datagrams, newest wins. ``raise_end`` raises once no more can come."""

    def __init__(self, limit: int, raise_end: Callable[[], None]) -> None:
        self.dropped = 0
        """Datagrams that nobody read in time."""
        self.received = self.received_bytes = 0
        self._raise_end = raise_end
        self.held: deque[bytes] = deque(maxlen=limit)
        """The oldest first."""
        self._readers: list[asyncio.Future[None]] = []

    def put(self, data: bytes) -> None:
        self.extend((data,), len(data))

    def extend(self, datagrams: Sequence[bytes], size: int) -> None:
        """Take datagrams of ``size`` bytes together."""
        held = self.held
        count = len(datagrams)
        assert held.maxlen is not None
        over = len(held) + count - held.maxlen
        if over > 0:
            self.dropped += over
        held.extend(datagrams)
        self.received += count
        self.received_bytes += size
        if self._readers:
            self._wake(count)

    def count(self, datagrams: int, size: int) -> None:
        """Datagrams came, here or past this."""
        self.received += datagrams
        self.received_bytes += size

    async def get(self) -> bytes:
        """The oldest datagram held, or the next to come. Raises what ``raise_end`` raises, once
        everything that came before is read."""
        if not self.held:
            await self._arrival()
        return self.held.popleft()

    async def get_many(self, limit: int | None = None) -> list[bytes]:
        """Everything held, at most ``limit``; at least one. Waits and raises as ``get``."""
        if not self.held:
            await self._arrival()
        held = self.held
        if limit is not None and limit < len(held):
            return [held.popleft() for _ in range(max(1, limit))]
        taken = list(held)
        held.clear()
        return taken

    async def _arrival(self) -> None:
        while not self.held:
            self._raise_end()
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if self.held and reader.done() and not reader.cancelled():
                    self._wake(1)  # we were woken for a datagram that another may have now
                raise

    def drain(self, handler: Callable[[bytes], object]) -> None:
        """Give everything held to ``handler``."""
        while self.held:
            handler(self.held.popleft())

    def wake(self) -> None:
        """The end may have come: let every reader look."""
        self._wake(len(self._readers))

    def _wake(self, count: int) -> None:
        while self._readers and count > 0:
            reader = self._readers.pop(0)
            if not reader.done():
                reader.set_result(None)
                count -= 1
