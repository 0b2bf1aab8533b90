"""Rooms: entering, relaying, coming back, leaving, and each limit where it bites."""

from __future__ import annotations

import pytest
from signaling_support import OTHER_ROOM, ROOM, Shell

from signaling.limits import Limits
from signaling.member import CANDIDATE_LINKS
from signaling.messages import CloseCode, IceInfo, IceServerInfo


def test_the_first_to_come_is_welcomed_with_everything_it_needs() -> None:
    ice = IceInfo(servers=[IceServerInfo(urls=["stun:{host}:3478"])], ttl=600)
    shell = Shell(ice=ice)
    connection = shell.open("203.0.113.9", host="signal.example")
    welcome = shell.hello(connection, max_peers=2)
    assert welcome["v"] == 1
    assert welcome["order"] == 1
    assert welcome["peers"] == []
    assert welcome["you"] == {"ip": "203.0.113.9", "port": 4242}
    assert welcome["ice"] == {"servers": [{"urls": ["stun:signal.example:3478"]}], "ttl": 600}
    assert (welcome["ping"], welcome["window"]) == (25.0, 30.0)
    assert welcome["limits"] == {
        "frame": 65536,
        "data": 32768,
        "meta": 1024,
        "candidates": 128,
        "peers": 2,
        "rate": 20.0,
        "burst": 60,
    }
    assert len(welcome["sid"]) == len(welcome["key"]) == 22


def test_an_ice_server_named_by_host_is_left_out_where_the_host_is_unknown() -> None:
    shell = Shell(ice=IceInfo(servers=[IceServerInfo(urls=["stun:{host}:3478"])]))
    _, welcome = shell.join()
    assert welcome["ice"] == {"servers": []}


def test_the_second_sees_the_first_and_the_first_hears_of_the_second() -> None:
    shell = Shell()
    a, first = shell.join(meta="listener")
    _, second = shell.join(meta="connector")
    assert second["order"] == 2
    assert second["peers"] == [{"id": first["self"], "order": 1, "meta": "listener"}]
    assert shell.heard(a, "peer") == [
        {
            "type": "peer",
            "seq": 1,
            "event": "join",
            "id": second["self"],
            "order": 2,
            "meta": "connector",
        }
    ]


def test_a_signal_reaches_its_addressee_alone_with_the_senders_name_put_on_by_the_server() -> None:
    shell = Shell()
    a, first = shell.join()
    b, second = shell.join()
    c, _ = shell.join()
    answer = shell.signal(b, 1, first["self"], "sealed", gen=3, kind="cand", link="l-1")
    assert answer == [{"type": "ack", "id": 1, "status": "delivered"}]
    assert shell.heard(a, "signal") == [
        {
            "type": "signal",
            "seq": 3,
            "from": second["self"],
            "link": "l-1",
            "gen": 3,
            "kind": "cand",
            "data": "sealed",
        }
    ]
    assert shell.heard(c, "signal") == []


def test_rooms_do_not_hear_each_other() -> None:
    shell = Shell()
    _, first = shell.join(ROOM)
    other, _ = shell.join(OTHER_ROOM)
    ack, refusal = shell.signal(other, 1, first["self"])
    assert ack == {"type": "ack", "id": 1, "status": "unavailable"}
    assert refusal["code"] == "peer_unavailable"


def test_a_signal_to_nobody_is_an_error_at_once_that_names_it() -> None:
    shell = Shell()
    a, first = shell.join()
    ack, refusal = shell.signal(a, 1, "nobody")
    assert ack == {"type": "ack", "id": 1, "status": "unavailable"}
    assert refusal == {
        "type": "error",
        "code": "peer_unavailable",
        "message": "no such peer in this room",
        "ref": 1,
        "to": "nobody",
        "seq": 1,
    }
    _, refusal = shell.signal(a, 2, first["self"])
    assert refusal["code"] == "peer_unavailable"


