"""One full agent under observation: the rules that no schedule and no datagram may make it break.

The driver tells what went in and what came out; ``check`` looks at the agent itself. Everything
raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Iterable

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import (
    Agent,
    Credentials,
    Event,
    IceState,
    RestartAdvised,
    SelectedPairChanged,
    StateChanged,
    resembles_stun,
)
from ice_punch.ice.checks import REPEATS_REMEMBERED
from ice_punch.ice.early_hole import EACH, IN_ALL
from ice_punch.ice.generation import Generation
from ice_punch.ice.pair import CHECKS_REMEMBERED, CandidatePair, PairState
from ice_punch.ice.round_trip import SHORTEST_TIMEOUT
from ice_punch.ice.server_queries import MAX_QUERIES
from ice_punch.ice.session import ENDED, LIVE
from ice_punch.stun import (
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    NOMINATION,
    USE_CANDIDATE,
    USERNAME,
    Integrity,
    Message,
    MessageClass,
    StunParseError,
    parse_message,
)

LARGEST_REFUSAL = 48
"""Bytes that a 400 or 401 may have more than what it answers."""

_LIVING = {
    IceState.CONNECTED,
    IceState.COMPLETED,
    IceState.DISCONNECTED,
    IceState.CHECKING,
    IceState.FAILED,
}
_NEXT: dict[IceState, set[IceState]] = {
    IceState.NEW: {IceState.CHECKING},
    IceState.CHECKING: {IceState.CONNECTED, IceState.FAILED},
    IceState.CONNECTED: _LIVING - {IceState.CONNECTED},
    IceState.COMPLETED: _LIVING - {IceState.COMPLETED},
    IceState.DISCONNECTED: _LIVING - {IceState.DISCONNECTED},
    IceState.FAILED: set(),
    IceState.CLOSED: set(),
}
"""What may follow; ``closed`` follows all but the ends."""
_AFTER_A_RESTART = {IceState.CHECKING, IceState.DISCONNECTED}
"""What may follow besides, whatever was before: the new generation waits, or has begun."""

Path = tuple[Address, Address]
"""Our base and the peer's address."""


class Era:
    """What happened with one pair of credentials."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.ours = generation.session.credentials
        self.authenticated: set[Address] = set()
        """Sources of requests that know our password."""
        self.strangers: set[Address] = set()
        """Where data came from that may be the peer's after its NAT gave it a new port."""
        self.consent: dict[Path, float] = {}
        """When the peer last answered a check."""
        self.lost: set[Path] = set()
        """Paths whose consent expired: with these credentials none is used again."""
        self.selections: list[tuple[CandidatePair, int]] = []
        """And under which number each was nominated."""
        self.nominated: dict[int, tuple[Path, int, int]] = {}
        """By component: the last nomination that left, in which role, under which number."""
        self.asked: dict[bytes, Path] = {}
        self.holes: list[Path] = []
        """Where indications went."""
        self.was_retired = False

    @property
    def peer(self) -> Credentials | None:
        return self.generation.session.remote_credentials


