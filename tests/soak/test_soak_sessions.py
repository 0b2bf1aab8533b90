"""Two agents under arbitrary schedules: what holds at every moment, and what comes of it once the
network is kind.

``make soak`` runs 10,000 examples, CI a few hundred. The rules of every moment are those of
``support.watch``; they are asked after each call to an agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from soak_world import Home, Side, Weather, World

from ice_punch.ice import AgentConfig, IceState
from ice_punch.ice.session import ENDED, LIVE
from ice_punch.lab.behaviour import NINE
from ice_punch.stun import (
    ERROR_CODE,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    MessageClass,
    StunParseError,
    parse_message,
    response_to,
)

STRANGER = ("203.0.113.200", 4444)
YOUNG = 15.0
"""Seconds of checking, or without an answer, after which there is time enough left: of the patience
of RFC 8863, and of consent."""

homes = st.builds(
    Home,
    nat=st.sampled_from([None, None, NINE[2], *NINE]),
    bases=st.integers(1, 2),
    relay=st.booleans(),
)
limits = st.sampled_from([(100, 100, 64), (100, 100, 64), (12, 10, 4), (4, 4, 2)])
STAGES = ("nothing", "gathered", "alone", "met", "told", "young", "done", "done")
sides = st.integers(0, 1)
picks = st.integers(0, 10_000)
spans = st.sampled_from([0.0, 0.001, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0, 2.5, 6.0, 14.0, 31.0, 45.0])


class Sessions(RuleBasedStateMachine):
    """One session, from the first candidate to its end."""

    @initialize(
        seed=st.integers(0, 2**32),
        houses=st.tuples(homes, homes),
        roles=st.tuples(st.booleans(), st.booleans()),
        bounds=st.tuples(limits, limits),
        components=st.sampled_from([(1,), (1,), (1, 2)]),
        renomination=st.sampled_from([(True, True), (True, True), (False, False), (True, False)]),
        counts_data=st.booleans(),
        stage=st.sampled_from(STAGES),
    )
    def begin(
        self,
        seed: int,
        houses: tuple[Home, Home],
        roles: tuple[bool, bool],
        bounds: tuple[tuple[int, int, int], tuple[int, int, int]],
        components: tuple[int, ...],
        renomination: tuple[bool, bool],
        counts_data: bool,
        stage: str,
    ) -> None:
        """At any stage of an orderly session."""
        a, b = (
            AgentConfig(
                max_pairs=pairs,
                max_remote_candidates=candidates,
                max_early_checks=early,
                components=components,
            )
            for pairs, candidates, early in bounds
        )
        self.world = World(
            seed,
            houses,
            roles=roles,
            configs=(a, b),
            renomination=renomination,
            counts_data=counts_data,
        )
        self.roomy = bounds == ((100, 100, 64), (100, 100, 64))
        self.disturbed = False
        """Whether a path may have been lost for good, by what was done to NATs and checks."""
        self.moved = False
        """Whether a NAT gave out new ports, or an interface went."""
        if stage == "nothing":
            return
        for side in self.world.sides:
            self.world.gather(side)
        self.world.run(0.5)
        if stage == "gathered":
            return
        for side in self.world.sides[: 1 if stage == "alone" else 2]:
            self.world.meet(side)
            if stage != "met":
                for candidate in list(self.world.other(side).told):
                    self.world.signal(side, candidate)
        self.world.run({"alone": 1.0, "young": 0.1, "done": 3.0}.get(stage, 0.0))

    def _side(self, number: int) -> Side:
        return self.world.sides[number]

    # -- signaling -----------------------------------------------------------------------------

    @rule(number=sides)
    def parameters_come(self, number: int) -> None:
        self.world.meet(self._side(number))

    @rule(number=sides, pick=picks)
    def a_candidate_comes(self, number: int, pick: int) -> None:
        """Any one, in any order, and again."""
        side = self._side(number)
        told = self.world.other(side).told
        if told:
            self.world.signal(side, told[pick % len(told)])

    @rule(number=sides)
    def all_candidates_come(self, number: int) -> None:
        side = self._side(number)
        for candidate in list(self.world.other(side).told):
            self.world.signal(side, candidate)

    @rule(
        number=sides,
        pick=picks,
        change=st.sampled_from(
            [
                {"component": 3},
                {"component": 256},
                {"transport": "tcp", "tcptype": "passive"},
                {"port": 0},
                {"port": 1},
                {"host": "198.51.100.77"},
                {"host": "f2de9f8c.local"},
                {"host": "2001:db8::77"},
                {"priority": 1},
                {"priority": 2**31 - 1},
                {"foundation": "9"},
            ]
        ),
    )
    def a_wrong_candidate_comes(self, number: int, pick: int, change: dict[str, object]) -> None:
        side = self._side(number)
        told = self.world.other(side).told
        if told:
            wrong = replace(told[pick % len(told)], **change)  # type: ignore[arg-type]
            self.world.signal(side, wrong)
        self.disturbed |= not self.roomy  # it may take the place of a right one

    @rule(number=sides)
    def the_last_candidate_came(self, number: int) -> None:
        side = self._side(number)
        complete = {c.address for c in self.world.other(side).told} <= side.watch.signalled
        side.agent.end_of_remote_candidates(self.world.now)
        self.world.flush(side)
        self.disturbed |= not complete

    # -- restarts ------------------------------------------------------------------------------

    @rule(number=sides, fresh_sockets=st.booleans())
    def a_side_restarts(self, number: int, fresh_sockets: bool) -> None:
        """Alone, or in glare with the other."""
        side = self._side(number)
        agent = side.agent
        before = agent.credentials, agent.state
        may = agent.remote_credentials is not None and agent.state is not IceState.CLOSED
        self.disturbed |= fresh_sockets
        try:
            self.world.restart(side, fresh_sockets=fresh_sockets)
        except ValueError:
            assert not may
            assert (agent.credentials, agent.state) == before
        else:
            assert may
            assert agent.restarting

    @rule(number=sides)
    def advice_is_followed(self, number: int) -> None:
        self.world.follow_advice(self._side(number))

    @rule(number=sides)
    def credentials_stay_the_same_in_a_restart(self, number: int) -> None:
        agent = self._side(number).agent
        with pytest.raises(ValueError, match=r"restart|closed"):
            agent.restart(agent.credentials, self.world.now)

    # -- data ----------------------------------------------------------------------------------

    @rule(number=sides, times=st.integers(1, 6), apart=st.sampled_from([0.0, 0.02, 0.2]))
    def data_flows(self, number: int, times: int, apart: float) -> None:
        """To addresses with consent only, which ``support.watch`` knows of its own."""
        for _ in range(times):
            for side in (self._side(number), self._side(1 - number))[: 1 + times % 2]:
                for component in side.agent.config.components:
                    self.world.send_data(side, component)
            self.world.run(apart)

    # -- gathering and interfaces --------------------------------------------------------------

    @rule(number=sides)
    def servers_are_asked(self, number: int) -> None:
        self.world.gather(self._side(number))

    @rule(number=sides, component=st.sampled_from([1, 2]))
    def an_interface_comes(self, number: int, component: int) -> None:
        side = self._side(number)
        if component in side.agent.config.components:
            self.world.add_base(side, component, 3)

    @rule(number=sides, pick=picks)
    def an_interface_goes(self, number: int, pick: int) -> None:
        """Or a relay."""
        side = self._side(number)
        if side.bases:
            self.world.remove_base(side, list(side.bases)[pick % len(side.bases)])
            self.disturbed = self.moved = True

    # -- the network ---------------------------------------------------------------------------

    @rule(span=spans)
    def time_passes(self, span: float) -> None:
        self.world.run(span)

    @rule(weather=st.sampled_from(Weather))
    def the_weather_changes(self, weather: Weather) -> None:
        self.world.weather = weather

    @rule(lag=st.sampled_from([0.0, 0.0, 0.01, 0.3, 4.0]))
    def the_driver_comes_late(self, lag: float) -> None:
        self.world.lag = lag

    @precondition(lambda self: self.world.flights)
    @rule(pick=picks)
    def a_datagram_overtakes(self, pick: int) -> None:
        flights = self.world.flights
        self.world.arrive(flights[pick % len(flights)])

    @precondition(lambda self: self.world.flights)
    @rule(pick=picks)
    def a_datagram_is_lost(self, pick: int) -> None:
        flights = self.world.flights
        del flights[pick % len(flights)]

    @precondition(lambda self: self.world.history)
    @rule(pick=picks)
    def a_datagram_comes_again(self, pick: int) -> None:
        """However old it is."""
        history = self.world.history
        self.world.arrive(history[pick % len(history)])

    @rule(number=sides)
    def the_link_goes_down_or_up(self, number: int) -> None:
        side = self._side(number)
        side.up = not side.up

    @precondition(lambda self: any(side.nat is not None for side in self.world.sides))
    @rule(number=sides, reboot=st.booleans())
    def the_nat_forgets(self, number: int, reboot: bool) -> None:
        nat = self._side(number).nat
        if nat is not None:
            (nat.forget if reboot else nat.rebind)()
            self.disturbed = self.moved = True

    @precondition(lambda self: self.world.history)
    @rule(number=sides, pick=picks)
    def an_icmp_error_comes(self, number: int, pick: int) -> None:
        side, history = self._side(number), self.world.history
        destination = history[pick % len(history)].destination
        for base in side.bases:
            side.agent.receive_icmp_error(base, destination, self.world.now)
        self.world.flush(side)
        self.disturbed = True

    # -- who means ill -------------------------------------------------------------------------

    @contextmanager
    def _in_vain(self, side: Side) -> Iterator[None]:
        """Neither state nor role changes, nor is consent renewed."""
        self.world.serve(side)  # lest what the datagram finds overdue be blamed on it
        before = (side.agent.state, side.agent.controlling, dict(side.watch.consent))
        yield
        assert (side.agent.state, side.agent.controlling, side.watch.consent) == before

    def _throw(self, number: int, data: bytes, pick: int) -> None:
        """At any base, from a stranger's address or the peer's."""
        side = self._side(number)
        bases = list(side.bases)
        if not bases:
            return
        sources = [STRANGER, *sorted(side.watch.authenticated | side.watch.signalled)]
        base, source = bases[pick % len(bases)], sources[pick % len(sources)]
        with self._in_vain(side):
            self.world.deliver(side, data, source, base)

    @rule(number=sides, data=st.binary(max_size=60), pick=picks)
    def noise_comes(self, number: int, data: bytes, pick: int) -> None:
        self._throw(number, data, pick)

    @precondition(lambda self: self.world.history)
    @rule(number=sides, pick=picks, at=picks, bit=st.integers(0, 7))
    def a_mutated_datagram_comes(self, number: int, pick: int, at: int, bit: int) -> None:
        history = self.world.history
        data = bytearray(history[pick % len(history)].data)
        data[at % (len(data) - 8)] ^= 1 << bit  # FINGERPRINT is worth nothing beside the HMAC
        self._throw(number, bytes(data), pick)

    @precondition(lambda self: self.world.history)
    @rule(number=sides, pick=picks, code=st.sampled_from([0, 400, 401, 403, 420, 487, 500]))
    def a_forged_answer_comes(self, number: int, pick: int, code: int) -> None:
        """To a request that is out, from where the answer is expected, without the password."""
        flight = self.world.history[pick % len(self.world.history)]
        try:
            request = parse_message(flight.data)
        except StunParseError:
            return
        if request.message_class is not MessageClass.REQUEST or not request.integrity:
            return
        if code:
            answer = response_to(request, MessageClass.ERROR)
            answer.add(ERROR_CODE, ErrorCode(code, "forged"))
        else:
            answer = response_to(request, MessageClass.SUCCESS)
            answer.add(XOR_MAPPED_ADDRESS, STRANGER)
        side = self._side(number)
        with self._in_vain(side):
            for base in side.bases:
                for key in (None, b"not the password"):
                    self.world.deliver(side, answer.to_bytes(key=key), flight.destination, base)

    @precondition(lambda self: self.world.history)
    @rule(number=sides, pick=picks)
    def a_datagram_comes_from_elsewhere(self, number: int, pick: int) -> None:
        """A real one, whole, sent on by somebody who saw it: he is taken for an address of the
        peer, and learns nothing but that."""
        history = self.world.history
        flight = history[pick % len(history)]
        side = self._side(number)
        for base in side.bases:
            self.world.deliver(side, flight.data, STRANGER, base)

    # -- the end -------------------------------------------------------------------------------

    @rule(number=sides, really=st.integers(0, 5))
    def a_side_closes(self, number: int, really: int) -> None:
        if really == 0:
            side = self._side(number)
            side.agent.close(self.world.now)
            self.world.flush(side)

    @invariant()
    def one_nomination_wins(self) -> None:
        """Of each generation; where the peer follows renominations the highest number wins, which
        ``support.watch`` sees to."""
        if self.moved:
            return  # a resent nomination may come from another port: it is followed there
        for side in self.world.sides:
            for era in side.watch.eras:
                if any(self.world.renomination):
                    continue
                for component in side.agent.config.components:
                    selected = {p.key for p, _ in era.selections if p.component == component}
                    assert len(selected) <= 1, f"{side.name} selected {selected}"

    def _must_succeed(self) -> bool:
        """Both have time enough, and nothing was done that takes more than time to mend."""
        if self.disturbed or not self.roomy or not self.world.can_meet:
            return False
        return all(map(self._is_fresh, self.world.sides))

    def _is_fresh(self, side: Side) -> bool:
        young = self.world.now - YOUNG
        agent = side.agent
        if agent.state in LIVE and agent.data_pair() is not None:
            era = side.watch.era_of_data()
            live = era.generation.session.check_list.valid_list
            return all(era.consent[pair.key] > young for pair in live)
        started_at = agent._lineage.session.started_at
        if agent.state is IceState.DISCONNECTED:
            started_at = agent._lineage.restarted_at if agent.restarting else -1.0
        return agent.state not in ENDED and (started_at is None or started_at > young)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        succeeds = self._must_succeed()
        world.settle()
        self.one_nomination_wins()
        states = world.states()
        if succeeds:
            assert states == {IceState.COMPLETED}
        if states & set(ENDED):
            assert states <= set(ENDED), "one side is gone, and the other does not notice"
            return
        if (self.moved or not self.roomy) and states == {IceState.CONNECTED, IceState.COMPLETED}:
            # An early nomination came from a port that is no more, or its pair had to make room
            # for another, and it is not repeated.
            return
        assert states == {IceState.COMPLETED}
        assert world.a.agent.controlling is not world.b.agent.controlling
        for component in world.a.agent.config.components:
            assert all(self._data_gets_through(side, component) for side in world.sides)
            there, back = world.path(world.a, component), world.path(world.b, component)
            assert there is not None
            assert back is not None
            assert there == back[::-1], "the two sides selected different pairs"

    def _data_gets_through(self, side: Side, component: int) -> bool:
        data = self.world.send_data(side, component)
        self.world.run(0.1)
        return data in self.world.other(side).received


TestSessions = Sessions.TestCase
TestSessions.settings = settings.get_profile("sessions")
TestSessions.pytestmark = [  # type: ignore[attr-defined]
    pytest.mark.timeout(2.0 * TestSessions.settings.max_examples),
    # Measuring coverage would take four times as long, and shows nothing that others do not.
    pytest.mark.no_cover,
]
