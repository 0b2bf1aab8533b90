"""Peers with other habits against our agent: who connects, when, and what is seen on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ice_punch.ice import (
    Candidate,
    CandidateType,
    Credentials,
    DataReceived,
    FailureCause,
    IceState,
    LocalCandidateFound,
    SelectedPairChanged,
    ServerQueryEnded,
    StateChanged,
)
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.peers import ClassicAgent, IceMachine, SlowMachine, make_machine
from ice_punch.lab.scenario import Habit
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.stun import (
    USE_CANDIDATE,
    XOR_MAPPED_ADDRESS,
    BindingServer,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

SERVER = ("198.51.100.1", 3478)
PORT = 50000
RTT = 0.1
OTHERS = [Habit.NO_TRIGGERED_CHECKS, Habit.AGGRESSIVE, Habit.SLOW]
"""Those that can do with two port-restricted NATs."""


class Side:
    def __init__(self, meeting: Meeting, name: str, number: int, nat: NatKind) -> None:
        net = meeting.internet
        self.internet = net
        self.name = name
        self.events: list[tuple[float, object]] = []
        self.machine: IceMachine = meeting.make(name)
        link = LinkProfile(delay=RTT / 4, loss=meeting.loss)
        if nat is NatKind.NONE:
            self.address = (f"203.0.113.{number}", PORT)
            self.host = net.host(name, self.address[0], link=link)
        else:
            self.address = (f"192.168.{number}.2", PORT)
            gateway = net.nat(f"nat-{name}", f"203.0.113.{number}", nat, link=link)
            self.host = net.host(name, self.address[0], behind=gateway)
        net.attach(self.host, self.machine, on_event=self._on_event)
        self.machine.add_host_candidate(self.address, net.now)
        self.machine.query_server("stun:198.51.100.1:3478", SERVER, self.address, net.now)

    def _on_event(self, now: float, event: object) -> None:
        self.events.append((now, event))

    @property
    def candidates(self) -> list[Candidate]:
        """What is signalled; the base and the server never leave a host."""
        found = [e.candidate for _, e in self.events if isinstance(e, LocalCandidateFound)]
        return [replace(c, base=None, server=None) for c in found if c.type != "prflx"]

    def begin(self, other: Side) -> None:
        now = self.internet.now
        lite = getattr(other.machine, "lite", False)
        self.machine.set_remote_parameters(other.machine.credentials, now, lite=lite, ta=0.02)

    def meet(self, other: Side) -> None:
        self.begin(other)
        self.hear_candidates(other)

    def hear_candidates(self, other: Side) -> None:
        now = self.internet.now
        for candidate in other.candidates:
            self.machine.add_remote_candidate(candidate, now)
        self.machine.end_of_remote_candidates(now)

    def when(self, *states: IceState) -> float:
        """When one of these states was first entered; infinity if never."""
        times = [t for t, e in self.events if isinstance(e, StateChanged) and e.state in states]
        return min(times, default=float("inf"))

    def pair(self) -> tuple[object, object] | None:
        """The selected pair as the internet sees it."""
        pair = self.machine.selected_pair()
        return None if pair is None else ((pair.mapped or pair.local).address, pair.remote.address)

    def sent(self, since: float = 0.0) -> list[tuple[float, Message]]:
        """The STUN messages to the peer."""
        messages: list[tuple[float, Message]] = []
        for packet in self.internet.trace.sent_by(self.name):
            if packet.destination == SERVER or packet.sent_at < since:
                continue
            try:
                messages.append((packet.sent_at, parse_message(packet.data)))
            except StunParseError:
                continue
        return messages

    def requests(self, since: float = 0.0) -> list[tuple[float, Message]]:
        return [
            (at, message)
            for at, message in self.sent(since)
            if message.message_class is MessageClass.REQUEST
        ]


class Meeting:
    """``a`` is controlling. Each side is a habit, or makes its machine itself."""

    def __init__(
        self,
        a: Habit | Callable[..., IceMachine] = Habit.FULL,
        b: Habit | Callable[..., IceMachine] = Habit.FULL,
        *,
        nat_a: NatKind = NatKind.PORT_RESTRICTED,
        nat_b: NatKind = NatKind.PORT_RESTRICTED,
        both_control: bool = False,
        seed: int = 0,
        loss: float = 0.0,
    ) -> None:
        self.internet = VirtualInternet(seed, start=100.0)
        self.loss = loss
        self._makers = {"a": a, "b": b}
        self._both_control = both_control
        self.internet.attach(
            self.internet.host("stun", SERVER[0], link=LinkProfile(delay=0.001)),
            BindingServer(SERVER),
        )
        self.a = Side(self, "a", 1, nat_a)
        self.b = Side(self, "b", 2, nat_b)
        sides = (self.a, self.b)
        self.internet.run(140, stop=lambda: not any(s.machine.queries_busy for s in sides))
        self.internet.run(self.internet.now + 0.1)
        self.begun = self.internet.now

    def make(self, name: str) -> IceMachine:
        maker = self._makers[name]
        arguments = {
            "controlling": name == "a" or self._both_control,
            "credentials": Credentials(f"ufrag{name}", f"{name}-password-of-24-characters"),
            "random": self.internet.random(name),
        }
        if isinstance(maker, Habit):
            return make_machine(maker, **arguments)  # type: ignore[arg-type]
        return maker(**arguments)

    def start(self, skew: float = 0.0) -> None:
        """``b`` learns of ``a`` so much later than ``a`` of ``b``."""
        self.internet.at(self.begun + max(0.0, -skew), lambda: self.a.meet(self.b))
        self.internet.at(self.begun + max(0.0, skew), lambda: self.b.meet(self.a))

    def until_settled(self, limit: float = 60.0) -> bool:
        settled = (IceState.COMPLETED, IceState.FAILED)
        done = self.internet.run(
            self.begun + limit,
            stop=lambda: all(s.machine.state in settled for s in (self.a, self.b)),
        )
        self.internet.run(self.internet.now + 1.0)
        return done

    @property
    def valid_after(self) -> float:
        """Until both sides had a valid pair."""
        states = (IceState.CONNECTED, IceState.COMPLETED)
        return max(self.a.when(*states), self.b.when(*states)) - self.begun

    def assert_connected(self) -> None:
        assert self.a.machine.state is self.b.machine.state is IceState.COMPLETED
        pair = self.a.pair()
        assert pair is not None
        assert self.b.pair() == (pair[1], pair[0])


def met(*habits: Habit, skew: float = 0.0, **settings: Any) -> Meeting:
    meeting = Meeting(*habits, **settings)
    meeting.start(skew)
    assert meeting.until_settled()
    return meeting


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-0.6, -0.15, 0.0, 0.15, 0.6])
@pytest.mark.parametrize("habit", OTHERS)
def test_our_agent_connects_in_both_roles_and_both_sides_end_on_one_pair(
    habit: Habit, skew: float
) -> None:
    met(Habit.FULL, habit, skew=skew).assert_connected()
    met(habit, Habit.FULL, skew=skew).assert_connected()


@pytest.mark.parametrize("habit", OTHERS)
def test_a_role_conflict_is_resolved(habit: Habit) -> None:
    for seed in range(4):  # whoever has the larger tie-breaker
        meeting = met(Habit.FULL, habit, both_control=True, seed=seed)
        meeting.assert_connected()
        assert meeting.a.machine.controlling is not meeting.b.machine.controlling


@pytest.mark.parametrize("loss", [0.05, 0.15])
@pytest.mark.parametrize("habit", OTHERS)
def test_loss_delays_and_does_not_part(habit: Habit, loss: float) -> None:
    for seed in range(6):
        met(Habit.FULL, habit, seed=seed, loss=loss, skew=0.1).assert_connected()
        met(habit, Habit.FULL, seed=seed, loss=loss, skew=0.1).assert_connected()


@pytest.mark.parametrize("a", OTHERS)
@pytest.mark.parametrize("b", OTHERS)
def test_they_also_connect_among_each_other(a: Habit, b: Habit) -> None:
    met(a, b, skew=0.05).assert_connected()


@pytest.mark.parametrize("habit", OTHERS)
def test_a_symmetric_nat_on_either_side_is_met_with_peer_reflexive_candidates(habit: Habit) -> None:
    for nats in ((NatKind.SYMMETRIC, NatKind.FULL_CONE), (NatKind.FULL_CONE, NatKind.SYMMETRIC)):
        meeting = met(habit, Habit.FULL, nat_a=nats[0], nat_b=nats[1], skew=0.05)
        meeting.assert_connected()
        symmetric = meeting.a if nats[0] is NatKind.SYMMETRIC else meeting.b
        pair = symmetric.machine.selected_pair()
        assert pair is not None
        assert pair.mapped is not None
        assert pair.mapped.type is CandidateType.PRFLX


@pytest.mark.parametrize("late", ["a", "b"])
@pytest.mark.parametrize("habit", OTHERS)
def test_candidates_may_come_after_the_checks_that_they_sent_rfc8838_11(
    habit: Habit, late: str
) -> None:
    meeting = Meeting(habit, Habit.FULL, nat_a=NatKind.FULL_CONE)
    side, other = (meeting.a, meeting.b) if late == "a" else (meeting.b, meeting.a)
    meeting.internet.at(meeting.begun, lambda: side.begin(other))
    meeting.internet.at(meeting.begun, lambda: other.meet(side))
    meeting.internet.at(meeting.begun + 0.09, lambda: side.hear_candidates(other))
    assert meeting.until_settled()
    meeting.assert_connected()


@pytest.mark.parametrize("habit", [Habit.FULL, *OTHERS])
def test_data_flows_on_the_pair_that_was_chosen(habit: Habit) -> None:
    meeting = met(Habit.FULL, habit)
    for side in (meeting.a, meeting.b):
        pair = side.machine.data_pair()
        assert pair is not None
        side.internet.at(
            side.internet.now,
            lambda side=side, pair=pair: side.host.send(  # type: ignore[misc]
                (b"\xc0hello", pair.base, pair.remote.address)  # type: ignore[arg-type]
            ),
        )
    meeting.internet.run(meeting.internet.now + 1)
    for side in (meeting.a, meeting.b):
        assert [e.data for _, e in side.events if isinstance(e, DataReceived)] == [b"\xc0hello"]


@pytest.mark.parametrize("habit", list(Habit))
def test_every_habit_has_all_that_the_laboratory_asks_for(habit: Habit) -> None:
    meeting = Meeting(habit, Habit.FULL)
    kinds = {type(event) for _, event in meeting.a.events}
    assert {LocalCandidateFound, ServerQueryEnded} <= kinds
    assert not meeting.a.machine.queries_busy
    assert meeting.a.candidates[0].address == meeting.a.address
    assert meeting.a.machine.selected_pair() is meeting.a.machine.data_pair() is None
    meeting.a.machine.close(meeting.internet.now)
    meeting.internet.run(meeting.internet.now + 60)
    assert meeting.a.machine.state is IceState.CLOSED
    assert meeting.a.machine.get_timer() is None


# -- one by one -----------------------------------------------------------------------------------


def test_two_of_ours_with_a_skew_of_150_ms_need_two_round_trips_more_or_less() -> None:
    assert met(Habit.FULL, Habit.FULL, skew=0.15).valid_after == pytest.approx(0.3, abs=0.045)


@pytest.mark.parametrize("early", ["a", "b"])
def test_without_triggered_checks_the_early_side_waits_for_its_500_ms_timer(early: str) -> None:
    """The behaviour measured of aioice 0.13: answered at once, and then silence."""
    habits = [Habit.NO_TRIGGERED_CHECKS, Habit.FULL]
    skew = 0.15 if early == "a" else -0.15
    meeting = met(*(habits if early == "a" else habits[::-1]), skew=skew)
    lazy = meeting.a if early == "a" else meeting.b
    assert meeting.valid_after == pytest.approx(0.5 + RTT + 0.02, abs=0.03)
    times = [round(at - meeting.begun, 2) for at, _ in lazy.requests(meeting.begun)]
    assert times[:4] == [0.0, 0.02, 0.5, 0.52]  # host and reflexive pair, each twice
    answered = [
        at - meeting.begun
        for at, message in lazy.sent(meeting.begun)
        if message.message_class is MessageClass.SUCCESS
    ]
    assert answered[0] == pytest.approx(0.15 + RTT / 2 + 0.02, abs=0.03)


def test_without_triggered_checks_nothing_is_lost_when_ours_is_the_early_side() -> None:
    meeting = met(Habit.FULL, Habit.NO_TRIGGERED_CHECKS, skew=0.15)
    assert meeting.valid_after == pytest.approx(0.3, abs=0.045)


def test_the_same_agent_with_triggered_checks_is_as_quick_as_ours() -> None:
    def prompt(**arguments: object) -> IceMachine:
        return ClassicAgent(triggered_checks=True, ta=0.02, **arguments)  # type: ignore[arg-type]

    meeting = Meeting(prompt, Habit.FULL)
    meeting.start(0.15)
    assert meeting.until_settled()
    assert meeting.valid_after == pytest.approx(0.3, abs=0.045)


def test_every_check_of_an_aggressive_peer_nominates_and_only_if_it_is_in_control() -> None:
    meeting = met(Habit.AGGRESSIVE, Habit.FULL, skew=0.15)
    requests = [message for _, message in meeting.a.requests(meeting.begun)]
    assert len(requests) >= 3
    assert all(request.get(USE_CANDIDATE) for request in requests)

    meeting = met(Habit.FULL, Habit.AGGRESSIVE, skew=0.15)
    requests = [message for _, message in meeting.b.requests(meeting.begun)]
    assert len(requests) >= 2
    assert not any(request.get(USE_CANDIDATE) for request in requests)


def test_an_aggressive_peer_completes_as_soon_as_a_pair_is_valid() -> None:
    meeting = met(Habit.AGGRESSIVE, Habit.FULL)
    assert meeting.b.when(IceState.COMPLETED) == meeting.b.when(IceState.CONNECTED)


def test_of_several_pairs_nominated_by_an_aggressive_peer_both_sides_take_the_best() -> None:
    """On one network both the host and the reflexive pair may work."""
    meeting = met(Habit.AGGRESSIVE, Habit.FULL, nat_a=NatKind.NONE, nat_b=NatKind.NONE)
    meeting.assert_connected()
    selected = [e for _, e in meeting.b.events if isinstance(e, SelectedPairChanged)]
    assert selected[-1].pair.remote.type is CandidateType.HOST


@pytest.mark.parametrize("lite_controls", [True, False])
def test_a_lite_peer_sends_no_request_and_is_controlled(lite_controls: bool) -> None:
    """RFC 8445 sections 2.5 and 6.1.1, whatever roles were meant."""
    habits = [Habit.LITE, Habit.FULL] if lite_controls else [Habit.FULL, Habit.LITE]
    places = {"nat_a" if lite_controls else "nat_b": NatKind.NONE}
    meeting = met(*habits, **places)
    meeting.assert_connected()
    lite, full = (meeting.a, meeting.b) if lite_controls else (meeting.b, meeting.a)
    assert lite.requests() == []
    assert not lite.machine.controlling
    assert full.machine.controlling
    assert [c.type for c in lite.candidates] == [CandidateType.HOST]
    assert lite.when(IceState.COMPLETED) - meeting.begun < 3 * RTT


def test_a_lite_peer_that_starts_late_is_reached_all_the_same() -> None:
    for skew in (0.15, 5.0):
        meeting = met(Habit.FULL, Habit.LITE, nat_b=NatKind.NONE, skew=skew)
        meeting.assert_connected()


def test_a_lite_peer_behind_a_nat_is_out_of_reach() -> None:
    meeting = Meeting(Habit.FULL, Habit.LITE)
    meeting.start()
    assert not meeting.until_settled(70)
    assert meeting.a.machine.state is IceState.FAILED
    assert meeting.b.machine.state is IceState.CHECKING
    assert meeting.b.sent() == []


def test_two_lite_peers_take_what_they_were_told_and_send_nothing_rfc8445_8_2() -> None:
    meeting = met(Habit.LITE, Habit.LITE, nat_a=NatKind.NONE, nat_b=NatKind.NONE)
    meeting.assert_connected()
    assert meeting.a.sent() == meeting.b.sent() == []


def test_a_silent_peer_is_given_up_after_39_5_seconds_and_not_earlier() -> None:
    meeting = Meeting(Habit.FULL, Habit.SILENT)
    meeting.start()
    meeting.internet.run(meeting.begun + 39.4)
    assert meeting.a.machine.state is IceState.CHECKING
    meeting.internet.run(meeting.begun + 50.0)
    failure = next(
        e for _, e in meeting.a.events if isinstance(e, StateChanged) and e.state == "failed"
    )
    assert failure.cause is FailureCause.PEER_SILENT
    assert 39.5 <= meeting.a.when(IceState.FAILED) - meeting.begun < 41.0
    assert meeting.b.sent() == []
    assert not meeting.internet.trace.sent_by("b")


@pytest.mark.parametrize("slow_controls", [True, False])
def test_a_slow_peer_connects_in_a_bit_over_two_seconds(slow_controls: bool) -> None:
    habits = [Habit.SLOW, Habit.FULL] if slow_controls else [Habit.FULL, Habit.SLOW]
    places = {"nat_a" if slow_controls else "nat_b": NatKind.NONE}
    meeting = met(*habits, **places)
    meeting.assert_connected()
    assert 2.0 + RTT <= meeting.valid_after < 2.0 + 2 * RTT


def test_a_slow_peer_behind_a_nat_takes_twice_as_long_since_its_own_check_has_to_open_it() -> None:
    meeting = met(Habit.FULL, Habit.SLOW)
    assert 4.0 + 1.5 * RTT <= meeting.valid_after < 4.0 + 2.5 * RTT


def test_whatever_a_slow_peer_sends_leaves_two_seconds_after_it_was_made() -> None:
    meeting = Meeting(Habit.FULL, Habit.SLOW)
    assert isinstance(meeting.b.machine, SlowMachine)
    meeting.start()
    meeting.until_settled()
    assert meeting.b.requests(meeting.begun)[0][0] - meeting.begun == pytest.approx(2.0)
    to_b = meeting.internet.trace.received_by("b")
    asked = {parse_message(p.data).transaction_id: p.ended_at for p in to_b}
    answers = [
        (message.transaction_id, at)
        for at, message in meeting.b.sent(meeting.begun)
        if message.message_class is MessageClass.SUCCESS
    ]
    assert answers
    assert all(at - asked[id_] <= 2.0 + 1e-9 for id_, at in answers if asked[id_] is not None)


# -- the classic agent by itself ------------------------------------------------------------------


def test_a_classic_agent_keeps_its_nats_open_every_15_seconds() -> None:
    meeting = met(Habit.AGGRESSIVE, Habit.FULL)
    selected_at = meeting.a.when(IceState.COMPLETED)
    meeting.internet.run(selected_at + 50)
    indications = [
        at - selected_at
        for at, message in meeting.a.sent(selected_at)
        if message.message_class is MessageClass.INDICATION
    ]
    assert indications == pytest.approx([15.0, 30.0, 45.0])


def test_a_classic_agent_has_no_patience_and_fails_when_its_last_check_has() -> None:
    meeting = Meeting(Habit.AGGRESSIVE, Habit.SILENT)
    meeting.start()
    meeting.internet.run(meeting.begun + 60)
    assert meeting.a.when(IceState.FAILED) - meeting.begun == pytest.approx(39.5, abs=0.1)


def test_a_classic_agent_resends_a_check_as_rfc5245_16_does() -> None:
    meeting = Meeting(Habit.NO_TRIGGERED_CHECKS, Habit.SILENT)
    meeting.start()
    meeting.internet.run(meeting.begun + 60)
    times = [at - meeting.begun for at, _ in meeting.a.requests(meeting.begun)]
    assert times == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])


def test_a_classic_agent_checks_from_its_relayed_candidate_too() -> None:
    meeting = Meeting(Habit.AGGRESSIVE, Habit.FULL)
    relayed = ("198.51.100.20", 49_152)
    machine, now = meeting.a.machine, meeting.internet.now
    made = machine.add_relayed_candidate(
        relayed, now, server="turn:turn.lab", mapped=("1.2.3.4", 5)
    )
    assert made is not None
    assert (made.type, made.address, made.base) == (CandidateType.RELAY, relayed, relayed)
    assert machine.add_relayed_candidate(relayed, now, server="turn:turn.lab") is None
    meeting.a.host.send = lambda transmit: sent.append(transmit.local)  # type: ignore[method-assign]
    sent: list[object] = []
    meeting.start()
    meeting.internet.run(meeting.begun + 0.2)
    assert sent.count(relayed) == sent.count(meeting.a.address) == 2
    assert sent.index(meeting.a.address) < sent.index(relayed)


def test_a_classic_agent_is_not_moved_by_an_answer_that_nobody_signed() -> None:
    meeting = Meeting(Habit.AGGRESSIVE, Habit.FULL, nat_a=NatKind.NONE)
    meeting.a.meet(meeting.b)
    machine, now = meeting.a.machine, meeting.internet.now
    check = next(t for t in machine.datagrams_to_send(now) if t.destination != SERVER)
    for key in (None, b"wrong"):
        answer = Message(
            Method.BINDING, MessageClass.SUCCESS, parse_message(check.data).transaction_id
        )
        answer.add(XOR_MAPPED_ADDRESS, check.local)
        machine.receive_datagram(answer.to_bytes(key=key), check.destination, check.local, now)
    assert machine.state is IceState.CHECKING
    answer = Message(Method.BINDING, MessageClass.SUCCESS, parse_message(check.data).transaction_id)
    answer.add(XOR_MAPPED_ADDRESS, check.local)
    key = meeting.b.machine.credentials.key
    machine.receive_datagram(answer.to_bytes(key=key), check.destination, check.local, now)
    assert machine.state is IceState.COMPLETED


def test_strangers_with_a_wrong_password_change_nothing() -> None:
    for habit in (Habit.AGGRESSIVE, Habit.LITE):
        meeting = Meeting(habit, Habit.FULL)
        machine = meeting.a.machine
        machine.set_remote_parameters(meeting.b.machine.credentials, 100.0, lite=False)
        request = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
        for data in (
            request.to_bytes(),
            request.to_bytes(key=b"wrong"),
            b"\0\1\0\0\x21\x12\xa4\x42",
            b"",
            b"\xff" * 2000,
        ):
            machine.receive_datagram(data, ("198.51.100.9", 9), meeting.a.address, 101.0)
        assert machine.selected_pair() is None
        answers = [parse_message(t.data) for t in machine.datagrams_to_send(101.0)]
        strangers = [a for a in answers if a.transaction_id == bytes(12)]
        assert [a.message_class for a in strangers] == [MessageClass.ERROR] * 2
