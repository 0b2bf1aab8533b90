"""What happens in the middle of sessions of the virtual internet, and where their data goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ice_punch.lab.behaviour import EarlyInbound, NatBehaviour, NatKind
from ice_punch.lab.links import PERFECT, PRESETS, AccessLink, LinkProfile
from ice_punch.lab.scenario import Event, Happening, Ip, Relays, Scenario, Side, Verdict, peer
from ice_punch.lab.trace import DropReason, PacketRecord
from ice_punch.lab.virtual.peer import DATA_MARK
from ice_punch.lab.virtual.session import VirtualSession, run

PORT = NatKind.PORT_RESTRICTED
SYMMETRIC = NatKind.SYMMETRIC
SIDES: tuple[Side, Side] = ("a", "b")

# -- happenings -------------------------------------------------------------------------------


def happens(
    event: Event, *, until: Event | None = None, rtt: float = 0.1, **more: Any
) -> VirtualSession:
    happenings = [Happening(3.01, event)]
    if until is not None:
        happenings.append(Happening(6.0, until))
    session = VirtualSession(
        Scenario(
            happenings=tuple(happenings),
            seconds=12.0,
            datagrams_per_second=20,
            rtt=rtt,
            **more,
        )
    )
    session.run()
    return session


def since_start(session: VirtualSession, packet: PacketRecord) -> float:
    return packet.sent_at - session.started_at


def test_a_nat_that_reboots_knows_nobody_until_its_host_speaks() -> None:
    session = happens(Event.NAT_REBOOTS, rtt=0.15)
    # a speaks at 3.00 and at 3.05; what b said at 2.95 is there at 3.025.
    (lost,) = session.internet.trace.dropped(DropReason.NO_MAPPING)
    assert (lost.sender, lost.dropped_by) == ("b", "nat a")
    assert since_start(session, lost) == pytest.approx(2.95)
    later = [p for p in session.internet.trace.sent_by("a") if since_start(session, p) > 3.1]
    assert {p.wire_source for p in later} == {("198.51.100.16", 50000)}
    assert session.outcome().verdict is Verdict.DIRECT


def test_a_nat_that_rebinds_moves_all_that_leaves_and_shuts_the_old_port() -> None:
    session = happens(Event.NAT_REBINDS)
    trace = session.internet.trace
    ports = {
        (p.wire_source[1], since_start(session, p) > 3.01)
        for p in trace.sent_by("a")
        if p.destination[0] == "198.51.100.32"
    }
    old, new = (50000, False), next(port for port in ports if port != (50000, False))
    assert ports == {old, new}
    assert new[0] != 50000
    to_the_old = [
        p
        for p in trace.sent_by("b")
        if p.destination == ("198.51.100.16", 50000) and since_start(session, p) > 3.01
    ]
    assert to_the_old
    assert {(p.dropped, p.dropped_by) for p in to_the_old if p.ended_at is not None} == {
        (DropReason.NO_MAPPING, "nat a")
    }


def test_a_link_that_is_down_carries_nothing_and_afterwards_all() -> None:
    session = happens(Event.LINK_DOWN, until=Event.LINK_UP)
    trace = session.internet.trace
    lost = trace.dropped(DropReason.LINK_DOWN)
    ended = [p.ended_at - session.started_at for p in lost if p.ended_at is not None]
    assert {p.dropped_by for p in lost} == {"nat a"}
    assert {p.sender for p in lost} == {"a", "b"}
    assert min(ended) >= 3.01
    assert max(ended) < 6.0
    crossing = [
        p
        for p in trace.packets[session.first_packet :]
        if {p.sender, p.receiver} == {"a", "b"} and p.ended_at is not None
    ]
    times = [since_start(session, p) for p in crossing]
    assert not any(3.01 < at < 5.96 for at in times)
    assert sum(at >= 6.0 for at in times) > 200


def test_a_turn_server_that_dies_says_and_hears_nothing_more() -> None:
    session = happens(
        Event.TURN_SERVER_DIES, relays=Relays.UDP, a=peer(SYMMETRIC), b=peer(SYMMETRIC)
    )
    trace, died = session.internet.trace, session.started_at + 3.01
    assert not any(p.ended_at > died for p in trace.received_by("turn") if p.ended_at is not None)
    sent = [p for p in trace.sent_by("turn") if p.sent_at > died]
    lost = trace.dropped(DropReason.LINK_DOWN)
    assert {p.dropped_by for p in lost} == {"turn"}
    assert set(map(id, sent)) <= set(map(id, lost))
    assert len(lost) > 100


def test_what_happens_to_a_second_link_leaves_the_first_alone() -> None:
    session = happens(
        Event.SECOND_LINK_DOWN, until=Event.SECOND_LINK_UP, a=peer(PORT, second_link=PERFECT)
    )
    lost = session.internet.trace.dropped(DropReason.LINK_DOWN)
    assert {p.dropped_by for p in lost} <= {"nat a second"}
    assert session.topology.a.second_gateways[0].up
    outcome = session.outcome()
    assert outcome.verdict is Verdict.DIRECT


def test_happenings_are_the_sides_own() -> None:
    scenario = Scenario(
        happenings=(Happening(1.0, Event.LINK_DOWN, "b"),), seconds=5.0, datagrams_per_second=10
    )
    session = VirtualSession(scenario)
    session.run()
    lost = session.internet.trace.dropped(DropReason.LINK_DOWN)
    assert {p.dropped_by for p in lost} == {"nat b"}


# -- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(),
        Scenario(a=peer(PORT, PRESETS["barely_usable"])),
        Scenario(a=peer(PORT, AccessLink.both(LinkProfile(0.02, loss=0.3, duplication=0.3)))),
        Scenario(happenings=(Happening(4.0, Event.NAT_REBINDS),)),
        Scenario(happenings=(Happening(4.0, Event.LINK_DOWN, "b"),)),
        Scenario(a=peer(ip=Ip.DUAL), b=peer(ip=Ip.DUAL)),
    ],
    ids=["plain", "barely usable", "lossy and doubled", "rebinds", "outage", "dual stack"],
)
def test_no_datagram_is_unaccounted_for(scenario: Scenario) -> None:
    session = VirtualSession(replace(scenario, datagrams_per_second=30, seconds=15.0), 4)
    outcome = session.run()
    for side, ours, theirs in (("a", outcome.a, outcome.b), ("b", outcome.b, outcome.a)):
        sent = session.peers[side].sent  # type: ignore[index]
        assert sent > 50
        assert ours.lost + theirs.received == sent
        fates: dict[bytes, list[PacketRecord]] = {}
        for packet in session.internet.trace.sent_by(side):
            if packet.data.startswith(DATA_MARK):
                fates.setdefault(packet.data, []).append(packet)
        assert len(fates) == sent
        assert not any(p.ended_at is None for copies in fates.values() for p in copies)
        lost = [c for c in fates.values() if not any(p.delivered for p in c)]
        # What comes from a port that nobody has checked yet is refused, and counted.
        other = session.peers["b" if side == "a" else "a"].machine
        refused = other.counters["data_from_strangers"]  # type: ignore[attr-defined]
        assert len(lost) <= ours.lost <= len(lost) + refused


def test_relayed_datagrams_are_accounted_for_too() -> None:
    lossy = AccessLink.both(LinkProfile(loss=0.1))
    scenario = Scenario(
        a=peer(SYMMETRIC, lossy),
        b=peer(SYMMETRIC),
        relays=Relays.TCP_443,
        datagrams_per_second=30,
        seconds=15.0,
    )
    session = VirtualSession(scenario, 2)
    outcome = session.run()
    assert outcome.verdict is Verdict.RELAYED
    a, b = session.peers["a"], session.peers["b"]
    assert a.sent == outcome.a.lost + outcome.b.received
    assert b.sent == outcome.b.lost + outcome.a.received
    assert 0 < outcome.a.lost + outcome.b.lost < (a.sent + b.sent) * 0.4


def test_nothing_is_on_its_way_when_a_run_ends_however_long_the_path() -> None:
    slow = AccessLink.both(LinkProfile(delay=0.9))
    scenario = Scenario(
        a=peer(PORT, slow), b=peer(PORT, slow), datagrams_per_second=10, seconds=40.0
    )
    outcome = run(scenario)
    assert outcome.verdict is Verdict.DIRECT
    assert outcome.a.lost == outcome.b.lost == 0
    assert outcome.a.received == outcome.b.received > 200


def test_nobody_sends_data_before_there_is_a_path_and_all_of_it_is_after_the_mark() -> None:
    scenario = Scenario(datagrams_per_second=100, seconds=3.0, skew=0.5)
    session = VirtualSession(scenario)
    outcome = session.run()
    for side in SIDES:
        first = next(
            p for p in session.internet.trace.sent_by(side) if p.data.startswith(DATA_MARK)
        )
        valid_at = outcome.a.valid_at if side == "a" else outcome.b.valid_at
        assert valid_at is not None
        assert 0 <= since_start(session, first) - valid_at <= 0.01


def test_a_blacklisting_nat_shuts_out_the_peer_for_its_time_and_no_longer() -> None:
    nat = NatBehaviour(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=2.0)
    session = VirtualSession(Scenario(a=peer(PORT), b=peer(nat), skew=0.3))
    outcome = session.run()
    shut = [p.ended_at for p in session.internet.trace.dropped(DropReason.BLACKLISTED)]
    early = session.internet.trace.dropped(DropReason.FILTERED)[0]
    assert early.ended_at is not None
    assert shut
    assert all(at is not None and early.ended_at < at < early.ended_at + 2.0 for at in shut)
    assert outcome.verdict is Verdict.DIRECT
