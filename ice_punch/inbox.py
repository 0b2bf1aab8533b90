"""Datagrams between a socket that never waits and a reader that may be slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context

from ice_punch.errors import InvalidConfiguration
from ice_punch.net.udp import MANY

RECEIVE_QUEUE = 1024
"""Datagrams held for a slow reader; past that the oldest go."""


class _Reader(asyncio.Future[None]):
    """Somebody who waits for a datagram: one task, which is all that ever awaits it."""

    step: Callable[[asyncio.Future[None]], object] | None = None
    """How the task goes on."""
    context: Context | None = None

    def add_done_callback(  # type: ignore[override]
        self, fn: Callable[[asyncio.Future[None]], object], /, *, context: Context | None = None
    ) -> None:
        self.step, self.context = fn, context

    def cancel(self, msg: object = None) -> bool:
        if not super().cancel(msg):
            return False
        self.step_soon()
        return True

    def step_soon(self) -> None:
        """Let the task go on in the next turn of the event loop."""
        if self.step is not None:
            self.get_loop().call_soon(self.step, self, context=self.context)


class Inbox:
    """A bounded queue of datagrams, newest wins. ``raise_end`` raises once no more can come."""

    def __init__(self, limit: int, raise_end: Callable[[], None]) -> None:
        if limit < 1:
            raise InvalidConfiguration(f"a queue of {limit} datagrams holds nothing")
        self.dropped = 0
        """Datagrams that nobody read in time."""
        self.received = self.received_bytes = 0
        self._raise_end = raise_end
        self.held: deque[bytes] = deque(maxlen=limit)
        """The oldest first."""
        self._readers: list[_Reader] = []
        self._loop = asyncio.get_running_loop()

    def put(self, data: bytes) -> None:
        self.extend((data,), len(data))

    def put_alone(self, data: bytes) -> None:
        """``put`` for the only datagram of a turn, for what the event loop itself has called: who
        waits for it has it before this returns."""
        held = self.held
        if len(held) == held.maxlen:
            self.dropped += 1
        held.append(data)
        self.received += 1
        self.received_bytes += len(data)
        self._wake_at_once()

    def extend(self, datagrams: Sequence[bytes], size: int) -> None:
        """Take datagrams of ``size`` bytes together. Of a full packet, which ends the turn of the
        socket, a reader has them before this returns, and its memory is free for the next."""
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
            if count >= MANY:
                self._wake_at_once()
            self._wake(len(held))

    def count(self, datagrams: int, size: int) -> None:
        """Datagrams came, here or past this."""
        self.received += datagrams
        self.received_bytes += size

    async def get(self) -> bytes:
        """The oldest datagram held, or the next to come. Raises what ``raise_end`` raises, once
        everything that came before is read."""
        held = self.held
        if not held:
            await self._arrival()
        return held.popleft()

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
            reader = _Reader(loop=self._loop)
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if reader in self._readers:
                    self._readers.remove(reader)
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

    def _wake_at_once(self) -> None:
        """Let the first reader go on before this returns, not in the next turn of the event loop,
        which costs about as much as sending a datagram does. Only for what the event loop itself
        has called: a task must not run inside another, and takes its turn then."""
        readers = self._readers
        while readers:
            reader = readers.pop(0)
            if reader.done():
                continue
            reader.set_result(None)
            step, context = reader.step, reader.context
            if step is not None and context is not None:
                try:
                    context.run(step, reader)
                except RuntimeError:  # a task is running, or its context is in use
                    reader.step_soon()
            return

    def _wake(self, count: int) -> None:
        while self._readers and count > 0:
            reader = self._readers.pop(0)
            if not reader.done():
                reader.set_result(None)
                reader.step_soon()
                count -= 1