class Watch:
    """What one agent was told and did."""

    def __init__(self, agent: Agent, *, servers: Iterable[Address] = ()) -> None:
        self.agent = agent
        self.state = agent.state
        self.servers = set(servers)
        self.signalled: set[Address] = set()
        """Addresses that the peer named, or that signaling did in its name."""
        self.eras: list[Era] = []
        """Of the generations that the agent still has, the current one last."""
        self.selections: list[CandidatePair] = []
        self.advised: RestartAdvised | None = None
        """The latest advice that was not followed."""
        self._restarts = 0
        self._owed: dict[tuple[bytes, Address, Address], tuple[bool, int]] = {}
        """Requests of this turn: whether each knows our password, and its size."""
        self._follow_generations()

    @property
    def ended(self) -> bool:
        return self.agent.state in ENDED

    @property
    def authenticated(self) -> set[Address]:
        return {address for era in self.eras for address in era.authenticated}

    @property
    def consent(self) -> dict[tuple[str, Path], float]:
        """By generation and path."""
        return {(era.ours.ufrag, path): at for era in self.eras for path, at in era.consent.items()}

    def era_of_data(self) -> Era:
        """Of the generation that data takes."""
        self._follow_generations()
        carrier = self.agent._lineage.carrier
        return next(era for era in self.eras if era.generation.session is carrier)

    def _follow_generations(self) -> None:
        agent = self.agent
        known = {id(era.generation): era for era in self.eras}
        self.eras = [known.get(id(g)) or Era(g) for g in agent._lineage.all]
        assert len(self.eras) <= 2
        ufrags = [era.ours.ufrag for era in self.eras]
        assert len(set(ufrags)) == len(ufrags)
        if agent.counters["restarts"] > self._restarts:
            self._restarts = agent.counters["restarts"]
            self.advised = None

    def _era(self, ufrag: str) -> Era | None:
        return next((era for era in self.eras if era.ours.ufrag == ufrag), None)

    # -- what goes in and comes out ------------------------------------------------------------

    def receives(self, data: bytes, source: Address, local: Address, now: float) -> None:
        """To be called before the agent gets the datagram."""
        self._follow_generations()
        if not resembles_stun(data):
            self._receives_data(source, local)
            return
        try:
            message = parse_message(data)
        except StunParseError:
            return
        if message.message_class is MessageClass.REQUEST:
            era = self._era((message.get(USERNAME) or "").partition(":")[0])
            known = era is not None and self._knows_our_password(message, era)
            if known and era is not None:
                era.authenticated.add(source)
            self._owed[message.transaction_id, local, source] = (known, len(data))
        elif message.message_class is MessageClass.SUCCESS:
            path = (local, source)
            for era in self.eras:
                asked = era.asked.get(message.transaction_id) == path
                if asked and era.peer is not None and message.verify(era.peer.key):
                    era.consent[path] = now

    def base_gone(self, base: Address) -> None:
        """A socket at the same address is another one, with consent of its own."""
        for era in self.eras:
            era.lost = {path for path in era.lost if path[0] != base}

    def _receives_data(self, source: Address, local: Address) -> None:
        era = self.eras[-1]
        selected = era.generation.session.selected.values()
        if any((p.base, p.remote.host) == (local, source[0]) for p in selected):
            era.strangers.add(source)

    def data_from_stranger(self, source: Address, local: Address) -> None:
        """To be called before the agent is told."""
        self._follow_generations()
        self._receives_data(source, local)

    def _knows_our_password(self, request: Message, era: Era) -> bool:
        algorithm = Integrity.SHA256 if Integrity.SHA256 in request.integrity else Integrity.SHA1
        username = request.get(USERNAME) or ""
        return (
            request.has_fingerprint
            and username.startswith(f"{era.ours.ufrag}:")
            and request.verify(era.ours.key, algorithm)
        )

    def sends(self, transmits: Iterable[Transmit], now: float) -> None:
        """What left in this turn: checks, answers, and what opens a hole early."""
        before = self.eras
        self._follow_generations()
        for data, local, destination in transmits:
            assert self.agent.state not in ENDED, "something leaves after the end"
            message = parse_message(data)
            match message.message_class:
                case MessageClass.REQUEST if message.get(USERNAME) is None:
                    assert destination in self.servers, f"{destination} is no server"
                case MessageClass.REQUEST:
                    self._sends_check(message, local, destination, before)
                case MessageClass.INDICATION:
                    self._opens_a_hole(local, destination)
                case _:
                    self._sends_answer(message, len(data), local, destination)
        self._owed.clear()

    def _opens_a_hole(self, local: Address, destination: Address) -> None:
        """Before checks, and so few that they are no flood."""
        era = self.eras[-1]
        assert era.peer is None, "an indication leaves although checks do"
        assert destination in self.signalled, f"nobody named {destination}"
        era.holes.append((local, destination))
        assert era.holes.count((local, destination)) <= EACH
        assert len(era.holes) <= IN_ALL

    def _sends_check(
        self, check: Message, local: Address, destination: Address, before: list[Era]
    ) -> None:
        theirs, _, ours = (check.get(USERNAME) or "").partition(":")
        era = self._era(ours)
        assert era is not None, "a check of a generation that is gone leaves"
        assert era in before or era is self.eras[-1]
        assert not era.was_retired, "a check leaves although another generation has taken over"
        peer = era.peer
        assert isinstance(peer, Credentials), "a check leaves before the peer is known"
        assert theirs == peer.ufrag
        assert check.verify(peer.key)
        named = self.signalled | era.authenticated | era.strangers
        assert destination in named, f"nobody named {destination}"
        assert (local, destination) not in era.lost, "a check leaves where consent was lost"
        roles = (check.get(ICE_CONTROLLING) is None, check.get(ICE_CONTROLLED) is None)
        assert roles in ((True, False), (False, True))
        if check.get(USE_CANDIDATE) is not None:
            assert roles == (False, True)
            if check.transaction_id in era.asked:
                return  # a resend; whatever was nominated since counts for more
            self._nominates(era, (local, destination), check.get(NOMINATION) or 0)
        else:
            assert check.get(NOMINATION) is None
        era.asked[check.transaction_id] = (local, destination)

    def _nominates(self, era: Era, path: Path, number: int) -> None:
        """One pair of a component, until it fails or the role is another. Where the peer follows
        renominations, another one under a higher number."""
        session = era.generation.session
        assert not number or session.remote_renominates, "the peer knows no renomination"
        pair = session.check_list.find(*path)
        assert pair is not None
        switches = self.agent.counters["role_switches"]
        before, then, last = era.nominated.get(pair.component, (path, switches, number))
        if before != path and then == switches:
            other = session.check_list.find(*before)
            replaced = number > last
            assert replaced or other is None or not other.valid, f"{before}, and now {path}"
        era.nominated[pair.component] = path, switches, number

    def _sends_answer(
        self, answer: Message, size: int, local: Address, destination: Address
    ) -> None:
        owed = self._owed.pop((answer.transaction_id, local, destination), None)
        assert owed is not None, f"an answer to nothing leaves for {destination}"
        known, asked_size = owed
        if not known:
            assert answer.message_class is MessageClass.ERROR
            assert not answer.integrity
            assert size <= asked_size + LARGEST_REFUSAL

    def happens(self, event: Event) -> None:
        self._follow_generations()
        match event:
            case StateChanged():
                allowed = set(_NEXT[self.state])
                if self.state not in ENDED:
                    allowed.add(IceState.CLOSED)
                if self._restarts and self.state is not IceState.CLOSED:
                    allowed |= _AFTER_A_RESTART
                assert event.state in allowed, f"{self.state} to {event.state}: {event.reason}"
                assert event.reason
                assert (event.cause is not None) == (event.state is IceState.FAILED)
                self.state = event.state
            case SelectedPairChanged():
                self.selections.append(event.pair)
                for era in self.eras:
                    if era.generation.session.selected.get(event.pair.component) is event.pair:
                        self._selects(era, event.pair)
            case RestartAdvised():
                assert event.reason
                assert not self.agent.restarting
                self.advised = event

    def _selects(self, era: Era, pair: CandidatePair) -> None:
        """The highest number wins."""
        before = [number for p, number in era.selections if p.component == pair.component]
        assert all(number <= pair.nomination for number in before)
        era.selections.append((pair, pair.nomination))

    # -- the agent itself ----------------------------------------------------------------------

    def check(self, now: float) -> None:
        """After the agent's events and datagrams were fetched and its due timer was served."""
        self._follow_generations()
        self._state_is_told_and_true()
        self._data_needs_consent(now)
        for era in self.eras:
            self._lists_agree(era.generation)
            self._queues_are_bounded(era.generation)
            era.was_retired |= era.generation.retired_at is not None
        agent = self.agent
        assert len(agent._queries.all) <= MAX_QUERIES
        assert len(agent._gathering.reports) <= MAX_QUERIES
        assert not agent._events
        assert len(agent.counters) <= 96

    def _state_is_told_and_true(self) -> None:
        agent = self.agent
        components = agent.config.components
        assert agent.state is self.state, "a change of state was not told"
        if agent.state in ENDED:
            assert agent.get_timer() is None
            assert all(agent.data_pair(c) is None for c in components)
            return
        session = self.era_of_data().generation.session
        selected = [session.selected.get(c) for c in components]
        assert selected == [agent.selected_pair(c) for c in components]
        valid = {p.component for p in session.check_list.valid_list}
        for era in self.eras:
            if era.generation.session.ended:
                continue
            for pair in era.generation.session.selected.values():
                assert era.generation.session.check_list.find(*pair.key) is pair
                assert pair.valid
                assert pair.nominated
        if agent.state is IceState.NEW:
            assert agent.remote_credentials is None
        elif agent.state is IceState.CHECKING:
            assert not valid.issuperset(components)
        elif agent.state is IceState.DISCONNECTED:
            stranded = session.stranded_at is not None
            assert agent.restarting or stranded or valid.issuperset(components)
        else:
            assert agent.state in LIVE
            assert valid.issuperset(components)
        if agent.state is IceState.COMPLETED:
            assert None not in selected
        elif agent.state is IceState.CONNECTED:
            assert None in selected or session.detours

    def _data_needs_consent(self, now: float) -> None:
        agent = self.agent
        if agent.state not in ENDED:
            era = self.era_of_data()
            for component in agent.config.components:
                pair = agent.data_pair(component)
                if pair is not None:
                    assert not pair.consent_lost
                    self.data_may_go(era, pair.key, now)
        for era in self.eras:
            session = era.generation.session
            era.lost |= {pair.key for pair in session.check_list if pair.consent_lost}
            assert {source for _, source in session.validated} <= era.authenticated | {
                remote for _, remote in era.consent
            }

    def data_may_go(self, era: Era, path: Path, now: float) -> None:
        since = era.consent.get(path)
        assert since is not None, f"data may go to {path[1]}, which is silent"
        assert now < since + self.agent.config.consent_timeout, f"consent of {path[1]} is over"

    def _lists_agree(self, generation: Generation) -> None:
        session = generation.session
        check_list = session.check_list
        pairs = check_list.pairs
        assert check_list._by_key == {pair.key: pair for pair in pairs}
        assert pairs == sorted(pairs, key=lambda pair: (-pair.priority, pair.component))
        queued = [*check_list.triggered_check_queue, *check_list.deferred]
        assert len(set(queued)) == len(queued)
        assert set(queued) <= set(pairs)
        if generation is self.agent._lineage.current:
            assert set(generation.knocking._turns) <= set(pairs)
        if self.agent.state not in ENDED and not session.ended:
            assert set(session.nominating.values()) <= set(pairs)
            assert set(session.detours.values()) <= set(check_list.valid_list)
            assert set(generation.liveness._consent) <= set(pairs)
            assert generation.liveness._pulses.keys() <= generation.liveness._consent.keys()
        for pair in pairs:
            assert pair.valid == (pair.state is PairState.SUCCEEDED)
            assert session.local.at_base(pair.base) is not None, "its base is gone"

    def _queues_are_bounded(self, generation: Generation) -> None:
        session, checks = generation.session, generation.checks
        config = session.config
        hosts = len(session.local._by_base)
        assert len(session.check_list) <= config.max_pairs
        assert len(session.remote.all) <= config.max_remote_candidates
        assert len(session.refused_remote) <= config.max_remote_candidates
        assert len(session.refused) <= config.max_remote_candidates
        assert len(session.local.all) <= hosts + MAX_QUERIES + config.max_pairs
        assert len(generation.requests._early) <= config.max_early_checks
        assert len(session.validated) <= max(
            config.max_early_checks, hosts * config.max_remote_candidates
        )
        assert all(len(pair.checks) <= CHECKS_REMEMBERED for pair in session.check_list)
        most = CHECKS_REMEMBERED * config.max_pairs + REPEATS_REMEMBERED
        assert len(checks._out) <= most, "checks are remembered without end"
        assert len(checks._repeated) <= REPEATS_REMEMBERED
        # RFC 7675 section 5.1: one every 4 s or more. A silent path is asked more often, but not
        # before the answer to the check before could have come.
        outstanding = config.consent_timeout * (1 / SHORTEST_TIMEOUT + 1 / 4) + 1
        for consent in generation.liveness._consent.values():
            assert len(consent._outstanding) <= outstanding
        assert not session.outbox
