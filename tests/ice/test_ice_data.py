"""Application data: where it goes, whose is taken, what is STUN. RFC 8445 section 12, RFC 7983."""

from __future__ import annotations

import pytest

from ice_punch.ice import Credentials, DataReceived, IceState, resembles_stun
from ice_punch.ice.session import MAX_PROVEN
from ice_punch.stun import MAGIC_COOKIE
from support.agents import Meeting
from support.bench import (
    LOCAL,
    OURS,
    REMOTE,
    Bench,
    completed_bench,
    remote_candidate,
    valid_bench,
)

COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
STRANGER = ("203.0.113.99", 1)


def delivered(bench: Bench) -> list[bytes]:
    return [e.data for _, e in bench.events if isinstance(e, DataReceived)]


# -- sending ----


def test_there_is_no_pair_for_data_before_one_is_valid() -> None:
    bench = Bench(remotes=[REMOTE])
    assert bench.agent.data_pair() is None
    bench.run(5.0)
    assert bench.agent.data_pair() is None


def test_data_flows_on_a_valid_pair_before_nomination() -> None:
    bench = valid_bench()
    assert bench.agent.selected_pair() is None
    assert bench.agent.data_pair() is bench.pair()
    assert bench.agent.state is IceState.CONNECTED


def test_data_goes_on_the_best_valid_pair_and_then_on_the_selected_one() -> None:
    worse = ("203.0.113.5", 6000)
    bench = Bench(
        controlling=False,
        remotes=[
            remote_candidate(REMOTE, foundation="1"),
            remote_candidate(worse, foundation="2", priority=100),
        ],
    )
    bench.run(0.1)
    best, other = bench.requests
    bench.receive(bench.answer(other), worse)
    assert bench.agent.data_pair() is bench.pair(worse)
    bench.receive(bench.answer(best))
    assert bench.agent.data_pair() is bench.pair()
    bench.receive(bench.request(use_candidate=True), worse)
    assert bench.agent.data_pair() is bench.pair(worse)


def test_between_nats_data_is_possible_within_the_checks_alone() -> None:
    meeting = Meeting(rtt=0.1)
    meeting.start()
    assert meeting.until_valid()
    for side in (meeting.a, meeting.b):
        assert side.agent.data_pair() is not None


# -- receiving ----


EARLY = f"{OURS.ufrag}:itsnextufrag"
"""How a peer that restarts, and does not wait for our new credentials, names itself."""


def test_data_of_a_peer_that_restarts_before_we_know_is_taken() -> None:
    """libwebrtc checks our old candidates from new sockets, under its new ufrag and our old one. It
    may settle on such a pair, and stay there."""
    bench = completed_bench()
    pairs = len(bench.agent.report().pairs)
    bench.receive(bench.request(username=EARLY), STRANGER)
    bench.receive(b"from a new socket", STRANGER)
    assert delivered(bench) == [b"from a new socket"]
    assert len(bench.agent.report().pairs) == pairs
    assert bench.agent.data_pair() is bench.pair()
    bench.agent.restart(Credentials("ourfrag2", "our-second-password-of-24"), bench.now)
    bench.receive(b"and on", STRANGER)
    assert delivered(bench)[-1] == b"and on"


def test_only_who_knows_our_password_is_believed_to_restart() -> None:
    bench = completed_bench()
    bench.receive(bench.request(username=EARLY, key=b"a password of somebody's"), STRANGER)
    bench.receive(b"spoof", STRANGER)
    assert delivered(bench) == []


def test_few_addresses_of_a_peer_that_restarts_are_remembered() -> None:
    bench = completed_bench()
    for port in range(1, 1000):
        bench.receive(bench.request(username=EARLY), (STRANGER[0], port))
    assert len(bench.agent._session.proven) == MAX_PROVEN
    bench.receive(b"old", (STRANGER[0], 1))
    bench.receive(b"new", (STRANGER[0], 999))
    assert delivered(bench) == [b"new"]


def test_data_of_a_stranger_is_counted_and_dropped() -> None:
    bench = completed_bench()
    bench.receive(b"spoof", STRANGER)
    bench.receive(b"spoof", (REMOTE[0], REMOTE[1] + 1))
    bench.receive(b"spoof", REMOTE, ("192.0.2.2", 5000))
    assert delivered(bench) == []
    assert bench.agent.counters["data_from_strangers"] == 3


def test_a_signalled_address_is_a_stranger_until_it_has_proven_itself() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(b"early")
    assert delivered(bench) == []
    bench.receive(bench.request())
    bench.receive(b"proven by a request")
    assert delivered(bench) == [b"proven by a request"]


def test_an_answer_proves_an_address_too() -> None:
    bench = valid_bench()
    bench.receive(b"data")
    assert delivered(bench) == [b"data"]


def test_data_is_taken_on_every_proven_path_also_after_nomination() -> None:
    bench = completed_bench()
    bench.receive(bench.request(), STRANGER)
    bench.receive(b"one", STRANGER)
    bench.receive(b"two")
    assert delivered(bench) == [b"one", b"two"]
    assert bench.agent.accepts_data(STRANGER, LOCAL)


def test_an_ended_session_takes_no_data() -> None:
    bench = completed_bench()
    bench.agent.close(bench.now)
    bench.receive(b"late")
    assert delivered(bench) == []
    assert not bench.agent.accepts_data(REMOTE, LOCAL)


def test_an_event_says_whence_and_where() -> None:
    bench = completed_bench()
    bench.receive(b"x")
    assert bench.events[-1][1] == DataReceived(b"x", LOCAL, REMOTE)


def test_data_changes_nothing_but_a_counter_and_how_soon_silence_is_noticed() -> None:
    bench = completed_bench()
    bench.receive(b"x" * 1200)
    assert bench.agent.get_timer() == pytest.approx(bench.now + 0.25)
    assert bench.sent == []
    assert bench.agent.counters["data_received"] == 1


# -- telling STUN from data ----


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_what_begins_like_stun_with_the_cookie_is_never_data(first: int) -> None:
    for tail in (b"", b"x", bytes(12), b"garbage" * 50):
        datagram = bytes([first, 1, 0, 4]) + COOKIE + tail
        assert resembles_stun(datagram)
        bench = completed_bench()
        bench.receive(datagram)
        assert delivered(bench) == []
        assert bench.agent.counters["stun_malformed"] + bench.agent.counters["stun_unexpected"] == 1


@pytest.mark.parametrize("first", [4, 20, 22, 63, 64, 79, 80, 128, 191, 255])
def test_other_first_bytes_are_data_whatever_follows(first: int) -> None:
    datagram = bytes([first, 1, 0, 0]) + COOKIE + bytes(12)
    assert not resembles_stun(datagram)
    bench = completed_bench()
    bench.receive(datagram)
    assert delivered(bench) == [datagram]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"\0\1\0\0" + COOKIE[:3],
        b"\0\1\0\4" + b"twenty bytes of text",
        b"\0\1\0\0" + bytes(16),
        b"\1\1\0\0" + COOKIE[::-1] + bytes(12),
    ],
)
def test_without_the_cookie_nothing_is_stun(datagram: bytes) -> None:
    assert not resembles_stun(datagram)
    bench = completed_bench()
    bench.receive(datagram, STRANGER)
    assert delivered(bench) == []
    bench.receive(datagram)
    assert delivered(bench) == [datagram]


def test_a_memoryview_is_as_good_as_bytes() -> None:
    assert resembles_stun(memoryview(b"\0\1\0\0" + COOKIE + bytes(12)))
    assert not resembles_stun(memoryview(b"data"))