def test_a_signal_to_an_absent_peer_waits_for_it() -> None:
    shell = Shell()
    a, first = shell.join()
    b, second = shell.join()
    shell.drop(b)
    assert shell.heard(a, "peer")[-1]["event"] == "away"
    assert shell.signal(a, 1, second["self"])[-1]["status"] == "queued"
    back = shell.resume(second, seq=0)
    assert [frame["type"] for frame in shell.sent[back]] == ["resumed", "signal"]
    assert shell.sent[back][0] == {
        "type": "resumed",
        "seq": 1,
        "rx": 0,
        "peers": [{"id": first["self"], "order": 1}],
    }
    assert shell.heard(a, "peer")[-1]["event"] == "back"


def test_a_resume_replays_exactly_what_was_not_seen() -> None:
    shell = Shell()
    a, _ = shell.join()
    b, second = shell.join()
    for id in range(1, 11):
        shell.signal(a, id, second["self"], f"data {id}")
    shell.drop(b)
    back = shell.resume(second, seq=7)
    assert [frame["seq"] for frame in shell.heard(back, "signal")] == [8, 9, 10]


def test_ids_already_processed_are_dropped_and_told_at_resume() -> None:
    shell = Shell()
    a, first = shell.join()
    b, second = shell.join()
    shell.signal(a, 1, second["self"], "one")
    shell.drop(a)
    back = shell.resume(first, seq=1)
    assert shell.sent[back][0]["rx"] == 1
    assert shell.signal(back, 1, second["self"], "one again") == []
    shell.signal(back, 2, second["self"], "two")
    assert [frame["data"] for frame in shell.heard(b, "signal")] == ["one", "two"]
    assert shell.rooms.counters["duplicates"] == 1


def test_refusals_of_signals_survive_a_lost_connection_too() -> None:
    shell = Shell()
    a, first = shell.join()
    shell.signal(a, 1, "nobody")
    shell.drop(a)
    back = shell.resume(first, seq=0)
    assert shell.heard(back, "error")[0]["ref"] == 1


def test_a_gap_in_the_ids_ends_the_session() -> None:
    shell = Shell()
    a, _ = shell.join()
    b, second = shell.join()
    (refusal,) = shell.signal(a, 2, second["self"])
    assert (refusal["code"], refusal["fatal"]) == ("bad_order", True)
    assert shell.closed[a] == 4500
    assert shell.heard(b, "peer")[-1]["event"] == "leave"


def test_the_key_takes_a_session_over_without_anybody_noticing() -> None:
    shell = Shell()
    a, first = shell.join()
    b, _ = shell.join()
    back = shell.resume(first, seq=1)
    assert shell.sent[back][0]["type"] == "resumed"
    assert shell.closed[a] == 4503
    assert shell.heard(b, "peer") == []
    shell.drop(a)
    assert shell.rooms.sizes["connections"] == 2
    assert shell.heard(b, "peer") == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"key": "A" * 22}, id="wrong-key"),
        pytest.param({"sid": "A" * 22}, id="unknown-session"),
        pytest.param({"seq": 99}, id="from-the-future"),
        pytest.param({"key": "é" * 22}, id="not-ascii"),
    ],
)
def test_a_wrong_claim_gets_a_fresh_welcome_and_disturbs_nobody(change: dict[str, object]) -> None:
    shell = Shell()
    a, first = shell.join()
    thief = shell.open()
    claim = {"sid": first["sid"], "key": first["key"], "seq": 0} | change
    welcome = shell.hello(thief, resume=claim)
    assert welcome["type"] == "welcome"
    assert welcome["self"] != first["self"]
    assert shell.rooms.counters["resumes_refused"] == 1
    if "seq" not in change:
        assert a not in shell.closed
        assert shell.say(a, "ping", n=1) == [{"type": "pong", "n": 1}]


