"""A recording as a picture: who sent what to whom when, what was answered, what was noticed."""

from __future__ import annotations

import io

import pytest
from recording_support import Studio

from ice_punch.ice import AgentConfig
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.replayed import timeline_of
from ice_punch.lab.timeline import Arrow, Kind, Place, Timeline
from ice_punch.recording import lines as told
from ice_punch.report import ServerReport
from support.agents import Meeting
from support.bench import LOCAL, REMOTE, Bench, remote_candidate


def drawn(studio: Studio, side: int = 0) -> Timeline:
    studio.end()
    return timeline_of(studio.tapes[side].replay())


def to(timeline: Timeline, kind: Kind) -> list[Arrow]:
    return [arrow for arrow in timeline.arrows if arrow.kind is kind]


def test_two_sides_of_one_session_tell_the_same_story() -> None:
    studio = Studio()
    meeting = Meeting(rtt=0.1, make_agent=studio.make_agent)
    meeting.start(0.0)
    assert meeting.until_completed()
    studio.end()
    a, b = (timeline_of(tape.replay()) for tape in studio.tapes)
    began = [tape.load().began for tape in studio.tapes]
    for timeline, start in ((a, began[0]), (b, began[1])):
        assert {lane.place for lane in timeline.lanes} == {Place.A, Place.B, Place.SERVER}
        nominations = to(timeline, Kind.NOMINATION)
        assert len(nominations) == 1
        assert not nominations[0].dropped
        # the link is the same both ways, so that half a round trip is right
        (nomination,) = nominations
        packets = [
            p for p in meeting.internet.trace if p.data[8:20].hex() == nomination.transaction
        ]
        request = packets[0]
        assert nomination.ended_at is not None
        assert request.ended_at is not None
        assert abs(nomination.ended_at + start - request.ended_at) < 0.002
        assert abs(nomination.sent_at + start - request.sent_at) < 0.002
    assert a.title.startswith("the controlling side, recorded by ice-punch ")
    assert b.title.startswith("the controlled side, recorded by ice-punch ")


def test_lanes_are_our_bases_the_servers_and_what_the_peer_has() -> None:
    studio = Studio()
    meeting = Meeting(NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED, make_agent=studio.make_agent)
    meeting.start(0.0)
    meeting.run(3.0)
    timeline = drawn(studio, 1)
    labels = [(lane.place, lane.label) for lane in timeline.lanes]
    assert labels[0] == (Place.A, "host 192.168.2.2:50000, srflx 203.0.113.2:50000")
    assert (Place.SERVER, "stun:198.51.100.1:3478 198.51.100.1:3478") in labels
    peers = [label for place, label in labels if place is Place.B]
    assert "host 192.168.1.2:50000" in peers
    ids = {lane.id for lane in timeline.lanes}
    assert {arrow.source for arrow in timeline.arrows} <= ids
    assert {arrow.target for arrow in timeline.arrows} <= ids
    assert len(ids) == len(timeline.lanes)


def test_what_nobody_answered_counts_as_dropped_and_what_was_answered_does_not() -> None:
    studio = Studio()
    other = ("198.51.100.2", 6000)
    bench = Bench(
        remotes=[REMOTE, remote_candidate(other, foundation="2", priority=5)],
        make_agent=studio.make_agent,
    )
    bench.answer_all(0.2, when=lambda sent: sent.destination == REMOTE)
    bench.run(2.0)
    bench.agent.close(bench.now)
    bench.flush()
    timeline = drawn(studio)
    checks = [a for a in to(timeline, Kind.CHECK) if a.target == "b 198.51.100.1:6000"]
    assert [a.dropped for a in checks] == [""]
    assert checks[0].label.endswith(", answered after 200.0 ms")
    assert checks[0].ended_at == pytest.approx(0.1)
    answer = next(a for a in to(timeline, Kind.ANSWER) if a.transaction == checks[0].transaction)
    assert (answer.sent_at, answer.ended_at) == pytest.approx((0.1, 0.2))
    silent = [a for a in to(timeline, Kind.CHECK) if a.target == "b 198.51.100.2:6000"]
    assert silent
    assert all(a.dropped == "no answer" and a.ended_at is None for a in silent)


def test_a_check_that_was_sent_again_shows_which_one_was_answered() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.run(0.6)
    first, second = bench.requests
    assert first.data == second.data
    bench.receive(bench.answer(second))
    bench.run(0.1)
    checks = to(drawn(studio), Kind.CHECK)[:2]
    assert [a.dropped for a in checks] == ["no answer in time", ""]
    assert checks[0].transaction == checks[1].transaction


def test_who_asked_just_before_the_end_may_have_been_answered() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.run(0.05)
    bench.agent.close(bench.now)
    (check,) = to(drawn(studio), Kind.CHECK)
    assert not check.dropped
    assert check.label.endswith("not answered before the end")


