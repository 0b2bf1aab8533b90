"""Server-reflexive gathering: Binding requests to STUN servers, RFC 8445 section 5.1.1.2."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address, RandomSource, Transmit, format_address
from ice_punch.ice.candidate import is_mapping_of
from ice_punch.report import ServerReport
from ice_punch.stun import (
    SOFTWARE,
    ClientTransaction,
    FailureReason,
    Message,
    MessageClass,
    Method,
    TransactionFailed,
    TransactionSucceeded,
    mapped_address,
)

KEEPALIVE_INTERVAL = 15.0
"""Seconds. RFC 8445 sections 5.1.1.4 and 11: Tr, never less."""
MAX_QUERIES = 64
_ANSWERED = (FailureReason.ERROR_RESPONSE, FailureReason.INVALID_RESPONSE)


@dataclass(slots=True)
class ServerQuery:
    """One base asking one server."""

    server: str
    address: Address
    base: Address
    component: int
    transaction: ClientTransaction | None = None
    mapped: Address | None = None
    stale: Address | None = None
    """What it was told before an ICE restart asked again."""
    keep_alive_at: float | None = None
    reported: bool = False
    answered: bool = False
    """Whether anything came from the server, of use or not."""
    ended: str = ""
    """How it ended for the first time, as in ``ServerReport``."""

    @property
    def outcome(self) -> str:
        """As in ``ServerReport``: of one that is out ``silent`` once it was sent three times."""
        sends = 0 if self.transaction is None else self.transaction.sends
        return self.ended or ("silent" if sends >= 3 else "pending")

    @property
    def in_vain(self) -> bool:
        """Whether the server was given time enough to answer, and did not."""
        return not self.answered and self.outcome not in ("ok", "pending")

    def report(self, detail: str = "") -> ServerReport:
        return ServerReport(
            uri=self.server,
            outcome=self.outcome,
            detail=detail,
            purpose="address",
            base=format_address(self.base),
            mapped="" if self.mapped is None else format_address(self.mapped),
        )


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    query: ServerQuery
    mapped: Address
    before: Address | None
    """What the same query was told the last time."""


@dataclass(frozen=True, slots=True)
class QueryFailed:
    query: ServerQuery
    reason: str


_NO_BASES: frozenset[Address] = frozenset()


class ServerQueries:
    """The queries of one agent. The agent's pacer says when one may start."""

    def __init__(self, random: RandomSource, software: str | None) -> None:
        self._random = random
        self._software = software
        self._waiting: list[ServerQuery] = []
        self._running: dict[bytes, ServerQuery] = {}
        self._kept_alive: list[ServerQuery] = []
        self._outbox: list[Transmit] = []
        self.all: list[ServerQuery] = []
        self.stopped = False
        self._done = _NO_BASES
        """The bases that had asked when ICE was done."""

    def add(self, server: str, address: Address, base: Address, component: int) -> None:
        """Once ICE is done only bases that come later ask. Raises ValueError past 64 queries."""
        if len(self.all) >= MAX_QUERIES:
            raise ValueError(f"more than {MAX_QUERIES} server queries")
        done = self.stopped and base in self._done
        query = ServerQuery(server, address, base, component, reported=done)
        self.all.append(query)
        if not done:
            self._waiting.append(query)

    def add_answered(
        self,
        server: str,
        address: Address,
        base: Address,
        component: int,
        mapped: Address,
        now: float,
    ) -> QueryAnswered | None:
        """A request of another kind from ``base`` has told what a Binding request would, a TURN
        Allocate (RFC 8445 section 5.1.1.2). Kept alive like the others. None if it is of no use,
        or one too many."""
        if not is_mapping_of(base, mapped):
            return None
        asked = next((q for q in self.all if (q.address, q.base) == (address, base)), None)
        if asked is not None:
            if asked.mapped is not None:
                return None
            asked.mapped, asked.answered = mapped, True
            return QueryAnswered(asked, mapped, asked.stale)
        if len(self.all) >= MAX_QUERIES:
            return None
        query = ServerQuery(server, address, base, component, mapped=mapped, answered=True)
        self.all.append(query)
        self._keep_alive(query, now)
        return QueryAnswered(query, mapped, None)

    def has_work(self) -> bool:
        return bool(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any query has yet to end for the first time."""
        return any(not query.reported for query in self.all)

    @property
    def asking_again(self) -> bool:
        """Whether an address that a restart asked for again has yet to be told."""
        return any(query.stale is not None for query in self.all) and bool(self._running)

    def unanswered(self) -> list[ServerReport]:
        """The queries that wait or are out, or did when ICE was done: ``silent`` once asked three
        times, else ``pending``."""
        return [query.report() for query in self.all if not query.ended]

    def mapping_varies(self) -> bool:
        """Whether one base was seen at different addresses by different servers."""
        seen: dict[Address, set[Address]] = {}
        for query in self.all:
            if query.mapped is not None:
                seen.setdefault(query.base, set()).add(query.mapped)
        return any(len(mapped) > 1 for mapped in seen.values())

    def start_next(self, now: float, ta: float) -> None:
        query = self._waiting.pop(0)
        request = Message(Method.BINDING, MessageClass.REQUEST, self._random.randbytes(12))
        if self._software is not None:
            request.add(SOFTWARE, self._software)
        # RFC 8445 section 14.3: RTO = MAX(500 ms, Ta * number of transactions).
        rto = max(0.5, ta * (len(self._running) + len(self._waiting) + 1))
        query.transaction = ClientTransaction(request, query.base, query.address, now, rto=rto)
        self._running[request.transaction_id] = query
        self._outbox.extend(query.transaction.datagrams_to_send(now))

    def owns(self, transaction_id: bytes) -> bool:
        return transaction_id in self._running

    def receive(
        self, transaction_id: bytes, data: bytes, source: Address, local: Address, now: float
    ) -> QueryAnswered | QueryFailed | None:
        query = self._running[transaction_id]
        assert query.transaction is not None
        query.transaction.receive_datagram(data, source, local, now)
        return self._outcome(transaction_id, query, now)

    def receive_icmp_error(
        self, local: Address, destination: Address, now: float
    ) -> list[QueryFailed]:
        """RFC 8489 section 6.2.1: a hard ICMP error ends the transaction."""
        failed = []
        for transaction_id, query in list(self._running.items()):
            if (query.base, query.address) == (local, destination):
                assert query.transaction is not None
                query.transaction.handle_icmp_error(now)
                outcome = self._outcome(transaction_id, query, now)
                if isinstance(outcome, QueryFailed):
                    failed.append(outcome)
        return failed

    def _outcome(
        self, transaction_id: bytes, query: ServerQuery, now: float
    ) -> QueryAnswered | QueryFailed | None:
        assert query.transaction is not None
        event = query.transaction.next_event()
        if event is None:
            return None
        del self._running[transaction_id]
        mapped: Address | None = None
        reason = "unexpected answer"
        if isinstance(event, TransactionSucceeded):
            query.answered = True
            mapped = mapped_address(event.response)
            if mapped is None or not is_mapping_of(query.base, mapped):
                mapped, reason = None, "the answer has no usable mapped address"
        elif isinstance(event, TransactionFailed):
            reason = str(event.reason)
            query.answered |= event.reason in _ANSWERED
        if mapped is None and query.mapped is None:
            return QueryFailed(query, reason)
        # One keepalive without an answer says little: the next one is due all the same.
        self._keep_alive(query, now)
        if mapped is None:
            return QueryFailed(query, reason)
        before, query.mapped, query.stale = query.mapped or query.stale, mapped, None
        return QueryAnswered(query, mapped, before)

    def _keep_alive(self, query: ServerQuery, now: float) -> None:
        if not self.stopped:
            query.keep_alive_at = now + KEEPALIVE_INTERVAL
            self._kept_alive.append(query)

    def handle_timer(self, now: float) -> list[QueryFailed]:
        failed = []
        for transaction_id, query in list(self._running.items()):
            transaction = query.transaction
            assert transaction is not None
            timer = transaction.get_timer()
            if timer is not None and timer <= now:
                transaction.handle_timer(now)
                self._outbox.extend(transaction.datagrams_to_send(now))
                outcome = self._outcome(transaction_id, query, now)
                if isinstance(outcome, QueryFailed):
                    failed.append(outcome)
        for query in list(self._kept_alive):
            # RFC 8445 section 5.1.1.4: the mapping is kept alive until ICE is done.
            if query.keep_alive_at is not None and query.keep_alive_at <= now:
                self._kept_alive.remove(query)
                self._waiting.append(query)
        return failed

    def stop(self) -> None:
        """ICE is done: nothing is asked and nothing kept alive any more."""
        self.stopped = True
        for query in self.all:
            query.reported = True
        if self.all:
            self._done |= {query.base for query in self.all}
        self._waiting.clear()
        self._running.clear()
        self._kept_alive.clear()
        self._outbox.clear()

    def ask_again(self) -> None:
        """An ICE restart: what a NAT does may have changed."""
        self.stop()
        self.stopped = False
        for query in self.all:
            query.stale, query.mapped = query.mapped or query.stale, None
            query.transaction = None
            self._waiting.append(query)

    def start_over(self) -> None:
        """Every base is another one: an ICE restart with fresh sockets."""
        self.stop()
        self.stopped = False
        self.all.clear()
        self._done = _NO_BASES

    def remove_base(self, base: Address) -> None:
        """Nothing is asked from this address any more."""
        self._done -= {base}
        self.all = [query for query in self.all if query.base != base]
        self._waiting = [query for query in self._waiting if query.base != base]
        self._kept_alive = [query for query in self._kept_alive if query.base != base]
        self._running = {id_: q for id_, q in self._running.items() if q.base != base}
        self._outbox = [transmit for transmit in self._outbox if transmit.local != base]

    def get_timer(self) -> float | None:
        times = [
            timer
            for query in self._running.values()
            if query.transaction is not None
            and (timer := query.transaction.get_timer()) is not None
        ]
        times += [q.keep_alive_at for q in self._kept_alive if q.keep_alive_at is not None]
        return min(times, default=None)

    def datagrams_to_send(self) -> list[Transmit]:
        sent, self._outbox = self._outbox, []
        return sent
