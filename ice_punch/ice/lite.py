"""A lite agent, RFC 8445 section 2.5: it answers checks and makes none, and the peer decides."""

from __future__ import annotations

from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.events import FailureCause, IceState
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.session import LIVE, Session


class Lite:
    """What a lite agent does instead of checks, consent and conclusion."""

    def __init__(self, session: Session, conclusion: Conclusion) -> None:
        self._session = session
        self._conclusion = conclusion

    def requested(self, pair: CandidatePair, now: float, *, nominates: bool) -> None:
        """A check of a full peer on ``pair``: one that nominates makes it valid and selected
        (section 7.3.2). All of them tell that the peer is there; an agent that asks for nothing has
        no other consent (RFC 7675)."""
        pair.last_response_at = now
        if nominates:
            self._make_valid(pair, now)
            self._conclusion.pair_valid(pair)
            self._conclusion.nominated(pair)
        selected = self._session.selected.get(pair.component)
        if pair is selected:
            self._session.recovered("the peer asks again")

    def pair_up(self, now: float) -> None:
        """Section 8.2: where the peer is lite too, nobody checks anything, and each side takes the
        pair that its priorities and families let it prefer."""
        session = self._session
        if not session.remote_lite or not session.remote_ended or session.ended:
            return
        for component in session.config.components:
            best = next((p for p in session.check_list if p.component == component), None)
            if best is not None and component not in session.selected:
                self._make_valid(best, now)
                session.validated.add(best.key)
                self._conclusion.pair_valid(best)
                self._conclusion.nominated(best)

    def _make_valid(self, pair: CandidatePair, now: float) -> None:
        if not pair.valid:
            pair.mapped = pair.local
            pair.valid_since = pair.last_response_at = now
            self._session.check_list.succeeded(pair)

    # -- time ---------------------------------------------------------------------------------

    def _silent_pairs(self) -> list[CandidatePair]:
        """The selected pairs that a full peer has to ask on."""
        session = self._session
        if session.remote_lite or session.state not in LIVE:
            return []
        return list(session.selected.values())

    def timers(self) -> list[float]:
        config = self._session.config
        waits = [config.unanswered_for, config.consent_timeout]
        if self._session.state is IceState.DISCONNECTED:
            waits = waits[1:]
        heard = [pair.last_response_at or 0.0 for pair in self._silent_pairs()]
        return [at + wait for at in heard for wait in waits]

    def expire(self, now: float) -> None:
        session = self._session
        for pair in self._silent_pairs():
            silent = now - (pair.last_response_at or 0.0)
            if silent >= session.config.consent_timeout:
                why = f"the peer has not asked for {session.config.consent_timeout:.0f} s"
                session.set_state(IceState.FAILED, why, FailureCause.CONSENT_LOST)
            elif silent >= session.config.unanswered_for:
                session.set_state(
                    IceState.DISCONNECTED, f"the peer has not asked for {silent:.0f} s"
                )
