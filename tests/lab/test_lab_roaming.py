"""What happens to a path in the middle of a session, and how soon data flows again."""

from __future__ import annotations

import pytest
from lab_roaming import HAPPENS, SIDES, Roaming, roam

from ice_punch.ice import IceState, StateChanged
from ice_punch.lab.behaviour import EarlyInbound, NatBehaviour, NatKind
from ice_punch.lab.links import PERFECT, AccessLink, LinkProfile
from ice_punch.lab.scenario import Event, Happening, Relays, Scenario, Side, Verdict, peer
from ice_punch.lab.trace import DropReason, PacketRecord
from ice_punch.lab.virtual.gateway import Gateway
from ice_punch.lab.virtual.session import VirtualSession

OPEN, PORT, SYMMETRIC = NatKind.FULL_CONE, NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC
CLAIM = NatBehaviour(early_inbound=EarlyInbound.CLAIM)
both_sides = pytest.mark.parametrize("side", SIDES)


def on(side: Side, one: object, other: object) -> dict[str, object]:
    """``one`` for the side it happens to, ``other`` for the other one."""
    return {"a": one, "b": other} if side == "a" else {"a": other, "b": one}


# -- a NAT moves the port ----


@both_sides
def test_a_peer_whose_filter_is_open_follows_a_moved_port_within_a_tenth_of_a_second(
    side: Side,
) -> None:
    """Both the controlling and the controlled side may move. libjuice needs 0.5 s, Chromium 3 s."""
    run = roam(Event.NAT_REBINDS, side=side, **on(side, peer(PORT), peer(OPEN)))
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 0.12
    assert run.unaccounted() == 0
    assert run.outcome.verdict is Verdict.DIRECT
    stayed: Side = "b" if side == "a" else "a"
    assert [event.reason for _, event in run.selected(stayed)] == [
        "the peer is seen at another port"
    ]
    assert IceState.DISCONNECTED not in run.states("a") + run.states("b")


@both_sides
@pytest.mark.parametrize("event", [Event.NAT_REBINDS, Event.NAT_REBOOTS])
def test_behind_port_restricted_filters_a_restart_brings_both_back_within_two_seconds(
    side: Side, event: Event
) -> None:
    run = roam(event, side=side)
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT
    assert max(run.gap("a"), run.gap("b")) < 2.0
    assert run.unaccounted() == 0


@both_sides
def test_a_relay_that_stands_by_takes_over_and_hands_back_to_the_new_direct_path(
    side: Side,
) -> None:
    run = roam(Event.NAT_REBINDS, side=side, relays=Relays.UDP)
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 1.5
    kinds = [event.pair.relayed for _, event in run.selected("a")]
    assert kinds == [True, False]
    assert run.outcome.verdict is Verdict.DIRECT
    assert run.unaccounted() == 0


def test_a_port_that_moves_a_hundred_times_is_followed_a_hundred_times() -> None:
    events = [(2.0 + n, Event.NAT_REBINDS, "a") for n in range(120)]
    run = roam(*events, a=peer(PORT), b=peer(OPEN), seconds=125.0)  # type: ignore[arg-type]
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 0.2
    assert len(run.selected("b", 1.0)) >= 120
    agent = run.session.peers["b"].machine
    assert len(agent.remote_candidates) <= 100  # type: ignore[attr-defined]
    assert len(agent.check_list) <= 100  # type: ignore[attr-defined]


# -- a path dies ----


@pytest.mark.parametrize("rtt", [0.04, 0.1])
@both_sides
def test_a_dead_path_is_left_within_two_seconds_where_a_relay_stands_by(
    side: Side, rtt: float
) -> None:
    """Chromium needs 3.8 s, the others 28 s or for ever."""
    run = roam(
        Event.LINK_DOWN,
        side=side,
        rtt=rtt,
        relays=Relays.UDP,
        **on(side, peer(PORT, second_link=PERFECT), peer(PORT)),
    )
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 2.0
    assert run.unaccounted() == 0


