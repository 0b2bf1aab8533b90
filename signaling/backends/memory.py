"""Rooms in the memory of one process."""

from __future__ import annotations

from collections import Counter

from signaling.backends import Apply
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.messages import IceInfo
from signaling.randomness import RandomSource
from signaling.rooms import Rooms


class MemoryBackend:
    """A :class:`signaling.backends.Backend` of one :class:`signaling.rooms.Rooms`."""

    def __init__(
        self,
        random: RandomSource,
        limits: Limits | None = None,
        *,
        ice: IceServerSource | IceInfo | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._rooms = Rooms(random, limits, ice=ice, authorizer=authorizer, metrics=metrics)
        self._apply: Apply = lambda effects: None

    @property
    def counters(self) -> Counter[str]:
        return self._rooms.counters

    @property
    def sizes(self) -> dict[str, int]:
        return self._rooms.sizes

    async def start(self, apply: Apply) -> None:
        self._apply = apply

    @property
    def ready(self) -> bool:
        return True

    def on_open(
        self,
        connection: int,
        address: tuple[str, int],
        now: float,
        *,
        host: str = "",
        origin: str | None = None,
    ) -> None:
        self._apply(self._rooms.on_open(connection, address, now, host=host, origin=origin))

    def on_message(self, connection: int, data: str | bytes, now: float) -> None:
        self._apply(self._rooms.on_message(connection, data, now))

    def on_ice_servers(self, connection: int, ice: IceInfo | None, now: float) -> None:
        self._apply(self._rooms.on_ice_servers(connection, ice, now))

    def on_close(self, connection: int, now: float) -> None:
        self._apply(self._rooms.on_close(connection, now))

    def on_timer(self, now: float) -> None:
        self._apply(self._rooms.on_timer(now))

    def get_timer(self) -> float | None:
        return self._rooms.get_timer()

    def drain(self, in_s: float, jitter_s: float) -> None:
        self._apply(self._rooms.drain(in_s, jitter_s))

    def dismiss(self, connection: int) -> None:
        self._apply(self._rooms.dismiss(connection))

    async def close(self) -> None:
        self._apply = lambda effects: None
