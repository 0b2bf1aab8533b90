"""The ICE agent, RFC 8445, as a pure state machine without socket, clock or own randomness."""

from __future__ import annotations

from collections import Counter

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import facts
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.check_list import CheckList
from ice_punch.ice.checks import Checks
from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.events import (
    DataReceived,
    Event,
    IceState,
    LocalCandidateFound,
    ServerQueryEnded,
)
from ice_punch.ice.knocking import Knocking
from ice_punch.ice.liveness import Liveness
from ice_punch.ice.pacer import Pacer
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.policy import NominationPolicy, PatientPolicy
from ice_punch.ice.requests import Requests
from ice_punch.ice.server_queries import QueryAnswered, QueryFailed, ServerQueries, ServerQuery
from ice_punch.ice.session import AgentConfig, Session
from ice_punch.ice.trickle import Trickle
from ice_punch.report import Report, ServerReport
from ice_punch.stun import (
    MAGIC_COOKIE,
    FailureReason,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")


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
        config = config or AgentConfig()
        self.pacer = pacer or Pacer(config.ta)
        self._session = Session(
            controlling=controlling, credentials=credentials, random=random, config=config
        )
        self._queries = ServerQueries(random, config.software)
        self._server_reports: list[ServerReport] = []
        self._conclusion = Conclusion(
            self._session,
            policy or PatientPolicy(),
            on_concluded=lambda pairs: self._checks.cancel(pairs),
            mapping_varies=self._queries.mapping_varies,
        )
        self._checks = Checks(self._session, self._conclusion)
        self._requests = Requests(self._session, self._conclusion)
        self._knocking = Knocking(self._session, self._checks, self._queries.mapping_varies)
        self._liveness = Liveness(self._session, self._checks.forget)
        self._trickle = Trickle(self._session, self._checks.forget)
        self._query_is_next = True
        self._knock_is_next = True

    # -- what there is to see -----------------------------------------------------------------

    @property
    def state(self) -> IceState:
        return self._session.state

    @property
    def controlling(self) -> bool:
        """The role, RFC 8445 section 6.1.1; a role conflict may change it."""
        return self._session.controlling

    @property
    def tie_breaker(self) -> int:
        return self._session.tie_breaker

    @property
    def config(self) -> AgentConfig:
        return self._session.config

    @property
    def credentials(self) -> Credentials:
        return self._session.credentials

    @property
    def remote_credentials(self) -> Credentials | None:
        return self._session.remote_credentials

    @property
    def check_list(self) -> CheckList:
        return self._session.check_list

    @property
    def valid_list(self) -> list[CandidatePair]:
        return self._session.check_list.valid_list

    @property
    def counters(self) -> Counter[str]:
        """What was received and dropped, by reason."""
        return self._session.counters

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

    def selected_pair(self, component: int = 1) -> CandidatePair | None:
        """The nominated pair (RFC 8445 section 8.1.1)."""
        return self._session.selected.get(component)

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        """The pair data is sent on: the selected one, or the best valid one before nomination
        (RFC 8445 section 12.1). None without consent."""
        return self._session.data_pair(component)

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
        """A TURN server gave us ``address`` and saw us at ``mapped``. None if redundant."""
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
        address of ``base``. Raises ValueError past 64 queries."""
        if self._session.ended:
            return
        self._queries.add(server, address, base, component)
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
        session.pair_local(candidate)
        self._advance(now)
        return candidate

    def set_remote_parameters(
        self, credentials: Credentials, now: float, *, lite: bool = False, ta: float | None = None
    ) -> None:
        """The peer's ufrag and password, whether it is lite, and the Ta it announced in seconds
        (None: 50 ms, RFC 8839 section 5.5). Checks begin.

        Raises ValueError when they were set before to something else: that is a restart.
        """
        session = self._session
        if session.remote_credentials is not None and session.remote_credentials != credentials:
            raise ValueError("the peer's ufrag and pwd change only with an ICE restart")
        if session.remote_credentials is not None or session.ended:
            return
        session.remote_credentials = credentials
        session.remote_lite = lite
        if lite:
            session.check_list.peer_checked_at = now
        if lite and not session.controlling:
            session.switch_role(controlling=True)  # RFC 8445 section 6.1.1
        self.pacer.agree(ta)
        session.started_at = session.last_sign_at = now
        session.set_state(IceState.CHECKING, "the peer's parameters are known")
        self._requests.process_early(now)
        self._advance(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """A candidate the peer signalled. Unusable and surplus ones are counted and dropped."""
        if not self._session.ended:
            self._trickle.add(candidate, now)
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
        session = self._session
        if session.ended:
            session.counters["after_end"] += 1
            return
        if not resembles_stun(data):
            if self.accepts_data(source, local):
                session.counters["data_received"] += 1
                session.events.append(DataReceived(data, local, source))
            else:
                session.counters["data_from_strangers"] += 1
            return
        if self._expired(now):
            return
        try:
            message = parse_message(data)
        except StunParseError:
            session.counters["stun_malformed"] += 1
            return
        if message.method != Method.BINDING:
            session.counters["stun_unexpected"] += 1
        elif message.message_class is MessageClass.REQUEST:
            self._requests.receive(message, source, local, now)
        elif message.message_class is MessageClass.INDICATION:
            session.counters["indications"] += 1  # a keepalive, RFC 8445 section 11
        elif self._queries.owns(message.transaction_id):
            outcome = self._queries.receive(message.transaction_id, data, source, local, now)
            self._query_ended(outcome, now)
        elif self._checks.owns(message.transaction_id):
            self._checks.receive_response(message, source, local, now)
        elif not self._liveness.receive_response(message, source, local, now):
            session.counters["responses_unmatched"] += 1
        self._advance(now)

    def accepts_data(self, source: Address, local: Address) -> bool:
        """Whether application data from ``source`` at our base ``local`` is the peer's: it has
        authenticated itself on that path, and the session is alive."""
        return (local, source) in self._session.validated and not self._session.ended

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error for a datagram we sent (RFC 8445 section 7.2.5.2.2)."""
        for failure in self._queries.receive_icmp_error(local, destination, now):
            self._query_ended(failure, now)
        self._checks.hard_error(local, destination)
        self._advance(now)

    def handle_timer(self, now: float) -> None:
        """The time told by ``get_timer`` has come."""
        for failure in self._queries.handle_timer(now):
            self._query_ended(failure, now)
        if self._expired(now):
            return
        self._checks.handle_timer(now)
        self._liveness.handle_timer(now)
        self._advance(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """What must leave now, in order."""
        session = self._session
        session.outbox.extend(self._queries.datagrams_to_send())
        sent, session.outbox = session.outbox, []
        return sent

    def next_event(self) -> Event | None:
        events = self._session.events
        return events.popleft() if events else None

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``; None when nothing is pending."""
        if self._session.ended:
            return None
        times = self._checks.timers() + self._liveness.timers()
        times += self._conclusion.timers()
        queries = self._queries.get_timer()
        if queries is not None:
            times.append(queries)
        if self._has_work():
            times.append(self.pacer.next_at)
        return min(times, default=None)

    def close(self, now: float) -> None:
        """Fall silent for good."""
        self._session.set_state(IceState.CLOSED, "closed by this side")
        self._fall_silent()

    # -- inside -------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Everything that may follow from what just happened."""
        session = self._session
        self._conclusion.consider_failure(now)
        if session.ended:
            self._fall_silent()
            return
        self._conclusion.consider_nomination(self.pacer.ta, now)
        if session.state is IceState.COMPLETED and not self._queries.stopped:
            self._queries.stop()  # RFC 8445 section 5.1.1.4: kept alive until ICE is done
        self._knocking.follow_pairs(now)
        while self._has_work() and self.pacer.take(now):
            # RFC 8445 section 6.1.4.2: triggered checks first. Queries to servers and ordinary
            # checks take turns, so that neither waits for all of the other. Knocking comes
            # last, but for checks from relays.
            query = self._queries.has_work() and self._query_is_next
            if self._knocks_first():
                self._knocking.knock(self.pacer.ta, now)
                self._knock_is_next = False
            elif self._checks.may_send() and self._checks.perform_next(
                self.pacer.ta, now, triggered_only=query
            ):
                self._query_is_next = self._knock_is_next = True
            elif self._queries.has_work():
                self._queries.start_next(now, self.pacer.ta)
                self._query_is_next = False
            elif self._knocking.has_work():
                self._knocking.knock(self.pacer.ta, now)
            self._knocking.follow_pairs(now)
        self._liveness.follow_pairs(now)

    def _knocks_first(self) -> bool:
        """Checks from relays leave every second slot to knocking: they are the last resort."""
        return (
            self._knock_is_next
            and self._knocking.has_work()
            and not self._queries.has_work()
            and self._checks.last_resort_is_next()
        )

    def _has_work(self) -> bool:
        return self._queries.has_work() or self._checks.may_send() or self._knocking.has_work()

    def _expired(self, now: float) -> bool:
        """Whether consent is over; nothing may leave or count after that."""
        self._liveness.expire(now)
        if self._session.ended:
            self._fall_silent()
        return self._session.ended

    def _fall_silent(self) -> None:
        self._checks.stop()
        self._queries.stop()
        self._liveness.stop()
        self._session.outbox.clear()

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
