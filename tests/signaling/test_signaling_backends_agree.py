"""Rooms of one process and rooms shared through Redis tell clients the same, whatever these do."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis_support import RedisServer, needs_redis
from signaling_support import ROOM

from signaling.backends import Backend
from signaling.backends.memory import MemoryBackend
from signaling.backends.redis import RedisBackend
from signaling.effects import Close, Effect, Send
from signaling.limits import Limits

pytestmark = needs_redis
LIMITS = Limits(
    peers_per_room=3,
    resume_messages=4,
    candidates=2,
    seat_grace=1000,
    resume_window=1000,
    message_burst=10_000,
    message_rate=10_000,
)
PEOPLE = 4
MARKER = msgspec.msgpack.encode(["marker"])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Person:
    """A client that has been, and may be again."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection: int | None = None
        self.where: int = 0
        self.welcome: dict[str, Any] = {}
        self.last_id = 0
        self.taken = 0
        self.heard: list[dict[str, Any]] = []


class World:
    """People at backends: one for all, or one of two for each."""

    def __init__(self, backends: list[Backend], settle: Callable[[], Any]) -> None:
        self.backends = backends
        self.people = [Person(number) for number in range(PEOPLE)]
        self.owners: dict[tuple[int, int], Person] = {}
        self._settle = settle
        self._last = 0

    async def start(self) -> None:
        for index, backend in enumerate(self.backends):
            await backend.start(lambda effects, index=index: self._apply(index, effects))

    def _apply(self, index: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(connection=number, text=text):
                    person = self.owners.get((index, number))
                    if person is not None:
                        self._hear(person, json.loads(text))
                case Close(connection=number, code=code):
                    person = self.owners.pop((index, number), None)
                    if person is not None:
                        person.heard.append({"type": "closed", "code": int(code)})
                        if person.connection == number:
                            person.connection = None

    def _hear(self, person: Person, frame: dict[str, Any]) -> None:
        person.heard.append(frame)
        if frame["type"] == "welcome":
            person.welcome, person.last_id, person.taken = frame, 0, 0
        elif frame["type"] == "resumed":
            person.last_id = frame["rx"]
        elif "seq" in frame:
            assert frame["seq"] == person.taken + 1, (person.number, frame)
            person.taken = frame["seq"]

    async def do(self, what: str, who: int, other: int, place: int) -> None:
        person = self.people[who]
        backend = self.backends[person.where]
        connected = person.connection is not None
        if what in ("join", "resume") and not connected:
            person.where = place % len(self.backends)
            backend = self.backends[person.where]
            self._last += 1
            person.connection = self._last
            self.owners[person.where, self._last] = person
            backend.on_open(self._last, ("127.0.0.1", 1), self.now)
            hello: dict[str, Any] = {"type": "hello", "v": 1, "room": ROOM, "meta": f"p{who}"}
            if what == "resume" and person.welcome:
                claim = {"sid": person.welcome["sid"], "key": person.welcome["key"]}
                hello["resume"] = claim | {"seq": person.taken}
            self._say(person, hello)
        elif what == "drop" and connected:
            assert person.connection is not None
            self.owners.pop((person.where, person.connection))
            backend.on_close(person.connection, self.now)
            person.connection = None
        elif what in ("leave", "close") and connected:
            self._say(person, {"type": "leave", "close": what == "close"})
        elif what in ("offer", "cand") and connected:
            person.last_id += 1
            to = self.people[other].welcome.get("self", "nobody")
            signal = {"type": "signal", "id": person.last_id, "to": to, "link": "l", "gen": 0}
            self._say(person, signal | {"kind": what, "data": f"{who} to {other}"})
        elif what == "ack" and connected:
            self._say(person, {"type": "ack", "seq": person.taken})
        await self._settle()

    def _say(self, person: Person, frame: dict[str, Any]) -> None:
        assert person.connection is not None
        backend = self.backends[person.where]
        backend.on_message(person.connection, json.dumps(frame), self.now)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def story(self) -> dict[int, dict[str, list[Any]]]:
        """What everybody heard, in words that do not depend on chance.

        Numbered frames in their order; confirmations in theirs; how connections ended.
        """
        names = {p.welcome["self"]: f"p{p.number}" for p in self.people if p.welcome}
        for person in self.people:
            for frame in person.heard:
                for peer in frame.get("peers", []):
                    names.setdefault(peer["id"], peer["meta"])
                if frame["type"] == "welcome":
                    names[frame["self"]] = f"p{person.number}"
        told: dict[int, dict[str, list[Any]]] = {}
        for person in self.people:
            lanes: dict[str, list[Any]] = defaultdict(list)
            for frame in person.heard:
                if frame["type"] == "ice":
                    continue  # a process that takes a session over has credentials of its own
                lanes[_lane(frame)].append(_plain(frame, names))
            told[person.number] = dict(lanes)
        return told


def _lane(frame: dict[str, Any]) -> str:
    if frame["type"] in ("welcome", "resumed", "closed"):
        return "connections"
    return "confirmed" if frame["type"] == "ack" else "numbered" if "seq" in frame else "other"


def _plain(frame: dict[str, Any], names: dict[str, str]) -> Any:
    left_out = ("sid", "key", "limits", "you", "ice", "retry_after", "message")
    kept = {key: value for key, value in frame.items() if key not in left_out}
    for key in ("self", "id", "from", "to"):
        if isinstance(kept.get(key), str):
            kept[key] = names.get(kept[key], kept[key])
    if "peers" in kept:
        kept["peers"] = sorted(
            (names.get(peer["id"]), peer["order"], peer.get("away", False))
            for peer in kept["peers"]
        )
    return kept


WHATS = ("join", "resume", "drop", "leave", "close", "offer", "offer", "offer", "cand", "ack")
STEP = st.tuples(
    st.sampled_from(WHATS),
    st.integers(0, PEOPLE - 1),
    st.integers(0, PEOPLE - 1),
    st.integers(0, 1),
)
EVERYBODY = [("join", who, 0, who % 2) for who in range(3)]


async def alone(steps: list[tuple[str, int, int, int]]) -> Any:
    async def settle() -> None:
        pass

    world = World([MemoryBackend(random.Random(1), LIMITS)], settle)
    await world.start()
    for step in steps:
        await world.do(*step)
    return world.story()


def _noticing(
    backend: RedisBackend, markers: dict[RedisBackend, asyncio.Event]
) -> Callable[[list[Any]], None]:
    real = backend.on_push

    def on_push(push: list[Any]) -> None:
        if push == ["marker"]:
            markers[backend].set()
        else:
            real(push)

    return on_push


async def together(steps: list[tuple[str, int, int, int]], url: str) -> Any:
    prefix = f"agree-{time.monotonic_ns()}"
    backends = [
        RedisBackend(url, random.SystemRandom(), LIMITS, prefix=prefix, settle=0.0)
        for _ in range(2)
    ]

    markers: dict[RedisBackend, asyncio.Event] = {}

    async def settle() -> None:
        """What was published before a marker has come when the marker comes."""
        for _ in range(2):
            for backend in backends:
                markers[backend] = asyncio.Event()
                channel = f"{prefix}:node:{backend.node}"
                await backend._bus._command("PUBLISH", channel, MARKER)
                await markers[backend].wait()

    for backend in backends:
        backend.on_push = _noticing(backend, markers)  # type: ignore[method-assign]
    world = World(list(backends), settle)
    await world.start()
    try:
        for step in steps:
            await world.do(*step)
        return world.story()
    finally:
        for backend in backends:
            await backend.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, max_size=25))
@example(steps=[("drop", 1, 0, 0), *[("offer", 0, 1, 0)] * 6, ("resume", 1, 0, 0)])
@example(steps=[*[("cand", 2, 0, 0)] * 4, ("drop", 0, 0, 0), ("offer", 2, 0, 0), ("join", 3, 0, 0)])
@example(
    steps=[*[("offer", 0, 1, 0)] * 9, ("drop", 1, 0, 0), ("resume", 1, 0, 0), ("leave", 1, 0, 0)]
)
def test_both_tell_the_same(redis: RedisServer, steps: list[tuple[str, int, int, int]]) -> None:
    steps = EVERYBODY + steps

    async def run() -> None:
        told = await alone(steps)
        assert await together(steps, redis.url) == told

    asyncio.run(run())
