"""Connections cut at arbitrary points, in virtual time: every signal arrives once and in order."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from signaling_support import ROOM

from signaling.effects import Close, Effect, Send
from signaling.events import (
    Event,
    PeerJoined,
    PeerLeft,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.limits import Limits
from signaling.rooms import Rooms
from signaling.session import WINDOW, ClientSession

FREE = Limits(message_burst=10**6, byte_burst=10**9, message_rate=10**6, byte_rate=10**9)


@dataclass
class Client:
    """A client session and its connection: two queues that may be cut anywhere."""

    session: ClientSession
    connection: int | None = None
    up: deque[str] = field(default_factory=deque)
    down: deque[str] = field(default_factory=deque)
    events: list[Event] = field(default_factory=list)
    sent: int = 0


class World:
    def __init__(self, count: int, limits: Limits = FREE) -> None:
        self.rooms = Rooms(random.Random(1), limits)
        self.now = 0.0
        self.numbers = 0
        self.clients = [Client(ClientSession(ROOM)) for _ in range(count)]
        self.owners: dict[int, Client] = {}

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(connection=number, text=text):
                    if (client := self.owners.get(number)) is not None:
                        client.down.append(text)
                case Close(connection=number):
                    if (client := self.owners.get(number)) is not None:
                        self.forget(client)
                case _:
                    pass

    def forget(self, client: Client) -> None:
        """The client sees its connection end; what was under way is lost."""
        if client.connection is not None:
            self.owners.pop(client.connection, None)
        client.connection = None
        client.up.clear()
        client.down.clear()
        client.session.connection_lost()

    def connect(self, client: Client) -> None:
        if client.connection is not None:
            return
        self.numbers += 1
        client.connection = self.numbers
        self.owners[self.numbers] = client
        self.apply(self.rooms.on_open(self.numbers, ("192.0.2.1", 1), self.now))
        client.session.connection_made(self.now)

    def cut(self, client: Client, up: int, down: int, *, server_sees: bool) -> None:
        """Cut after ``up`` more frames reach the server and ``down`` more the client.

        When the server does not see it, its end stays open until it is taken over.
        """
        if client.connection is None:
            return
        number = client.connection
        self.collect(client)
        for _ in range(min(up, len(client.up))):
            self.apply(self.rooms.on_message(number, client.up.popleft(), self.now))
        for _ in range(min(down, len(client.down))):
            self.deliver(client)
        self.forget(client)
        if server_sees:
            self.apply(self.rooms.on_close(number, self.now))

    def collect(self, client: Client) -> None:
        client.up.extend(client.session.frames_to_send())

    def deliver(self, client: Client) -> None:
        client.events += client.session.receive(client.down.popleft(), self.now)
        assert client.session.fault is None, client.session.fault

    def step(self, client: Client) -> bool:
        """Move one frame each way, if there is one."""
        moved = False
        if client.connection is not None:
            self.collect(client)
            if client.up:
                frame = client.up.popleft()
                self.apply(self.rooms.on_message(client.connection, frame, self.now))
                moved = True
        if client.connection is not None and client.down:
            self.deliver(client)
            moved = True
        return moved

    def settle(self) -> None:
        for client in self.clients:
            self.connect(client)
        while sum(self.step(client) for client in self.clients):
            pass

    def send(self, sender: Client, to: Client) -> None:
        if sender.session.can_send and sender.session.self_id:
            sender.sent += 1
            text = f"{sender.session.self_id} {sender.sent}"
            sender.session.send(to.session.self_id, "link", 0, "cand", text, self.now)


def numbers_heard(client: Client, sender: Client) -> list[int]:
    return [
        int(event.data.split()[1])
        for event in client.events
        if isinstance(event, SignalReceived) and event.sender == sender.session.self_id
    ]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("step"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(
            st.just("cut"), st.integers(0, 2), st.integers(0, 5), st.integers(0, 5), st.booleans()
        ),
        st.tuples(st.just("connect"), st.integers(0, 2)),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_every_signal_arrives_exactly_once_and_in_order(actions: list[tuple[object, ...]]) -> None:
    world = World(3, Limits(message_burst=10**6, candidates=10**6, message_rate=10**6))
    world.settle()
    addressed: dict[tuple[int, int], list[int]] = {}
    for action in actions:
        match action:
            case ("send", int(a), int(b)) if a != b:
                sender = world.clients[a]
                before = sender.sent
                world.send(sender, world.clients[b])
                if sender.sent > before:
                    addressed.setdefault((a, b), []).append(sender.sent)
            case ("step", int(a), int(count)):
                for _ in range(count):
                    world.step(world.clients[a])
            case ("cut", int(a), int(up), int(down), bool(seen)):
                world.cut(world.clients[a], up, down, server_sees=seen)
            case ("connect", int(a)):
                world.connect(world.clients[a])
            case _:
                pass
    world.settle()
    for (a, b), expected in addressed.items():
        refused = {event.ref for event in world.clients[a].events if isinstance(event, Unavailable)}
        assert not refused
        assert numbers_heard(world.clients[b], world.clients[a]) == expected
    for client in world.clients:
        assert client.session.unconfirmed == 0
        assert sum(isinstance(event, Welcomed) for event in client.events) == 1
        assert client.session.duplicates == 0
    assert world.rooms.counters["resumes_refused"] == 0


def test_a_session_that_never_saw_its_welcome_starts_over() -> None:
    world = World(2)
    a, b = world.clients
    world.connect(a)
    world.step(a)
    world.cut(a, up=9, down=0, server_sees=True)
    world.settle()
    assert type(a.events[0]) is Welcomed
    assert any(isinstance(event, PeerJoined) for event in a.events + b.events)


def test_beyond_the_window_a_resume_is_a_fresh_welcome_and_nothing_is_mixed() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    world.cut(a, 0, 0, server_sees=True)
    world.send(a, b)
    world.now += 31.0
    world.apply(world.rooms.on_timer(world.now))
    old_id = a.session.self_id
    world.settle()
    assert a.session.self_id != old_id
    assert [type(event) for event in a.events if not isinstance(event, PeerJoined)] == [
        Welcomed,
        Welcomed,
    ]
    assert a.session.unconfirmed == 0
    assert numbers_heard(b, a) == []
    assert any(isinstance(e, PeerLeft) and e.reason == "expired" for e in b.events)


def test_a_resumed_client_is_told_who_is_there() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    world.cut(a, 0, 0, server_sees=True)
    world.cut(b, 0, 0, server_sees=True)
    world.connect(a)
    world.step(a)
    (resumed,) = [event for event in a.events if isinstance(event, Resumed)]
    assert [(peer.id, peer.away) for peer in resumed.peers] == [(b.session.self_id, True)]


def test_the_window_closes_at_64_unconfirmed_signals() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    for _ in range(WINDOW + 10):
        world.send(a, b)
    assert a.session.unconfirmed == WINDOW == 64
    assert not a.session.can_send
    world.settle()
    assert a.session.can_send
    assert numbers_heard(b, a) == list(range(1, WINDOW + 1))


def test_a_gap_in_what_the_server_sends_drops_the_connection() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    world.send(a, b)
    world.send(a, b)
    world.step(a)
    world.step(a)
    b.down.popleft()
    b.session.receive(b.down.popleft(), 0.0)
    assert b.session.fault is not None


def test_what_comes_twice_is_taken_once() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    world.send(a, b)
    world.step(a)
    frame = b.down[0]
    assert len(b.session.receive(frame, 0.0)) == 1
    assert b.session.receive(frame, 0.0) == []
    assert b.session.duplicates == 1


def test_a_client_acknowledges_every_16_frames_and_at_its_ping() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    for _ in range(17):
        world.send(a, b)
    for _ in range(17):
        world.step(a)
    for _ in range(17):
        world.deliver(b)
    assert b.session.frames_to_send() == ['{"type":"ack","seq":16}']
    timer = b.session.get_timer()
    assert timer == 25.0
    b.session.handle_timer(25.0)
    assert b.session.frames_to_send() == ['{"type":"ack","seq":17}', '{"type":"ping","n":1}']


def test_a_server_that_falls_silent_is_given_up() -> None:
    world = World(2)
    world.settle()
    a, b = world.clients
    for now in (25.0, 50.0):
        a.session.handle_timer(now)
        assert a.session.fault is None
    a.session.handle_timer(62.5)
    assert a.session.fault == "the signaling server went silent"
    world.send(b, a)
    timer = b.session.get_timer()
    assert timer == 10.0
    b.session.handle_timer(10.0)
    assert b.session.fault is not None