def test_marks_say_what_was_noticed_when() -> None:
    studio = Studio()
    bench = Bench(make_agent=studio.make_agent)
    recorder = studio.tapes[0].recorder
    recorder.write(told.InterfaceNote(LOCAL, "eth0"))
    recorder.write(told.ServerNote(ServerReport("turn:t", "rejected", "wrong password")))
    bench.agent.query_server("stun:s", ("203.0.113.10", 3478), LOCAL, bench.now)
    bench.signal(REMOTE)
    bench.agent.end_of_remote_candidates(bench.now)
    bench.run(45.0)
    recorder.write(told.FailureNote("PeerSilent", "the peer was not heard"))
    timeline = drawn(studio)
    assert [mark.at for mark in timeline.marks] == sorted(mark.at for mark in timeline.marks)
    texts = {(mark.place, mark.text): mark.good for mark in timeline.marks}
    assert texts[Place.A, "checking: the peer's parameters are known"] is None
    assert texts[Place.B, "candidate host 198.51.100.1:6000"] is None
    assert texts[Place.B, "has no more candidates"] is None
    assert texts[Place.SERVER, "turn:t: rejected (wrong password)"] is False
    assert texts[Place.SERVER, "stun:s: silent (timeout)"] is False
    assert texts[Place.A, "PeerSilent: the peer was not heard"] is False
    failed = next(mark for mark in timeline.marks if mark.text.startswith("failed: "))
    assert failed.at == pytest.approx(39.5, abs=0.021)
    assert timeline.lanes[0].label == "host 192.0.2.1:5000 on eth0"


def test_many_checks_without_an_answer_are_counted() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], config=AgentConfig(rc=10), make_agent=studio.make_agent)
    bench.run(300.0)
    sent = len(bench.requests)
    assert sent == 10
    timeline = drawn(studio)
    checks = to(timeline, Kind.CHECK)
    assert [round(a.sent_at, 1) for a in checks] == [0.0, 0.5, 1.5, 3.5, 255.5]
    (counted,) = [mark for mark in timeline.marks if "more checks to" in mark.text]
    assert counted.text == "5 more checks to 198.51.100.1:6000 until 127500.0 ms, none answered"
    assert counted.at == pytest.approx(7.5)


def test_a_candidate_that_is_told_again_is_no_news() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE, REMOTE, REMOTE], make_agent=studio.make_agent)
    bench.run(0.1)
    marks = [m for m in drawn(studio).marks if m.text == "candidate host 198.51.100.1:6000"]
    assert len(marks) == 1


def test_strangers_share_a_lane() -> None:
    studio = Studio()
    bench = Bench(make_agent=studio.make_agent)
    for number in range(50):
        bench.receive(bench.request(key=b"wrong"), (f"198.51.100.{number}", 1))
    bench.receive(b"data", ("198.51.100.99", 1))
    timeline = drawn(studio)
    assert len(timeline.lanes) == 2
    assert timeline.lanes[-1].label == "strangers"
    assert len(to(timeline, Kind.ERROR)) == 50
    assert len(to(timeline, Kind.DATA)) == 1


def test_a_long_quiet_session_is_told_in_few_words() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.05, when=lambda sent: not 1800 < sent.at - bench.begun < 1806)
    bench.run(3600.0)
    timeline = drawn(studio)
    assert timeline.seconds > 3500
    assert len(timeline.arrows) < 30
    before, after = (mark for mark in timeline.marks if "checks and" in mark.text)
    # Nearly all of the seconds before and after, of 3600.
    assert all(1750 < int(mark.text.split()[0]) < 1800 for mark in (before, after))
    unanswered = [a for a in timeline.arrows if a.dropped]
    assert unanswered
    assert all(1800 < a.sent_at < 1806 for a in unanswered)
    happened = [m.text for m in timeline.marks if before.at < m.at < after.at]
    assert [text.partition(":")[0] for text in happened if "more checks" not in text] == [
        "disconnected",
        "an ICE restart is advised",
        "completed",
    ]


def test_it_can_be_drawn_and_shown_on_a_page() -> None:
    from rich.console import Console

    from ice_punch.lab.drawing import print_timeline
    from ice_punch.lab.page import timeline_page

    studio = Studio()
    meeting = Meeting(make_agent=studio.make_agent)
    meeting.start(0.0)
    meeting.run(3.0)
    timeline = drawn(studio)
    shown = io.StringIO()
    print_timeline(Console(file=shown, width=120), timeline)
    assert "check with USE-CANDIDATE" in shown.getvalue()
    assert "completed: this side nominated" in shown.getvalue()
    page = timeline_page(timeline)
    assert "this side nominated" in page
    assert page.startswith("<!")