@both_sides
def test_a_direct_path_stands_by_too(side: Side) -> None:
    run = roam(Event.LINK_DOWN, side=side, **on(side, peer(PORT, second_link=PERFECT), peer(PORT)))
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 1.5
    assert run.outcome.verdict is Verdict.DIRECT
    assert run.advice("a") == run.advice("b") == []  # renomination, no restart


@pytest.mark.parametrize("at", [5.0, 6.3, 7.9, 9.6])
def test_an_idle_path_of_100_ms_is_known_to_be_dead_within_six_seconds(at: float) -> None:
    run = Roaming(Scenario(happenings=(Happening(at, Event.LINK_DOWN),), rtt=0.1, seconds=25.0))
    for side in SIDES:
        states = run.told(side, StateChanged, after=at)
        noticed = [t for t, event in states if event.state is IceState.DISCONNECTED]
        assert noticed[0] <= 6.0


def test_a_link_that_loses_much_is_not_taken_for_dead_again_and_again() -> None:
    """How many checks may go unanswered is learnt from those that did."""
    lossy = AccessLink.both(LinkProfile(0.02, loss=0.15))
    disconnections = 0
    for seed in range(5):
        run = Roaming(Scenario(a=peer(PORT, lossy), seconds=300.0, datagrams_per_second=20), seed)
        assert run.settled()
        disconnections += run.states("a", 0).count(IceState.DISCONNECTED)
    assert disconnections <= 5


def test_a_dead_relay_that_stood_by_does_no_harm() -> None:
    run = roam(Event.TURN_SERVER_DIES, relays=Relays.UDP)
    assert run.settled()  # the direct path carries on; the dead relay stood by
    assert max(run.gap("a"), run.gap("b")) < 0.1
    assert run.selected("a") == []


def test_where_nothing_is_left_both_sides_say_so_and_ask_for_a_restart() -> None:
    run = roam(
        Event.TURN_SERVER_DIES,
        a=peer(SYMMETRIC),
        b=peer(SYMMETRIC),
        relays=Relays.UDP,
        seconds=120.0,
    )
    for side in SIDES:
        assert run.states(side)[0] is IceState.DISCONNECTED
        assert run.advice(side)
        assert run.states(side)[-1] is IceState.FAILED
    assert run.unaccounted() == 0


# -- interfaces come and go ----


@both_sides
def test_a_lost_interface_is_left_at_once_where_there_is_another(side: Side) -> None:
    run = roam(
        Event.INTERFACE_LOST, side=side, **on(side, peer(PORT, second_link=PERFECT), peer(PORT))
    )
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 0.6
    assert run.unaccounted() == 0


@both_sides
def test_wifi_to_cellular_goes_on_within_a_round_of_signaling(side: Side) -> None:
    """The second network is up half a second after the first is gone."""
    run = roam(
        (0.0, Event.SECOND_LINK_DOWN, side),
        (HAPPENS, Event.INTERFACE_LOST, side),
        (HAPPENS + 0.5, Event.SECOND_LINK_UP, side),
        **on(side, peer(PORT, second_link=PERFECT), peer(PORT)),
    )
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT
    assert max(run.gap("a"), run.gap("b")) < 0.5 + 1.5
    assert run.unaccounted() == 0


@both_sides
def test_a_network_that_comes_is_put_to_use(side: Side) -> None:
    slow = AccessLink.both(LinkProfile(0.06))
    run = roam(
        Event.INTERFACE_LOST,
        (10.0, Event.INTERFACE_FOUND, side),
        side=side,
        **on(side, peer(PORT, second_link=slow), peer(PORT)),
    )
    assert run.settled()
    assert {reason.reason for _, reason in run.advice(side, 10.0)} == {"there is a new interface"}
    assert run.selected("a", 10.0)
    pair = run.session.peers["a"].machine.selected_pair()
    assert pair is not None
    assert pair.rtt == pytest.approx(0.04, abs=0.01)  # back on the fast one
    assert run.gap("a", after=9.0) < 0.2
    assert run.unaccounted() == 0


