"""Our candidates as they come to the agent: from sockets, servers and relays, RFC 8445 section
5.1.1."""

from __future__ import annotations

from ice_punch.datagram import Address
from ice_punch.ice.advice import Advice
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.events import LocalCandidateFound, ServerQueryEnded
from ice_punch.ice.lineage import Lineage
from ice_punch.ice.server_queries import QueryAnswered, QueryFailed, ServerQuery
from ice_punch.report import ServerReport
from ice_punch.stun import FailureReason

MAX_REPORTS = 64
"""The latest are kept: interfaces may come and go for days."""


class Gathering:
    """Gives candidates to the current generation, and tells what came of the queries."""

    def __init__(self, lineage: Lineage, advice: Advice) -> None:
        self._lineage = lineage
        self._advice = advice
        self.reports: list[ServerReport] = []

    def add(
        self,
        type_: CandidateType,
        address: Address,
        now: float,
        *,
        component: int,
        local_preference: int,
        base: Address | None = None,
        related: Address | None = None,
        server: str | None = None,
        server_ip: str | None = None,
    ) -> Candidate | None:
        """None if the candidate is redundant."""
        generation = self._lineage.current
        session = generation.session
        candidate = session.local.add(
            type_,
            address,
            base=base or address,
            component=component,
            local_preference=local_preference,
            related=related,
            server=server,
            server_ip=server_ip,
        )
        if candidate is None:
            return None
        session.events.append(LocalCandidateFound(candidate))
        generation.paths.prune(session.pair_local(candidate))
        if type_ is CandidateType.HOST and (session.concluded or session.remote_ended):
            self._advice.news("there is a new interface", now)
        return candidate

    def query_ended(self, outcome: QueryAnswered | QueryFailed | None, now: float) -> None:
        if outcome is None:
            return
        query = outcome.query
        if isinstance(outcome, QueryFailed):
            silent = outcome.reason == FailureReason.TIMEOUT
            self._report(query, "silent" if silent else "unreachable", outcome.reason)
            return
        local = self._lineage.session.local
        if outcome.before is not None and outcome.before != outcome.mapped:
            local.forget_reflexive(outcome.before, query.base)
            if self._lineage.session.remote_credentials is not None:
                self._advice.news("our address has changed", now)
        base = local.at_base(query.base)
        self.add(
            CandidateType.SRFLX,
            outcome.mapped,
            now,
            component=query.component,
            local_preference=local.preference_of(base) if base else 0,
            base=query.base,
            related=query.base,
            server=query.server,
            server_ip=query.address[0],
        )
        self._report(query, "ok", "")

    def _report(self, query: ServerQuery, outcome: str, detail: str) -> None:
        if query.reported:
            return
        query.reported, query.ended = True, outcome
        report = query.report(detail)
        self.reports.append(report)
        del self.reports[:-MAX_REPORTS]
        self._lineage.session.events.append(ServerQueryEnded(query.base, report))
