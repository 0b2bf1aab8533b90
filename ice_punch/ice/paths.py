"""What happens to a session once it has a path: another pair stands by, a better one takes over,
and a silent one is gone around. draft-thatcher-ice-renomination where the peer announces it."""

from __future__ import annotations

from collections.abc import Iterable

from ice_punch.ice.candidate import CandidateType
from ice_punch.ice.events import IceState, SelectedPairChanged
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.session import LIVE, Session

MAX_NOMINATION = 2**31
"""What a peer's number may be at most, so that ours, which are larger, fit into 32 bits."""
HYSTERESIS = 0.01
"""Seconds of round trip by which another pair must be better to take over."""
SAMPLES = 3
"""Round trips of each that are known before they are compared."""
RECHECK = 10.0
"""Seconds between checks of direct pairs that failed, while a relay carries data."""
RECHECKED = 4
PEER_MOVED_AFTER = 0.1
"""Seconds without a sign on the selected pair, while data comes on another one."""
SHORTEST_HOLD = 5.0
"""Seconds after a change for the sake of a shorter round trip until the next one; twice as long
each time."""
LONGEST_HOLD = 320.0
SETTLED_FOR = 1.0
"""Seconds for which a pair that was silent must have answered before it takes over again; twice as
long each time."""
LONGEST_SETTLED = 32.0
_NO_COMPONENTS: frozenset[int] = frozenset()
_UNTESTED = (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)


def best_first(pairs: Iterable[CandidatePair]) -> list[CandidatePair]:
    """Direct before relayed, then by priority."""
    return sorted(pairs, key=lambda pair: (pair.relayed, -pair.priority))


def rank(pair: CandidatePair) -> tuple[int, int]:
    """Of several nominated pairs the highest counts: the one that was nominated last, and of
    several of RFC 8445 the one of highest priority (section 8.1.1)."""
    return (pair.nomination, pair.valid_priority)


def to_keep(session: Session, selected: CandidatePair) -> set[CandidatePair]:
    """Untested pairs that go on being checked after the nomination of ``selected``: those that
    the peer has nominated too and that count for more, as it has selected one of them by the time
    that our check is answered; where a relay carries data every direct one, else one for each way
    a path may be lost. Without renomination no other: RFC 8445 section 8.1.2."""
    others = best_first(
        pair
        for pair in session.check_list
        if pair is not selected and pair.component == selected.component
    )
    kept = {
        pair
        for pair in others
        if pair.nominate_on_success
        and not (session.controlling or pair.valid)
        and rank(pair) > rank(selected)
    }
    if not session.remote_renominates:
        return kept
    if selected.relayed:
        return kept.union(p for p in others if not p.relayed and p.state in _UNTESTED)
    worth_a_check = [p for p in others if p.relayed or p.base != selected.base]
    for kind in _kinds(worth_a_check, selected):
        if not any(pair.valid for pair in kind):
            kept.update([pair for pair in kind if pair.state in _UNTESTED][:1])
    return kept


def standbys(session: Session, component: int) -> list[CandidatePair]:
    """The valid pairs that are kept alive beside the selected one: the best direct one, the best
    through our relay and the best through the peer's."""
    selected = session.selected.get(component)
    if selected is None:
        return []
    others = best_first(
        pair
        for pair in session.check_list
        if pair.valid and pair is not selected and pair.component == component
    )
    return list(dict.fromkeys(kind[0] for kind in _kinds(others, selected) if kind))


def _kinds(pairs: list[CandidatePair], selected: CandidatePair) -> list[list[CandidatePair]]:
    direct = [pair for pair in pairs if not pair.relayed]
    return [
        [pair for pair in direct if pair.base != selected.base] or direct,
        [pair for pair in pairs if pair.local.type is CandidateType.RELAY],
        [pair for pair in pairs if pair.remote.type is CandidateType.RELAY],
    ]