def test_a_claim_from_another_room_is_wrong() -> None:
    shell = Shell()
    a, first = shell.join()
    thief = shell.resume(first, seq=0, room=OTHER_ROOM)
    assert shell.sent[thief][0]["type"] == "welcome"
    assert a not in shell.closed


def test_a_session_ends_when_its_window_does() -> None:
    shell = Shell()
    a, _ = shell.join()
    b, second = shell.join()
    shell.drop(b)
    shell.advance(29.9)
    assert shell.rooms.sizes["sessions"] == 2
    shell.say(a, "ping")
    shell.advance(0.2)
    assert shell.heard(a, "peer")[-1] == {
        "type": "peer",
        "seq": 3,
        "event": "leave",
        "id": second["self"],
        "order": 2,
        "reason": "expired",
    }
    back = shell.resume(second, seq=0)
    assert shell.sent[back][0]["type"] == "welcome"


def test_leaving_ends_the_session_at_once_and_the_last_one_the_room() -> None:
    shell = Shell()
    a, _ = shell.join()
    b, _ = shell.join()
    shell.say(a, "leave")
    assert shell.closed[a] == 1000
    assert shell.heard(b, "peer")[-1]["reason"] == "left"
    shell.say(b, "leave")
    assert not any(shell.rooms.sizes.values()), shell.rooms.sizes


def test_a_room_that_was_closed_is_opened_by_nobody_once_it_is_empty() -> None:
    shell = Shell(Limits(closed_rooms=2, resume_window=30.0))
    a, _ = shell.join()
    b, welcome = shell.join()
    shell.say(a, "leave", close=True)
    assert shell.closed[a] == 1000
    assert shell.heard(b, "peer")[-1]["reason"] == "closed"
    c, _ = shell.join()  # somebody is there still
    shell.say(c, "leave")
    shell.drop(b)
    shell.advance(31.0)
    d = shell.open()
    shell.say(d, "hello", v=1, room=ROOM)
    assert shell.heard(d, "error")[-1]["code"] == "room_closed"
    assert shell.closed[d] == 4508
    assert shell.sent[shell.resume(welcome, seq=0)][-1]["code"] == "room_closed"
    assert not any(shell.rooms.sizes.values()), shell.rooms.sizes


def test_a_guest_closes_no_room() -> None:
    """Knowing the room's name lets in; that must not be enough to have its link refused."""
    shell = Shell(Limits(resume_window=30.0))
    host, _ = shell.join()
    guest, _ = shell.join()
    shell.say(guest, "leave", close=True)
    assert shell.heard(host, "peer")[-1]["reason"] == "left"
    shell.drop(host)
    shell.advance(31.0)
    assert not any(shell.rooms.sizes.values()), shell.rooms.sizes
    shell.join()


def test_only_so_many_closed_rooms_are_remembered() -> None:
    shell = Shell(Limits(closed_rooms=2))
    names = [letter * 22 for letter in "abc"]
    for name in names:
        one, _ = shell.join(room=name)
        shell.say(one, "leave", close=True)
    again, _ = shell.join(room=names[0])  # the oldest is forgotten
    assert again not in shell.closed
    for name in names[1:]:
        late = shell.open()
        shell.say(late, "hello", v=1, room=name)
        assert shell.closed[late] == 4508


def test_an_absent_peer_gets_64_messages_and_then_the_sender_is_told() -> None:
    shell = Shell(Limits(message_burst=1000))
    a, _ = shell.join()
    b, second = shell.join()
    shell.drop(b)
    for id in range(1, 65):
        assert shell.signal(a, id, second["self"])[-1]["status"] == "queued"
    assert shell.signal(a, 65, second["self"])[-1]["code"] == "queue_full"
    back = shell.resume(second, seq=0)
    assert len(shell.heard(back, "signal")) == 64
    assert shell.signal(a, 66, second["self"])[-1]["status"] == "delivered"


