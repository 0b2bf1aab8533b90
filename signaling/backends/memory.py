"""Rooms in the memory of one process."""

from __future__ import annotations

from collections import Counter

from signaling.backends import Apply
from signaling.limits import Limits
from signaling.messages import IceInfo
from signaling.randomness import RandomSource
from signaling.rooms import Rooms


class MemoryBackend:
    """A :class:`signaling.backends.Backend` of one :class:`signaling.rooms.Rooms`."""

    def __init__(
        self, random: RandomSource, limits: Limits | None = None, *, ice: IceInfo | None = None
    ) -> None:
        self._rooms = Rooms(random, limits, ice=ice)
        self._apply: Apply = lambda effects: None

    @property
    def counters(self) -> Counter[str]:
        return self._rooms.counters

    @property
    def sizes(self) -> dict[str, int]:
        return self._rooms.sizes

    async def start(self, apply: Apply) -> None:
        self._apply = apply

    def on_open(
        self, connection: int, address: tuple[str, int], now: float, *, host: str = ""
    ) -> None:
        self._apply(self._rooms.on_open(connection, address, now, host=host))

    def on_message(self, connection: int, data: str | bytes, now: float) -> None:
        self._apply(self._rooms.on_message(connection, data, now))

    def on_close(self, connection: int, now: float) -> None:
        self._apply(self._rooms.on_close(connection, now))

    def on_timer(self, now: float) -> None:
        self._apply(self._rooms.on_timer(now))

    def get_timer(self) -> float | None:
        return self._rooms.get_timer()

    def drain(self, in_s: float, jitter_s: float) -> None:
        self._apply(self._rooms.drain(in_s, jitter_s))

    async def close(self) -> None:
        self._apply = lambda effects: None
