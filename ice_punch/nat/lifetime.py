"""How long a NAT keeps a mapping that nobody uses, and who keeps it alive: RFC 5780 section 4.6,
RFC 4787 section 4.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.nat.transactions import Answer, Transactions

SHARE: Final = 0.8
"""Of a lifetime: when in the middle of a test of refreshing something is sent, and how much later
the mapping is looked at."""


class RefreshBehaviour(StrEnum):
    """Which packets keep a mapping alive, RFC 4787 section 4.3."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    BOTH = "both"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LifetimeDetermined:
    """Times are seconds without traffic."""

    alive_after: float | None
    """The longest after which the mapping was still there; None: nothing could be measured."""
    expired_after: float | None
    """The shortest after which it was gone; None: it never was."""
    refresh: RefreshBehaviour
    reason: str
    tests: int
    """How often the mapping was looked at."""


class _Step(Enum):
    RENEW = auto()
    """``tested`` asks the server: its mapping is fresh."""
    WAIT = auto()
    HELPER = auto()
    """A helper asks where it is mapped."""
    LOOK = auto()
    """The helper has the server answer to the mapping of ``tested``."""


class _Goal(Enum):
    CONTROL = auto()
    SEARCH = auto()
    INBOUND = auto()
    OUTBOUND = auto()


_REFRESH: Final = {
    frozenset[_Goal](): RefreshBehaviour.UNKNOWN,
    frozenset({_Goal.OUTBOUND}): RefreshBehaviour.OUTBOUND,
    frozenset({_Goal.INBOUND}): RefreshBehaviour.INBOUND,
    frozenset({_Goal.OUTBOUND, _Goal.INBOUND}): RefreshBehaviour.BOTH,
}