def test_an_absent_peer_gets_256_kib_and_then_the_sender_is_told() -> None:
    shell = Shell(Limits(message_burst=1000, byte_burst=10**7))
    a, _ = shell.join()
    b, second = shell.join()
    shell.drop(b)
    statuses = [shell.signal(a, id, second["self"], "x" * 32768)[-1] for id in range(1, 9)]
    assert [answer.get("status", answer.get("code")) for answer in statuses] == [
        *["queued"] * 7,
        "queue_full",
    ]


def test_what_was_sent_and_never_acknowledged_is_kept_up_to_64_messages() -> None:
    shell = Shell(Limits(message_burst=1000))
    a, _ = shell.join()
    b, second = shell.join()
    for id in range(1, 101):
        shell.signal(a, id, second["self"])
    shell.drop(b)
    claim = shell.resume(second, seq=36)
    assert len(shell.heard(claim, "signal")) == 64
    shell.drop(claim)
    lost = shell.resume(second, seq=35)
    assert shell.sent[lost][0]["type"] == "welcome"
    assert [frame["reason"] for frame in shell.heard(a, "peer") if "reason" in frame] == ["gap"]


def test_an_acknowledgement_frees_what_was_kept() -> None:
    shell = Shell(Limits(message_burst=1000))
    a, _ = shell.join()
    b, second = shell.join()
    for id in range(1, 101):
        shell.signal(a, id, second["self"])
        if id % 16 == 0:
            assert shell.say(b, "ack", seq=id) == []
    back = shell.resume(second, seq=96)
    assert [frame["seq"] for frame in shell.heard(back, "signal")] == [97, 98, 99, 100]


def test_a_replay_cut_short_can_be_asked_for_again() -> None:
    shell = Shell(Limits(message_burst=1000))
    a, _ = shell.join()
    b, second = shell.join()
    for id in range(1, 61):
        shell.signal(a, id, second["self"])
    shell.drop(b)
    for id in range(61, 121):
        shell.signal(a, id, second["self"])
    first = shell.resume(second, seq=0)
    shell.signal(a, 121, second["self"])
    shell.drop(first)
    back = shell.resume(second, seq=0)
    assert [frame["seq"] for frame in shell.heard(back, "signal")] == list(range(1, 122))


def test_an_absent_peer_that_hears_too_much_news_loses_its_session() -> None:
    shell = Shell(Limits(sessions_per_address=1000))
    _, first = shell.join()
    watcher, _ = shell.join()
    shell.drop(1)
    for _ in range(100):
        visitor, _ = shell.join()
        shell.say(visitor, "leave")
    assert shell.heard(watcher, "peer")[-1]["event"] in ("join", "leave")
    assert shell.rooms.counters["ended_overflow"] == 1
    assert shell.rooms.sizes["sessions"] == 1
    back = shell.resume(first, seq=0)
    assert shell.sent[back][0]["type"] == "welcome"


def test_a_full_room_says_so_and_stays_as_it_was() -> None:
    shell = Shell()
    a, _ = shell.join(max_peers=2)
    shell.join()
    third = shell.open()
    refusal = shell.hello(third)
    assert (refusal["code"], refusal["fatal"]) == ("room_full", True)
    assert "all 2 seats" in refusal["message"]
    assert shell.closed[third] == 4504
    assert len(shell.heard(a, "peer")) == 1


def test_a_room_has_16_seats_unless_its_first_peer_wants_fewer() -> None:
    shell = Shell()
    for _ in range(16):
        shell.join(max_peers=2**20)
    shell.hello(extra := shell.open())
    assert shell.closed[extra] == 4504


def test_the_seats_of_a_room_are_set_by_the_first_alone() -> None:
    shell = Shell()
    shell.join(max_peers=2)
    _, second = shell.join(max_peers=10)
    assert second["limits"]["peers"] == 2


