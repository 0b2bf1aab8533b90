"""Server-reflexive candidates, RFC 5245 section 4.1.1.2, for peers that share nothing with our
agent."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    ClientTransaction,
    FailureReason,
    Message,
    MessageClass,
    Method,
    TransactionEvent,
    TransactionSucceeded,
    mapped_address,
)

KEEPALIVE_INTERVAL: Final = 15.0
"""Seconds, RFC 5245 section 4.1.1.4."""
MAX_QUERIES: Final = 64


@dataclass(slots=True)
class Query:
    server: str
    address: Address
    base: Address
    transaction: ClientTransaction | None = None
    again_at: float | None = None
    ended: bool = False
    """Whether it has come to an end once; all later ones only keep the mapping alive."""


@dataclass(frozen=True, slots=True)
class QueryEnded:
    query: Query
    mapped: Address | None
    outcome: str
    """As in ``ServerReport``."""


class ReflexiveQueries:
    """Asks servers for the mapped addresses of bases, each again every 15 s."""

    def __init__(self, random: RandomSource) -> None:
        self._random = random
        self._waiting: deque[Query] = deque()
        self._all: list[Query] = []
        self._outbox: list[Transmit] = []

    @property
    def busy(self) -> bool:
        return any(not query.ended for query in self._all)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting)

    def add(self, server: str, address: Address, base: Address) -> None:
        if len(self._all) < MAX_QUERIES:
            query = Query(server, address, base)
            self._all.append(query)
            self._waiting.append(query)

    def start_next(self, now: float) -> None:
        query = self._waiting.popleft()
        request = Message(Method.BINDING, MessageClass.REQUEST, self._random.randbytes(12))
        query.transaction = ClientTransaction(request, query.base, query.address, now)
        self._outbox += query.transaction.datagrams_to_send(now)

    def receive_response(
        self, response: Message, source: Address, local: Address, now: float
    ) -> QueryEnded | None:
        for query in self._all:
            transaction = query.transaction
            if (
                transaction is not None
                and transaction.request.transaction_id == response.transaction_id
                and (query.address, query.base) == (source, local)
            ):
                transaction.receive_message(response, source, now)
                return self._outcome(query, now)
        return None

    def handle_timer(self, now: float) -> list[QueryEnded]:
        ended: list[QueryEnded] = []
        for query in self._all:
            if query.again_at is not None and now >= query.again_at:
                query.again_at = None
                self._waiting.append(query)
            if query.transaction is not None:
                query.transaction.handle_timer(now)
                self._outbox += query.transaction.datagrams_to_send(now)
                outcome = self._outcome(query, now)
                ended += [] if outcome is None else [outcome]
        return ended

    def get_timer(self) -> float | None:
        times = [query.again_at for query in self._all]
        times += [q.transaction.get_timer() for q in self._all if q.transaction is not None]
        return min((time for time in times if time is not None), default=None)

    def datagrams_to_send(self) -> list[Transmit]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def stop(self) -> None:
        """The session has a pair, or is over: the mappings of servers are not needed any more."""
        for query in self._all:
            query.transaction = query.again_at = None
            query.ended = True
        self._waiting.clear()

    def _outcome(self, query: Query, now: float) -> QueryEnded | None:
        assert query.transaction is not None
        event: TransactionEvent | None = query.transaction.next_event()
        if event is None:
            return None
        query.transaction = None
        mapped = mapped_address(event.response) if isinstance(event, TransactionSucceeded) else None
        if mapped is not None:
            query.again_at = now + KEEPALIVE_INTERVAL
        if query.ended:
            return None
        query.ended = True
        if mapped is not None:
            return QueryEnded(query, mapped, "ok")
        silent = not isinstance(event, TransactionSucceeded) and (
            event.reason is FailureReason.TIMEOUT
        )
        return QueryEnded(query, None, "silent" if silent else "unreachable")
