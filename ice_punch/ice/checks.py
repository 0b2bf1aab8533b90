"""The client side of connectivity checks: sending them and judging the answers, RFC 8445
section 7.2."""

from __future__ import annotations

from ice_punch.datagram import Address
from ice_punch.ice.candidate import (
    Candidate,
    CandidateType,
    is_mapping_of,
    peer_reflexive_priority,
    untranslated,
)
from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.events import LocalCandidateFound
from ice_punch.ice.pair import CHECKS_REMEMBERED, CandidatePair, Check, PairState
from ice_punch.ice.session import Session
from ice_punch.stun import (
    ERROR_CODE,
    XOR_MAPPED_ADDRESS,
    Integrity,
    Message,
    MessageClass,
    Retransmission,
)

MINIMUM_RTO = 0.5
"""Seconds, RFC 8445 section 14.3."""
REPEATS_REMEMBERED = 64
MAX_ROLE_CONFLICTS = 8
"""A peer that answers 487 more often than this is not resolving anything."""


class Checks:
    """Every check that is out, by transaction id."""

    def __init__(self, session: Session, conclusion: Conclusion) -> None:
        self._session = session
        self._conclusion = conclusion
        self._out: dict[bytes, tuple[CandidatePair, Check]] = {}
        self._repeated: list[bytes] = []
        """Transaction ids of repeated checks, the latest few."""
        self._role_conflicts = 0
        self._learned = 0
        """Peer-reflexive candidates of ours: as many as the peer cares to invent, so bounded."""

    def may_send(self) -> bool:
        session = self._session
        return (
            session.remote_credentials is not None
            and session.held_until is None
            and not session.config.lite
            and not session.ended
            and session.check_list.has_work()
        )

    def last_resort_is_next(self) -> bool:
        """Whether the next check would be an ordinary one from a relay of ours."""
        check_list = self._session.check_list
        if check_list.triggered_check_queue:
            return False
        pair = check_list.next_ordinary()
        return pair is not None and pair.local.type is CandidateType.RELAY

    def perform_next(self, ta: float, now: float, *, triggered_only: bool = False) -> bool:
        """One check, as RFC 8445 section 6.1.4.2 picks it. False if there was none."""
        check_list = self._session.check_list
        pair = check_list.next_triggered()
        if pair is None and not triggered_only:
            pair = check_list.next_ordinary() or check_list.next_deferred()
        if pair is None:
            return False
        self._start(pair, ta, now)
        return True

    def start_exactly(self, ta: float, now: float) -> bool:
        """Where both sides begin at one instant the first check between their NATs does not wait
        for a slot that something else has taken: late it would spoil what the instant is for."""
        session = self._session
        if not session.exact_start or not self.may_send():
            return False
        pair = next((p for p in session.check_list if _between_nats(p)), None)
        if pair is None:
            return False
        session.exact_start = False
        session.check_list.unqueue(pair)
        self._start(pair, ta, now)
        return True

    def _start(self, pair: CandidatePair, ta: float, now: float) -> None:
        session = self._session
        nominate = session.controlling and session.nominating.get(pair.component) is pair
        check = self._make(pair, ta, now, nominate=nominate)
        pair.checks.append(check)
        if len(pair.checks) > CHECKS_REMEMBERED:
            self._out.pop(pair.checks.pop(0).transaction_id, None)
        if not pair.valid:
            pair.state = PairState.IN_PROGRESS
        self._send(pair, check)

    def repeat(self, pair: CandidatePair, ta: float, now: float) -> None:
        """One more check on a pair that is In-Progress: it is sent once, its answer counts like
        any other, and what becomes of the pair without an answer is up to the check before."""
        check = self._make(pair, ta, now, nominate=False)
        check.retransmission.cancel()
        self._repeated.append(check.transaction_id)
        if len(self._repeated) > REPEATS_REMEMBERED:
            self._out.pop(self._repeated.pop(0), None)
        self._session.counters["checks_repeated"] += 1
        self._send(pair, check)

    def _make(self, pair: CandidatePair, ta: float, now: float, *, nominate: bool) -> Check:
        session = self._session
        transaction_id, request = session.check_on(pair, nominate=nominate)
        # RFC 8445 section 14.3. Its N would make the timeout grow with the square of the list.
        active = sum(
            1 for p in session.check_list if p.state in (PairState.WAITING, PairState.IN_PROGRESS)
        )
        config = session.config
        retransmission = Retransmission(
            now, rto=max(config.rto, MINIMUM_RTO, ta * active), rc=config.rc, rm=config.rm
        )
        check = Check(transaction_id, request, retransmission, nominate, session.controlling)
        if len(self._out) >= CHECKS_REMEMBERED * len(session.check_list) + REPEATS_REMEMBERED:
            self._out = {id_: out for id_, out in self._out.items() if self.owns(id_)}
        self._out[transaction_id] = (pair, check)
        return check

    def _send(self, pair: CandidatePair, check: Check) -> None:
        pair.requests_sent += 1
        self._session.send(check.request, pair.base, pair.remote.address)

    # -- time ---------------------------------------------------------------------------------

    def timers(self) -> list[float]:
        return [
            timer
            for _, check in self._out.values()
            if (timer := check.retransmission.get_timer()) is not None
        ]

    def handle_timer(self, now: float) -> None:
        for transaction_id, (pair, check) in list(self._out.items()):
            timer = check.retransmission.get_timer()
            if timer is None or timer > now:
                continue
            if check.retransmission.handle_timer(now):
                self._send(pair, check)
            elif check.retransmission.failed:
                del self._out[transaction_id]
                if check.nominating and self._session.nominating.get(pair.component) is pair:
                    # Its consent lives, or it would be gone by now, and the peer may well have
                    # heard: section 8.1.1 has one pair only, so the same one is nominated again.
                    self._session.check_list.trigger(pair, ahead=True)
                else:
                    self._failed(pair, check, "no answer")

    # -- answers ------------------------------------------------------------------------------

    def owns(self, transaction_id: bytes) -> bool:
        """Whether a check is out by this id, on a pair that is still on the check list."""
        pair = self._out[transaction_id][0] if transaction_id in self._out else None
        return pair is not None and self._session.check_list.find(*pair.key) is pair

    def receive_response(
        self, response: Message, source: Address, local: Address, now: float
    ) -> None:
        session = self._session
        pair, check = self._out[response.transaction_id]
        remote = session.remote_credentials
        assert remote is not None
        if not response.verify(remote.key, Integrity.SHA1):
            # RFC 8489 section 9.1.4: as if it had never come; retransmission goes on.
            session.counters["responses_unauthenticated"] += 1
            return
        session.heard(now)
        elsewhere = source != pair.remote.address or local != pair.base
        if elsewhere:
            session.counters["responses_from_elsewhere"] += 1
            if check.nominating and pair.valid:
                # Somebody on the way sent it on. The peer has heard, and section 8.1.1 has one
                # pair only: the nomination goes on until its answer comes as it should.
                return
        del self._out[response.transaction_id]
        check.answered_at = now
        pair.responses_received += 1
        sends = check.retransmission.sends
        if pair.valid:  # before that a filter may have dropped them
            for _ in range(sends - 1):
                pair.round_trip.missed()
        # Karn: only an unambiguous round trip is a sample.
        pair.round_trip.answered(now - check.retransmission.first_sent_at if sends == 1 else None)
        if elsewhere:
            self._failed(pair, check, "the answer came from elsewhere")  # section 7.2.5.2.1
        elif response.message_class is MessageClass.ERROR:
            self._receive_error(response, pair, check, now)
        else:
            mapped = response.get(XOR_MAPPED_ADDRESS)
            if mapped is None or response.unknown_required:
                # RFC 8489 section 6.3.3: discarded, and the transaction has failed.
                session.counters["responses_unusable"] += 1
                self._failed(pair, check, "the answer was unusable")
            else:
                self._succeeded(pair, check, mapped, now)

    def _receive_error(
        self, response: Message, pair: CandidatePair, check: Check, now: float
    ) -> None:
        session = self._session
        error = response.get(ERROR_CODE)
        if error is None or error.code != 487 or response.unknown_required:
            session.counters["error_responses"] += 1
            self._failed(pair, check, f"error {error.code}" if error else "an error without a code")
            return
        # Section 7.2.5.1. A 487 to a check of a role that was given up meanwhile says nothing new.
        if check.controlling == session.controlling:
            self._role_conflicts += 1
            if self._role_conflicts > MAX_ROLE_CONFLICTS:
                self._failed(pair, check, "role conflict without end")
                return
            session.switch_role(controlling=not check.controlling)
            session.tie_breaker = session.random.getrandbits(64)
        elif check is not pair.current_check:
            return  # a check in the new role is out already
        if not pair.valid:
            pair.state = PairState.WAITING
        session.check_list.trigger(pair)

    def _succeeded(self, pair: CandidatePair, check: Check, mapped: Address, now: float) -> None:
        session = self._session
        session.validated.add(pair.key)
        for other in pair.checks:
            if not other.nominating:  # a nomination goes on until it is answered itself
                other.retransmission.cancel()
        first = not pair.valid
        pair.mapped = self.mapped_candidate(pair, mapped)
        if first:
            pair.valid_since = now
        session.check_list.succeeded(pair)  # section 7.2.5.3.3
        if session.nominating.get(pair.component) is not pair:
            session.check_list.unqueue(pair)
        self._conclusion.paths.answered(pair, now)
        self._conclusion.pair_valid(pair)
        if check.nominating and session.controlling:
            self._conclusion.nominated(pair)  # section 7.2.5.3.4
        elif pair.nominate_on_success and not session.controlling:
            self._conclusion.nominated(pair)  # section 7.3.1.5

    def mapped_candidate(self, pair: CandidatePair, mapped: Address) -> Candidate:
        """Section 7.2.5.3.1: an unknown mapped address is a peer-reflexive candidate of ours."""
        session = self._session
        if ":" not in pair.base[0]:
            mapped = untranslated(mapped)  # the peer is behind NAT64
        known = session.local.at_address(mapped)
        if known is not None:
            return known
        if not is_mapping_of(pair.base, mapped):
            session.counters["mapped_addresses_unusable"] += 1
            return pair.local
        if self._learned >= session.config.max_pairs:
            session.counters["candidates_surplus"] += 1
            return pair.local
        self._learned += 1
        candidate = session.local.add(
            CandidateType.PRFLX,
            mapped,
            base=pair.base,
            component=pair.component,
            local_preference=0,
            related=pair.base,
            priority=peer_reflexive_priority(pair.local.priority),
        )
        assert candidate is not None
        session.events.append(LocalCandidateFound(candidate))
        return candidate

    # -- failure ------------------------------------------------------------------------------

    def _failed(self, pair: CandidatePair, check: Check, why: str) -> None:
        """A check failed. It decides about its pair unless a later one does (section 7.3.1.4)."""
        if check is not pair.current_check or pair.state in (PairState.WAITING, PairState.FAILED):
            return
        if pair.valid and not check.nominating:
            return  # a superfluous check failed; consent decides about a valid pair
        self._fail(pair, why)

    def _fail(self, pair: CandidatePair, why: str) -> None:
        """Sections 7.2.5.2 and 7.2.5.3.4. The pair may live again through a check of the peer."""
        session = self._session
        if session.selected.get(pair.component) is pair:
            return
        pair.invalidate()
        session.check_list.unqueue(pair)
        session.counters["pairs_failed"] += 1
        session.lost_pair(pair, f"the only valid pair failed: {why}")

    def hard_error(self, local: Address, destination: Address) -> None:
        """Section 7.2.5.2.2: ICMP says that the check can not arrive."""
        pair = self._session.check_list.find(local, destination)
        if pair is None or pair.valid or pair.state is not PairState.IN_PROGRESS:
            return
        session = self._session
        session.counters["icmp_errors"] += 1
        if pair.remote.type is CandidateType.SRFLX:
            session.refused |= {pair.remote.address}
        for check in pair.checks:
            check.retransmission.cancel()
        self._fail(pair, "ICMP error")

    def cancel(self, pairs: list[CandidatePair]) -> None:
        """Section 8.1.2: send no more, but still accept what answers."""
        for pair in pairs:
            for check in pair.checks:
                check.retransmission.cancel()

    def stop(self) -> None:
        self._out.clear()

    def forget(self, pair: CandidatePair) -> None:
        """Nothing of what is out for this pair counts any more."""
        self._session.check_list.unqueue(pair)
        for check in pair.checks:
            self._out.pop(check.transaction_id, None)
        pair.checks.clear()


def _between_nats(pair: CandidatePair) -> bool:
    untried = pair.state in (PairState.FROZEN, PairState.WAITING)
    local, remote = pair.local.type, pair.remote.type
    return untried and local is CandidateType.HOST and remote is CandidateType.SRFLX