def test_the_seat_of_a_peer_that_just_vanished_is_kept_then_given_away() -> None:
    shell = Shell()
    a, _ = shell.join(max_peers=2)
    b, second = shell.join()
    shell.drop(b)
    shell.advance(2.0)
    early = shell.open()
    refusal = shell.hello(early)
    assert refusal["code"] == "room_full"
    assert refusal["retry_after"] == pytest.approx(3.0)
    assert shell.closed[early] == 4004
    shell.advance(3.0)
    _, third = shell.join()
    assert third["order"] == 3
    events = [(frame["event"], frame.get("reason")) for frame in shell.heard(a, "peer")]
    assert events[-2:] == [("leave", "unseated"), ("join", None)]
    back = shell.open()
    claim = {"sid": second["sid"], "key": second["key"], "seq": 0}
    assert shell.hello(back, resume=claim)["code"] == "room_full"


@pytest.mark.parametrize(
    ("limits", "opens"),
    [
        (Limits(sessions=3), 3),
        (Limits(sessions_per_address=3), 3),
        (Limits(rooms=3), 3),
    ],
)
def test_caps_refuse_for_now(limits: Limits, opens: int) -> None:
    shell = Shell(limits)
    rooms = [f"{n:022}" for n in range(4)]
    first, _ = shell.join(rooms[0])
    for room in rooms[1:opens]:
        shell.join(room)
    late = shell.open()
    refusal = shell.hello(late, rooms[3])
    assert (refusal["code"], shell.closed[late]) == ("busy", 4004)
    shell.say(first, "leave")
    shell.join(rooms[3])


def test_an_ipv6_network_counts_as_one_address() -> None:
    shell = Shell(Limits(sessions_per_address=2))
    for host in ("1", "2"):
        assert shell.hello(shell.open(f"2001:db8:1:1::{host}"))["type"] == "welcome"
    assert shell.hello(shell.open("2001:db8:1:1:ffff::9"))["code"] == "busy"
    assert shell.hello(shell.open("2001:db8:1:2::1"))["type"] == "welcome"


def test_no_hello_within_5_seconds_closes() -> None:
    shell = Shell()
    connection = shell.open()
    shell.advance(4.9)
    assert connection not in shell.closed
    shell.advance(0.2)
    assert shell.closed[connection] == 4005
    assert shell.heard(connection, "error")[0]["code"] == "hello_timeout"


def test_75_silent_seconds_close_and_the_session_waits() -> None:
    shell = Shell()
    a, first = shell.join()
    shell.advance(70.0)
    shell.say(a, "ping", n=7)
    shell.advance(74.9)
    assert a not in shell.closed
    shell.advance(0.2)
    assert shell.closed[a] == 4002
    back = shell.resume(first, seq=0)
    assert shell.sent[back][0]["type"] == "resumed"


def test_data_over_the_limit_is_refused_and_the_next_signal_goes_through() -> None:
    shell = Shell()
    a, _ = shell.join()
    _, second = shell.join()
    assert shell.signal(a, 1, second["self"], "x" * 32769)[-1]["code"] == "too_large"
    assert shell.signal(a, 2, second["self"], "x" * 32768)[-1]["status"] == "delivered"
    assert shell.signal(a, 3, second["self"], "é" * 16385)[-1]["code"] == "too_large"


def test_128_candidate_messages_per_generation() -> None:
    shell = Shell(Limits(message_burst=1000))
    a, _ = shell.join()
    _, second = shell.join()
    for id in range(1, 129):
        assert shell.signal(a, id, second["self"], kind="cand")[-1]["type"] == "ack"
    assert shell.signal(a, 129, second["self"], kind="cand")[-1]["code"] == "too_many_candidates"
    assert shell.signal(a, 130, second["self"], kind="offer")[-1]["type"] == "ack"
    assert shell.signal(a, 131, second["self"], kind="cand", gen=1)[-1]["type"] == "ack"


