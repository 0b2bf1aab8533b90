"""Who gets the next slot of the pacer: queries to servers, checks, knocking, early holes."""

from __future__ import annotations

from ice_punch.ice.generation import Generation
from ice_punch.ice.pacer import Pacer
from ice_punch.ice.server_queries import ServerQueries


class Slots:
    """RFC 8445 section 6.1.4.2: triggered checks first. Queries to servers and ordinary checks take
    turns, so that neither waits for all of the other. Knocking comes last, but for checks from
    relays; what opens a hole early is sent while there can be none of them."""

    def __init__(self, pacer: Pacer, queries: ServerQueries) -> None:
        self._pacer = pacer
        self._queries = queries
        self._query_is_next = True
        self._knock_is_next = True

    def use(self, current: Generation, now: float) -> None:
        """Send what may be sent now."""
        pacer, queries, ta = self._pacer, self._queries, self._pacer.ta
        checks, knocking, hole = current.checks, current.knocking, current.early_hole
        if checks.start_exactly(ta, now):
            pacer.reserve(now)
        knocking.follow_pairs(now)
        while self._has_work(current) and pacer.take(now):
            query = queries.has_work() and self._query_is_next
            if self._knocks_first(current):
                knocking.knock(ta, now)
                self._knock_is_next = False
            elif checks.may_send() and checks.perform_next(ta, now, triggered_only=query):
                self._query_is_next = self._knock_is_next = True
            elif queries.has_work():
                queries.start_next(now, ta)
                self._query_is_next = False
            elif knocking.has_work():
                knocking.knock(ta, now)
            knocking.follow_pairs(now)
        while (pair := hole.next_pair(now)) is not None and pacer.take(now):
            hole.indicate(pair, now)

    def get_timer(self, current: Generation) -> float | None:
        """When the next slot is wanted."""
        if self._has_work(current):
            return self._pacer.next_at
        hole = current.early_hole.get_timer()
        return None if hole is None else max(hole, self._pacer.next_at)

    def _has_work(self, current: Generation) -> bool:
        return self._queries.has_work() or current.checks.may_send() or current.knocking.has_work()

    def _knocks_first(self, current: Generation) -> bool:
        """Checks from relays leave every second slot to knocking: they are the last resort."""
        return (
            self._knock_is_next
            and current.knocking.has_work()
            and not self._queries.has_work()
            and current.checks.last_resort_is_next()
        )
