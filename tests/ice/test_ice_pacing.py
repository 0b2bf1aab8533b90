"""One new transaction per Ta, at exact instants: RFC 8445 sections 6.1.4.2 and 14."""

from __future__ import annotations

import itertools
import random

import pytest

from ice_punch.ice import Agent, AgentConfig, Credentials, Pacer
from ice_punch.ice.pacer import MAXIMUM_TA, MINIMUM_TA
from support.bench import LOCAL, REMOTE, Bench, completed_bench, remote_candidate


def first_sends(bench: Bench) -> list[float]:
    """When each transaction was begun, in seconds since the beginning."""
    begun: dict[bytes, float] = {}
    for sent in bench.requests:
        begun.setdefault(sent.message.transaction_id, round(sent.at - bench.begun, 6))
    return list(begun.values())


def many(bench: Bench, count: int) -> None:
    for n in range(1, count + 1):
        candidate = remote_candidate((REMOTE[0], n), foundation=str(n))
        bench.agent.add_remote_candidate(candidate, bench.now)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (0.02, 0.02, 0.02),
        (0.02, 0.03, 0.03),
        (0.03, 0.02, 0.03),
        (0.02, None, 0.05),  # who announces nothing uses 50 ms, RFC 8839 section 5.5
        (0.1, None, 0.1),
        (0.001, 0.001, 0.005),
        (0.02, 3600.0, MAXIMUM_TA),
        (0.02, -1.0, 0.02),
    ],
)
def test_checks_leave_exactly_ta_apart(ours: float, theirs: float | None, agreed: float) -> None:
    bench = Bench(config=AgentConfig(ta=ours), ta=theirs)
    many(bench, 5)
    bench.run(agreed * 4 + 0.0001)
    assert first_sends(bench) == pytest.approx([agreed * n for n in range(5)])


def test_queries_ordinary_and_triggered_checks_share_one_pacing() -> None:
    bench = Bench()
    many(bench, 5)
    for n in range(1, 5):
        bench.agent.query_server("stun:x", (f"203.0.113.{n}", 3478), LOCAL, bench.now)
    for n in range(1, 6):
        bench.receive(bench.request(), ("198.51.100.77", n))
    bench.run(0.4)
    assert first_sends(bench) == pytest.approx([0.02 * n for n in range(14)])


def test_nominations_and_repairs_of_conflicts_wait_for_their_turn() -> None:
    bench = Bench()
    many(bench, 4)
    bench.run(0.005)
    bench.receive(bench.answer(bench.requests[0], code=487), (REMOTE[0], 1))
    bench.run(0.2)
    assert first_sends(bench) == pytest.approx([0.02 * n for n in range(5)])


@pytest.mark.parametrize("hurry", [0.0, 0.001, 0.019])
def test_a_flood_of_requests_does_not_hasten_anything(hurry: float) -> None:
    bench = Bench()
    for n in range(1, 51):
        bench.receive(bench.request(), (REMOTE[0], n))
        bench.run(hurry)
    bench.run(1.5)
    times = first_sends(bench)
    assert len(times) >= 50
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.02 - 1e-6


def test_repetitions_are_not_paced() -> None:
    bench = Bench()
    many(bench, 3)
    bench.run(0.6)
    assert bench.times() == pytest.approx([0.0, 0.02, 0.04, 0.5, 0.52, 0.54])


def test_consent_checks_are_not_paced_and_take_no_slot() -> None:
    bench = completed_bench(config=AgentConfig(ta=1.0))
    bench.run(29.0)
    assert bench.agent.pacer.next_at <= bench.begun + 2.0
    assert len(bench.requests) >= 4


def test_a_late_timer_does_not_bunch_what_it_missed() -> None:
    bench = Bench()
    many(bench, 5)
    bench.flush()
    bench.now += 0.1  # the driver was busy for five slots
    bench.agent.handle_timer(bench.now)
    bench.flush()
    bench.run(0.1)
    assert first_sends(bench) == pytest.approx([0.0, 0.1, 0.12, 0.14, 0.16])


def test_an_idle_pacer_gives_the_slot_of_now() -> None:
    pacer = Pacer(0.02)
    assert pacer.take(5.0)
    assert not pacer.take(5.019)
    assert pacer.next_at == pytest.approx(5.02)
    assert pacer.take(9.0)


def test_a_reservation_is_a_slot_like_any_other() -> None:
    pacer = Pacer(0.02)
    assert [pacer.reserve(1.0) for _ in range(3)] == pytest.approx([1.0, 1.02, 1.04])
    assert not pacer.take(1.05)
    assert pacer.take(pacer.next_at)


def test_several_agents_together_keep_five_milliseconds() -> None:
    common = Pacer(MINIMUM_TA)
    agents = [
        Agent(
            controlling=True,
            credentials=Credentials(f"ufrag{n}", "password-of-24-characters"),
            random=random.Random(n),
            pacer=Pacer(0.02, common=common),
        )
        for n in range(8)
    ]
    for n, agent in enumerate(agents):
        agent.add_host_candidate(("192.0.2.1", 1000 + n), 0.0)
        agent.set_remote_parameters(Credentials("peer", "password-of-24-characters"), 0.0, ta=0.02)
        for port in range(1, 6):
            agent.add_remote_candidate(
                remote_candidate((REMOTE[0], port), foundation=str(port)), 0.0
            )
    times: list[float] = []
    now = 0.0
    while now < 0.4:
        for agent in agents:
            times += [now for _ in agent.datagrams_to_send(now)]
        due = min(t for a in agents if (t := a.get_timer()) is not None)
        now = max(now, due)
        for agent in agents:
            timer = agent.get_timer()
            if timer is not None and timer <= now:
                agent.handle_timer(now)
    assert len(times) == 40
    assert min(b - a for a, b in itertools.pairwise(times)) >= MINIMUM_TA - 1e-9


def test_the_timer_is_the_next_slot_only_while_there_is_work() -> None:
    bench = Bench(remotes=[REMOTE])
    assert bench.agent.get_timer() == pytest.approx(bench.begun + 0.5)  # the repetition
    bench.signal((REMOTE[0], 7000))
    assert bench.agent.get_timer() == pytest.approx(bench.begun + 0.5)  # frozen: same foundation
    bench.signal(remote_candidate((REMOTE[0], 8000), foundation="2"))
    assert bench.agent.get_timer() == pytest.approx(bench.begun + 0.02)