def test_neither_an_older_generation_nor_another_link_begins_the_count_anew() -> None:
    shell = Shell(Limits(message_burst=1000, candidates=3))
    a, _ = shell.join()
    _, second = shell.join()
    sent = 0

    def told(link: str, gen: int) -> str:
        nonlocal sent
        sent += 1
        answer = shell.signal(a, sent, second["self"], kind="cand", link=link, gen=gen)[-1]
        return str(answer.get("status") or answer["code"])

    assert [told("one", gen) for gen in (0, 0, 1, 0)] == ["delivered"] * 4
    assert told("one", 0) == "too_many_candidates"
    assert [told("one", 1) for _ in range(2)] == ["delivered"] * 2
    assert told("one", 0) == told("one", 1) == "too_many_candidates"
    assert [told("two", 0) for _ in range(3)] == ["delivered"] * 3
    assert told("one", 1) == told("two", 0) == "too_many_candidates"
    assert told("one", 2) == "delivered"
    assert told("one", 0) == told("one", 1) == "too_many_candidates"
    for number in range(100):  # names cost nothing; what is remembered of them is bounded
        assert told(f"link {number}", 0) == "delivered"
    [member] = (m for m in shell.rooms._hall.members.values() if m.candidates)
    assert len(member.candidates[second["self"]]) == CANDIDATE_LINKS


def test_drain_tells_everybody_and_closes() -> None:
    shell = Shell()
    a, _ = shell.join()
    b, _ = shell.join()
    shell.apply(shell.rooms.drain(0.0, 2.0))
    for connection in (a, b):
        assert shell.sent[connection][-1] == {"type": "drain", "in_s": 0.0, "jitter_s": 2.0}
        shell.apply(shell.rooms.dismiss(connection))
    for connection in (a, b):
        assert shell.sent[connection][-1]["type"] == "drain"
        assert shell.closed[connection] == 4000


def test_notes_for_the_log_hold_no_secret() -> None:
    shell = Shell()
    a, first = shell.join(meta="private note")
    b, second = shell.join()
    shell.signal(a, 1, second["self"], "private payload")
    shell.drop(a)
    shell.resume(first, seq=1)
    shell.say(b, "leave")
    shell.raw(shell.open(), '{"type":"hello","v":1,"room":"private"}')
    text = repr(shell.notes)
    for secret in (ROOM, "private", first["sid"], first["key"], second["key"]):
        assert secret not in text
    assert "session opened" in text
    assert "bad_room" in text


def test_the_same_inputs_give_the_same_outputs() -> None:
    def run() -> dict[int, list[dict[str, object]]]:
        shell = Shell(seed=7)
        a, _ = shell.join()
        _, second = shell.join()
        shell.signal(a, 1, second["self"])
        return dict(shell.sent)

    assert run() == run()


def test_a_session_ends_after_its_lifetime_and_who_comes_back_is_judged_anew() -> None:
    """A token, or a key that was stolen, lets nobody stay for ever."""
    shell = Shell(Limits(session_lifetime=100.0))
    connection, welcome = shell.join()
    other, _ = shell.join()
    for _ in range(5):
        shell.advance(19.0)
        shell.say(connection, "ping", n=1)
        shell.say(other, "ping", n=1)
    assert connection not in shell.closed
    shell.advance(5.1)
    assert shell.closed[connection] == CloseCode.OUTLIVED
    assert 4000 <= CloseCode.OUTLIVED < 4500
    resume = {"sid": welcome["sid"], "key": welcome["key"], "seq": 0}
    again = shell.hello(shell.open(), resume=resume)
    assert again["type"] == "welcome"
    assert again["self"] != welcome["self"]


def test_an_absent_session_that_has_outlived_its_time_is_not_resumed() -> None:
    shell = Shell(Limits(session_lifetime=100.0))
    connection, welcome = shell.join()
    for _ in range(6):
        shell.advance(15.0)
        shell.say(connection, "ping", n=1)
    shell.drop(connection)
    shell.advance(11.0)
    resume = {"sid": welcome["sid"], "key": welcome["key"], "seq": 0}
    assert shell.hello(shell.open(), resume=resume)["type"] == "welcome"
