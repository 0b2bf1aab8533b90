"""Clients that break the protocol: rooms survive, say what was wrong, and count it."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signaling_support import ROOM, Shell

from signaling.effects import Close, Pause
from signaling.limits import Limits
from signaling.rooms import Rooms

HELLO = json.dumps({"type": "hello", "v": 1, "room": ROOM})

BAD_FRAMES = [
    ("", "bad_json"),
    ("{", "bad_json"),
    ("null", "bad_json"),
    ("[]", "bad_json"),
    ('"hello"', "bad_json"),
    ("\ud800", "bad_json"),
    ("[" * 60000, "bad_json"),
    ('{"type":"ping","n":' + "[" * 20000 + "]" * 20000 + "}", None),
    ('{"type":"ping","x":' + '{"y":' * 10000 + "1" + "}" * 10000 + "}", None),
    ("{}", "bad_type"),
    ('{"type":7}', "bad_type"),
    ('{"type":"dance"}', "bad_type"),
    ('{"type":"welcome"}', "bad_type"),
    ('{"type":"ping","n":-1}', "bad_field"),
    ('{"type":"ping","n":1e400}', "bad_field"),
    ('{"type":"ping","n":123456789012345678901234567890}', "bad_field"),
    ('{"type":"ack"}', "bad_field"),
    ('{"type":"ack","seq":"1"}', "bad_field"),
    ('{"type":"signal","id":1}', "bad_field"),
    ('{"type":"signal","id":0,"to":"a","link":"l","gen":0,"kind":"bye","data":""}', "bad_field"),
    ('{"type":"signal","id":1,"to":"a","link":"l","gen":0,"kind":"dance","data":""}', "bad_field"),
    ('{"type":"signal","id":1,"to":"a","link":"","gen":0,"kind":"bye","data":""}', "bad_field"),
    ('{"type":"signal","id":1,"to":"a","link":"l","gen":0,"kind":"bye","data":{}}', "bad_field"),
    ('{"type":"signal","id":1,"to":"a","link":"l","gen":0,"kind":"bye","data":"\\ud800"}', None),
]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES)
def test_a_frame_that_makes_no_sense_is_answered_and_the_session_goes_on(
    frame: str, code: str | None
) -> None:
    shell = Shell()
    connection, _ = shell.join()
    (answer,) = shell.raw(connection, frame)
    assert answer["type"] == "error"
    assert "fatal" not in answer
    assert len(answer["message"]) <= 200
    if code is not None:
        assert answer["code"] == code
    assert shell.rooms.counters[answer["code"]] == 1
    assert shell.say(connection, "ping", n=5) == [{"type": "pong", "n": 5}]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES)
def test_the_same_as_first_frame_is_the_end(frame: str, code: str | None) -> None:
    shell = Shell()
    connection = shell.open()
    (answer,) = shell.raw(connection, frame)
    assert answer["fatal"] is True
    assert shell.closed[connection] == 4500
    assert shell.rooms.sizes["sessions"] == 0


@pytest.mark.parametrize(
    ("fields", "code", "close_code"),
    [
        ({"v": 2}, "version", 4506),
        ({"v": 0, "room": 7}, "version", 4506),
        ({"v": "1"}, "bad_field", 4500),
        ({"room": "short"}, "bad_room", 4507),
        ({"room": "x" * 129}, "bad_room", 4507),
        ({"room": "spaces are not base64url"}, "bad_room", 4507),
        ({"room": "ünïcödé-0123456789abcdefgh"}, "bad_room", 4507),
        ({"room": ROOM + "\n"}, "bad_room", 4507),
        ({"room": None}, "bad_field", 4500),
        ({"meta": "x" * 1025}, "too_large", 4500),
        ({"meta": {}}, "bad_field", 4500),
        ({"max_peers": 1}, "bad_field", 4500),
        ({"max_peers": -5}, "bad_field", 4500),
        ({"resume": {"sid": "x"}}, "bad_field", 4500),
        ({"resume": {"sid": "x", "key": "", "seq": 0}}, "bad_field", 4500),
    ],
)
def test_a_wrong_hello_gets_one_clear_error(
    fields: dict[str, object], code: str, close_code: int
) -> None:
    shell = Shell()
    connection = shell.open()
    hello = {"type": "hello", "v": 1, "room": ROOM} | fields
    (answer,) = shell.raw(connection, json.dumps(hello))
    assert (answer["code"], answer["fatal"]) == (code, True)
    assert shell.closed[connection] == close_code
    assert shell.rooms.counters[code] == 1


def test_unknown_fields_are_ignored() -> None:
    shell = Shell()
    connection, _ = shell.join(colour="blue", caps=["dance"])
    assert shell.say(connection, "ping", n=1, extra=[1, 2]) == [{"type": "pong", "n": 1}]


def test_anything_before_hello_is_the_end() -> None:
    shell = Shell()
    connection = shell.open()
    (answer,) = shell.say(connection, "ping")
    assert answer["code"] == "bad_order"
    assert shell.closed[connection] == 4500


def test_a_second_hello_ends_the_session() -> None:
    shell = Shell()
    watcher, _ = shell.join()
    connection, _ = shell.join()
    shell.raw(connection, HELLO)
    assert shell.closed[connection] == 4500
    assert shell.heard(watcher, "peer")[-1]["reason"] == "refused"


def test_a_binary_frame_is_the_end() -> None:
    shell = Shell()
    connection, _ = shell.join()
    (answer,) = shell.raw(connection, HELLO.encode())
    assert answer["fatal"] is True
    assert shell.closed[connection] == 4500


def test_a_frame_over_64_kib_is_the_end_of_the_connection() -> None:
    shell = Shell()
    connection, welcome = shell.join()
    (answer,) = shell.raw(connection, " " * 65537)
    assert answer["code"] == "too_large"
    assert shell.closed[connection] == 1009
    assert shell.sent[shell.resume(welcome, seq=0)][0]["type"] == "resumed"


def test_the_eleventh_fault_is_the_end() -> None:
    shell = Shell()
    connection, _ = shell.join()
    for _ in range(10):
        shell.raw(connection, "{")
    assert connection not in shell.closed
    shell.raw(connection, "{")
    assert shell.closed[connection] == 4500


def test_a_burst_of_60_is_free_and_then_reading_is_paused_20_times_a_second() -> None:
    shell = Shell()
    connection, _ = shell.join()
    for n in range(59):
        shell.say(connection, "ping", n=n)
    assert shell.pauses[connection] == []
    first = shell.say(connection, "ping", n=59)
    assert [frame["type"] for frame in first] == ["error", "pong"]
    assert first[0]["code"] == "rate_limited"
    assert shell.pauses[connection] == [pytest.approx(0.05)]
    for n in range(100):
        shell.advance(0.05)
        assert shell.say(connection, "ping", n=n) == [{"type": "pong", "n": n}]
    assert connection not in shell.closed
    assert shell.rooms.counters["throttled"] == 101
    assert shell.rooms.counters["rate_limited"] == 1


def test_bytes_are_rated_too() -> None:
    shell = Shell()
    connection, _ = shell.join()
    for _ in range(5):
        shell.raw(connection, '{"type":"ping"}' + " " * 60000)
    assert shell.pauses[connection][-1] > 0.5


def test_a_flood_that_ignores_the_pause_is_the_end_and_others_hear_nothing_of_it() -> None:
    shell = Shell()
    watcher, _ = shell.join()
    connection, _ = shell.join()
    before = len(shell.sent[watcher])
    for n in range(1000):
        shell.say(connection, "ping", n=n)
    assert shell.closed[connection] == 4505
    assert shell.rooms.counters["abuse"] == 1
    assert len(shell.sent[connection]) < 200
    assert [frame["event"] for frame in shell.sent[watcher][before:]] == ["leave"]


def test_a_new_connection_does_not_buy_a_new_burst() -> None:
    shell = Shell()
    connection, welcome = shell.join()
    for _ in range(100):
        shell.say(connection, "ping")
    back = shell.resume(welcome, seq=0)
    assert shell.say(back, "ping")[-1] == {"type": "pong", "n": 0}
    assert shell.pauses[back]


def test_resuming_in_a_loop_is_refused_for_a_while() -> None:
    shell = Shell()
    connection, welcome = shell.join()
    for _ in range(200):
        connection = shell.resume(welcome, seq=0)
    assert shell.heard(connection, "error")[-1]["code"] == "busy"
    assert shell.closed[connection] == 4004
    shell.advance(10.0)
    back = shell.resume(welcome, seq=0)
    assert shell.sent[back][0]["type"] == "resumed"


def test_connections_that_never_say_hello_leave_nothing_behind() -> None:
    shell = Shell()
    for _ in range(1000):
        shell.open()
    shell.advance(6.0)
    assert len(shell.closed) == 1000
    assert not any(shell.rooms.sizes.values()), shell.rooms.sizes
    shell.advance(100.0)
    assert shell.rooms.get_timer() is None


NAMES = ["id", "to", "link", "gen", "kind", "data", "n", "seq", "v", "room", "meta", "resume"]
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "id",
            "to",
            "link",
            "gen",
            "kind",
            "data",
            "n",
            "seq",
            "v",
            "room",
            "meta",
            "max_peers",
            "resume",
        ]
    ),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 4),
        st.integers(),
        st.floats(),
        st.text(max_size=30),
        st.sampled_from(["offer", "cand", ROOM]),
        st.lists(st.integers(), max_size=3),
        st.fixed_dictionaries({"sid": st.text(), "key": st.text(), "seq": st.integers(-1, 5)}),
    ),
)
FRAMES = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=50),
    st.builds(
        lambda type, fields: json.dumps({"type": type} | fields),
        st.sampled_from(["hello", "signal", "ack", "leave", "ping", "welcome", "x"]),
        FIELDS,
    ),
    st.just(HELLO),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(1, 5), FRAMES),
        st.tuples(st.just("close"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.floats(0, 40)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_no_sequence_of_frames_upsets_the_rooms(steps: list[tuple[object, ...]]) -> None:
    shell = Shell(Limits(peers_per_room=3))
    for _ in range(5):
        shell.open()
    for step in steps:
        match step:
            case ("frame", int(connection), str() | bytes() as data):
                shell.raw(connection, data)
            case ("close", int(connection)):
                shell.drop(connection)
            case ("wait", float(seconds)):
                shell.advance(seconds)
            case _:
                pass
    witness, _ = shell.join("witness-0123456789abcdefgh")
    assert shell.say(witness, "ping", n=1) == [{"type": "pong", "n": 1}]
    for connection in range(1, witness + 1):
        shell.drop(connection)
    shell.advance(200.0)
    assert not any(shell.rooms.sizes.values()), shell.rooms.sizes


def test_thousands_of_mutated_frames_are_answered_or_closed() -> None:
    source = random.Random(5)
    signal = {"type": "signal", "id": 1, "to": "x", "link": "l", "gen": 0, "kind": "cand"}
    samples = [HELLO, json.dumps(signal | {"data": "d" * 40}), '{"type":"ack","seq":3}']
    rooms = Rooms(random.Random(0), Limits(message_rate=1e9, byte_rate=1e9, faults=3))
    number = 0
    open_now = False
    for _ in range(5000):
        if not open_now:
            number += 1
            rooms.on_open(number, ("192.0.2.7", 1), 0.0)
            rooms.on_message(number, HELLO, 0.0)
            open_now = True
        frame = list(source.choice(samples))
        for _ in range(source.randrange(4)):
            place = source.randrange(len(frame))
            frame[place] = chr(source.choice([source.randrange(128), source.randrange(0x10FFFF)]))
        effects = rooms.on_message(number, "".join(frame), 0.0)
        assert all(isinstance(effect, Pause) or effect for effect in effects)
        open_now = not any(isinstance(effect, Close) for effect in effects)
        if not open_now:
            rooms.on_close(number, 0.0)
            rooms.on_timer(0.0)
    assert rooms.counters["bad_json"] > 100
    assert rooms.sizes["connections"] <= 1
