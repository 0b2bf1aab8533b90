"""The ICE agent, RFC 8445, as a pure state machine without socket, clock or own randomness."""

from __future__ import annotations

from collections import Counter

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import facts
from ice_punch.ice.advice import Advice
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.check_list import CheckList
from ice_punch.ice.events import (
    DataReceived,
    Event,
    IceState,
)
from ice_punch.ice.gathering import Gathering
from ice_punch.ice.generation import Generation
from ice_punch.ice.lineage import Lineage
from ice_punch.ice.pacer import Pacer
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.policy import NominationPolicy, PatientPolicy
from ice_punch.ice.server_queries import ServerQueries
from ice_punch.ice.session import AgentConfig, Session
from ice_punch.ice.slots import Slots
from ice_punch.ice.steady import Steady
from ice_punch.report import Report
from ice_punch.stun import (
    COOKIE,
    USERNAME,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

LONGEST_HOLD = 5.0
"""Seconds: no instant that is agreed on is later."""

_PATIENT = PatientPolicy()


def resembles_stun(data: bytes | memoryview) -> bool:
    """Whether a datagram would be taken for STUN on this path, well-formed or not (RFC 7983
    section 7: first byte 0 to 3; RFC 8489 section 5: the magic cookie)."""
    return len(data) >= 8 and data[0] < 4 and bytes(data[4:8]) == COOKIE


class Agent:
    """A full ICE agent for one data stream.

    Candidates enter through ``add_host_candidate``, ``add_relayed_candidate`` and ``query_server``,
    the peer's through ``set_remote_parameters`` and ``add_remote_candidate``. Everything else is
    the five calls of the sans-IO contract: ``receive_datagram``, ``handle_timer``,
    ``datagrams_to_send``, ``next_event`` and ``get_timer``. All times are seconds.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        config: AgentConfig | None = None,
        policy: NominationPolicy | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self._config = config or AgentConfig()
        self.pacer = pacer or Pacer(self._config.ta)
        self._counters: Counter[str] = Counter()
        self._events: list[Event] = []
        self._queries = ServerQueries(random, self._config.software)
        self._lineage = Lineage(
            controlling=controlling,
            credentials=credentials,
            random=random,
            config=self._config,
            policy=policy or _PATIENT,
            queries=self._queries,
            counters=self._counters,
            events=self._events,
        )
        self._advice = Advice()
        self._gathering = Gathering(self._lineage, self._advice)
        self._slots = Slots(self.pacer, self._queries)
        self._steady: Steady | None = None
        """What does the rest, while there is nothing else to do."""
        self._steady_before: Steady | None = None
        self._changes = 0

    @property
    def _session(self) -> Session:
        return self._lineage.session

    @property
    def _current(self) -> Generation:
        return self._lineage.current

    @property
    def _generations(self) -> list[Generation]:
        return self._lineage.all

    # -- what there is to see -----------------------------------------------------------------

    @property
    def state(self) -> IceState:
        """Of the generation that carries data; during an ICE restart that is the old one as long
        as it can."""
        return self._lineage.state

    @property
    def latest(self) -> float:
        """Until when ``handle_timer`` may be put off for the sake of others, once ``settled``."""
        return float("-inf") if self._steady is None else self._steady.latest

    @property
    def settled(self) -> bool:
        """Whether ICE is done, the selected pair answers, and consent is all that is left to do."""
        return self._steady is not None

    @property
    def changes(self) -> int:
        """Grows with everything that may have changed states, pairs or candidates, or made events.
        As long as it stands still, all that is new are datagrams to send and the timer."""
        return self._changes

    @property
    def controlling(self) -> bool:
        """The role, RFC 8445 section 6.1.1; a role conflict may change it."""
        return self._session.controlling

    @property
    def tie_breaker(self) -> int:
        return self._session.tie_breaker

    @property
    def config(self) -> AgentConfig:
        return self._config

    @property
    def restarting(self) -> bool:
        """Whether an ICE restart of ours waits for the peer's new credentials."""
        return self._lineage.restarting

    @property
    def credentials(self) -> Credentials:
        return self._session.credentials

    @property
    def remote_credentials(self) -> Credentials | None:
        return self._session.remote_credentials

    @property
    def check_list(self) -> CheckList:
        """Of the current generation."""
        return self._session.check_list

    @property
    def valid_list(self) -> list[CandidatePair]:
        return self._session.check_list.valid_list

    @property
    def counters(self) -> Counter[str]:
        """What was received and dropped, by reason."""
        return self._counters

    @property
    def local_candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._session.local.all)

    @property
    def remote_candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._session.remote.all)

    @property
    def queries_busy(self) -> bool:
        """Whether any server query has yet to end."""
        return self._queries.busy

    @property
    def addresses_known(self) -> bool:
        """Whether every server has told, or failed to tell, the reflexive addresses of the current
        generation: what is signalled before may hold those of before a restart."""
        return not (self._queries.busy or self._queries.has_work() or self._queries.asking_again)

    def selected_pair(self, component: int = 1) -> CandidatePair | None:
        """The nominated pair (RFC 8445 section 8.1.1)."""
        return self._lineage.carrier.selected.get(component)

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        """The pair data is sent on: the selected one, or the best valid one before nomination
        (RFC 8445 section 12.1). None without consent."""
        return self._lineage.carrier.data_pair(component)

    def report(self) -> Report:
        """Everything known about the session, for people."""
        return facts.report(self._session, self._queries, self._gathering.reports)

    # -- candidates ---------------------------------------------------------------------------

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None:
        """A socket of ours is bound to ``address``. None if that is known already."""
        return self._add_local(
            CandidateType.HOST, address, now, component=component, local_preference=local_preference
        )

    def add_relayed_candidate(
        self,
        address: Address,
        now: float,
        *,
        server: str,
        mapped: Address | None = None,
        local_preference: int = 65535,
        component: int = 1,
    ) -> Candidate | None:
        """A TURN server gave us ``address`` and saw us at ``mapped``. None if redundant, and for a
        lite agent."""
        if self._config.lite:
            return None
        if self._session.local.at_address(address) is not None:
            return None  # RFC 8445 section 5.1.1.2: a relayed address equal to another is discarded
        hidden = "::" if ":" in address[0] else "0.0.0.0"  # noqa: S104
        return self._add_local(
            CandidateType.RELAY,
            address,
            now,
            component=component,
            local_preference=local_preference,
            related=mapped or (hidden, 9),
            server=server,
        )

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None:
        """Ask the STUN server at ``address``, called ``server`` in reports, for the reflexive
        address of ``base``. Raises ValueError past 64 queries. A lite agent asks nobody (RFC 8445
        section 5.2)."""
        if self._lineage.over or self._config.lite:
            return
        self._queries.add(server, address, base, component)
        self._advance(now)

    def add_server_reflexive_candidate(
        self,
        mapped: Address,
        base: Address,
        now: float,
        *,
        server: str,
        server_address: Address,
        component: int = 1,
    ) -> None:
        """A request that was no Binding, a TURN Allocate sent from ``base``, has told that the
        server sees us at ``mapped`` (RFC 8445 section 5.1.1.2)."""
        if self._lineage.over:
            return
        outcome = self._queries.add_answered(server, server_address, base, component, mapped, now)
        self._gathering.query_ended(outcome, now)
        self._advance(now)

    def _add_local(
        self,
        type_: CandidateType,
        address: Address,
        now: float,
        *,
        component: int,
        local_preference: int,
        related: Address | None = None,
        server: str | None = None,
    ) -> Candidate | None:
        candidate = self._gathering.add(
            type_,
            address,
            now,
            component=component,
            local_preference=local_preference,
            related=related,
            server=server,
        )
        self._advance(now)
        return candidate

    def remove_local_candidate(self, address: Address, now: float) -> None:
        """The interface of the base at ``address`` is gone, and with it every candidate and pair of
        this base. Another pair takes over where there is one, else a restart is advised."""
        self._queries.remove_base(address)
        for generation in self._generations:
            generation.remove_base(address, now)
        self._advance(now)

    # -- credentials --------------------------------------------------------------------------

    def restart(self, credentials: Credentials, now: float, *, fresh_sockets: bool = False) -> None:
        """Begin an ICE restart (RFC 8445 section 9) with new ``credentials`` of ours. Data goes on
        where it goes until the new generation has selected its pairs; the role stays. Candidates
        stay too, and the servers are asked again. With ``fresh_sockets`` only the relayed ones
        stay: the caller adds host candidates of other ports.

        Raises ValueError before the peer's parameters are known, while another restart waits for
        the peer, after ``close``, and unless both ufrag and pwd are new (RFC 8839 section
        4.4.1.1.1).
        """
        self._lineage.restart(credentials, now, fresh_sockets=fresh_sockets)
        self._advice.restarted(now)
        if fresh_sockets:
            self._counters["fresh_starts"] += 1
            self._queries.start_over()
        else:
            self._queries.ask_again()
        self._advance(now)

    def set_remote_parameters(
        self,
        credentials: Credentials,
        now: float,
        *,
        lite: bool = False,
        ta: float | None = None,
        renomination: bool = False,
        start_at: float | None = None,
    ) -> None:
        """The peer's ufrag and password, whether it is lite, the Ta it announced in seconds (None:
        50 ms, RFC 8839 section 5.5), and whether it lets another pair be nominated later
        (``a=ice-options:renomination``). Checks begin, or at ``start_at`` where both sides agreed
        on an instant; a check of the peer's is reason enough to begin before.

        Raises ValueError when they were set before to something else: that is a restart.
        """
        session = self._session
        if session.remote_credentials is not None and session.remote_credentials != credentials:
            raise ValueError("the peer's ufrag and pwd change only with an ICE restart")
        if session.remote_credentials is not None or session.ended:
            return
        session.remote_credentials = credentials
        session.remote_lite = lite
        session.remote_renominates = renomination and not lite
        if lite:
            session.check_list.peer_checked_at = now
        if lite != self._config.lite and session.controlling is not lite:
            session.switch_role(controlling=lite)  # RFC 8445 section 6.1.1: the full one controls
        self.pacer.agree(ta)
        session.started_at = session.last_sign_at = now
        session.exact_start = start_at is not None
        if start_at is not None and start_at > now:
            session.held_until = min(start_at, now + LONGEST_HOLD)
        session.set_state(IceState.CHECKING, "the peer's parameters are known")
        self._current.requests.process_early(now)
        self._advance(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """A candidate the peer signalled. Unusable and surplus ones are counted and dropped."""
        if not self._session.ended:
            self._current.trickle.add(candidate, now)
            self._advance(now)

    def end_of_remote_candidates(self, now: float) -> None:
        """The peer has said that no more candidates come (RFC 8838 section 14)."""
        if not self._session.ended:
            self._session.remote_ended = True
            self._session.last_sign_at = now
            self._advance(now)

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        """A datagram came to the base ``local``. Whatever it holds, nothing is raised."""
        steady, counters = self._steady, self._counters
        if steady is not None and steady.receive(data, source, local, now):
            if not steady.alone:
                self._advance(now)
            return
        if self._lineage.over:
            counters["after_end"] += 1
            return
        if not resembles_stun(data):
            if self.accepts_data(source, local):
                counters["data_received"] += 1
                self.data_received(source, local, now)
                self._changes += 1
                self._events.append(DataReceived(data, local, source))
            else:
                counters["data_from_strangers"] += 1
                self.data_from_stranger(source, local, now)
            return
        self._steady = None
        if self._expired(now):
            return
        try:
            message = parse_message(data)
        except StunParseError:
            counters["stun_malformed"] += 1
            return
        if message.method != Method.BINDING:
            counters["stun_unexpected"] += 1
        elif message.message_class is MessageClass.INDICATION:
            counters["indications"] += 1  # a keepalive, RFC 8445 section 11
        elif self._queries.owns(message.transaction_id):
            outcome = self._queries.receive(message.transaction_id, data, source, local, now)
            self._gathering.query_ended(outcome, now)
        elif not any(g.receive(message, source, local, now) for g in self._addressed(message)):
            counters["responses_unmatched"] += 1
        self._advance(now)
        if message.message_class is MessageClass.REQUEST:
            self._learn(message, data, source, local)

    def _learn(self, message: Message, data: bytes, source: Address, local: Address) -> None:
        if self._steady is not None:
            self._steady.learn(message, data, source, local)

    def _addressed(self, message: Message) -> list[Generation]:
        """The generation that a request is for, by its ufrag; all of them for a response."""
        previous = self._lineage.previous
        if message.message_class is not MessageClass.REQUEST or previous is None:
            return self._generations
        username = message.get(USERNAME) or ""
        ours = username.partition(":")[0]
        old = ours == previous.session.credentials.ufrag
        return [previous if old else self._current]

    def accepts_data(self, source: Address, local: Address) -> bool:
        """Whether application data from ``source`` at our base ``local`` is the peer's: it has
        authenticated itself on that path, and the session is alive."""
        if self._lineage.over:
            return False
        key = (local, source)
        previous = self._lineage.previous
        return (
            key in self._session.validated
            or (previous is not None and key in previous.session.validated)
            or key in self._session.proven
        )

    def data_sent(self, now: float) -> None:
        """Application data has left. Without this the silence of a path in use is noticed later.
        Whoever sends much tells it once for many."""
        self._lineage.carrier.data_sent_at = now

    def data_received(self, source: Address, local: Address, now: float) -> None:
        """Application data came that ``accepts_data``; ``receive_datagram`` tells it by itself.
        Whoever receives much tells it once for many."""
        for generation in self._generations:
            if generation.note_data(source, local, now):
                return

    def data_from_stranger(self, source: Address, local: Address, now: float) -> None:
        """Data came that ``accepts_data`` refuses. If it can be the peer's after its NAT gave it a
        new port, the port is checked; ``receive_datagram`` tells it by itself."""
        self._steady = None
        if not self._lineage.over and self._current.requests.follow(source, local, now):
            self._advance(now)

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error for a datagram we sent (RFC 8445 section 7.2.5.2.2)."""
        for failure in self._queries.receive_icmp_error(local, destination, now):
            self._gathering.query_ended(failure, now)
        self._current.checks.hard_error(local, destination)
        self._advance(now)

    def handle_timer(self, now: float) -> None:
        """The time told by ``get_timer`` has come."""
        steady = self._steady
        if steady is not None and steady.handle_timer(now):
            if steady.over:
                self._advance(now)
            return
        self._steady = None
        for failure in self._queries.handle_timer(now):
            self._gathering.query_ended(failure, now)
        if self._expired(now):
            return
        for generation in self._generations:
            if generation.retired_at is None:
                generation.handle_timer(now)
        self._advance(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """What must leave now, in order."""
        sent: list[Transmit]
        if self._steady is not None:
            session = self._session
            sent, session.outbox = session.outbox, []
            return sent
        sent = []
        for generation in self._generations:
            sent += generation.session.outbox
            generation.session.outbox = []
        return sent + self._queries.datagrams_to_send()

    def next_event(self) -> Event | None:
        return self._events.pop(0) if self._events else None

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``; None when nothing is pending."""
        if self._steady is not None:
            return self._steady.get_timer()
        if self._lineage.over:
            return None
        times = [t for generation in self._generations for t in generation.timers()]
        if self._session.held_until is not None:
            times.append(self._session.held_until)
        more = (
            self._queries.get_timer(),
            self._advice.get_timer(self._lineage.restart_blocked_until),
            self._lineage.get_timer(),
            self._slots.get_timer(self._current),
        )
        times += [timer for timer in more if timer is not None]
        return min(times, default=None)

    def close(self, now: float) -> None:
        """Fall silent for good."""
        self._lineage.close()
        self._fall_silent()

    # -- inside -------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Everything that may follow from what just happened."""
        self._changes += 1
        self._steady = None
        lineage = self._lineage
        lineage.current.conclusion.consider_failure(now)
        lineage.tend(now)
        if lineage.over:
            self._fall_silent()
            return
        current, session = lineage.current, lineage.session
        if session.held_until is not None and now >= session.held_until:
            session.held_until = None
        current.conclusion.consider_nomination(self.pacer.ta, now)
        relayed = any(pair.relayed for pair in session.selected.values())
        if session.state is IceState.COMPLETED and not self._queries.stopped and not relayed:
            # RFC 8445 section 5.1.1.4: kept alive until ICE is done. While a relay carries data,
            # a direct path is still looked for.
            self._queries.stop()
        self._slots.use(current, now)
        for generation in lineage.all:
            generation.follow_pairs(now)
        self._advise(now)
        self._steady = Steady.of(
            lineage, self._queries, self._advice, self._slots, self._steady_before
        )
        self._steady_before = self._steady or self._steady_before

    def _mapping_varies(self) -> bool:
        """Whether a NAT on either side maps by destination."""
        return self._queries.mapping_varies() or self._session.remote.mapping_varies()

    def _advise(self, now: float) -> None:
        lineage, advice = self._lineage, self._advice
        advice.follow(lineage.carrier, now)
        advice.spoiled(self._session, now, hopeless=self._mapping_varies)
        given = advice.take(now, lineage.restart_blocked_until)
        if given is not None:
            self._events.append(given)

    def _expired(self, now: float) -> bool:
        """Whether consent is over; nothing may leave or count after that."""
        for generation in self._generations:
            generation.expire(now)
        self._lineage.tend(now)
        if self._lineage.over:
            self._fall_silent()
        return self._lineage.over

    def _fall_silent(self) -> None:
        self._changes += 1
        self._steady = self._steady_before = None
        self._lineage.fall_silent()
        self._queries.stop()
