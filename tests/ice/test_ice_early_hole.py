"""A hole opened before checks may start."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.ice import AgentConfig, CandidateType
from ice_punch.stun import MessageClass
from support.bench import LOCAL, Bench, Sent, remote_candidate

PUBLIC = ("198.51.100.9", 7000)


def indications(bench: Bench) -> list[Sent]:
    return [s for s in bench.sent if s.message.message_class is MessageClass.INDICATION]


def waiting(**keywords: object) -> Bench:
    return Bench(meet=False, **keywords)  # type: ignore[arg-type]


def test_what_the_peer_can_be_reached_at_is_sent_to_as_soon_as_it_is_known() -> None:
    bench = waiting()
    bench.signal(remote_candidate(PUBLIC, CandidateType.SRFLX))
    (sent,) = indications(bench)
    assert (sent.local, sent.destination) == (LOCAL, PUBLIC)
    assert sent.message.has_fingerprint
    assert len(sent.data) == 20 + 8  # FINGERPRINT and nothing else


def test_indications_are_paced_and_few_whatever_is_signalled() -> None:
    bench = waiting()
    for number in range(90):
        bench.signal(remote_candidate((f"198.51.100.{number + 1}", 7000), CandidateType.SRFLX))
    bench.run(60.0)
    sent = indications(bench)
    assert len(sent) == 32
    assert min(b.at - a.at for a, b in itertools.pairwise(sent)) >= 0.0199


def test_an_address_gets_two_at_most_five_seconds_apart() -> None:
    bench = waiting()
    bench.signal(remote_candidate(PUBLIC, CandidateType.SRFLX))
    bench.run(600.0)
    times = [s.at - bench.begun for s in indications(bench)]
    assert times == [0.0, pytest.approx(5.0)]


def test_nothing_goes_to_private_addresses_from_relays_or_once_checks_may_start() -> None:
    bench = waiting()
    bench.agent.add_relayed_candidate(("203.0.113.5", 50000), bench.now, server="turn:t")
    bench.signal(remote_candidate(("10.1.2.3", 7000)))
    bench.run(1.0)
    assert bench.sent == []
    bench.meet()
    bench.signal(remote_candidate(PUBLIC, CandidateType.SRFLX))
    bench.run(20.0)
    assert indications(bench) == []


def test_it_can_be_switched_off() -> None:
    bench = waiting(config=AgentConfig(early_hole=False))
    bench.signal(remote_candidate(PUBLIC, CandidateType.SRFLX))
    bench.run(20.0)
    assert bench.sent == []


def test_the_first_check_of_the_peer_gets_through_a_port_restricted_filter() -> None:
    from ice_punch.lab.behaviour import NatKind
    from support.agents import Meeting

    meeting = Meeting(NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, rtt=0.1)
    now = meeting.internet.now
    for candidate in meeting.b.candidates:  # a knows where b is, and not yet who
        meeting.a.agent.add_remote_candidate(candidate, now)
    meeting.run(0.2)
    begun = meeting.internet.now
    meeting.b.meet(meeting.a)
    meeting.run(0.2)
    assert meeting.b.agent.valid_list  # its first check was answered, at once
    assert meeting.b.valid_at - begun < 0.1 + 0.045
