"""Server processes around one bus, and clients that talk to each other while things break."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis_support import RedisServer
from signaling_net import Wire
from signaling_support import ROOM

from signaling.backends.redis import RedisBackend
from signaling.client import SignalingClient
from signaling.events import (
    Disconnected,
    Event,
    PeerAway,
    PeerBack,
    PeerJoined,
    PeerLeft,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.limits import Limits
from signaling.server import SignalingServer

SETTLE = 1.0
RATE = 0.02
"""Seconds between two signals of a talker; below the rate that the server slows down."""
LIMITS = Limits(message_rate=500, message_burst=500)


@asynccontextmanager
async def servers(
    redis: RedisServer, count: int = 2, limits: Limits = LIMITS
) -> AsyncIterator[list[SignalingServer]]:
    """Servers of this process that share nothing but the bus."""
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(count):
            backend = RedisBackend(redis.url, random.SystemRandom(), limits, settle=SETTLE)
            server = await SignalingServer.start(port=0, backend=backend, limits=limits)
            stack.push_async_callback(server.close)
            started.append(server)
        yield started


class Talker:
    """A client behind a wire to a server, which sends numbered signals and checks what comes."""

    def __init__(self, port: int, room: str = ROOM) -> None:
        self.wire = Wire(port)
        self.room = room
        self.events: list[Event] = []
        self.heard: dict[str, list[int]] = {}
        self.unavailable: list[Unavailable] = []
        self.welcomes = 0
        self.resumes = 0
        self.sent: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Talker:
        await self.wire.__aenter__()
        self.client = SignalingClient(self.wire.url, self.room, random=_Eager())
        await self.client.connect(10)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.client.close()
        assert self._task is not None
        await asyncio.gather(self._task, return_exceptions=True)
        await self.wire.__aexit__()

    @property
    def id(self) -> str:
        return self.client.self_id

    async def _listen(self) -> None:
        async for event in self.client:
            self.events.append(event)
            match event:
                case SignalReceived(sender=sender, data=data):
                    self.heard.setdefault(sender, []).append(int(data.partition(" ")[0]))
                case Unavailable():
                    self.unavailable.append(event)
                case Welcomed():
                    self.welcomes += 1
                case Resumed():
                    self.resumes += 1

    async def say(self, to: Talker, count: int = 1, *, pause: float = RATE) -> None:
        for _ in range(count):
            number = self.sent[to.id] = self.sent.get(to.id, 0) + 1
            await self.client.send(to.id, "link-1", 0, "offer", f"{number} {'x' * 200}")
            await asyncio.sleep(pause)

    def move(self, port: int) -> None:
        """The server it knows is gone: the next connections lead to another."""
        self.wire.target = port
        self.wire.cut()

    def notices_of(self, peer: Talker) -> list[str]:
        """What it heard of a peer's coming and going."""
        names: dict[type[Any], str] = {
            PeerJoined: "join",
            PeerLeft: "leave",
            PeerAway: "away",
            PeerBack: "back",
        }
        found = []
        for event in self.events:
            if type(event) in names:
                id = event.peer.id if isinstance(event, PeerJoined) else event.peer_id
                if id == peer.id:
                    found.append(names[type(event)])
        return found

    @property
    def disconnections(self) -> int:
        return sum(isinstance(event, Disconnected) for event in self.events)


class _Eager(random.Random):
    """Comes back at once: the tests wait long enough as it is."""

    def random(self) -> float:
        return super().random() * 0.02


async def until(found: Callable[[], Any], what: str, timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not found():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


async def all_heard(talkers: Sequence[Talker], timeout: float = 15.0) -> None:
    """Every signal that was sent arrived exactly once and in order, and nobody became another."""

    def complete() -> bool:
        return all(
            len(to.heard.get(one.id, [])) >= one.sent.get(to.id, 0)
            for one in talkers
            for to in talkers
        )

    with contextlib.suppress(AssertionError):
        await until(complete, "all heard", timeout)
    for one in talkers:
        assert one.welcomes == 1, (one.id, one.events[-5:])
        assert one.unavailable == [], one.unavailable[:3]
        for to in talkers:
            expected = list(range(1, one.sent.get(to.id, 0) + 1))
            heard = to.heard.get(one.id, [])
            missing, doubled = set(expected) - set(heard), len(heard) - len(set(heard))
            assert heard == expected, f"{one.id} to {to.id}: {missing} lost, {doubled} doubled"
