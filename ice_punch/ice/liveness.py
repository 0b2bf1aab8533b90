"""Is the peer still there and still willing? RFC 7675 on the pairs that carry data, or may."""

from __future__ import annotations

from ice_punch.datagram import Address
from ice_punch.ice.checks import Checks
from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.consent import Consent
from ice_punch.ice.events import FailureCause, IceState
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.paths import standbys
from ice_punch.ice.pulse import Pulse
from ice_punch.ice.session import LIVE, Session
from ice_punch.stun import ERROR_CODE, XOR_MAPPED_ADDRESS, Integrity, Message, MessageClass

STANDBY_INTERVAL = 2.0
"""How many times rarer consent is asked for where no data is sent (RFC 7675 section 5.1)."""

ANSWER_WITHIN = 7.0
"""Seconds after which an answer is overdue, whatever else is heard: consent is asked for every 4 to
6 s."""
ASK_EVERY = 1.0


class Liveness:
    """Consent for the selected pairs and their standbys and, of a component that has none yet, for
    all valid ones: any of them may be nominated, however late. Checks beyond those of consent ask
    what carries data whether it is still there, once it has been silent for unusually long."""

    def __init__(
        self,
        session: Session,
        conclusion: Conclusion,
        checks: Checks,
    ) -> None:
        self._session = session
        self._conclusion = conclusion
        self._checks = checks
        self._consent: dict[CandidatePair, Consent] = {}
        self._pulses: dict[CandidatePair, Pulse] = {}

    @property
    def consents(self) -> dict[CandidatePair, Consent]:
        """Another dict as soon as consent is asked for on other pairs, but for those that lost
        it."""
        return self._consent

    @property
    def pulses(self) -> dict[CandidatePair, Pulse]:
        """Of the pairs that carry data."""
        return self._pulses

    def follow_pairs(self, now: float) -> None:
        """Begin and end consent as pairs become valid and selected."""
        session = self._session
        kept: dict[CandidatePair, None] = {}
        for component in session.config.components:
            selected = session.selected.get(component)
            if selected is not None:
                kept[selected] = None
                kept.update(dict.fromkeys(standbys(session, component)))
        for pair in session.check_list.valid_list:
            if pair.component not in session.selected:
                kept[pair] = None
        if kept.keys() != self._consent.keys():
            self._consent = {p: self._consent.get(p) or self._begin(p, now) for p in kept}
        for component in session.config.components:
            best = session.best_pair(component)
            if best is not None and best.rtt is None and best in self._consent:
                consent = self._consent[best]
                if not consent.checks_sent:
                    consent.hurry(now)
        carrying = self._carrying()
        if carrying != [*self._pulses]:
            self._pulses = {p: self._pulses.get(p) or Pulse(p, now) for p in carrying}

    def _begin(self, pair: CandidatePair, now: float) -> Consent:
        config = self._session.config
        return Consent(
            now,
            self._session.random,
            interval=config.consent_interval,
            timeout=config.consent_timeout,
        )

    # -- time ---------------------------------------------------------------------------------

    def timers(self) -> list[float]:
        session = self._session
        times: list[float] = []
        for pair, consent in self._consent.items():
            times += [consent.next_check_at, self._expires_at(pair)]
        for pair, pulse in self._pulses.items() if session.state in LIVE else ():
            times.append(pulse.next_try_at(session.data_sent_at, session.data_received_at))
            if pair.silent_since is None:
                times.append(self._unanswered_at(pair))
                if pair in self._consent:
                    times.append(self._ask_again_at(pair, self._consent[pair]))
        if session.stranded_at is not None:
            times.append(session.stranded_at + session.config.consent_timeout)
        return times

    def _carrying(self) -> list[CandidatePair]:
        """The selected pairs, or the best ones before nomination."""
        session = self._session
        pairs = (
            session.selected.get(component) or session.best_pair(component)
            for component in session.config.components
        )
        return [pair for pair in pairs if pair is not None]

    def _last_response_at(self, pair: CandidatePair) -> float:
        assert pair.last_response_at is not None
        return pair.last_response_at

    def _expires_at(self, pair: CandidatePair) -> float:
        return self._last_response_at(pair) + self._session.config.consent_timeout

    def _unanswered_at(self, pair: CandidatePair) -> float:
        return self._last_response_at(pair) + self._session.config.unanswered_for

    def _ask_again_at(self, pair: CandidatePair, consent: Consent) -> float:
        """The peer is heard, and has not answered for longer than consent checks are apart."""
        return max(self._last_response_at(pair) + ANSWER_WITHIN, consent.last_sent_at + ASK_EVERY)

    def expire(self, now: float) -> None:
        """RFC 7675 section 5.1: what comes after the expiry does not bring consent back."""
        session = self._session
        for pair in [p for p in self._consent if now >= self._expires_at(p)]:
            self._consent.pop(pair)
            session.counters["consents_expired"] += 1
            if not self._consent_lost(
                pair, f"no answer for {session.config.consent_timeout:.0f} s"
            ):
                return
        if session.stranded_at is not None:
            if session.state is not IceState.DISCONNECTED:
                session.stranded_at = None
            elif now >= session.stranded_at + session.config.consent_timeout:
                self._lost("the way to the peer is gone")

    def _consent_lost(self, pair: CandidatePair, why: str) -> bool:
        """The pair is not used again (RFC 7675 section 5.1). False if that ends the session."""
        session = self._session
        pair.consent_lost = True
        selected = session.selected.get(pair.component) is pair
        pair.invalidate()
        self._checks.forget(pair)
        detour = session.detours.get(pair.component)
        if (selected and detour is None) or (
            not selected and session.best_pair(pair.component) is None
        ):
            self._lost(why)
            return False
        session.lost_pair(pair, "its consent expired")
        return True

    def handle_timer(self, now: float) -> None:
        session = self._session
        for pair, consent in self._consent.items():
            if now >= consent.next_check_at:
                self._check(pair, consent, now)
                standby = pair not in self._pulses and pair.component in session.selected
                consent.schedule(now, rarer=STANDBY_INTERVAL if standby else 1.0)
        self.feel(now)

    def feel(self, now: float) -> None:
        """Look whether what carries data has been silent for too long, and ask there."""
        session = self._session
        for pair, pulse in list(self._pulses.items()):
            if session.state in LIVE and pair in self._consent:
                self._feel(pair, pulse, now)

    def _feel(self, pair: CandidatePair, pulse: Pulse, now: float) -> None:
        session = self._session
        if pair.silent_since is None and now >= self._unanswered_at(pair):
            self._fell_silent(pair, now)
        consent = self._consent[pair]
        if pair.silent_since is None and now >= self._ask_again_at(pair, consent):
            self._check(pair, consent, now)
        if now < pulse.next_try_at(session.data_sent_at, session.data_received_at):
            return
        if pair.silent_since is None and pulse.silent(now):
            self._fell_silent(pair, now)
        session.counters["liveness_checks"] += 1
        self._check(pair, consent, now)
        # It asks for consent as well: the next one that does is due an interval from here.
        consent.schedule(now)
        if pulse.suspicious:
            for other in standbys(session, pair.component):
                if other in self._consent:
                    self._check(other, self._consent[other], now)

    def _fell_silent(self, pair: CandidatePair, now: float) -> None:
        silent = now - max(pair.heard_at, self._last_response_at(pair))
        if now >= self._unanswered_at(pair):
            silent = now - self._last_response_at(pair)
        self._conclusion.paths.fell_silent(pair, f"no answer for {silent:.1f} s", now)

    def _check(self, pair: CandidatePair, consent: Consent, now: float) -> None:
        session = self._session
        transaction_id, request = session.check_on(pair)
        consent.check_sent(transaction_id, now)
        pulse = self._pulses.get(pair)
        if pulse is not None:
            pulse.tried(now)
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
                pair.round_trip.answered(consent.answered(response.transaction_id, now))
                self._conclusion.paths.answered(pair, now)
                self._note_mapping(pair, response)
            elif error is not None and error.code == 403:
                self._consent.pop(pair)
                self._consent_lost(pair, "the peer revoked it")  # RFC 7675 section 5.2
            else:
                session.counters["error_responses"] += 1
            return True
        return False

    def _note_mapping(self, pair: CandidatePair, response: Message) -> None:
        """Our NAT may have given the path a new port. The peer that follows nominations is told
        from there."""
        session = self._session
        mapped = response.get(XOR_MAPPED_ADDRESS)
        if mapped is None or pair.mapped is None or mapped == pair.mapped.address:
            return
        pair.mapped = self._checks.mapped_candidate(pair, mapped)
        session.counters["mappings_changed"] += 1
        selected = session.selected.get(pair.component) is pair
        if selected and session.controlling and session.remote_renominates:
            self._conclusion.paths.renominate(pair)

    def _lost(self, why: str) -> None:
        # RFC 7675 section 5.1: outstanding transactions are dropped, nothing more is sent.
        self._consent.clear()
        self._pulses.clear()
        self._session.set_state(IceState.FAILED, f"consent lost: {why}", FailureCause.CONSENT_LOST)

    def stop(self) -> None:
        self._consent.clear()
        self._pulses.clear()