class LifetimeDiscovery:
    """The lifetime of the mapping of ``tested`` towards one server, by binary search.

    A helper, another socket, has the server send to that mapping after a time without traffic,
    with RESPONSE-PORT. The NAT must have mapped both to one external address: of several helpers
    the first that is so is used. All sockets have sent nothing before.

    The search doubles from ``first`` seconds to at most ``longest``, then narrows down to
    ``precision``. It ends when the next test would end after ``time_limit`` seconds in all.
    """

    def __init__(
        self,
        server: Address,
        tested: Address,
        helpers: Sequence[Address],
        random: RandomSource,
        now: float,
        *,
        first: float = 15.0,
        longest: float = 600.0,
        precision: float = 1.0,
        time_limit: float = 7200.0,
        software: str | None = "ice-punch",
        rto: float = 0.5,
        rc: int = 3,
        rm: int = 3,
    ) -> None:
        """Raises ValueError without a helper, and for times that are none."""
        if not helpers or tested in helpers:
            raise ValueError("the lifetime of a mapping shows with a second socket")
        if not 0 < first <= longest or not precision > 0:
            raise ValueError("the search needs 0 < first <= longest and a precision > 0")
        self._server = server
        self._tested = tested
        self._helpers = list(dict.fromkeys(helpers))
        self._transactions = Transactions(random, software, rto=rto, rc=rc, rm=rm)
        self._first = first
        self._longest = longest
        self._precision = precision
        self._deadline = now + time_limit
        self._alive_after: float | None = None
        self._expired_after: float | None = None
        self._refreshed_by: set[_Goal] = set()
        self._tests = 0
        self._goal = _Goal.CONTROL
        self._idle = 0.0
        self._step = _Step.RENEW
        self._mapped: Address | None = None
        self._renewed_at = self._looked_at = now
        self._looks_at: list[float] = []
        """The instants at which something is due in this test."""
        self._tried = 0
        self._event: LifetimeDetermined | None = None
        self.done = False
        self._begin(_Goal.CONTROL, 0.0, now)

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        answer = self._transactions.receive_datagram(data, source, local, now)
        if answer is not None:
            self._take(answer, now)

    def handle_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error came back for what ``local`` sent to ``destination``."""
        for answer in self._transactions.handle_icmp_error(local, destination, now):
            self._take(answer, now)

    def handle_timer(self, now: float) -> None:
        for answer in self._transactions.handle_timer(now):
            self._take(answer, now)
        if self._step is _Step.WAIT and self._looks_at and now >= self._looks_at[0]:
            self._looks_at.pop(0)
            if self._looks_at and self._goal is _Goal.OUTBOUND:
                self._transactions.send_once(self._tested, self._server, request=False)
            else:
                self._ask_helper(now)

    def get_timer(self) -> float | None:
        if self.done:
            return None
        if self._step is _Step.WAIT:
            return self._looks_at[0]
        return self._transactions.get_timer()

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self._transactions.datagrams_to_send()

    def next_event(self) -> LifetimeDetermined | None:
        event, self._event = self._event, None
        return event

    # -- one test -----------------------------------------------------------------------------

    def _begin(self, goal: _Goal, idle: float, now: float) -> None:
        looks = 1 if goal in (_Goal.CONTROL, _Goal.SEARCH) else 2
        if now + looks * idle + 3 * self._transactions.patience > self._deadline:
            self._finish("the time is up")
            return
        self._goal = goal
        self._idle = idle
        self._step = _Step.RENEW
        self._transactions.ask(self._tested, self._server, now)

    def _take(self, answer: Answer, now: float) -> None:
        match self._step:
            case _Step.RENEW:
                self._renewed(answer, now)
            case _Step.HELPER:
                self._helper_answered(answer, now)
            case _Step.LOOK:
                self._looked(answer, now)

    def _renewed(self, answer: Answer, now: float) -> None:
        if answer.mapped is None:
            self._finish(answer.reason)
            return
        if answer.mapped == self._tested:
            self._finish("there is no NAT: the server sees the local address")
            return
        self._mapped = answer.mapped
        self._renewed_at = now
        looks = 1 if self._goal in (_Goal.CONTROL, _Goal.SEARCH) else 2
        self._looks_at = [now + self._idle * n for n in range(1, looks + 1)]
        self._step = _Step.WAIT
        self.handle_timer(now)

    def _ask_helper(self, now: float) -> None:
        self._step = _Step.HELPER
        self._tried = 0
        self._transactions.ask(self._helpers[0], self._server, now)

    def _helper_answered(self, answer: Answer, now: float) -> None:
        assert self._mapped is not None
        if answer.mapped is None:
            self._finish(answer.reason)
        elif answer.mapped[0] == self._mapped[0]:
            self._step = _Step.LOOK
            self._transactions.ask(answer.local, self._server, now, response_port=self._mapped[1])
            self._looked_at = now
        elif self._tried + 1 < len(self._helpers):
            self._tried += 1
            self._helpers.append(self._helpers.pop(0))
            self._transactions.ask(self._helpers[0], self._server, now)
        else:
            self._finish("no two sockets have one external address")

    def _looked(self, answer: Answer, now: float) -> None:
        """The mapping is there if the response came through it. One that comes to the helper
        itself came through a mapping that took the place of the old one (section 4.6)."""
        if answer.arrived_at is not None and answer.mapped is None:
            self._finish(answer.reason)
            return
        alive = answer.arrived_at == self._tested
        self._tests += 1
        if self._looks_at:  # in the middle of a test of inbound refreshing
            if alive:
                self._step = _Step.WAIT
            else:
                self._finish("the mapping does not always live for the same time")
            return
        self._decide(alive, self._looked_at - self._renewed_at, now)

    # -- what next ----------------------------------------------------------------------------

    def _decide(self, alive: bool, idle: float, now: float) -> None:
        match self._goal:
            case _Goal.CONTROL:
                if alive:
                    self._alive_after = idle
                    self._begin(_Goal.SEARCH, self._first, now)
                else:
                    self._finish("a response to another port does not come at all")
                return
            case _Goal.SEARCH:
                self._narrow(alive, idle, now)
                return
            case _Goal.INBOUND | _Goal.OUTBOUND:
                if alive:
                    self._refreshed_by.add(self._goal)
        if self._goal is _Goal.INBOUND:
            self._begin(_Goal.OUTBOUND, self._idle, now)
        else:
            refresh = _REFRESH[frozenset(self._refreshed_by)]
            known = refresh is not RefreshBehaviour.UNKNOWN
            how = f"by {refresh} traffic" if known else "by nothing"
            self._finish(f"it is refreshed {how}", refresh)

    def _narrow(self, alive: bool, idle: float, now: float) -> None:
        if alive:
            self._alive_after = max(idle, self._alive_after or 0.0)
        else:
            self._expired_after = min(idle, self._expired_after or idle)
        low, high = self._alive_after, self._expired_after
        assert low is not None
        if high is None and low >= self._longest:
            self._finish(f"it lives for {self._longest:g} s at least")
        elif high is None:
            self._begin(_Goal.SEARCH, min(max(self._first, 2 * low), self._longest), now)
        elif low >= high:
            self._finish("the mapping does not always live for the same time")
        elif high - low > self._precision:
            self._begin(_Goal.SEARCH, (low + high) / 2, now)
        elif 2 * SHARE * low <= high:
            self._finish("it lives too short a time to tell what refreshes it")
        else:
            self._begin(_Goal.INBOUND, SHARE * low, now)

    def _finish(self, reason: str, refresh: RefreshBehaviour = RefreshBehaviour.UNKNOWN) -> None:
        self.done = True
        self._transactions.stop()
        self._event = LifetimeDetermined(
            self._alive_after, self._expired_after, refresh, reason, self._tests
        )
