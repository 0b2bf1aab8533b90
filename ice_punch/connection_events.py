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


class _Unread:
    """The events that one iterator has yet to give. An ``asyncio.Queue`` weighs 3 kB."""

    __slots__ = ("__weakref__", "arrival", "ended", "events")

    def __init__(self, ended: bool) -> None:
        self.events: list[ConnectionEvent] = []
        self.ended = ended
        self.arrival: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.arrival is not None and not self.arrival.done():
            self.arrival.set_result(None)

    async def iterate(self) -> AsyncIterator[ConnectionEvent]:
        while True:
            while self.events:
                yield self.events.pop(0)
            if self.ended:
                return
            self.arrival = asyncio.get_running_loop().create_future()
            await self.arrival


class Subscribers:
    """Whoever iterates over the events of a connection."""

    def __init__(self) -> None:
        # An iterator that is dropped takes what it has not read along.
        self._iterators: list[weakref.ref[_Unread]] = []
        self._closed = False

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """Those from this call on until ``close``."""
        unread = _Unread(self._closed)
        self._iterators.append(weakref.ref(unread, self._iterators.remove))
        return unread.iterate()

    def publish(self, event: ConnectionEvent) -> None:
        for unread in self._unread():
            if len(unread.events) >= EVENT_QUEUE:
                del unread.events[0]
            unread.events.append(event)
            unread.wake()

    def close(self) -> None:
        self._closed = True
        for unread in self._unread():
            unread.ended = True
            unread.wake()

    def _unread(self) -> list[_Unread]:
        return [unread for known in self._iterators if (unread := known()) is not None]
