"""When an ICE restart is the way on. The agent can not begin one: new credentials go through
signaling."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.ice.events import IceState, RestartAdvised
from ice_punch.ice.paths import standbys
from ice_punch.ice.session import Session

REPAIR_WITHIN = 1.0
"""Seconds in which another pair may take over a silent path by itself."""
SETTLE_WITHIN = 2.0
"""Seconds after which a nomination should have come for the pair that carries data."""
GATHER_WITHIN = 0.3
"""Seconds in which a new interface may find its server-reflexive address."""
AGAIN_AFTER = 3.0
"""Seconds until the same advice is given again, twice as long each time."""
AGAIN_AFTER_MAX = 30.0


SPOILED_AFTER = 0.7
"""Seconds in which checks may get through in spite of an ICMP error."""
FRESH_STARTS = 3
"""How often fresh sockets are tried in one session."""
ADDRESSES_WITHIN = 0.2
FRESH_ADDRESSES_WITHIN = 0.5


def addresses_within(*, fresh_sockets: bool) -> float:
    """Seconds for which whoever makes a restart waits for our reflexive addresses before the peer
    is told: a NAT may have given us other ones, and fresh sockets the peer has to know from their
    first packet on."""
    return FRESH_ADDRESSES_WITHIN if fresh_sockets else ADDRESSES_WITHIN


class Advice:
    """Looks at the session that carries data, and says when it needs a restart."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._reason = ""
        self._again_after = AGAIN_AFTER
        self._quiet_until = float("-inf")
        self._fresh_due: float | None = None
        self._fresh_starts = 0
        self._news = ""
        self._news_due: float | None = None

    def news(self, reason: str, now: float) -> None:
        """Something came that only a restart puts to use."""
        if not self._news:
            self._news, self._news_due = reason, now + GATHER_WITHIN

    def follow(self, session: Session, now: float) -> None:
        """Note what is wrong, and since when."""
        reason, wait = self._trouble(session)
        if not reason:
            self._due = None
            self._again_after = AGAIN_AFTER
        elif self._due is None:
            self._due = now + wait
        self._reason = reason

    def _trouble(self, session: Session) -> tuple[str, float]:
        if not session.concluded:
            silent = session.state is IceState.DISCONNECTED
            return ("the path is silent", REPAIR_WITHIN) if silent else ("", 0.0)
        components = session.config.components
        if session.state is IceState.DISCONNECTED:
            hope = any(standbys(session, component) for component in components)
            return "the path is silent", REPAIR_WITHIN if hope else 0.0
        detour = any(session.detours.get(c) or c not in session.selected for c in components)
        if session.state is IceState.CONNECTED and detour:
            return "the selected path is gone", SETTLE_WITHIN
        if session.direct_lost:
            return "a relay took over from a direct path", SETTLE_WITHIN
        return "", 0.0

    def spoiled(self, session: Session, now: float, *, hopeless: Callable[[], bool]) -> None:
        """Whether a router of the peer's took an early check of ours for its own: an ICMP error
        came from where the peer's reflexive address is, and no check has got through. The router
        moves the peer's port for as long as we use ours (Linux: masquerade, and an open input).
        ``hopeless``: the NATs would not let a direct pair be in any case."""
        began = session.started_at
        if not session.refused:
            self._fresh_due = None
            return
        direct = any(pair.valid and not pair.relayed for pair in session.check_list)
        over = self._fresh_starts >= FRESH_STARTS or hopeless()
        if direct or over or began is None:
            self._fresh_due = None
        elif self._fresh_due is None:
            self._fresh_due = max(now, began + SPOILED_AFTER)

    def _next(self) -> float | None:
        times = [t for t in (self._due, self._news_due) if t is not None]
        return max(min(times), self._quiet_until) if times else None

    def get_timer(self, blocked_until: float) -> float | None:
        times = [] if self._fresh_due is None else [self._fresh_due]
        due = self._next()
        if due is not None and blocked_until < float("inf"):
            times.append(max(due, blocked_until))
        return min(times, default=None)

    def take(self, now: float, blocked_until: float) -> RestartAdvised | None:
        """The advice that is due."""
        if self._fresh_due is not None and now >= self._fresh_due:
            self._fresh_due = None
            self._fresh_starts += 1
            self.restarted(now)
            why = "the peer's router took an early check for its own"
            return RestartAdvised(why, fresh_sockets=True)
        due = self._next()
        if due is None or now < max(due, blocked_until):
            return None
        if self._news_due is not None and now >= self._news_due:
            reason = self._news
        else:
            reason = self._reason
        self.restarted(now)
        return RestartAdvised(reason)

    def restarted(self, now: float) -> None:
        """A restart was advised or has begun: it is not advised again at once."""
        self._news, self._news_due = "", None
        self._quiet_until = now + self._again_after
        self._again_after = min(2 * self._again_after, AGAIN_AFTER_MAX)
