"""The candidates that the peer signals, in any order with its checks: RFC 8838 sections 11, 14."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.ice.candidate import Candidate, CandidateType, is_usable_address
from ice_punch.ice.candidates import same_but_signalled
from ice_punch.ice.pair import CandidatePair
from ice_punch.ice.paths import Paths
from ice_punch.ice.session import Session


class Trickle:
    """Takes in what the peer signals. Unusable and surplus candidates are counted and dropped."""

    def __init__(
        self, session: Session, paths: Paths, on_removed: Callable[[CandidatePair], None]
    ) -> None:
        self._session = session
        self._paths = paths
        self._on_removed = on_removed

    def add(self, candidate: Candidate, now: float) -> None:
        session = self._session
        if session.remote_ended:
            session.counters["candidates_after_end"] += 1  # RFC 8838 section 14
            return
        if not self._usable(candidate):
            session.counters["candidates_unusable"] += 1
            return
        session.last_sign_at = now
        known = session.remote.find(candidate.address, candidate.component)
        learned = known if known is not None and known.type is CandidateType.PRFLX else None
        if session.config.direct_only and candidate.type is CandidateType.RELAY:
            session.counters["candidates_refused_relayed"] += 1
            if known is None or learned is not None:
                self._refuse(candidate, learned)
        elif learned is not None:
            if candidate.type is not CandidateType.PRFLX:
                self._promote(learned, same_but_signalled(learned, candidate))
        elif known is not None:
            session.counters["candidates_redundant"] += 1
        elif session.remote.full:
            session.counters["candidates_surplus"] += 1
        else:
            session.remote.add(candidate)
            self._paths.prune(session.pair_remote(candidate))

    def _usable(self, candidate: Candidate) -> bool:
        if candidate.transport != "udp" or not 0 < candidate.port < 65536:
            return False
        if candidate.ip_version == 0 or candidate.component not in self._session.config.components:
            return False
        try:
            return is_usable_address(candidate.host, loopback=True, link_local=True)
        except ValueError:
            return False

    def _promote(self, learned: Candidate, signalled: Candidate) -> None:
        """RFC 8838 section 11: the pairs keep their state and take the signalled priority. Only now
        is the candidate paired with our other bases (RFC 8445 section 7.3.1.3)."""
        session = self._session
        session.remote.replace(learned, signalled)
        for pair in session.check_list:
            if pair.remote == learned:
                pair.remote = signalled
                pair.update_priority(controlling=session.controlling)
        session.check_list.sort()
        self._paths.prune(session.pair_remote(signalled))

    def _refuse(self, candidate: Candidate, learned: Candidate | None) -> None:
        """Direct only: the peer's relay is no way to it, even if it was learned and used before it
        was known to be a relay."""
        session = self._session
        if len(session.refused_remote) < session.config.max_remote_candidates:
            session.refused_remote |= {candidate.address}
        if learned is None:
            return
        session.remote.all.remove(learned)
        was_selected = False
        for pair in [p for p in session.check_list if p.remote == learned]:
            self._on_removed(pair)
            session.check_list.remove(pair)
            session.validated.discard(pair.key)
            pair.invalidate()
            was_selected |= session.selected.get(pair.component) is pair
            session.lost_pair(pair, "the only way to the peer was its relay, which is refused")
        if was_selected:
            for remote in session.remote.all:  # what was put aside at the nomination
                session.pair_remote(remote)
