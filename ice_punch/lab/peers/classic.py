"""A full agent as RFC 5245 describes it, written apart from ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import (
    Candidate,
    CandidatePair,
    CandidateType,
    Credentials,
    FailureCause,
    IceState,
    PairState,
    ServerQueryEnded,
)
from ice_punch.ice.candidate import peer_reflexive_priority
from ice_punch.lab.peers.base import BaseMachine, may_pair
from ice_punch.lab.peers.check_list import ClassicCheckList
from ice_punch.lab.peers.messages import Check, write_check
from ice_punch.lab.peers.queries import QueryEnded, ReflexiveQueries
from ice_punch.report import ServerReport
from ice_punch.stun import (
    ERROR_CODE,
    XOR_MAPPED_ADDRESS,
    Message,
    MessageClass,
    Retransmission,
)

DEFAULT_TA: Final = 0.05
"""Seconds, RFC 8839 section 5.5; RFC 5245 section 16.1 has 20 ms for RTP and 500 for the rest."""
STOPPING_TIME: Final = 0.2
"""Seconds after the first valid pair that regular nomination waits for a better one."""
MAX_ROLE_CHANGES: Final = 8

_UNDECIDED: Final = (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)


@dataclass(slots=True)
class SentCheck:
    pair: CandidatePair
    request: bytes
    retransmission: Retransmission
    controlling: bool
    nominates: bool


class ClassicAgent(BaseMachine):
    """The check list by priority, one check every Ta, resent from 500 ms on.

    ``triggered_checks=False``: a check of the peer's on a pair whose own check is out is answered
    and causes nothing, so that the pair waits for its timer. ``aggressive=True``: every check of
    the controlling side nominates (RFC 5245 section 8.1.1.2). There is no patience (RFC 8863) and
    no consent (RFC 7675).
    """

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        triggered_checks: bool = True,
        aggressive: bool = False,
        ta: float = DEFAULT_TA,
    ) -> None:
        super().__init__(controlling=controlling, credentials=credentials, random=random)
        self.triggered_checks = triggered_checks
        self.aggressive = aggressive
        self.ta = ta
        self.check_list = ClassicCheckList()
        self._out: dict[bytes, SentCheck] = {}
        self._next_slot = float("-inf")
        self._queries = ReflexiveQueries(random)
        self._nominating: CandidatePair | None = None
        self._first_valid_at: float | None = None
        self._role_changes = 0

    # -- candidates and pairs -----------------------------------------------------------------

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None:
        made = super().add_host_candidate(address, now, local_preference=local_preference)
        return self._pair_local(made, now)

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
        """A TURN server gave us ``address``. None if that is known already."""
        made = self._add_local(
            CandidateType.RELAY,
            address,
            address,
            local_preference,
            related=mapped or address,
            server=server,
        )
        return self._pair_local(made, now)

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None:
        """Ask the STUN server at ``address`` for the reflexive address of ``base``."""
        self._queries.add(server, address, base)
        self._advance(now)

    @property
    def queries_busy(self) -> bool:
        return self._queries.busy

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        pair = super().data_pair(component)
        if pair is None and component == 1 and not self.over:
            pair = self.check_list.best_valid
        return pair

    def _pair_local(self, local: Candidate | None, now: float) -> Candidate | None:
        if local is not None:
            for remote in self.remote_candidates:
                self._form_pair(local, remote)
            self._advance(now)
        return local

    def _remote_added(self, candidate: Candidate, now: float) -> None:
        for local in self._bases.values():
            self._form_pair(local, candidate)

    def _remote_known(self, learned: Candidate, signalled: Candidate) -> None:
        for pair in self.check_list.pairs:
            if pair.remote == learned:
                pair.remote = signalled
        self.check_list.update_priorities(controlling=self.controlling)
        for local in self._bases.values():
            if self.check_list.find(local.address, signalled.address) is None:
                self._form_pair(local, signalled)

    def _form_pair(self, local: Candidate, remote: Candidate) -> None:
        """RFC 5245 section 5.7. Only bases are paired: all else would be pruned."""
        if self.selected is None and may_pair(local, remote):
            self.check_list.add(CandidatePair(local, remote, controlling=self.controlling))

    # -- time ---------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        assert self.remote is not None
        self.ta = max(self.ta, DEFAULT_TA if self.remote.ta is None else self.remote.ta)
        if self.remote.lite and not self.controlling:
            self._switch_role(controlling=True)

    def _advance(self, now: float) -> None:
        if self.over:
            return
        self._consider_nomination(now)
        if now >= self._next_slot and self._has_work():
            self._next_slot = now + self.ta
            if self._queries.has_work:
                self._queries.start_next(now)
            else:
                pair = self.check_list.next()
                assert pair is not None
                self._check(pair, now)
        self._consider_failure()

    def _has_work(self) -> bool:
        return self._queries.has_work or (self.remote is not None and self.check_list.has_work)

    def get_timer(self) -> float | None:
        if self.over:
            return None
        times = [super().get_timer(), self._queries.get_timer()]
        times += [check.retransmission.get_timer() for check in self._out.values()]
        if self._has_work():
            times.append(self._next_slot)
        if self._may_nominate and self._first_valid_at is not None:
            times.append(self._first_valid_at + STOPPING_TIME)
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        if self.over:
            return
        for ended in self._queries.handle_timer(now):
            self._query_ended(ended, now)
        for transaction_id, check in list(self._out.items()):
            if check.retransmission.handle_timer(now):
                check.pair.requests_sent += 1
                self._send(check.request, check.pair.base, check.pair.remote.address)
            elif check.retransmission.failed:
                del self._out[transaction_id]
                self._failed(check)
        super().handle_timer(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self._queries.datagrams_to_send() + super().datagrams_to_send(now)

    def close(self, now: float) -> None:
        self._queries.stop()
        self._out.clear()
        super().close(now)

    # -- checks -------------------------------------------------------------------------------

    def _check(self, pair: CandidatePair, now: float) -> None:
        assert self.remote is not None
        nominates = self.controlling and (self.aggressive or pair is self._nominating)
        transaction_id = self._random.randbytes(12)
        request = write_check(
            transaction_id,
            self.credentials,
            self.remote.credentials,
            priority=peer_reflexive_priority(pair.local.priority),
            controlling=self.controlling,
            tie_breaker=self._tie_breaker,
            use_candidate=nominates,
        )
        self._cancel(pair)
        schedule = Retransmission(now)
        self._out[transaction_id] = SentCheck(pair, request, schedule, self.controlling, nominates)
        if not pair.valid:
            pair.state = PairState.IN_PROGRESS
        pair.requests_sent += 1
        self._send(request, pair.base, pair.remote.address)

    def _cancel(self, pair: CandidatePair) -> None:
        """RFC 5245 section 7.2.1.4: no resends any more, but an answer still counts."""
        for check in self._out.values():
            if check.pair is pair:
                check.retransmission.cancel()

    def _receive_check(self, check: Check, now: float) -> None:
        """RFC 5245 section 7.2.1.3 to 7.2.1.5."""
        local, remote = self._bases[check.local], self._learn_remote(check)
        nominates = check.use_candidate and not self.controlling
        pair = self.check_list.find(check.local, check.source)
        if pair is None:
            pair = CandidatePair(local, remote, controlling=self.controlling)
            if (self.selected is not None and not nominates) or not self.check_list.add(pair):
                return
        pair.requests_received += 1
        pair.nominate_on_success |= nominates
        if pair.valid:
            if nominates:
                self._nominated(pair, now)
        elif self.selected is not None and not nominates:
            return
        elif pair.state is not PairState.IN_PROGRESS:
            self.check_list.trigger(pair)
        elif self.triggered_checks:
            self._cancel(pair)
            self.check_list.trigger(pair)

    def _conflicts(self, check: Check) -> bool:
        """RFC 5245 section 7.2.1.1."""
        if check.controlling is not self.controlling:
            return False
        wins = self._tie_breaker >= check.tie_breaker
        if wins is self.controlling:
            return True
        self._switch_role(controlling=not self.controlling)
        return False

    def _switch_role(self, *, controlling: bool) -> None:
        self.controlling = controlling
        self._nominating = None
        self.check_list.update_priorities(controlling=controlling)

    # -- answers ------------------------------------------------------------------------------

    def _receive_response(
        self, response: Message, source: Address, local: Address, now: float
    ) -> None:
        ended = self._queries.receive_response(response, source, local, now)
        if ended is not None:
            self._query_ended(ended, now)
        check = self._out.get(response.transaction_id)
        if check is None or self.remote is None:
            return
        if not response.verify(self.remote.credentials.key):
            self.counters["unauthenticated"] += 1
            return
        del self._out[response.transaction_id]
        check.pair.responses_received += 1
        error, mapped = response.get(ERROR_CODE), response.get(XOR_MAPPED_ADDRESS)
        if (local, source) != check.pair.key:
            self._failed(check)
        elif response.message_class is MessageClass.SUCCESS and mapped is not None:
            self._succeeded(check, mapped, now)
        elif error is not None and error.code == 487 and self._role_changes < MAX_ROLE_CHANGES:
            self._role_changes += 1
            if check.controlling is self.controlling:
                self._switch_role(controlling=not check.controlling)
            self.check_list.trigger(check.pair)
        else:
            self._failed(check)

    def _succeeded(self, check: SentCheck, mapped: Address, now: float) -> None:
        """RFC 5245 section 7.1.3.2."""
        pair = check.pair
        if check.retransmission.sends == 1:
            pair.round_trip.answered(now - check.retransmission.first_sent_at)
        pair.mapped = self._mapped_candidate(pair, mapped)
        pair.valid_since = pair.valid_since if pair.valid_since is not None else now
        pair.last_response_at = now
        self._validated.add(pair.key)
        if pair is not self._nominating:
            self._cancel(pair)
            if pair in self.check_list.triggered:
                self.check_list.triggered.remove(pair)
        self.check_list.succeeded(pair)
        if self.state is IceState.CHECKING:
            self._first_valid_at = now
            self._set_state(IceState.CONNECTED, f"a valid pair was found: {pair.remote}")
        if check.nominates if self.controlling else pair.nominate_on_success:
            self._nominated(pair, now)

    def _mapped_candidate(self, pair: CandidatePair, mapped: Address) -> Candidate:
        known = next((c for c in self.local_candidates if c.address == mapped), None)
        learned = known or self._add_local(
            CandidateType.PRFLX,
            mapped,
            pair.base,
            0,
            related=pair.base,
            priority=peer_reflexive_priority(pair.local.priority),
        )
        return learned or pair.local

    def _failed(self, check: SentCheck) -> None:
        """A check came to nothing. The latest one of its pair decides about it."""
        pair = check.pair
        later = any(other.pair is pair for other in self._out.values())
        if check.nominates and pair is self._nominating:
            self._nominating = None  # and it is nominated once more
        if not later and not pair.valid and pair not in self.check_list.triggered:
            pair.state = PairState.FAILED

    def _query_ended(self, ended: QueryEnded, now: float) -> None:
        query = ended.query
        base = self._bases.get(query.base)
        if ended.mapped is not None and base is not None:
            preference = (base.priority >> 8) & 0xFFFF
            self._add_local(
                CandidateType.SRFLX,
                ended.mapped,
                query.base,
                preference,
                related=query.base,
                server=query.server,
            )
        report = ServerReport(query.server, ended.outcome)
        self._events.append(ServerQueryEnded(query.base, report))

    # -- the end ------------------------------------------------------------------------------

    @property
    def _may_nominate(self) -> bool:
        idle = self.selected is None and self._nominating is None
        return idle and self.controlling and not self.aggressive

    def _consider_nomination(self, now: float) -> None:
        """Regular nomination, RFC 5245 section 8.1.1.1."""
        best, since = self.check_list.best_valid, self._first_valid_at
        if not self._may_nominate or best is None or since is None:
            return
        better = (p for p in self.check_list.pairs if p.priority > best.priority)
        if now >= since + STOPPING_TIME or not any(p.state in _UNDECIDED for p in better):
            self._nominating = best
            self.check_list.trigger(best, ahead=True)

    def _nominated(self, pair: CandidatePair, now: float) -> None:
        """RFC 5245 section 8.1.2."""
        if self._select(pair, now):
            self._queries.stop()
            for other in self.check_list.conclude(pair):
                self._cancel(other)

    def _consider_failure(self) -> None:
        """RFC 5245 section 7.1.3.3."""
        if self.state is not IceState.CHECKING or not self._remote_ended:
            return
        if any(pair.state is not PairState.FAILED for pair in self.check_list.pairs):
            return
        heard = any(pair.requests_received for pair in self.check_list.pairs)
        cause = FailureCause.NO_ROUTE if heard else FailureCause.PEER_SILENT
        self._set_state(
            IceState.FAILED, f"all {len(self.check_list.pairs)} candidate pairs failed", cause
        )