class Paths:
    """Looks after the selected pairs of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._recheck_at: float | None = None
        self._hold = SHORTEST_HOLD
        self._faster_after = float("-inf")
        self._abandoned = _NO_COMPONENTS
        """Components of which the peer may have selected a pair that we have given up."""

    @property
    def has_abandoned(self) -> bool:
        """Whether a nomination was given up, and the selected pair is to be nominated again."""
        return bool(self._abandoned)

    # -- silence ------------------------------------------------------------------------------

    def fell_silent(self, pair: CandidatePair, why: str, now: float) -> None:
        """Nothing is heard on the pair that carries data: go around it, if there is a way."""
        session = self._session
        if pair.silent_since is None:
            pair.silent_since = now
            pair.silences += 1
            session.counters["paths_fell_silent"] += 1
        session.set_state(IceState.DISCONNECTED, why)
        self._go_around(pair.component)

    def answered(self, pair: CandidatePair, now: float) -> None:
        """A valid response came on a valid pair: this, and nothing else, renews consent (RFC 7675
        section 5.1)."""
        session = self._session
        session.heard(now)
        pair.heard(now)
        pair.last_response_at = now
        if pair.silent_since is not None:
            pair.silent_since = None
            pair.settled_at = now
        selected = session.selected.get(pair.component)
        if pair is selected:
            session.detours.pop(pair.component, None)
        elif selected is not None and selected.silent_since is not None:
            self._go_around(pair.component)
            return
        if pair is session.best_pair(pair.component):
            session.recovered("the peer answers again")

    def data_came(self, pair: CandidatePair, now: float) -> None:
        """Where the peer sends data on another pair, and nothing comes on the selected one, it
        may know of something that this side is about to notice. Data proves nothing: the selected
        pair is asked, and a single check without an answer is enough then."""
        session = self._session
        selected = session.selected.get(pair.component)
        if selected is None or pair is selected or not pair.valid:
            return
        if selected.doubted_at is not None and selected.doubted_at > selected.heard_at:
            return
        if pair.component in session.nominating or selected.silent_since is not None:
            return
        # What the peer sent before it learned of a nomination is under way for a round trip.
        trips = [p.round_trip.smoothed or 0.0 for p in (pair, selected)]
        if selected.heard_at + _moved_after(max(trips)) < now:
            selected.doubted_at = now
            session.counters["peer_moves_followed"] += 1

    def _go_around(self, component: int) -> None:
        """RFC 8445 section 12.1 has data on the selected pair; while that one is silent it takes
        another pair that has consent and answers."""
        session = self._session
        selected = session.selected.get(component)
        if selected is None:
            best = session.best_pair(component)
            if best is not None and best.silent_since is None:
                session.recovered("another valid pair carries data")
            return
        if selected.silent_since is None:
            return
        way = next(iter(self._answering(component)), None)
        if way is None or session.detours.get(component) is way:
            return
        session.detours[component] = way
        session.recovered("another valid pair carries data")

    def _answering(self, component: int) -> list[CandidatePair]:
        """Standbys that have answered since the selected pair was last heard."""
        selected = self._session.selected[component]
        return [
            pair
            for pair in standbys(self._session, component)
            if pair.silent_since is None
            and pair.last_response_at is not None
            and pair.last_response_at > selected.heard_at
        ]

    def prune(self, formed: list[CandidatePair]) -> None:
        """Of pairs that are formed although one is selected, those of use stay."""
        session = self._session
        for pair in formed:
            selected = session.selected.get(pair.component)
            known = session.check_list.find(*pair.key) is pair  # or others took its place
            if known and selected is not None and pair not in to_keep(session, selected):
                session.check_list.remove(pair)

    # -- renomination -------------------------------------------------------------------------

    def reconsider(self, now: float) -> None:
        """Nominate another pair where that is allowed and better."""
        session = self._session
        if not (session.controlling and session.remote_renominates) or session.ended:
            return
        for component, selected in list(session.selected.items()):
            if component not in session.nominating:
                better = self._better_than(selected, now)
                if better is not None:
                    self.renominate(better)

    def renominate(self, pair: CandidatePair) -> None:
        """Nominate ``pair``, whatever was nominated before."""
        session = self._session
        if session.nomination >= MAX_NOMINATION:
            session.counters["nominations_exhausted"] += 1
            return
        session.nomination += 1
        self._abandoned -= {pair.component}
        pair.nomination = session.nomination
        session.nominating[pair.component] = pair
        session.check_list.trigger(pair, ahead=True)
        session.counters["renominations"] += 1

    def _better_than(self, selected: CandidatePair, now: float) -> CandidatePair | None:
        if selected.silent_since is not None:
            answering = self._answering(selected.component)
            return answering[0] if answering else None
        if selected.component in self._abandoned:
            return selected  # the peer may have heard a nomination that was given up
        for pair in best_first(self._session.check_list.valid_list):
            if pair is selected or pair.component != selected.component:
                continue
            if pair.silent_since is not None or not self._settled(pair, now):
                continue
            if pair.relayed != selected.relayed:
                if selected.relayed and not pair.consent_lost:
                    return pair
                continue
            if now >= self._faster_after and _faster(pair, selected):
                self._faster_after = now + self._hold
                self._hold = min(2 * self._hold, LONGEST_HOLD)
                return pair
        return None

    def _settled(self, pair: CandidatePair, now: float) -> bool:
        return pair.settled_at is None or now >= self._settles_at(pair)

    def _settles_at(self, pair: CandidatePair) -> float:
        assert pair.settled_at is not None
        wait = SETTLED_FOR * 2.0 ** min(pair.silences - 1, 10)
        return pair.settled_at + min(wait, LONGEST_SETTLED)

    # -- a peer that is seen from another port -------------------------------------------------

    def moved(self, pair: CandidatePair) -> bool:
        """Whether ``pair``, valid now, is the selected one after the peer's NAT gave it a new
        port: same base, same IP address, PRIORITY of the same base of the peer's, and nothing is
        heard from the old port since the first sign of the new one."""
        session = self._session
        selected = session.selected.get(pair.component)
        return (
            selected is not None
            and selected is not pair
            and pair.first_heard_at is not None
            and pair.remote.type is CandidateType.PRFLX
            and (pair.base, pair.remote.host) == (selected.base, selected.remote.host)
            and selected.peer_priority in (None, pair.peer_priority)
            and not selected.relayed
            and selected.heard_at < pair.first_heard_at
        )

    # -- direct pairs beside a relay ------------------------------------------------------------

    def timers(self) -> list[float]:
        session = self._session
        times = [] if self._recheck_at is None else [self._recheck_at]
        if session.controlling and session.remote_renominates:
            times += [
                self._settles_at(pair)
                for pair in session.check_list.valid_list
                if pair.settled_at is not None and session.selected.get(pair.component) is not pair
            ]
        times += [
            self._abandons_at(pair) for pair in session.nominating.values() if pair.nomination
        ]
        return times

    def _abandons_at(self, pair: CandidatePair) -> float:
        """When a nomination that replaces another is given up for lack of an answer."""
        check = pair.current_check
        if check is None or not check.nominating or check.answered_at is not None:
            return float("inf")
        if pair in self._session.check_list.triggered_check_queue:
            return float("inf")  # that check was of the nomination before
        return check.retransmission.first_sent_at + max(3 * pair.round_trip.timeout, 1.0)

    def handle_timer(self, now: float) -> None:
        session = self._session
        for component, pair in list(session.nominating.items()):
            if pair.nomination and now >= self._abandons_at(pair):
                del session.nominating[component]
                pair.silent_since = now
                pair.silences += 1
                self._abandoned |= {component}
                session.counters["nominations_abandoned"] += 1
        for pair in session.check_list:
            if pair.settled_at is not None and self._settled(pair, now):
                pair.settled_at = None
        if self._recheck_at is not None and now >= self._recheck_at:
            self._recheck_at = None
            self._recheck(now)

    def follow_pairs(self, now: float) -> None:
        """While a relay carries data its direct competitors are tried again and again."""
        session = self._session
        wanted = (
            session.state in LIVE
            and session.remote_renominates
            and any(pair.relayed for pair in session.selected.values())
        )
        if not wanted:
            self._recheck_at = None
        elif self._recheck_at is None:
            self._recheck_at = now + RECHECK

    def _recheck(self, now: float) -> None:
        session = self._session
        for component, selected in session.selected.items():
            if not selected.relayed:
                continue
            failed = [
                pair
                for pair in session.check_list
                if pair.component == component
                and pair.state is PairState.FAILED
                and not pair.relayed
                and not pair.consent_lost
            ]
            for pair in best_first(failed)[:RECHECKED]:
                pair.state = PairState.WAITING

    def taken(self, pair: CandidatePair, why: str) -> None:
        """``pair`` is the selected one from now on."""
        session = self._session
        session.detours.pop(pair.component, None)
        pair.silent_since = None
        before = session.selected.get(pair.component)
        was_direct = before is not None and not before.relayed
        session.direct_lost = pair.relayed and (was_direct or session.direct_lost)
        session.selected[pair.component] = pair
        session.events.append(SelectedPairChanged(pair, why))


def _moved_after(round_trip: float) -> float:
    return PEER_MOVED_AFTER + 1.5 * round_trip


def _faster(pair: CandidatePair, selected: CandidatePair) -> bool:
    one, other = pair.round_trip, selected.round_trip
    return (
        one.samples >= SAMPLES
        and other.samples >= SAMPLES
        and one.smoothed is not None
        and other.smoothed is not None
        and one.smoothed + max(HYSTERESIS, one.variance, other.variance) < other.smoothed
    )
