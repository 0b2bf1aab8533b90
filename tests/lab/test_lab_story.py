"""The timeline of a session says what its trace says: every packet, and what became of it."""

from __future__ import annotations

import pytest

from ice_punch.lab.behaviour import EarlyInbound, NatBehaviour, NatKind
from ice_punch.lab.catalogue import SCENARIOS
from ice_punch.lab.scenario import Event, Happening, Relays, Scenario, peer
from ice_punch.lab.timeline import Arrow, Kind, Mark, Place, Timeline
from ice_punch.lab.trace import PacketRecord, Protocol
from ice_punch.lab.virtual.session import VirtualSession
from ice_punch.lab.virtual.story import timeline

SYMMETRIC = peer(NatKind.SYMMETRIC)
REJECTING = peer(NatBehaviour(early_inbound=EarlyInbound.REJECT))


def told(scenario: Scenario, seed: int = 1) -> tuple[Timeline, list[PacketRecord]]:
    session = VirtualSession(scenario, seed)
    session.run()
    return timeline(session), session.internet.trace.packets[session.first_packet :]


def pairs(story: Timeline, packets: list[PacketRecord]) -> list[tuple[Arrow, PacketRecord]]:
    return list(zip(story.arrows, packets, strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_packet_is_an_arrow_with_its_times_its_end_and_lanes_that_exist(name: str) -> None:
    session = VirtualSession(SCENARIOS[name], 1)
    session.run()
    story = timeline(session)
    packets = session.internet.trace.packets[session.first_packet :]
    lanes = {lane.id: lane for lane in story.lanes}
    assert len(lanes) == len(story.lanes)
    assert story.seconds == session.internet.now - session.started_at
    for arrow, packet in pairs(story, packets):
        assert arrow.sent_at == packet.sent_at - session.started_at
        assert 0 <= arrow.sent_at <= story.seconds
        if packet.ended_at is None:
            assert arrow.ended_at is None
        else:
            assert arrow.ended_at == packet.ended_at - session.started_at
            assert arrow.sent_at <= arrow.ended_at <= story.seconds
        assert arrow.dropped == ("" if packet.dropped is None else packet.dropped)
        assert arrow.dropped_by == (packet.dropped_by or "")
        assert {arrow.source, arrow.target} <= {*lanes, ""}
        assert "\n" not in arrow.label
        if packet.sender in ("a", "b", "stun", "turn") and packet.protocol is not Protocol.ICMP:
            assert lanes[arrow.source].place == (
                packet.sender if packet.sender in ("a", "b") else Place.SERVER
            )
        if packet.receiver is not None and packet.protocol is not Protocol.ICMP:
            assert lanes[arrow.target].place == (
                packet.receiver if packet.receiver in ("a", "b") else Place.SERVER
            )
    columns = [lane.place for lane in story.lanes]
    assert columns == sorted(columns, key=[Place.A, Place.SERVER, Place.B].index)
    assert [mark.at for mark in story.marks] == sorted(mark.at for mark in story.marks)
    assert all(0 <= mark.at <= story.seconds for mark in story.marks)


def marks(story: Timeline, begins: str) -> list[Mark]:
    return [mark for mark in story.marks if mark.text.startswith(begins)]


def test_a_selected_pair_is_told_by_addresses_and_types() -> None:
    story, _ = told(Scenario())
    assert {(mark.place, mark.text, mark.good) for mark in marks(story, "selected")} == {
        (
            Place.A,
            "selected 198.51.100.16:50000 > 198.51.100.32:50000 (srflx to srflx)",
            True,
        ),
        (
            Place.B,
            "selected 198.51.100.32:50000 > 198.51.100.16:50000 (srflx to srflx)",
            True,
        ),
    }


def test_a_selected_pair_with_a_relay_says_so() -> None:
    story, _ = told(Scenario(a=SYMMETRIC, b=SYMMETRIC, relays=Relays.UDP))
    texts = {mark.text.partition("(")[2] for mark in marks(story, "selected")}
    assert any("relay" in text for text in texts)
    assert not any("priority" in mark.text for mark in story.marks)


def test_an_early_check_ends_at_the_nat_and_points_at_whom_it_was_for() -> None:
    story, _ = told(Scenario(skew=0.2))
    lanes = {lane.id: lane for lane in story.lanes}
    early = [arrow for arrow in story.arrows if arrow.dropped == "filtered"]
    assert early
    for arrow in early:
        assert (arrow.kind, arrow.dropped_by) == (Kind.CHECK, "nat b")
        assert lanes[arrow.source].place is Place.A
        assert lanes[arrow.target].place is Place.B
        assert arrow.label == "check, 10.1.0.2:50000 > 198.51.100.32:50000"


def test_an_icmp_error_comes_from_nowhere_to_the_base_it_is_about() -> None:
    story, packets = told(Scenario(a=REJECTING, b=REJECTING, skew=0.2))
    errors = [(a, p) for a, p in pairs(story, packets) if p.protocol is Protocol.ICMP]
    assert errors
    lanes = {lane.id: lane for lane in story.lanes}
    for arrow, packet in errors:
        assert arrow.kind is Kind.ICMP
        assert arrow.source == ""
        assert lanes[arrow.target].place == packet.receiver == "a"
        assert arrow.label.startswith("ICMP port unreachable")


def test_a_resend_has_the_transaction_of_what_it_repeats() -> None:
    story, packets = told(Scenario(a=SYMMETRIC, b=peer(), relays=Relays.UDP))
    checks = [a for a in story.arrows if a.kind is Kind.CHECK and a.transaction]
    answers = {a.transaction for a in story.arrows if a.kind is Kind.ANSWER}
    assert answers
    requests = {a.transaction for a in story.arrows if a.kind in (Kind.CHECK, Kind.NOMINATION)}
    assert answers <= requests
    repeated = [a for a in checks if sum(b.transaction == a.transaction for b in checks) > 1]
    assert repeated, "a symmetric NAT costs resends"
    sent = {a.transaction: p.data for a, p in pairs(story, packets) if a.kind is Kind.CHECK}
    assert len(sent) == len({a.transaction for a in checks})


@pytest.mark.parametrize(
    ("event", "place", "good"),
    [
        (Event.NAT_REBOOTS, Place.B, False),
        (Event.LINK_DOWN, Place.B, False),
        (Event.LINK_UP, Place.B, True),
        (Event.TURN_SERVER_DIES, Place.SERVER, False),
    ],
)
def test_a_happening_is_marked_where_it_happens(event: Event, place: Place, good: bool) -> None:
    story, _ = told(
        Scenario(happenings=(Happening(1.5, event, "b"),), relays=Relays.UDP, seconds=3.0)
    )
    (mark,) = marks(story, event)
    assert (mark.at, mark.place, mark.good) == (1.5, place, good)


def test_states_are_marked_with_their_reasons() -> None:
    story, _ = told(Scenario(seconds=10.0))
    for place in (Place.A, Place.B):
        states = [m.text.partition(":")[0] for m in story.marks if m.place is place]
        assert states[:2] == ["checking", "connected"]
        assert "completed" in states
    assert all(m.good for m in (*marks(story, "connected"), *marks(story, "completed")))
    failed, _ = told(Scenario(stun=False))
    (one, other) = marks(failed, "failed")
    assert one.good is other.good is False
    assert len(one.text) > len("failed: ")


def test_streams_and_what_they_carry_are_told_apart() -> None:
    story, packets = told(SCENARIOS["only-tcp-443"])
    kinds = {a.kind for a, p in pairs(story, packets) if p.protocol is Protocol.TCP}
    assert kinds == {Kind.STREAM}
    assert any("bytes" in a.label for a in story.arrows if a.kind is Kind.STREAM)


def test_a_title_names_the_scenario_or_its_nats() -> None:
    assert told(Scenario(seconds=1.0))[0].title == "EIM/APDF meets EIM/APDF"
    assert told(Scenario("mine", seconds=1.0))[0].title == "mine"
    nobody = Scenario(a=peer(NatKind.NONE), b=peer((NatBehaviour(), NatBehaviour())), seconds=1.0)
    assert told(nobody)[0].title == "no NAT meets EIM/APDF behind EIM/APDF"
