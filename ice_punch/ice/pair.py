"""Candidate pairs and the checks made on them, RFC 8445 section 6.1.2."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ice_punch.datagram import Address, format_address
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.round_trip import RoundTrip
from ice_punch.report import PairReport
from ice_punch.stun import Retransmission

CHECKS_REMEMBERED = 8
"""Per pair: the checks whose late answers still count."""
CROWDED_FOR = 5.0
"""Seconds: more than ``CHECKS_REMEMBERED`` checks are not triggered in this time, lest every check
be forgotten before a slow path can answer it."""


class PairState(StrEnum):
    """RFC 8445 section 6.1.2.6."""

    FROZEN = "frozen"
    WAITING = "waiting"
    IN_PROGRESS = "in-progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 section 6.1.2.3, from the priorities of both sides' candidates."""
    return (
        (min(controlling, controlled) << 32)
        + 2 * max(controlling, controlled)
        + (1 if controlling > controlled else 0)
    )


@dataclass(slots=True)
class Check:
    """One check: retransmission, round trip, liveness and late 487s are all read from it."""

    transaction_id: bytes
    request: bytes
    retransmission: Retransmission
    nominating: bool
    controlling: bool
    answered_at: float | None = None


class CandidatePair:
    """A local base and a remote candidate, and everything that happened between them."""

    __slots__ = (
        "_controlling",
        "checks",
        "consent_lost",
        "doubted_at",
        "first_heard_at",
        "heard_at",
        "last_response_at",
        "local",
        "mapped",
        "nominate_on_success",
        "nominated",
        "nomination",
        "peer_priority",
        "priority",
        "remote",
        "requests_received",
        "requests_sent",
        "responses_received",
        "round_trip",
        "settled_at",
        "silences",
        "silent_since",
        "state",
        "valid_since",
    )

    def __init__(self, local: Candidate, remote: Candidate, *, controlling: bool) -> None:
        self.local = local
        self.remote = remote
        self.state = PairState.FROZEN
        self.priority = 0
        self.nominated = False
        self.mapped: Candidate | None = None
        """The local candidate the peer saw; set when the pair becomes valid (section 7.2.5.3.2)."""
        self.valid_since: float | None = None
        self.last_response_at: float | None = None
        self.first_heard_at: float | None = None
        self.peer_priority: int | None = None
        """PRIORITY of the peer's latest check: it tells the peer's bases apart (section 7.1.1)."""
        self.heard_at = float("-inf")
        """When anything last came on this pair that only the peer can have sent."""
        self.silent_since: float | None = None
        """Since when too many checks in a row have gone unanswered."""
        self.doubted_at: float | None = None
        """When data on another pair made it likely that nothing comes here any more."""
        self.silences = 0
        self.settled_at: float | None = None
        """When it began to answer again after it was silent."""
        self.nominate_on_success = False
        self.nomination = 0
        """The number of the latest nomination of this pair: 0 for the one of RFC 8445, above it
        for one that replaces another (draft-thatcher-ice-renomination)."""
        self.consent_lost = False
        """RFC 7675 section 5.1: with these credentials the pair is not used again."""
        self.checks: list[Check] = []
        self.round_trip = RoundTrip()
        self.requests_sent = 0
        self.responses_received = 0
        self.requests_received = 0
        self._controlling = controlling
        self.update_priority(controlling=controlling)

    @property
    def rtt(self) -> float | None:
        """Seconds, the latest measured round trip."""
        return self.round_trip.latest

    @property
    def component(self) -> int:
        return self.local.component

    @property
    def foundation(self) -> tuple[str, str]:
        return (self.local.foundation, self.remote.foundation)

    @property
    def base(self) -> Address:
        return self.local.base or self.local.address

    @property
    def key(self) -> tuple[Address, Address]:
        return (self.base, self.remote.address)

    @property
    def valid(self) -> bool:
        """Whether the pair is on the valid list (section 7.2.5.3.2)."""
        return self.mapped is not None

    @property
    def relayed(self) -> bool:
        return CandidateType.RELAY in (self.local.type, self.remote.type)

    @property
    def current_check(self) -> Check | None:
        return self.checks[-1] if self.checks else None

    @property
    def valid_priority(self) -> int:
        """The priority of the valid pair, whose local candidate is the one the peer saw (section
        7.2.5.3.2). Both sides compute the same, so it decides between several nominations."""
        return self._priority_from(self.mapped or self.local)

    def _priority_from(self, local: Candidate) -> int:
        if self._controlling:
            return pair_priority(local.priority, self.remote.priority)
        return pair_priority(self.remote.priority, local.priority)

    def update_priority(self, *, controlling: bool) -> None:
        self._controlling = controlling
        self.priority = self._priority_from(self.local)

    def heard(self, now: float) -> None:
        if self.first_heard_at is None:
            self.first_heard_at = now
        self.heard_at = now

    def crowded(self, now: float) -> bool:
        """Whether so many checks are out already that one more would displace a young one."""
        return (
            len(self.checks) >= CHECKS_REMEMBERED
            and now - self.checks[0].retransmission.first_sent_at < CROWDED_FOR
        )

    def invalidate(self, state: PairState = PairState.FAILED) -> None:
        """Off the valid list (section 7.2.5.3.4)."""
        self.mapped = None
        self.valid_since = None
        self.nominated = False
        self.silent_since = self.settled_at = None
        self.state = state

    def report(self) -> PairReport:
        shown = self.mapped or self.local
        return PairReport(
            local=format_address(shown.address),
            remote=format_address(self.remote.address),
            local_type=shown.type.value,
            remote_type=self.remote.type.value,
            state=self.state.value,
            requests_sent=self.requests_sent,
            responses_received=self.responses_received,
            requests_received=self.requests_received,
            rtt=self.rtt,
            nominated=self.nominated,
        )

    def __repr__(self) -> str:
        return f"<CandidatePair {self.base} -> {self.remote.address} {self.state}>"
