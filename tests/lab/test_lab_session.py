"""Sessions of the virtual internet: many at once, in odd places, with slow and silent servers."""

from __future__ import annotations

from typing import Any

import pytest
from lab_pairs import Pair, with_stun

from ice_punch.ice import CandidateType, IceState, LocalCandidateFound
from ice_punch.lab.behaviour import Hairpinning, NatBehaviour, NatKind
from ice_punch.lab.links import PERFECT, AccessLink, Link, LinkProfile
from ice_punch.lab.scenario import Event, Happening, Scenario, Side, Verdict, peer
from ice_punch.lab.trace import DropReason
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.session import GATHERING_TIMEOUT, PAUSE, VirtualSession

LINK = LinkProfile(delay=0.025)
PORT = NatKind.PORT_RESTRICTED
SYMMETRIC = NatKind.SYMMETRIC
SIDES: tuple[Side, Side] = ("a", "b")


def a_pair(net: VirtualInternet, number: int, nat: NatKind | NatBehaviour = PORT) -> Pair:
    """Both at home, in networks that all look the same."""
    hosts = []
    for end, octet in (("a", 0), ("b", 100)):
        gateway = net.nat(f"nat {number}{end}", f"198.51.100.{number + octet}", nat, link=LINK)
        hosts.append(net.host(f"{number}{end}", "192.168.1.2", behind=gateway))
    return Pair(str(number), *hosts)


# -- many at once, and the same addresses everywhere ------------------------------------------


def test_ten_pairs_with_the_same_addresses_at_home_meet_each_its_own() -> None:
    net = with_stun()
    pairs = [a_pair(net, number) for number in range(1, 11)]
    for pair in pairs:
        pair.gather()
    net.run(1.0)
    for number, pair in enumerate(pairs):
        net.at(1.0 + number * 0.03, pair.meet)
    net.run(5.0)
    for number, pair in enumerate(pairs, 1):
        ours, theirs = (f"198.51.100.{number}", 50000), (f"198.51.100.{number + 100}", 50000)
        assert pair.addresses == [(ours, theirs), (theirs, ours)]
        assert {p.state for p in pair.peers} == {IceState.COMPLETED}
    for pair in pairs:
        for _ in range(5):
            assert pair.a.send_data(net.now)
    net.run(6.0)
    assert [pair.b.received for pair in pairs] == [set(range(5))] * 10
    assert not any(pair.a.received for pair in pairs)


def test_a_pair_among_others_does_what_it_does_alone() -> None:
    def story(others: int) -> list[tuple[float, object, object, DropReason | None]]:
        net = with_stun()
        pairs = [a_pair(net, number) for number in range(1, 2 + others)]
        for pair in pairs:
            pair.gather()
        net.run(1.0)
        for pair in pairs:
            pair.meet()
        net.run(5.0)
        mine = (p for p in net.trace if p.sender in ("1a", "1b"))
        return [(p.sent_at, p.wire_source, p.data, p.dropped) for p in mine]

    alone = story(0)
    assert len(alone) > 15
    assert story(9) == alone


@pytest.mark.parametrize("nat", [PORT, NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED])
def test_peers_with_one_address_do_not_take_each_other_for_themselves(nat: NatKind) -> None:
    net = with_stun()
    pair = a_pair(net, 1, nat)
    assert pair.a.host.address == pair.b.host.address == "192.168.1.2"
    pair.gather()
    net.run(1.0)
    pair.meet()
    net.run(4.0)
    assert pair.addresses[0] == (("198.51.100.1", 50000), ("198.51.100.101", 50000))
    assert pair.addresses[1] == pair.addresses[0][::-1]
    to_itself = [p for p in net.trace if p.destination == ("192.168.1.2", 50000)]
    assert to_itself, "the peer's host candidate was tried"
    assert all(p.receiver == p.sender for p in to_itself)
    assert not any(
        e.candidate.type is CandidateType.PRFLX
        for p in pair.peers
        for _, e in p.events
        if isinstance(e, LocalCandidateFound)
    )


