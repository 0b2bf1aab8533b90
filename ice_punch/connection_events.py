"""What a connection tells: events, for as many iterators as ask."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator

from ice_punch.ice import LocalCandidateFound, RestartAdvised, SelectedPairChanged, StateChanged
from ice_punch.net.monitor import NetworkChanged

EVENT_QUEUE = 1024
"""Events held for each iterator; past that the oldest go."""

ConnectionEvent = (
    StateChanged | LocalCandidateFound | SelectedPairChanged | RestartAdvised | NetworkChanged
)


class Subscribers:
    """Whoever iterates over the events of a connection."""

    def __init__(self) -> None:
        # An iterator that is dropped takes its queue along.
        self._queues: weakref.WeakSet[asyncio.Queue[ConnectionEvent | None]] = weakref.WeakSet()
        self._closed = False

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """Those from this call on until ``close``."""
        queue: asyncio.Queue[ConnectionEvent | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(None)
        self._queues.add(queue)
        return _events_of(queue)

    def publish(self, event: ConnectionEvent) -> None:
        for queue in self._queues:
            if queue.qsize() >= EVENT_QUEUE:
                queue.get_nowait()
            queue.put_nowait(event)

    def close(self) -> None:
        self._closed = True
        for queue in self._queues:
            queue.put_nowait(None)


async def _events_of(
    queue: asyncio.Queue[ConnectionEvent | None],
) -> AsyncIterator[ConnectionEvent]:
    while (event := await queue.get()) is not None:
        yield event
