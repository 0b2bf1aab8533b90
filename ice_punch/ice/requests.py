"""The server side of connectivity checks: answering the peer's and what they trigger, RFC 8445
section 7.3."""

from __future__ import annotations

from ice_punch.datagram import Address
from ice_punch.ice.binding import (
    CheckReceived,
    CheckRefused,
    error_response,
    examine_request,
    success_response,
)
from ice_punch.ice.candidate import MAX_PRIORITY, CandidateType, peer_reflexive_priority
from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.lite import Lite
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.paths import MAX_NOMINATION
from ice_punch.ice.session import MAX_PROVEN, Session
from ice_punch.stun import Message

MAX_CHASED = 4
"""Peer-reflexive ports of one IP address whose checks go ahead of ordinary ones. Where one side
maps by port and the other by address, the second leads to a path."""


FOLLOW_INTERVAL = 0.3
"""Seconds for which a port that unauthenticated data came from is the only one that is asked."""


class Requests:
    """Answers every check at once; the rest waits for the peer's parameters if it must."""

    def __init__(self, session: Session, conclusion: Conclusion, lite: Lite | None = None) -> None:
        self._session = session
        self._conclusion = conclusion
        self._lite = lite
        self._early: list[CheckReceived] = []
        self._follow_at = float("-inf")
        self._followed: CandidatePair | None = None

    def receive(self, request: Message, source: Address, local: Address, now: float) -> None:
        session = self._session
        if not request.has_fingerprint:
            session.counters["requests_without_fingerprint"] += 1  # section 7.3: no check
            return
        if session.local.at_base(local) is None:
            session.counters["requests_refused"] += 1
            return
        result = examine_request(request, source, local, session.credentials)
        if isinstance(result, CheckRefused):
            session.counters[result.counter] += 1
            if result.response is not None:
                session.send(result.response, local, source)
            return
        key = session.credentials.key
        if source in session.refused_remote:
            session.counters["requests_refused"] += 1
            refusal = error_response(request, 400, "Relayed Candidate Refused", key=key)
            session.send(refusal, local, source)
            return
        peer = session.remote_credentials
        if peer is not None and result.remote_ufrag != peer.ufrag:
            # Another branch of a forked call, or a peer that restarts and does not wait for our new
            # credentials, as libwebrtc: answered, and without effect (section 7.3.1.4), but that
            # the latter may send its data there from now on.
            session.counters["requests_of_another_ufrag"] += 1
            if (local, source) not in session.proven:
                session.proven.append((local, source))
                del session.proven[:-MAX_PROVEN]
            session.send(success_response(request, source, key), local, source)
            return
        if self._conflict(result):
            session.counters["role_conflicts"] += 1
            session.send(error_response(request, 487, "Role Conflict", key=key), local, source)
            return
        if peer is None:
            self._defer(result)
        elif not self._process(result, now):
            session.counters["requests_refused"] += 1
            session.send(error_response(request, 500, "Path Refused", key=key), local, source)
            return
        session.counters["checks_answered"] += 1
        session.send(success_response(request, source, key), local, source)

    def _defer(self, check: CheckReceived) -> None:
        """Section 7.3: answered now, the rest when the peer's parameters have come. What knows our
        password may already send data (section 5.3). Over the bound the oldest goes, a nomination
        last: the peer does not repeat it."""
        session = self._session
        self._early.append(check)
        if len(self._early) > session.config.max_early_checks:
            session.counters["early_checks_dropped"] += 1
            plain = (early for early in self._early if not early.use_candidate)
            self._early.remove(next(plain, self._early[0]))
        session.validated = {(early.local, early.source) for early in self._early}

    def _conflict(self, check: CheckReceived) -> bool:
        """Section 7.3.1.1: switch our role, or say that the peer must switch its own."""
        session = self._session
        if session.controlling and check.controlling is not None:
            if session.tie_breaker >= check.controlling:
                return True
            session.switch_role(controlling=False)
        elif not session.controlling and check.controlled is not None:
            if session.tie_breaker < check.controlled or session.config.lite:
                return True
            session.switch_role(controlling=True)
        return False

    def process_early(self, now: float) -> None:
        """The peer's parameters are known."""
        session = self._session
        session.validated.clear()
        while self._early:
            check = self._early.pop(0)
            peer = session.remote_credentials
            if peer is not None and check.remote_ufrag == peer.ufrag:
                self._process(check, now)
            else:
                session.counters["requests_of_another_ufrag"] += 1

    def _process(self, check: CheckReceived, now: float) -> bool:
        """False if there is no room for this path, or no use: the sender must not take it for
        valid, as it may nominate it (section 7.3.1.5)."""
        session = self._session
        local = session.local.at_base(check.local)
        if local is None or check.source in session.refused_remote:
            return False
        session.heard(now)
        remote = session.remote.find(check.source, local.component)
        if remote is None:
            if session.remote.full:
                self._make_room(local.component, now)
            if session.remote.full:
                session.counters["candidates_surplus"] += 1
                return False
            # Section 7.3.1.3.
            priority = min(check.priority, MAX_PRIORITY)
            remote = session.remote.learn(check.source, local.component, priority)
        session.validated.add((check.local, check.source))
        pair = session.check_list.find(check.local, check.source)
        nominates = self._nominates(check, local.component)
        concluded = local.component in session.selected
        if pair is None:
            if concluded and not nominates and not self._may_follow(check, local.component):
                return True
            pair = session.form_pair(local, remote)
            if pair is None:
                return concluded and not nominates
        if nominates:
            pair.nomination = check.nomination
        pair.requests_received += 1
        pair.peer_priority = check.priority
        pair.heard(now)
        if session.check_list.peer_checked_at is None:
            session.check_list.peer_checked_at = now
        if self._lite is not None:
            self._lite.requested(pair, now, nominates=nominates)
            return True
        if pair.consent_lost:
            return not nominates
        if nominates and pair.valid and self._stale(pair, now):
            pair.invalidate(PairState.WAITING)
        if pair.state is PairState.SUCCEEDED:
            if nominates:
                self._conclusion.nominated(pair)  # section 7.3.1.5
            return True
        if nominates:
            pair.nominate_on_success = True
        if not concluded or nominates or self._may_follow(check, local.component):
            self._trigger(pair, now)
        return True

    def follow(self, source: Address, local: Address, now: float) -> bool:
        """Data came from a stranger. If it has the IP address of the peer, at the base of the
        selected pair, the peer's NAT may have given it a new port: a check there asks. True if
        there is one to send."""
        session = self._session
        selected = next((p for p in session.selected.values() if p.base == local), None)
        if selected is None or selected.remote.host != source[0] or selected.relayed:
            return False
        if session.remote_credentials is None or now < self._follow_at:
            return False
        if session.remote.find(source, selected.component) is not None:
            return False
        self._follow_at = now + FOLLOW_INTERVAL
        self._forget_followed()
        if session.remote.full:
            self._make_room(selected.component, now)
        if session.remote.full:
            return False
        priority = selected.peer_priority or peer_reflexive_priority(selected.remote.priority)
        remote = session.remote.learn(source, selected.component, priority)
        pair = session.form_pair(selected.local, remote)
        if pair is None:
            return False
        pair.first_heard_at, pair.peer_priority = now, selected.peer_priority
        self._followed = pair
        session.check_list.trigger(pair)
        session.counters["ports_followed"] += 1
        return True

    def _forget_followed(self) -> None:
        """Nobody answered at the port before: of those that anybody can invent one is enough."""
        session, pair = self._session, self._followed
        if pair is None or pair.requests_received or session.check_list.find(*pair.key) is not pair:
            return
        if pair.valid:
            return
        for check in pair.checks:
            check.retransmission.cancel()
        session.check_list.remove(pair)
        session.remote.all.remove(pair.remote)

    def _nominates(self, check: CheckReceived, component: int) -> bool:
        """Whether the check nominates its pair, and no later nomination has come before."""
        session = self._session
        if not check.use_candidate or session.controlling:
            return False
        if check.nomination > MAX_NOMINATION:
            session.counters["nominations_out_of_range"] += 1
            return False
        if check.nomination < session.nominations.get(component, 0):
            session.counters["nominations_outdated"] += 1
            return False
        session.nominations[component] = check.nomination
        session.nomination = max(session.nomination, check.nomination)
        return True

    def _may_follow(self, check: CheckReceived, component: int) -> bool:
        """Whether a pair that was not selected is of interest: the peer may nominate another one,
        or it is the selected pair after the peer's NAT gave it a new port."""
        session = self._session
        selected = session.selected.get(component)
        return session.remote_renominates or (
            selected is not None
            and (check.local, check.source[0]) == (selected.base, selected.remote.host)
        )

    def _make_room(self, component: int, now: float) -> None:
        """A peer whose NAT keeps giving it new ports is still the same peer: of what was learned
        from its checks, the oldest that leads nowhere is forgotten."""
        session = self._session
        if component not in session.selected:
            return
        used = {
            pair.remote
            for pair in session.check_list
            if pair.valid
            and (session.selected.get(pair.component) is pair or not self._stale(pair, now))
        }
        for candidate in session.remote.all:
            if candidate.type is CandidateType.PRFLX and candidate not in used:
                session.remote.all.remove(candidate)
                gone = {key for key in session.validated if key[1] == candidate.address}
                session.validated -= gone
                for pair in [p for p in session.check_list if p.remote == candidate]:
                    pair.invalidate()
                    session.check_list.remove(pair)
                return

    def _stale(self, pair: CandidatePair, now: float) -> bool:
        """Whether consent has to be regained before data goes this way (RFC 7675 section 5.1): the
        pair was put aside for another one, and now it is nominated."""
        session = self._session
        last, timeout = pair.last_response_at, session.config.consent_timeout
        used = session.selected.get(pair.component, pair) is pair
        return not used and (last is None or now >= last + timeout)

    def _trigger(self, pair: CandidatePair, now: float) -> None:
        """Section 7.3.1.4. The check that is out is not resent, its answer still counts, and a new
        one goes ahead of the ordinary ones: this is what opens two NATs in one and a half round
        trips instead of after the 500 ms timer."""
        if pair.state is PairState.IN_PROGRESS:
            if pair.crowded(now):
                return
            for check in pair.checks:
                check.retransmission.cancel()
        pair.state = PairState.WAITING
        # A pair that was triggered before, or one of many, is in no hurry: ordinary checks go
        # ahead, or they would wait for as long as the peer keeps knocking.
        again = pair.requests_received > 1 and not pair.nominate_on_success
        if again or self._chases(pair):
            self._session.check_list.defer(pair)
        else:
            self._session.check_list.trigger(pair)

    def _chases(self, pair: CandidatePair) -> bool:
        """Whether the peer's NAT gives its every check a new port: then ours answers in kind, each
        check triggers another, and no ordinary one would ever have its turn."""
        remote = pair.remote
        if remote.type is not CandidateType.PRFLX or pair.valid:
            return False
        session = self._session
        if any(p.valid and p.remote.host == remote.host for p in session.check_list):
            return False
        return session.remote.learned_at(remote.host) > MAX_CHASED
