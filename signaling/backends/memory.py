"""Rooms in the memory of one process."""

from __future__ import annotations

from signaling.backends import Apply
from signaling.backends.reporting import ReportingBackend
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.messages import IceInfo
from signaling.randomness import RandomSource
from signaling.rooms import Rooms


class MemoryBackend(ReportingBackend[Rooms]):
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
        super().__init__(Rooms(random, limits, ice=ice, authorizer=authorizer, metrics=metrics))

    def on_message(self, connection: int, data: str | bytes, now: float) -> None:
        # Nothing in between: this is what a server does all day.
        self._apply(self._rooms.on_message(connection, data, now))

    async def start(self, apply: Apply) -> None:
        self._apply = apply

    @property
    def ready(self) -> bool:
        return True

    async def close(self) -> None:
        self._apply = lambda effects: None
