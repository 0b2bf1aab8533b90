"""One agent under observation: the rules that no schedule and no datagram may make it break.

The driver tells what went in and what came out; ``check`` looks at the agent itself. Everything
raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Iterable

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import Agent, Credentials, Event, IceState, SelectedPairChanged, StateChanged
from ice_punch.ice.checks import REPEATS_REMEMBERED
from ice_punch.ice.pair import CHECKS_REMEMBERED, CandidatePair, PairState
from ice_punch.ice.server_queries import MAX_QUERIES
from ice_punch.ice.session import ENDED, LIVE
from ice_punch.stun import (
    ICE_CONTROLLED,
    ICE_CONTROLLING,
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
CONSENTS_OUTSTANDING = 9
"""RFC 7675 section 5.1: one every 4 s or more for 30 s, and one that was hurried."""

_NEXT: dict[IceState, set[IceState]] = {
    IceState.NEW: {IceState.CHECKING},
    IceState.CHECKING: {IceState.CONNECTED, IceState.FAILED},
    IceState.CONNECTED: {
        IceState.COMPLETED,
        IceState.DISCONNECTED,
        IceState.CHECKING,
        IceState.FAILED,
    },
    IceState.COMPLETED: {
        IceState.CONNECTED,
        IceState.DISCONNECTED,
        IceState.CHECKING,
        IceState.FAILED,
    },
    IceState.DISCONNECTED: {
        IceState.CONNECTED,
        IceState.COMPLETED,
        IceState.CHECKING,
        IceState.FAILED,
    },
    IceState.FAILED: set(),
    IceState.CLOSED: set(),
}
"""What may follow; ``closed`` follows all but the ends."""


class Watch:
    """What one agent was told and did."""

    def __init__(self, agent: Agent, *, servers: Iterable[Address] = ()) -> None:
        self.agent = agent
        self.state = agent.state
        self.servers = set(servers)
        self.signalled: set[Address] = set()
        """Addresses that the peer named, or that signaling did in its name."""
        self.authenticated: set[Address] = set()
        """Sources of requests that know our password."""
        self.consent: dict[tuple[Address, Address], float] = {}
        """When the peer last answered a check, by our base and its address."""
        self.selections: list[CandidatePair] = []
        self.lost: set[tuple[Address, Address]] = set()
        """Paths whose consent expired: with these credentials none is used again."""
        self._nominated: dict[int, tuple[tuple[Address, Address], int]] = {}
        self._asked: dict[bytes, tuple[Address, Address]] = {}
        self._owed: dict[tuple[bytes, Address, Address], tuple[bool, int]] = {}
        """Requests of this turn: whether each knows our password, and its size."""

    @property
    def ended(self) -> bool:
        return self.agent.state in ENDED

    # -- what goes in and comes out ------------------------------------------------------------

    def receives(self, data: bytes, source: Address, local: Address, now: float) -> None:
        """To be called before the agent gets the datagram."""
        try:
            message = parse_message(data)
        except StunParseError:
            return
        if message.message_class is MessageClass.REQUEST:
            known = self._knows_our_password(message)
            if known:
                self.authenticated.add(source)
            self._owed[message.transaction_id, local, source] = (known, len(data))
        elif message.message_class is MessageClass.SUCCESS:
            path = (local, source)
            peer = self.agent.remote_credentials
            asked = self._asked.get(message.transaction_id) == path
            if asked and peer is not None and message.verify(peer.key):
                self.consent[path] = now

    def _knows_our_password(self, request: Message) -> bool:
        ours = self.agent.credentials
        username = request.get(USERNAME) or ""
        algorithm = Integrity.SHA256 if Integrity.SHA256 in request.integrity else Integrity.SHA1
        return (
            request.has_fingerprint
            and username.startswith(f"{ours.ufrag}:")
            and request.verify(ours.key, algorithm)
        )

    def sends(self, transmits: Iterable[Transmit], now: float) -> None:
        """What left in this turn. Nobody is sent anything but checks and answers."""
        for data, local, destination in transmits:
            assert self.agent.state not in ENDED, "something leaves after the end"
            message = parse_message(data)
            match message.message_class:
                case MessageClass.REQUEST if message.get(USERNAME) is None:
                    assert destination in self.servers, f"{destination} is no server"
                case MessageClass.REQUEST:
                    self._sends_check(message, local, destination)
                case MessageClass.INDICATION:
                    raise AssertionError("an indication leaves")
                case _:
                    self._sends_answer(message, len(data), local, destination)
        self._owed.clear()

    def _sends_check(self, check: Message, local: Address, destination: Address) -> None:
        agent = self.agent
        peer = agent.remote_credentials
        assert isinstance(peer, Credentials), "a check leaves before the peer is known"
        assert destination in self.signalled | self.authenticated, f"nobody named {destination}"
        assert (local, destination) not in self.lost, "a check leaves where consent was lost"
        assert check.verify(peer.key)
        assert check.get(USERNAME) == f"{peer.ufrag}:{agent.credentials.ufrag}"
        roles = (check.get(ICE_CONTROLLING) is None, check.get(ICE_CONTROLLED) is None)
        assert roles in ((True, False), (False, True))
        if check.get(USE_CANDIDATE) is not None:
            assert roles == (False, True)
            self._nominates((local, destination))
        self._asked[check.transaction_id] = (local, destination)

    def _nominates(self, path: tuple[Address, Address]) -> None:
        """One pair of a component, until it fails or the role is another."""
        agent = self.agent
        pair = agent.check_list.find(*path)
        assert pair is not None
        switches = agent.counters["role_switches"]
        before, then = self._nominated.get(pair.component, (path, switches))
        if before != path and then == switches:
            other = agent.check_list.find(*before)
            assert other is None or not other.valid, f"{before} is nominated, and now {path}"
        self._nominated[pair.component] = path, switches

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
        if isinstance(event, StateChanged):
            allowed = _NEXT[self.state] | ({IceState.CLOSED} if self.state not in ENDED else set())
            assert event.state in allowed, f"{self.state} to {event.state}: {event.reason}"
            assert event.reason
            assert (event.cause is not None) == (event.state is IceState.FAILED)
            self.state = event.state
        elif isinstance(event, SelectedPairChanged):
            self.selections.append(event.pair)

    # -- the agent itself ----------------------------------------------------------------------

    def check(self, now: float) -> None:
        """After the agent's events and datagrams were fetched and its due timer was served."""
        self._state_is_told_and_true()
        self._data_needs_consent(now)
        self._lists_agree()
        self._queues_are_bounded()

    def _state_is_told_and_true(self) -> None:
        agent = self.agent
        components = agent.config.components
        assert agent.state is self.state, "a change of state was not told"
        selected = [agent.selected_pair(c) for c in components]
        valid = {p.component for p in agent.valid_list}
        if agent.state in ENDED:
            assert agent.get_timer() is None
            assert all(agent.data_pair(c) is None for c in components)
            return
        for pair in filter(None, selected):
            assert agent.check_list.find(*pair.key) is pair
            assert pair.valid
            assert pair.nominated
        if agent.state is IceState.NEW:
            assert agent.remote_credentials is None
        elif agent.state is IceState.CHECKING:
            assert not valid.issuperset(components)
        else:
            assert agent.state in LIVE
            assert valid.issuperset(components)
        if agent.state is IceState.COMPLETED:
            assert None not in selected
        elif agent.state is IceState.CONNECTED:
            assert None in selected

    def _data_needs_consent(self, now: float) -> None:
        agent = self.agent
        for component in agent.config.components:
            pair = agent.data_pair(component)
            if pair is not None:
                assert not pair.consent_lost
                since = self.consent.get(pair.key)
                assert since is not None, f"data may go to {pair.remote.address}, which is silent"
                assert now < since + agent.config.consent_timeout
        self.lost |= {pair.key for pair in agent.check_list if pair.consent_lost}
        assert {source for _, source in agent._session.validated} <= self.authenticated | {
            remote for _, remote in self.consent
        }

    def _lists_agree(self) -> None:
        agent = self.agent
        check_list = agent.check_list
        pairs = check_list.pairs
        assert check_list._by_key == {pair.key: pair for pair in pairs}
        assert pairs == sorted(pairs, key=lambda pair: (-pair.priority, pair.component))
        queued = [*check_list.triggered_check_queue, *check_list.deferred]
        assert len(set(queued)) == len(queued)
        assert set(queued) <= set(pairs)
        assert set(agent._current.knocking._turns) <= set(pairs)
        if agent.state not in ENDED:
            assert set(agent._session.nominating.values()) <= set(pairs)
            assert set(agent._current.liveness._consent) <= set(pairs)
        for pair in pairs:
            assert pair.valid == (pair.state is PairState.SUCCEEDED)

    def _queues_are_bounded(self) -> None:
        agent = self.agent
        config = agent.config
        session = agent._session
        hosts = len(session.local._by_base)
        assert len(agent.check_list) <= config.max_pairs
        assert len(session.remote.all) <= config.max_remote_candidates
        assert len(session.refused_remote) <= config.max_remote_candidates
        assert len(session.local.all) <= hosts + MAX_QUERIES + config.max_pairs
        assert len(agent._current.requests._early) <= config.max_early_checks
        assert len(session.validated) <= max(
            config.max_early_checks, hosts * config.max_remote_candidates
        )
        assert all(len(pair.checks) <= CHECKS_REMEMBERED for pair in agent.check_list)
        most = CHECKS_REMEMBERED * config.max_pairs + REPEATS_REMEMBERED
        assert len(agent._current.checks._out) <= most, "checks are remembered without end"
        assert len(agent._current.checks._repeated) <= REPEATS_REMEMBERED
        for consent in agent._current.liveness._consent.values():
            assert len(consent._outstanding) <= CONSENTS_OUTSTANDING
        assert len(agent._queries.all) <= MAX_QUERIES
        assert len(agent._server_reports) <= MAX_QUERIES
        assert not session.outbox
        assert not session.events
        assert len(agent.counters) <= 64