def test_a_neighbour_with_the_address_of_the_peer_is_not_taken_for_it() -> None:
    """b is at 192.168.1.3 at home, and so is a stranger in a's network."""
    net = with_stun()
    home_a = net.nat("nat a", "198.51.100.1", PORT, link=LINK)
    home_b = net.nat("nat b", "198.51.100.2", PORT, link=LINK)
    a = net.host("a", "192.168.1.2", behind=home_a)
    b = net.host("b", "192.168.1.3", behind=home_b)
    stranger = Pair(
        "x",
        net.host("y", "192.168.1.4", behind=home_a),
        net.host("stranger", "192.168.1.3", behind=home_a),
    )
    pair = Pair("1", a, b)
    for one in (stranger, pair):
        one.gather()
    net.run(1.0)
    for one in (stranger, pair):
        one.meet()
    net.run(5.0)
    assert stranger.addresses[0] == (("192.168.1.4", 50000), ("192.168.1.3", 50000))
    assert pair.addresses[0][1] == ("198.51.100.2", 50000)
    assert net.trace.between("a", "stranger"), "it was asked, and did not know the password"


def test_both_behind_one_carrier_that_hairpins_meet_with_the_same_addresses_too() -> None:
    net = with_stun()
    carrier = net.nat(
        "carrier", "198.51.100.1", NatBehaviour(hairpinning=Hairpinning.EXTERNAL_SOURCE), link=LINK
    )
    hosts = []
    for n in (1, 2):
        home = net.nat(f"home {n}", f"100.64.0.{n}", PORT, behind=carrier)
        hosts.append(net.host(f"peer {n}", "192.168.1.2", behind=home))
    pair = Pair("1", *hosts)
    pair.gather()
    net.run(1.0)
    pair.meet()
    net.run(4.0)
    assert {ip for ends in pair.addresses for ip, _ in ends} == {"198.51.100.1"}  # type: ignore[misc]


# -- servers that are slow, silent or not there -----------------------------------------------


def with_stun_behind(link: LinkProfile, scenario: Scenario) -> VirtualSession:
    session = VirtualSession(scenario)
    source = session.internet.random("slow stun")
    session.topology.stun.interfaces[0].link = Link(AccessLink.both(link), source, source)
    return session


def test_candidates_of_a_slow_server_trickle_in_and_connect_what_could_not() -> None:
    session = with_stun_behind(LinkProfile(delay=3.0), Scenario(rtt=0.1))
    outcome = session.run()
    assert session.started_at == GATHERING_TIMEOUT + PAUSE
    found = [
        at
        for at, event in session.peers["a"].events
        if isinstance(event, LocalCandidateFound) and event.candidate.type is CandidateType.SRFLX
    ]
    # The query leaves at 0 and Ta later, is two access links away, and 3 s up and down.
    assert found == [pytest.approx(6.05, abs=0.021)]
    assert outcome.verdict is Verdict.DIRECT
    # 50 ms of signaling, then checks: within the budget of both having started then.
    told = found[0] + 0.05 - session.started_at
    assert outcome.connect_time is not None
    assert told < outcome.connect_time <= told + 1.5 * 0.1 + 0.045
    assert outcome.same_pair


def test_the_end_of_late_candidates_is_told_after_the_last_of_them() -> None:
    session = with_stun_behind(LinkProfile(delay=3.0), Scenario(rtt=0.1))
    machine: Any = session.peers["b"].machine
    heard: list[tuple[float, str]] = []
    add, end = machine.add_remote_candidate, machine.end_of_remote_candidates

    def on_candidate(candidate: Any, now: float) -> None:
        heard.append((now, str(candidate.type)))
        add(candidate, now)

    def on_end(now: float) -> None:
        heard.append((now, "end"))
        end(now)

    class Listening:
        add_remote_candidate = staticmethod(on_candidate)
        end_of_remote_candidates = staticmethod(on_end)

        def __getattr__(self, name: str) -> Any:
            return getattr(machine, name)

    session.peers["b"].machine = Listening()  # type: ignore[assignment]
    session.run()
    assert [what for _, what in heard] == ["host", "srflx", "end"]
    assert heard[0][0] == session.started_at
    assert heard[1][0] > session.started_at + 0.5