@pytest.mark.parametrize("outage", [4.0, 25.0, 45.0])
def test_an_outage_longer_than_consent_is_survived_where_signaling_comes_back(
    outage: float,
) -> None:
    run = roam(
        Event.LINK_DOWN,
        (HAPPENS + outage, Event.LINK_UP, "a"),
        seconds=HAPPENS + outage + 20,
    )
    assert run.settled()
    assert run.gap("a") < outage + 4.0
    assert IceState.FAILED not in run.states("a") + run.states("b")
    assert run.unaccounted() == 0


# -- better paths ----


def test_a_relay_is_left_for_a_direct_path_as_soon_as_there_is_one_while_data_flows() -> None:
    """For 6 s the NATs let nothing through between the peers; then they do."""
    scenario = Scenario(relays=Relays.UDP, rtt=0.04, seconds=30.0, datagrams_per_second=50)
    session = VirtualSession(scenario)
    gateways = [place.gateways[0] for place in (session.topology.a, session.topology.b)]
    walls = [Wall(gateway, until=8.0) for gateway in gateways]
    run = Roaming.of(session)
    assert all(wall.stopped for wall in walls)
    kinds = [event.pair.relayed for _, event in run.selected("a", 0.0)]
    assert kinds == [True, False]
    assert run.gap("a") < 0.1
    assert run.gap("b") < 0.1
    assert run.outcome.a.lost == run.outcome.b.lost == 0
    upgraded = run.selected("a", 0.0)[-1][0] + session.started_at
    assert upgraded < 8.0 + 11.0  # the direct pairs are tried again every 10 s
    assert run.settled()


def test_a_direct_path_of_a_shorter_round_trip_takes_over_and_a_slightly_shorter_one_does_not() -> (
    None
):
    for advantage, changes in ((0.004, 0), (0.02, 1)):
        slow = AccessLink.both(LinkProfile(0.03))
        fast = AccessLink.both(LinkProfile(0.03 - advantage / 2))
        run = Roaming(
            Scenario(
                a=peer(PORT, slow, second_link=fast),
                rtt=0.04,
                seconds=60.0,
                datagrams_per_second=20,
            )
        )
        first, *more = run.selected("a", 0.0)
        assert first[1].pair.base[0].startswith("10.1.")
        assert len(more) == changes
        assert run.settled()
        assert run.outcome.a.lost == run.outcome.b.lost == 0


# -- a router that takes an early check for its own ----


@pytest.mark.parametrize("relays", [Relays.NONE, Relays.UDP])
@pytest.mark.parametrize("skew", [0.05, -0.05, 0.3, 0.0])
def test_routers_that_claim_an_early_check_are_passed_on_fresh_sockets(
    skew: float, relays: Relays
) -> None:
    """A Linux router that masquerades and accepts input on its outside. aioice, libjuice, libnice,
    pion and Chromium fail with 50 ms of skew, or stay with the relay."""
    run = roam(a=peer(CLAIM), b=peer(CLAIM), skew=skew, relays=relays)
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT
    fresh = [event.fresh_sockets for side in SIDES for _, event in run.advice(side, 0.0)]
    assert any(fresh) == (skew != 0)
    assert run.unaccounted() == 0


@pytest.mark.parametrize("skew", [0.05, -0.05])
def test_one_claiming_router_is_passed_as_well(skew: float) -> None:
    run = roam(a=peer(CLAIM), b=peer(PORT), skew=skew)
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT


