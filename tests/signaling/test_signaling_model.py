"""Rooms against a simple model: in virtual time, and through both engines on real sockets.

The model knows what every session must have heard, by number; the rooms must never differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from signaling_net import SUBPROTOCOL, eventually
from signaling_support import OTHER_ROOM, ROOM, Shell
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from signaling.limits import Limits
from signaling.server import SignalingServer

KEPT = 4
SEATS = 3
LIMITS = Limits(
    resume_messages=KEPT,
    peers_per_room=SEATS,
    seat_grace=3600.0,
    resume_window=3600.0,
    hello_timeout=3600.0,
    idle_timeout=7200.0,
    message_rate=1e6,
    message_burst=10**6,
    byte_rate=1e9,
    byte_burst=10**9,
    accept_rate=1e6,
    accept_burst=10**6,
)


class Driver(Protocol):
    """A way to the rooms. After every call everything that follows from it has happened."""

    def open(self) -> int: ...

    def say(self, connection: int, message: dict[str, Any]) -> None: ...

    def drop(self, connection: int) -> None: ...

    def heard(self, connection: int) -> list[dict[str, Any]]:
        """The frames since the last call."""

    def closed(self, connection: int) -> int | None: ...

    def end(self) -> None: ...


class VirtualDriver:
    def __init__(self) -> None:
        self.shell = Shell(LIMITS)
        self.read: dict[int, int] = defaultdict(int)

    def open(self) -> int:
        return self.shell.open()

    def say(self, connection: int, message: dict[str, Any]) -> None:
        self.shell.raw(connection, json.dumps(message))

    def drop(self, connection: int) -> None:
        self.shell.drop(connection)

    def heard(self, connection: int) -> list[dict[str, Any]]:
        begin = self.read[connection]
        self.read[connection] = len(self.shell.sent[connection])
        return self.shell.sent[connection][begin:]

    def closed(self, connection: int) -> int | None:
        return self.shell.closed.get(connection)

    def end(self) -> None: ...


class SocketDriver:
    """WebSockets to a server of one engine; a ping and its pong show that all has arrived."""

    def __init__(self, engine: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.server: SignalingServer = self.run(
            SignalingServer.start(port=0, limits=LIMITS, engine=engine)
        )
        self.sockets: dict[int, ClientConnection] = {}
        self.frames: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.numbers = itertools.count(1)
        self.pings = itertools.count(1)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 10))

    def open(self) -> int:
        number = next(self.numbers)
        url = f"ws://127.0.0.1:{self.server.port}/v1/ws"

        async def connecting() -> ClientConnection:
            return await connect(url, subprotocols=[SUBPROTOCOL], compression=None)

        self.sockets[number] = self.run(connecting())
        return number

    def say(self, connection: int, message: dict[str, Any]) -> None:
        self.run(self._say(connection, message))

    async def _say(self, connection: int, message: dict[str, Any]) -> None:
        await self.sockets[connection].send(json.dumps(message))
        await self._settle(connection)
        for other in list(self.sockets):
            await self._settle(other)

    async def _settle(self, connection: int) -> None:
        """Read everything, until the answer to a ping shows that there is no more."""
        if connection not in self.sockets:
            return
        socket, n = self.sockets[connection], next(self.pings)
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({"type": "ping", "n": n}))
            while True:
                frame = json.loads(await socket.recv())
                if frame == {"type": "pong", "n": n}:
                    return
                self.frames[connection].append(frame)

    def drop(self, connection: int) -> None:
        socket = self.sockets.pop(connection)
        socket.transport.abort()
        self.run(self._settled_after_drop())

    async def _settled_after_drop(self) -> None:
        await eventually(
            lambda: (
                self.server.sizes["connections"]
                == sum(socket.close_code is None for socket in self.sockets.values())
            )
        )
        for other in list(self.sockets):
            await self._settle(other)

    def heard(self, connection: int) -> list[dict[str, Any]]:
        return self.frames.pop(connection, [])

    def closed(self, connection: int) -> int | None:
        socket = self.sockets.get(connection)
        return None if socket is None else socket.close_code

    def end(self) -> None:
        for socket in self.sockets.values():
            socket.transport.abort()
        self.run(self.server.close())
        self.loop.close()


@dataclass(eq=False)
class Session:
    room: str
    id: str
    order: int
    sid: str
    key: str
    connection: int | None
    sent: int = 0
    alive: bool = True
    expected: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0
    queued: int = 0

    def post(self, message: dict[str, Any]) -> None:
        self.expected.append(message)
        self.kept += 1
        if self.connection is None:
            self.queued += 1
        else:
            self.kept = min(self.kept, KEPT + self.queued)
            self.queued = min(self.queued, self.kept)

    def acknowledge(self, seq: int) -> None:
        self.kept = min(self.kept, len(self.expected) - seq)
        self.queued = min(self.queued, self.kept)

    def can_resume_from(self, seq: int) -> bool:
        return len(self.expected) - self.kept <= seq <= len(self.expected)


class RoomsMachine(RuleBasedStateMachine):
    sessions = Bundle("sessions")

    def make_driver(self) -> Driver:
        return VirtualDriver()

    def __init__(self) -> None:
        super().__init__()
        self.driver = self.make_driver()
        self.members: dict[str, list[Session]] = {ROOM: [], OTHER_ROOM: []}
        self.orders: dict[str, int] = {ROOM: 0, OTHER_ROOM: 0}
        self.text = itertools.count()

    def teardown(self) -> None:
        self.driver.end()

    # The model

    def announce(self, session: Session, event: str, reason: str = "") -> None:
        others = [other for other in self.members[session.room] if other is not session]
        message = {"type": "peer", "event": event, "id": session.id, "order": session.order}
        for other in others:
            other.post(message | ({"reason": reason} if reason else {}))
        for other in others:
            if other.alive and other.queued > 2 * KEPT:
                self.end_session(other, "overflow")

    def end_session(self, session: Session, reason: str) -> None:
        session.alive = False
        session.connection = None
        self.members[session.room].remove(session)
        if self.members[session.room]:
            self.announce(session, "leave", reason)
        else:
            self.orders[session.room] = 0

    def snapshot(self, session: Session) -> list[dict[str, Any]]:
        return [
            {"id": other.id, "order": other.order}
            | ({"away": True} if other.connection is None else {})
            for other in self.members[session.room]
            if other is not session
        ]

    def take(self, session: Session) -> list[dict[str, Any]]:
        """Read a session's connection; numbered frames are kept, the others returned."""
        assert session.connection is not None
        return self.sort(session, self.driver.heard(session.connection))

    def sort(self, session: Session, frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rest = []
        for frame in frames:
            if frame.get("seq") is not None and frame["type"] != "resumed":
                assert frame.pop("seq") == len(session.heard) + 1, "a gap or a duplicate"
                session.heard.append(frame)
            else:
                rest.append(frame)
        return rest

    def enter(self, room: str, claim: dict[str, Any] | None = None) -> Session | None:
        """Say hello on a new connection, expecting a welcome or the refusal of a full room."""
        connection = self.driver.open()
        hello: dict[str, Any] = {"type": "hello", "v": 1, "room": room}
        self.driver.say(connection, hello | ({"resume": claim} if claim else {}))
        first, *others = self.driver.heard(connection)
        members = self.members[room]
        if len(members) == SEATS:
            kept = any(member.connection is None for member in members)
            assert (first["type"], first["code"]) == ("error", "room_full")
            assert self.driver.closed(connection) == (4004 if kept else 4504)
            return None
        assert first["type"] == "welcome"
        self.orders[room] += 1
        assert first["order"] == self.orders[room]
        session = Session(
            room, first["self"], first["order"], first["sid"], first["key"], connection
        )
        members.append(session)
        assert first["peers"] == self.snapshot(session)
        self.announce(session, "join")  # may be too much for one who is away: others hear of it
        assert self.sort(session, others) == []
        return session

    # What clients do

    @rule(target=sessions, room=st.sampled_from([ROOM, OTHER_ROOM]))
    def join(self, room: str) -> Any:
        session = self.enter(room)
        return multiple() if session is None else session

    @rule(sender=sessions, addressee=sessions)
    def signal(self, sender: Session, addressee: Session) -> None:
        if sender.connection is None:
            return
        sender.sent += 1
        data = f"text {next(self.text)}"
        body = {"link": "l", "gen": 0, "kind": "offer", "data": data}
        message = {"type": "signal", "id": sender.sent, "to": addressee.id, **body}
        self.driver.say(sender.connection, message)
        error: dict[str, Any] = {"type": "error", "ref": sender.sent, "to": addressee.id}
        ack = {"type": "ack", "id": sender.sent}
        rest = self.take(sender)
        if not addressee.alive or addressee.room != sender.room or addressee is sender:
            sender.post(error | {"code": "peer_unavailable"})
            assert rest == [ack | {"status": "unavailable"}]
        elif addressee.connection is None and addressee.queued >= KEPT:
            sender.post(error | {"code": "queue_full"})
            assert rest == []
        else:
            addressee.post({"type": "signal", "from": sender.id, **body})
            status = "delivered" if addressee.connection is not None else "queued"
            assert rest == [ack | {"status": status}]

    @rule(sender=sessions, back=st.integers(0, 3))
    def send_again(self, sender: Session, back: int) -> None:
        """An id that was processed, as a client that saw no confirmation does."""
        if sender.connection is None or sender.sent - back < 1:
            return
        body = {"to": sender.id, "link": "l", "gen": 0, "kind": "offer", "data": "again"}
        self.driver.say(sender.connection, {"type": "signal", "id": sender.sent - back, **body})
        assert self.take(sender) == []

    @rule(session=sessions)
    def acknowledge(self, session: Session) -> None:
        if session.connection is not None:
            self.driver.say(session.connection, {"type": "ack", "seq": len(session.heard)})
            session.acknowledge(len(session.heard))

    @rule(session=sessions)
    def drop(self, session: Session) -> None:
        if session.connection is not None:
            self.take(session)
            self.driver.drop(session.connection)
            session.connection = None
            self.announce(session, "away")

    @rule(target=sessions, session=sessions, lost=st.integers(0, 6))
    def resume(self, session: Session, lost: int) -> Any:
        """Claim a session on a new connection, having processed all but the ``lost`` last."""
        if not session.alive:
            return multiple()
        seq = max(0, len(session.heard) - lost)
        if session.connection is not None:
            self.take(session)
        old, was_away = session.connection, session.connection is None
        claim = {"sid": session.sid, "key": session.key, "seq": seq}
        if not session.can_resume_from(seq):
            self.end_session(session, "gap")
            fresh = self.enter(session.room, claim)
            assert old is None or self.driver.closed(old) == 4503
            return multiple() if fresh is None else fresh
        connection = self.driver.open()
        hello = {"type": "hello", "v": 1, "room": session.room, "resume": claim}
        self.driver.say(connection, hello)
        session.connection = connection
        session.heard = session.heard[:seq]
        session.acknowledge(seq)
        (resumed,) = self.take(session)
        expected = {"type": "resumed", "rx": session.sent, "peers": self.snapshot(session)}
        assert resumed == expected | {"seq": len(session.expected)}
        if was_away:
            self.announce(session, "back")
        else:
            assert old is not None
            assert self.driver.closed(old) == 4503
        return multiple()

    @rule(target=sessions, session=sessions)
    def claim_without_the_key(self, session: Session) -> Any:
        claim = {"sid": session.sid, "key": "x" * 22, "seq": len(session.heard)}
        fresh = self.enter(session.room, claim)
        return multiple() if fresh is None else fresh

    @rule(session=consumes(sessions))
    def leave(self, session: Session) -> None:
        if session.connection is not None:
            self.take(session)
            self.driver.say(session.connection, {"type": "leave"})
            assert self.driver.closed(session.connection) == 1000
            self.end_session(session, "left")

    @precondition(lambda self: any(self.members.values()))
    @invariant()
    def everybody_who_is_there_heard_everything_once_and_in_order(self) -> None:
        for session in itertools.chain(*self.members.values()):
            if session.connection is not None:
                assert self.take(session) == []
                heard = [_without_words(frame) for frame in session.heard]
                assert heard == session.expected

    @invariant()
    def there_are_as_many_as_the_model_says(self) -> None:
        sizes = self.sizes()
        members = list(itertools.chain(*self.members.values()))
        assert sizes["sessions"] == len(members)
        assert sizes["away"] == sum(member.connection is None for member in members)
        assert sizes["rooms"] == sum(1 for room in self.members.values() if room)

    def sizes(self) -> dict[str, int]:
        assert isinstance(self.driver, VirtualDriver)
        return self.driver.shell.rooms.sizes


def _without_words(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in frame.items() if name != "message"}


class WebsocketsMachine(RoomsMachine):
    def make_driver(self) -> Driver:
        return SocketDriver("websockets")

    def sizes(self) -> dict[str, int]:
        assert isinstance(self.driver, SocketDriver)
        return self.driver.server.sizes


class PicowsMachine(WebsocketsMachine):
    def make_driver(self) -> Driver:
        return SocketDriver("picows")


def test_the_rooms_are_the_model() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        RoomsMachine,
        settings=settings(max_examples=100, stateful_step_count=40, deadline=None),
    )


@pytest.mark.parametrize("machine", [WebsocketsMachine, PicowsMachine])
def test_a_server_on_real_sockets_is_the_model(machine: type[WebsocketsMachine]) -> None:
    if machine is PicowsMachine:
        pytest.importorskip("picows")
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