@pytest.mark.parametrize("stun", [True, False])
def test_without_an_answering_stun_server_two_nats_are_in_the_way(stun: bool) -> None:
    session = with_stun_behind(LinkProfile(loss=1.0), Scenario(stun=stun))
    outcome = session.run()
    assert outcome.verdict is Verdict.FAILED
    assert session.started_at == (GATHERING_TIMEOUT + PAUSE if stun else PAUSE)
    candidates = {
        event.candidate.type
        for p in session.peers.values()
        for _, event in p.events
        if isinstance(event, LocalCandidateFound)
    }
    assert candidates == {CandidateType.HOST}
    asked = [p for p in session.internet.trace if p.destination[1] == 3478]
    assert bool(asked) == stun
    assert all(p.dropped is DropReason.LOST for p in asked)


@pytest.mark.parametrize("stun", [True, False])
def test_nobody_needs_a_stun_server_to_reach_a_public_host(stun: bool) -> None:
    scenario = Scenario(b=peer(NatKind.NONE), stun=stun, rtt=0.1)
    outcome = with_stun_behind(LinkProfile(loss=1.0), scenario).run()
    assert outcome.verdict is Verdict.DIRECT
    assert outcome.connect_time is not None
    assert outcome.connect_time <= 0.15 + 0.045


def test_a_dead_server_is_given_up_and_the_failure_told_before_the_patience_ends() -> None:
    session = with_stun_behind(LinkProfile(loss=1.0), Scenario(seconds=60.0))
    outcome = session.run()
    assert outcome.a.state == outcome.b.state == "failed"
    assert session.internet.now - session.started_at < 42.0


# -- two uplinks ------------------------------------------------------------------------------


def two_uplinks(*happenings: Happening, **more: Any) -> VirtualSession:
    a = peer(PORT, LINKS["slow"], second_link=LINKS["fast"])
    return VirtualSession(Scenario(a=a, happenings=happenings, seconds=20.0, **more))


LINKS = {
    "slow": AccessLink.both(LinkProfile(delay=0.1)),
    "fast": AccessLink.both(LinkProfile(delay=0.01)),
}


def test_both_uplinks_are_gathered_from_and_checked() -> None:
    session = two_uplinks()
    session.run()
    found = {
        event.candidate.address
        for _, event in session.peers["a"].events
        if isinstance(event, LocalCandidateFound)
    }
    assert found == {
        ("10.1.0.2", 50000),
        ("198.51.100.16", 50000),
        ("10.11.0.2", 50000),
        ("198.51.100.176", 50000),
    }
    checked = {p.wire_source[0] for p in session.internet.trace.between("a", "b")}
    assert checked == {"198.51.100.16", "198.51.100.176"}


@pytest.mark.parametrize("down", [Event.LINK_DOWN, Event.SECOND_LINK_DOWN])
def test_with_one_uplink_down_from_the_start_the_other_connects(down: Event) -> None:
    session = two_uplinks(Happening(0.0, down))
    outcome = session.run()
    assert outcome.verdict is Verdict.DIRECT
    other = "198.51.100.176:50000" if down is Event.LINK_DOWN else "198.51.100.16:50000"
    assert outcome.a.ends[0] == other
    gone = {p.dropped_by for p in session.internet.trace.dropped(DropReason.LINK_DOWN)}
    assert gone == {"nat a" if down is Event.LINK_DOWN else "nat a second"}


def test_a_second_uplink_of_a_shared_nat_hangs_in_its_network() -> None:
    a = peer((), second_link=PERFECT)
    scenario = Scenario(a=a, b=peer(()), shared_nats=(NatBehaviour(),))
    session = VirtualSession(scenario)
    assert session.topology.a.host.addresses == ("10.0.0.2", "10.0.0.12")
    assert session.run().verdict is Verdict.DIRECT