class Wall:
    """Keeps what comes to a gateway out, for a while: from the other side's public address, or from
    a port of a server."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        after: float = 0.0,
        until: float = float("inf"),
        most: int = 1_000_000,
        port: int | None = None,
        ip: str = "",
    ) -> None:
        self.stopped = 0
        self._accept = gateway.accept
        self._gateway = gateway
        self._time = (after, until)
        self._most = most
        self._port = port
        self._ip = ip
        gateway.accept = self._let_in  # type: ignore[method-assign]

    def _let_in(self, packet: PacketRecord) -> None:
        internet = self._gateway.internet
        ip, port = packet.wire_source
        theirs = ip.startswith("198.51.100.") if self._port is None else port == self._port
        stops = theirs and (not self._ip or ip.startswith(self._ip[:-1]))
        if stops and self._time[0] <= internet.now < self._time[1] and self.stopped < self._most:
            self.stopped += 1
            internet.drop(packet, DropReason.BLOCKED, self._gateway.name)
        else:
            self._accept(packet)


# -- found by reviewers ----


@pytest.mark.parametrize("rtt", [0.04, 0.1, 0.3, 0.8])
def test_two_direct_paths_under_data_are_changed_once_and_no_more(rtt: float) -> None:
    """Data of before a nomination is under way for a round trip: it is no reason to go back."""
    slow, fast = AccessLink.both(LinkProfile(0.05)), AccessLink.both(LinkProfile(0.02))
    run = Roaming(
        Scenario(
            a=peer(PORT, slow, second_link=fast), rtt=rtt, seconds=120.0, datagrams_per_second=50
        )
    )
    assert run.settled()
    assert len(run.selected("a", 0.0)) <= 2
    assert run.counter("b", "peer_moves_followed") == 0


@pytest.mark.parametrize("seed", range(3))
def test_jitter_is_no_reason_to_change_again_and_again(seed: int) -> None:
    wild = AccessLink.both(LinkProfile(0.03, jitter=0.03))
    run = Roaming(
        Scenario(a=peer(PORT, wild, second_link=wild), seconds=120.0, datagrams_per_second=50), seed
    )
    assert run.settled()
    assert len(run.selected("a", 0.0)) <= 6


def test_a_restart_gets_through_although_the_first_answers_of_the_servers_are_lost() -> None:
    """The address of before is told, and holds back the new one for no more than half a second."""
    session = VirtualSession(
        Scenario(
            rtt=0.04,
            seconds=30.0,
            datagrams_per_second=50,
            happenings=(Happening(HAPPENS, Event.NAT_REBINDS, "a"),),
        )
    )
    wall = Wall(session.topology.a.gateways[0], after=4.9, most=2, port=3478)
    run = Roaming.of(session)
    assert wall.stopped == 2
    assert run.settled()
    assert run.gap("a") < 3.0


@both_sides
@pytest.mark.parametrize("at", [0.0, 0.1, 0.2, 0.3])
def test_a_nat_that_moves_before_the_nomination_ends_no_session(at: float, side: Side) -> None:
    run = roam((at, Event.NAT_REBINDS, side), rtt=0.1, seconds=45.0)
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT


def test_a_restart_that_ended_on_the_relay_is_not_the_last_one() -> None:
    """For 7 s no server answers, so that the new address is not known when it is wanted."""
    session = VirtualSession(
        Scenario(
            rtt=0.04,
            seconds=60.0,
            relays=Relays.UDP,
            datagrams_per_second=50,
            happenings=(Happening(HAPPENS, Event.NAT_REBINDS, "a"),),
        )
    )
    wall = Wall(session.topology.a.gateways[0], after=4.9, until=12.0, port=3478, ip="203.0.113.10")
    run = Roaming.of(session)
    assert wall.stopped
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT


@both_sides
def test_a_relay_that_dies_while_it_carries_data_is_left_for_the_direct_path(side: Side) -> None:
    """For 8 s the NATs let nothing through between the peers; a second later their relay dies."""
    session = VirtualSession(
        Scenario(
            relays=Relays.UDP,
            rtt=0.04,
            seconds=30.0,
            datagrams_per_second=50,
            happenings=(Happening(9.0, Event.TURN_SERVER_DIES, side),),
        )
    )
    for place in (session.topology.a, session.topology.b):
        Wall(place.gateways[0], until=8.5)
    run = Roaming.of(session)
    assert run.settled()
    assert run.outcome.verdict is Verdict.DIRECT
    assert [event.pair.relayed for _, event in run.selected("a", 0.0)] == [True, False]
    assert max(run.gap("a"), run.gap("b")) < 3.0
    assert run.unaccounted() == 0
