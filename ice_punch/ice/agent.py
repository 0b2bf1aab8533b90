"""The ICE agent, RFC 8445, as a pure state machine without socket, clock or own randomness."""

from __future__ import annotations

from collections import Counter, deque

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import facts
from ice_punch.ice.advice import Advice
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.candidates import LocalCandidates
from ice_punch.ice.check_list import CheckList
from ice_punch.ice.events import (
    DataReceived,
    Event,
    FailureCause,
    IceState,
    LocalCandidateFound,
    ServerQueryEnded,
    StateChanged,
)
from ice_punch.ice.generation import Generation
from ice_punch.ice.pacer import Pacer
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.policy import NominationPolicy, PatientPolicy
from ice_punch.ice.server_queries import QueryAnswered, QueryFailed, ServerQueries, ServerQuery
from ice_punch.ice.session import ENDED, AgentConfig, Session
from ice_punch.report import Report, ServerReport
from ice_punch.stun import (
    MAGIC_COOKIE,
    USERNAME,
    FailureReason,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")


LONGEST_HOLD = 5.0
"""Seconds: no instant that is agreed on is later."""


def resembles_stun(data: bytes | memoryview) -> bool:
    """Whether a datagram would be taken for STUN on this path, well-formed or not (RFC 7983
    section 7: first byte 0 to 3; RFC 8489 section 5: the magic cookie)."""
    return len(data) >= 8 and data[0] < 4 and bytes(data[4:8]) == _COOKIE


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
        self._random = random
        self._policy = policy or PatientPolicy()
        self._counters: Counter[str] = Counter()
        self._events: deque[Event] = deque()
        self._queries = ServerQueries(random, self._config.software)
        self._server_reports: list[ServerReport] = []
        self._previous: Generation | None = None
        """What carried data when the current generation began, and does until it can."""
        self._current = self._begin(
            controlling=controlling, credentials=credentials, tie_breaker=random.getrandbits(64)
        )
        self._restarted_at: float | None = None
        self._shown = IceState.NEW
        self._advice = Advice()
        self._query_is_next = True
        self._knock_is_next = True

    def _begin(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        tie_breaker: int,
        local: LocalCandidates | None = None,
    ) -> Generation:
        session = Session(
            controlling=controlling,
            credentials=credentials,
            tie_breaker=tie_breaker,
            random=self._random,
            config=self._config,
            counters=self._counters,
            events=self._events,
            on_state=self._on_state,
            local=local,
        )
        return Generation(session, self._policy, self._queries.mapping_varies)

    @property
    def _session(self) -> Session:
        return self._current.session

    # -- what there is to see -----------------------------------------------------------------

    @property
    def state(self) -> IceState:
        """Of the generation that carries data; during an ICE restart that is the old one as long
        as it can."""
        state = self._carrier.state
        waiting = state is IceState.NEW and self._restarted_at is not None
        return IceState.DISCONNECTED if waiting else state

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
        return self._restarted_at is not None and self._session.remote_credentials is None

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
        return self._carrier.selected.get(component)

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        """The pair data is sent on: the selected one, or the best valid one before nomination
        (RFC 8445 section 12.1). None without consent."""
        return self._carrier.data_pair(component)

    @property
    def _carrier(self) -> Session:
        """The session that data takes: during a restart the old one until the new one has selected
        its pairs (RFC 8445 section 9), or can do what the old one can not."""
        current, previous = self._current, self._previous
        if previous is None or not previous.carries:
            return current.session
        if previous.session.state is IceState.DISCONNECTED and current.carries:
            return current.session
        return previous.session

    def report(self) -> Report:
        """Everything known about the session, for people."""
        session = self._session
        local = facts.local_side(session, self._queries)
        remote = facts.remote_side(session)
        notes = []
        if local.mapping_varies:
            notes.append("this side's NAT gives a new port for every destination")
        if remote.mapping_varies:
            notes.append("the peer's NAT gives a new port for every destination")
        servers = (*self._server_reports, *self._queries.unanswered())
        return Report(
            local_candidates=tuple(map(str, session.local.all)),
            remote_candidates=tuple(map(str, session.remote.all)),
            pairs=tuple(pair.report() for pair in session.check_list),
            servers=servers,
            notes=tuple(notes),
            local=local,
            remote=remote,
            peer_heard=session.peer_heard,
            peer_told_all=session.remote_ended,
            same_nat=facts.same_nat(session),
            udp_works=facts.udp_works(session, self._queries),
            direct_only=session.config.direct_only,
        )

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
        if self._over or self._config.lite:
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
        if self._over:
            return
        outcome = self._queries.add_answered(server, server_address, base, component, mapped, now)
        self._query_ended(outcome, now)
        self._advance(now)

    def _add_local(
        self,
        type_: CandidateType,
        address: Address,
        now: float,
        *,
        component: int,
        local_preference: int,
        base: Address | None = None,
        related: Address | None = None,
        server: str | None = None,
        server_ip: str | None = None,
    ) -> Candidate | None:
        session = self._session
        candidate = session.local.add(
            type_,
            address,
            base=base or address,
            component=component,
            local_preference=local_preference,
            related=related,
            server=server,
            server_ip=server_ip,
        )
        if candidate is None:
            return None
        session.events.append(LocalCandidateFound(candidate))
        self._current.paths.prune(session.pair_local(candidate))
        if type_ is CandidateType.HOST and session.concluded:
            self._advice.news("there is a new interface", now)
        self._advance(now)
        return candidate

    def remove_local_candidate(self, address: Address, now: float) -> None:
        """The interface of the base at ``address`` is gone, and with it every candidate and pair of
        this base. Another pair takes over where there is one, else a restart is advised."""
        if self._over:
            return
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
        session = self._session
        if session.state is IceState.CLOSED:
            raise ValueError("the session is closed")
        if session.remote_credentials is None:
            why = "an ICE restart is under way" if self.restarting else "nothing has begun yet"
            raise ValueError(f"no ICE restart: {why}")
        old = session.credentials
        if credentials.ufrag == old.ufrag or credentials.pwd == old.pwd:
            raise ValueError("an ICE restart changes both ufrag and pwd")
        previous = self._previous
        if previous is None or not previous.carries:
            if previous is not None:
                previous.fall_silent()
            self._previous = previous = self._current
            if not previous.carries:
                previous.retire(now)
        else:
            self._current.fall_silent()
        self._current = self._begin(
            controlling=session.controlling,
            credentials=credentials,
            tie_breaker=session.tie_breaker,
            local=session.local.carried_over(only_relays=fresh_sockets),
        )
        self._restarted_at = now
        self._advice.restarted(now)
        if fresh_sockets:
            self._counters["fresh_starts"] += 1
            self._queries.stop()
            self._queries.stopped = False
        else:
            self._queries.ask_again()
        self._counters["restarts"] += 1
        self._on_state("an ICE restart has begun", None)
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
        counters = self._counters
        if self._over:
            counters["after_end"] += 1
            return
        if not resembles_stun(data):
            if self.accepts_data(source, local):
                counters["data_received"] += 1
                self.data_received(source, local, now)
                self._events.append(DataReceived(data, local, source))
            else:
                counters["data_from_strangers"] += 1
                self.data_from_stranger(source, local, now)
            return
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
            self._query_ended(outcome, now)
        elif not any(g.receive(message, source, local, now) for g in self._addressed(message)):
            counters["responses_unmatched"] += 1
        self._advance(now)

    def _addressed(self, message: Message) -> list[Generation]:
        """The generation that a request is for, by its ufrag; all of them for a response."""
        if message.message_class is not MessageClass.REQUEST or self._previous is None:
            return self._generations
        username = message.get(USERNAME) or ""
        ours = username.partition(":")[0]
        old = ours == self._previous.session.credentials.ufrag
        return [self._previous if old else self._current]

    def accepts_data(self, source: Address, local: Address) -> bool:
        """Whether application data from ``source`` at our base ``local`` is the peer's: it has
        authenticated itself on that path, and the session is alive."""
        if self._over:
            return False
        key = (local, source)
        previous = self._previous
        return key in self._session.validated or (
            previous is not None and key in previous.session.validated
        )

    def data_sent(self, now: float) -> None:
        """Application data has left. Without this the silence of a path in use is noticed later.
        Whoever sends much tells it once for many."""
        self._carrier.data_sent_at = now

    def data_received(self, source: Address, local: Address, now: float) -> None:
        """Application data came that ``accepts_data``; ``receive_datagram`` tells it by itself.
        Whoever receives much tells it once for many."""
        for generation in self._generations:
            if generation.note_data(source, local, now):
                if generation.session.nominating:
                    self._advance(now)
                return

    def data_from_stranger(self, source: Address, local: Address, now: float) -> None:
        """Data came that ``accepts_data`` refuses. If it can be the peer's after its NAT gave it a
        new port, the port is checked; ``receive_datagram`` tells it by itself."""
        if not self._over and self._current.requests.follow(source, local, now):
            self._advance(now)

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error for a datagram we sent (RFC 8445 section 7.2.5.2.2)."""
        for failure in self._queries.receive_icmp_error(local, destination, now):
            self._query_ended(failure, now)
        self._current.checks.hard_error(local, destination)
        self._advance(now)

    def handle_timer(self, now: float) -> None:
        """The time told by ``get_timer`` has come."""
        for failure in self._queries.handle_timer(now):
            self._query_ended(failure, now)
        if self._expired(now):
            return
        for generation in self._generations:
            if generation.retired_at is None:
                generation.handle_timer(now)
        self._advance(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """What must leave now, in order."""
        sent: list[Transmit] = []
        for generation in self._generations:
            sent += generation.session.outbox
            generation.session.outbox = []
        return sent + self._queries.datagrams_to_send()

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``; None when nothing is pending."""
        if self._over:
            return None
        times = [t for generation in self._generations for t in generation.timers()]
        if self._session.held_until is not None:
            times.append(self._session.held_until)
        advice = self._advice.get_timer(restarts_already=self._restarts_already)
        for timer in (self._queries.get_timer(), advice, self._restart_over_at):
            if timer is not None:
                times.append(timer)
        if self._has_work():
            times.append(self.pacer.next_at)
        hole = self._current.early_hole.get_timer()
        if hole is not None:
            times.append(max(hole, self.pacer.next_at))
        return min(times, default=None)

    def close(self, now: float) -> None:
        """Fall silent for good."""
        for generation in self._generations:
            generation.session.set_state(IceState.CLOSED, "closed by this side")
        self._fall_silent()

    # -- inside -------------------------------------------------------------------------------

    @property
    def _generations(self) -> list[Generation]:
        """The old one first."""
        return [self._current] if self._previous is None else [self._previous, self._current]

    @property
    def _over(self) -> bool:
        return self._shown in ENDED

    def _on_state(self, reason: str, cause: FailureCause | None) -> None:
        state = self.state
        if state is not self._shown:
            self._shown = state
            self._events.append(StateChanged(state, reason, cause if state in ENDED else None))

    @property
    def _restart_over_at(self) -> float | None:
        """When the peer's answer to a restart is not waited for any more."""
        if self._restarted_at is None or not self.restarting:
            return None
        return self._restarted_at + self._config.restart_timeout

    def _tend_generations(self, now: float) -> None:
        session, previous = self._session, self._previous
        over_at = self._restart_over_at
        if over_at is not None and now >= over_at:
            why = "the peer has not answered an ICE restart"
            session.set_state(IceState.FAILED, why, FailureCause.PEER_SILENT)
        if previous is None:
            return
        if previous.retirement_over(now) or (
            previous.retired_at is None and previous.session.ended
        ):
            previous.fall_silent()
            self._previous = None
        elif previous.retired_at is None and session.state is IceState.COMPLETED:
            previous.retire(now)
        elif previous.carries and session.state is IceState.FAILED:
            # Nothing is worse than before: what carries data still does.
            self._counters["restarts_failed"] += 1
            self._current.fall_silent()
            self._current, self._previous = previous, None

    def _advance(self, now: float) -> None:
        """Everything that may follow from what just happened."""
        self._current.conclusion.consider_failure(now)
        self._tend_generations(now)
        if self._over:
            self._fall_silent()
            return
        current, session = self._current, self._session
        if session.held_until is not None and now >= session.held_until:
            session.held_until = None
        current.conclusion.consider_nomination(self.pacer.ta, now)
        if session.state is IceState.COMPLETED and not self._queries.stopped:
            self._queries.stop()  # RFC 8445 section 5.1.1.4: kept alive until ICE is done
        current.knocking.follow_pairs(now)
        while self._has_work() and self.pacer.take(now):
            # RFC 8445 section 6.1.4.2: triggered checks first. Queries to servers and ordinary
            # checks take turns, so that neither waits for all of the other. Knocking comes
            # last, but for checks from relays.
            query = self._queries.has_work() and self._query_is_next
            if self._knocks_first():
                current.knocking.knock(self.pacer.ta, now)
                self._knock_is_next = False
            elif current.checks.may_send() and current.checks.perform_next(
                self.pacer.ta, now, triggered_only=query
            ):
                self._query_is_next = self._knock_is_next = True
            elif self._queries.has_work():
                self._queries.start_next(now, self.pacer.ta)
                self._query_is_next = False
            elif current.knocking.has_work():
                current.knocking.knock(self.pacer.ta, now)
            current.knocking.follow_pairs(now)
        self._open_early_holes(now)
        for generation in self._generations:
            generation.follow_pairs(now)
        self._advise(now)

    def _open_early_holes(self, now: float) -> None:
        hole = self._current.early_hole
        while (pair := hole.next_pair(now)) is not None and self.pacer.take(now):
            hole.indicate(pair, now)

    def _advise(self, now: float) -> None:
        self._advice.follow(self._carrier, now)
        varies = self._queries.mapping_varies() or self._session.remote.mapping_varies()
        self._advice.spoiled(self._session, now, hopeless=varies)
        advice = self._advice.take(now, restarts_already=self._restarts_already)
        if advice is not None:
            self._events.append(advice)

    @property
    def _restarts_already(self) -> bool:
        return self.restarting or self._session.state is IceState.CHECKING

    def _knocks_first(self) -> bool:
        """Checks from relays leave every second slot to knocking: they are the last resort."""
        return (
            self._knock_is_next
            and self._current.knocking.has_work()
            and not self._queries.has_work()
            and self._current.checks.last_resort_is_next()
        )

    def _has_work(self) -> bool:
        current = self._current
        return self._queries.has_work() or current.checks.may_send() or current.knocking.has_work()

    def _expired(self, now: float) -> bool:
        """Whether consent is over; nothing may leave or count after that."""
        for generation in self._generations:
            generation.expire(now)
        self._tend_generations(now)
        if self._over:
            self._fall_silent()
        return self._over

    def _fall_silent(self) -> None:
        for generation in self._generations:
            generation.fall_silent()
        self._queries.stop()

    def _query_ended(self, outcome: QueryAnswered | QueryFailed | None, now: float) -> None:
        if outcome is None:
            return
        query = outcome.query
        if isinstance(outcome, QueryFailed):
            silent = outcome.reason == FailureReason.TIMEOUT
            self._report_query(query, "silent" if silent else "unreachable", outcome.reason)
            return
        local = self._session.local
        if outcome.before is not None and outcome.before != outcome.mapped:
            local.forget_reflexive(outcome.before, query.base)
        base = local.at_base(query.base)
        self._add_local(
            CandidateType.SRFLX,
            outcome.mapped,
            now,
            component=query.component,
            local_preference=local.preference_of(base) if base else 0,
            base=query.base,
            related=query.base,
            server=query.server,
            server_ip=query.address[0],
        )
        self._report_query(query, "ok", "")

    def _report_query(self, query: ServerQuery, outcome: str, detail: str) -> None:
        if query.reported:
            return
        query.reported, query.ended = True, outcome
        report = query.report(detail)
        self._server_reports.append(report)
        self._session.events.append(ServerQueryEnded(query.base, report))
