"""Concluding ICE: nomination, selected pairs, patience, failure. RFC 8445 section 8, RFC 8863."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.datagram import format_address
from ice_punch.ice.candidate import CandidateType
from ice_punch.ice.events import FailureCause, IceState
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.paths import Paths, rank, to_keep
from ice_punch.ice.policy import NominationPolicy
from ice_punch.ice.session import Session

_UNDECIDED = (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)

HOPELESS_GIVE_UP = 3.0
"""Seconds without a sign of the peer, for a direct-only session between two NATs that are known
to map by destination."""


class Conclusion:
    """Takes a session from its first valid pair to its selected pairs, or to failure."""

    def __init__(
        self,
        session: Session,
        policy: NominationPolicy,
        paths: Paths,
        on_concluded: Callable[[list[CandidatePair]], None],
        mapping_varies: Callable[[], bool],
    ) -> None:
        self.paths = paths
        self._session = session
        self._policy = policy
        self._on_concluded = on_concluded
        self._mapping_varies = mapping_varies
        self._ask_policy_at: float | None = None
        self._patience_over = False

    def pair_valid(self, pair: CandidatePair) -> None:
        session = self._session
        if session.state is IceState.CHECKING and session.all_components_valid:
            session.set_state(IceState.CONNECTED, f"a valid pair was found: {_name(pair)}")
        if self.paths.moved(pair):
            pair.nominated = True
            pair.nomination = session.selected[pair.component].nomination
            self.paths.taken(pair, "the peer is seen at another port")
            session.recovered("the peer is seen at another port")
            if session.controlling and session.remote_renominates:
                self.paths.renominate(pair)

    def consider_nomination(self, ta: float, now: float) -> None:
        """Ask the policy, for every component without a nomination (section 8.1.1)."""
        session = self._session
        self._ask_policy_at = None
        if not session.controlling or session.ended or session.remote_credentials is None:
            return
        if session.config.lite:
            return
        for component in session.config.components:
            if component in session.selected or component in session.nominating:
                continue
            pair, ask_at = self._policy.nominate(session.check_list, component, ta, now)
            if pair is not None and session.concluded and session.remote_renominates:
                self.paths.renominate(pair)
            elif pair is not None:
                session.nominating[component] = pair
                session.check_list.trigger(pair, ahead=True)
            elif ask_at is not None:
                earlier: float | None = self._ask_policy_at
                self._ask_policy_at = ask_at if earlier is None else min(ask_at, earlier)
        self.paths.reconsider(now)

    def stop_asking(self) -> None:
        """Another generation nominates from now on."""
        self._ask_policy_at = None

    def nominated(self, pair: CandidatePair) -> None:
        """The nominated flag is set. A controlled agent that is told several pairs takes the one
        of highest rank."""
        session = self._session
        pair.nominated = True
        if session.nominating.get(pair.component) is pair:
            del session.nominating[pair.component]
        before = session.selected.get(pair.component)
        if before is not None and rank(before) >= rank(pair):
            return
        who = "this side" if session.controlling else "the peer"
        why = f"{who} nominated {_name(pair)}"
        self.paths.taken(pair, why)
        self._on_concluded(session.check_list.conclude(pair, to_keep(session, pair)))
        if all(c in session.selected for c in session.config.components):
            session.concluded = True
            session.set_state(IceState.COMPLETED, why)

    # -- failure ------------------------------------------------------------------------------

    def timers(self) -> list[float]:
        session = self._session
        times = self.paths.timers()
        if self._ask_policy_at is not None:
            times.append(self._ask_policy_at)
        if session.state is IceState.CHECKING and session.started_at is not None:
            give_up_at = self._give_up_at()
            if give_up_at is not None:
                times.append(give_up_at)
            if not self._patience_over:
                times.append(session.started_at + session.config.patience)
        return times

    def _give_up_at(self) -> float | None:
        session = self._session
        give_up = session.config.give_up_after
        if session.remote_ended and self._hopeless():
            # Frozen pairs would come to nothing either: the patience of RFC 8863 is enough.
            enough = HOPELESS_GIVE_UP if session.config.direct_only else session.config.patience
            give_up = enough if give_up is None else min(give_up, enough)
        if give_up is None or session.started_at is None:
            return None
        return max(session.last_sign_at, session.started_at) + give_up

    def _hopeless(self) -> bool:
        """Both NATs are known to map by destination, and there is no relay to meet at."""
        session = self._session
        return (
            self._mapping_varies()
            and session.remote.mapping_varies()
            and not any(
                candidate.type is CandidateType.RELAY
                for candidate in (*session.local.all, *session.remote.all)
            )
        )

    def consider_failure(self, now: float) -> None:
        """RFC 8863: a check list does not fail before the patience is over, whatever happened on
        it; after that it fails when nothing is left to try (RFC 8445 section 7.2.5.4)."""
        session = self._session
        if session.state is not IceState.CHECKING or session.started_at is None:
            return
        self._patience_over = now >= session.started_at + session.config.patience
        give_up_at = self._give_up_at()
        given_up = give_up_at is not None and now >= give_up_at
        exhausted = self._patience_over and (
            session.config.lite
            or not any(
                pair.state in _UNDECIDED and pair.component not in session.selected
                for pair in session.check_list
            )
        )
        if not given_up and not exhausted:
            return
        tried = len(session.check_list)
        waited = now - session.started_at
        nothing_fits = session.remote_ended and not tried
        if session.peer_heard or session.config.direct_only or nothing_fits or self._hopeless():
            reason = f"none of {tried} candidate pairs works after {waited:.1f} s"
            session.set_state(IceState.FAILED, reason, FailureCause.NO_ROUTE)
        else:
            reason = f"the peer was not heard on any of {tried} candidate pairs in {waited:.1f} s"
            session.set_state(IceState.FAILED, reason, FailureCause.PEER_SILENT)


def _name(pair: CandidatePair) -> str:
    local = (pair.mapped or pair.local).type.value
    return f"{local} to {pair.remote.type.value} {format_address(pair.remote.address)}"
