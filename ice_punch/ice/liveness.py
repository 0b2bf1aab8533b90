"""Is the peer still there and still willing? RFC 7675 on the pairs that carry data."""

from __future__ import annotations

from ice_punch.ice.binding import check_request
from ice_punch.ice.candidate import peer_reflexive_priority
from ice_punch.ice.consent import Consent
from ice_punch.ice.events import FailureCause, IceState
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.session import Session
from ice_punch.stun import ERROR_CODE, Integrity, Message, MessageClass


class Liveness:
    """Consent for the pair of every component that carries data."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._consent: dict[int, tuple[CandidatePair, Consent]] = {}

    def follow_data(self, now: float) -> None:
        """Consent belongs to the pair that carries data now."""
        session = self._session
        for component in session.config.components:
            pair = session.data_pair(component)
            if pair is None:
                self._consent.pop(component, None)
            elif component not in self._consent or self._consent[component][0] is not pair:
                heard = pair.last_response_at if pair.last_response_at is not None else now
                consent = Consent(
                    heard,
                    now,
                    session.random,
                    interval=session.config.consent_interval,
                    timeout=session.config.consent_timeout,
                )
                if pair.rtt is None:
                    consent.hurry(now)
                self._consent[component] = (pair, consent)

    def timers(self) -> list[float]:
        times: list[float] = []
        for _, consent in self._consent.values():
            times += [consent.next_check_at, consent.expires_at]
            if self._session.state is not IceState.DISCONNECTED:
                times.append(self._disconnected_at(consent))
        return times

    def _disconnected_at(self, consent: Consent) -> float:
        return consent.last_response_at + self._session.config.disconnected_after

    def handle_timer(self, now: float) -> None:
        session = self._session
        for pair, consent in list(self._consent.values()):
            if now >= consent.expires_at:
                self._lost(f"no answer for {consent.timeout:.0f} s")
                return
            if now >= consent.next_check_at:
                self._check(pair, consent, now)
            if now >= self._disconnected_at(consent):
                silent = now - consent.last_response_at
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

    def receive_response(self, response: Message, now: float) -> bool:
        """False if the response answers none of our consent checks."""
        session = self._session
        for pair, consent in self._consent.values():
            if not consent.owns(response.transaction_id):
                continue
            remote = session.remote_credentials
            assert remote is not None
            if not response.verify(remote.key, Integrity.SHA1):
                session.counters["responses_unauthenticated"] += 1
            elif response.message_class is MessageClass.SUCCESS:
                pair.responses_received += 1
                pair.rtt = consent.answered(response.transaction_id, now)
                pair.last_response_at = session.last_sign_at = now
                self._recovered()
            else:
                error = response.get(ERROR_CODE)
                if error is not None and error.code == 403:
                    self._lost("the peer revoked it")  # RFC 7675 section 5.2
                else:
                    session.counters["error_responses"] += 1
            return True
        return False

    def _recovered(self) -> None:
        session = self._session
        if session.state is IceState.DISCONNECTED:
            completed = all(c in session.selected for c in session.config.components)
            state = IceState.COMPLETED if completed else IceState.CONNECTED
            session.set_state(state, "the peer answers again")

    def _lost(self, why: str) -> None:
        # RFC 7675 section 5.1: outstanding transactions are dropped, nothing more is sent.
        self._consent.clear()
        self._session.set_state(IceState.FAILED, f"consent lost: {why}", FailureCause.CONSENT_LOST)

    def stop(self) -> None:
        self._consent.clear()
