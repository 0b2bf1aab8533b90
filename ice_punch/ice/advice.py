"""When an ICE restart is the way on. The agent can not begin one: new credentials go through
signaling."""

from __future__ import annotations

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


class Advice:
    """Looks at the session that carries data, and says when it needs a restart."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._reason = ""
        self._again_after = AGAIN_AFTER
        self._quiet_until = float("-inf")
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
            return "", 0.0
        components = session.config.components
        if session.state is IceState.DISCONNECTED:
            hope = any(standbys(session, component) for component in components)
            return "the path is silent", REPAIR_WITHIN if hope else 0.0
        detour = any(session.detours.get(c) or c not in session.selected for c in components)
        if session.state is IceState.CONNECTED and detour:
            return "the selected path is gone", SETTLE_WITHIN
        return "", 0.0

    def _next(self) -> float | None:
        times = [t for t in (self._due, self._news_due) if t is not None]
        return max(min(times), self._quiet_until) if times else None

    def get_timer(self) -> float | None:
        return self._next()

    def take(self, now: float) -> RestartAdvised | None:
        """The advice that is due."""
        due = self._next()
        if due is None or now < due:
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
