"""Rooms that several processes share through Redis or Valkey: the shell around them and the bus."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from signaling.backends import Apply
from signaling.backends.bus import ALIVE_FOR, SETTLE, Bus
from signaling.backends.calls import Call
from signaling.backends.reporting import ReportingBackend
from signaling.backends.shared_rooms import Bus as BusState
from signaling.backends.shared_rooms import SharedRooms
from signaling.effects import Effect
from signaling.errors import BusUnreachable, InvalidRedisUrl
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.messages import IceInfo
from signaling.randomness import RandomSource, base64url

START_TIMEOUT = 6.0
SWEEP_EVERY = 10.0
"""Seconds between two looks at a room."""
LOOK_AFTER = 1.0
_TICK = 0.5

__all__ = ["BusUnreachable", "InvalidRedisUrl", "RedisBackend"]


class RedisBackend(ReportingBackend[SharedRooms]):
    """A :class:`signaling.backends.Backend` of one process among several.

    ``url`` is ``redis://HOST[:PORT][/DB]``, ``rediss://`` or ``unix://PATH``. ``prefix`` begins
    every key. Raises :class:`InvalidRedisUrl`.
    """

    def __init__(
        self,
        url: str,
        random: RandomSource,
        limits: Limits | None = None,
        *,
        ice: IceServerSource | IceInfo | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
        prefix: str = "icepunch",
        settle: float = SETTLE,
    ) -> None:
        limits = limits if limits is not None else Limits()
        self.node = base64url(random.randbytes(9))
        self._limits = limits
        super().__init__(
            SharedRooms(self.node, random, limits, ice=ice, authorizer=authorizer, metrics=metrics)
        )
        self._random = random
        self._bus = Bus(url, self.node, self, limits, self._random, prefix=prefix, settle=settle)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._sweeps: dict[str, float] = {}
        self._dead: set[str] = set()
        self._up_since = 0.0

    async def start(self, apply: Apply) -> None:
        """Raises :class:`BusUnreachable` if there is no bus to begin with."""
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._bus.start()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._up.wait()
        except TimeoutError:
            await self._bus.close()
            text = f"can not share rooms through Redis: {self._bus.last_error}"
            raise BusUnreachable(text) from None
        self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await self._bus.close()
        self._apply = lambda effects: None

    @property
    def ready(self) -> bool:
        return self._rooms.bus is BusState.UP

    # What the bus reports

    def on_reply(self, call: Call, reply: list[Any]) -> None:
        self._do(self._rooms.on_reply(call, reply, self._now))

    def on_push(self, push: list[Any]) -> None:
        room = self._rooms.room_of_notice(push)
        if room is not None:
            # Somebody came or went: see soon which processes there are.
            self._sweeps[room] = min(self._sweeps.get(room, inf), self._now + LOOK_AFTER)
        self._do(self._rooms.on_push(push, self._now))

    def on_down(self, lost: list[Call]) -> None:
        self._do(self._rooms.on_bus_down(lost, self._now))

    def on_settling(self) -> None:
        self._do(self._rooms.on_bus_settling(self._now))

    def on_up(self, *, forgotten: bool) -> None:
        self._rooms.counters["bus_connections"] += 1
        self._rooms.counters["bus_forgotten"] += forgotten
        self._up_since = self._now
        self._do(self._rooms.on_bus_up(self._now, forgotten=forgotten))
        self._up.set()

    def on_beat(self, dead: set[str]) -> None:
        if not self.ready or self._now - self._up_since < ALIVE_FOR:
            dead = set()  # they may not have come back yet
        if dead - self._dead:
            for room, nodes in self._rooms.elsewhere.items():
                if nodes & dead:
                    self._sweeps[room] = self._now
        self._dead = dead

    @property
    def others(self) -> set[str]:
        return set().union(*self._rooms.elsewhere.values())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self._now
            since = self._rooms.down_since
            if since is not None and now - since > self._limits.resume_window:
                self._do(self._rooms.part_with_the_lost(now))
            here = set(self._rooms.rooms_here)
            for room in self._sweeps.keys() - here:
                del self._sweeps[room]
            for room in self._rooms.elsewhere.keys() - here:
                del self._rooms.elsewhere[room]
            for room in here:
                due = self._sweeps.setdefault(room, now + SWEEP_EVERY * self._random.random())
                if due <= now and self.ready:
                    self._sweeps[room] = now + SWEEP_EVERY * (0.75 + self._random.random() / 2)
                    self._rooms.sweep(room, sorted(self._dead), now)
            self._flush()

    # Doing

    @property
    def _now(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _do(self, effects: list[Effect]) -> None:
        super()._do(effects)
        self._flush()

    def _flush(self) -> None:
        if self._rooms.bus is BusState.DOWN:
            return
        for call in self._rooms.take_calls():
            self._bus.call(call)
