"""Is the peer still there and still willing? RFC 7675 on the pairs that carry data, or may."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.datagram import Address
from ice_punch.ice.binding import check_request
from ice_punch.ice.candidate import peer_reflexive_priority
from ice_punch.ice.consent import Consent
from ice_punch.ice.events import FailureCause, IceState
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.session import LIVE, Session
from ice_punch.stun import ERROR_CODE, Integrity, Message, MessageClass


class Liveness:
    """Consent for the selected pairs and, of a component that has none yet, for all valid ones: any
    of them may be nominated, however late."""

    def __init__(self, session: Session, on_expired: Callable[[CandidatePair], None]) -> None:
        self._session = session
        self._on_expired = on_expired
        self._consent: dict[CandidatePair, Consent] = {}

    def follow_pairs(self, now: float) -> None:
        """Begin and end consent as pairs become valid and selected."""
        session = self._session
        kept = {
            pair: None
            for pair in (*session.selected.values(), *session.check_list.valid_list)
            if session.selected.get(pair.component, pair) is pair
        }
        if kept.keys() != self._consent.keys():
            self._consent = {p: self._consent.get(p) or self._begin(now) for p in kept}
        for component in session.config.components:
            pair = session.best_pair(component)
            if pair is not None and pair.rtt is None and not self._consent[pair].checks_sent:
                self._consent[pair].hurry(now)

    def _begin(self, now: float) -> Consent:
        config = self._session.config
        return Consent(
            now,
            self._session.random,
            interval=config.consent_interval,
            timeout=config.consent_timeout,
        )

    # -- time ---------------------------------------------------------------------------------

    def timers(self) -> list[float]:
        times: list[float] = []
        for pair, consent in self._consent.items():
            times += [consent.next_check_at, self._expires_at(pair)]
        if self._session.state in (IceState.CONNECTED, IceState.COMPLETED):
            times += [self._disconnected_at(pair) for pair in self._data_pairs()]
        return times

    def _data_pairs(self) -> list[CandidatePair]:
        pairs = map(self._session.best_pair, self._session.config.components)
        return [pair for pair in pairs if pair is not None]

    def _last_response_at(self, pair: CandidatePair) -> float:
        assert pair.last_response_at is not None
        return pair.last_response_at

    def _expires_at(self, pair: CandidatePair) -> float:
        return self._last_response_at(pair) + self._session.config.consent_timeout

    def _disconnected_at(self, pair: CandidatePair) -> float:
        return self._last_response_at(pair) + self._session.config.disconnected_after

    def expire(self, now: float) -> None:
        """RFC 7675 section 5.1: what comes after the expiry does not bring consent back."""
        session = self._session
        for pair in [p for p in self._consent if now >= self._expires_at(p)]:
            self._consent.pop(pair)
            pair.consent_lost = True
            pair.invalidate()
            session.counters["consents_expired"] += 1
            self._on_expired(pair)
            selected = session.selected.get(pair.component) is pair
            if selected or session.best_pair(pair.component) is None:
                self._lost(f"no answer for {session.config.consent_timeout:.0f} s")
                return
            session.lost_pair(pair, "its consent expired")

    def handle_timer(self, now: float) -> None:
        session = self._session
        for pair, consent in self._consent.items():
            if now >= consent.next_check_at:
                self._check(pair, consent, now)
        for pair in self._data_pairs():
            if session.state in LIVE and now >= self._disconnected_at(pair):
                silent = now - self._last_response_at(pair)
                session.set_state(IceState.DISCONNECTED, f"no answer for {silent:.0f} s")

    def _check(self, pair: CandidatePair, consent: Consent, now: float) -> None:
        session = self._session
        remote = session.remote_credentials
        assert remote is not None
        transaction_id = session.random.randbytes(12)
        request = check_request(
            transaction_id,
            local_ufrag=session.credentials.ufrag,
            remote=remote,
            priority=peer_reflexive_priority(pair.local.priority),
            controlling=session.controlling,
            tie_breaker=session.tie_breaker,
            nominate=False,
        )
        consent.check_sent(transaction_id, now)
        pair.requests_sent += 1
        session.send(request, pair.base, pair.remote.address)

    # -- answers ------------------------------------------------------------------------------

    def receive_response(
        self, response: Message, source: Address, local: Address, now: float
    ) -> bool:
        """False if the response answers none of our consent checks."""
        session = self._session
        for pair, consent in self._consent.items():
            if not consent.owns(response.transaction_id):
                continue
            remote = session.remote_credentials
            assert remote is not None
            error = response.get(ERROR_CODE)
            if not response.verify(remote.key, Integrity.SHA1):
                session.counters["responses_unauthenticated"] += 1
            elif source != pair.remote.address or local != pair.base:
                session.counters["responses_from_elsewhere"] += 1  # RFC 7675 section 5.1
            elif response.message_class is MessageClass.SUCCESS and not response.unknown_required:
                pair.responses_received += 1
                pair.rtt = consent.answered(response.transaction_id, now)
                session.answered(pair, now)
            elif error is not None and error.code == 403:
                self._lost("the peer revoked it")  # RFC 7675 section 5.2
            else:
                session.counters["error_responses"] += 1
            return True
        return False

    def _lost(self, why: str) -> None:
        # RFC 7675 section 5.1: outstanding transactions are dropped, nothing more is sent.
        self._consent.clear()
        self._session.set_state(IceState.FAILED, f"consent lost: {why}", FailureCause.CONSENT_LOST)

    def stop(self) -> None:
        self._consent.clear()
