"""The requests that a TURN client has out, and those that wait for their turn."""

from __future__ import annotations

from collections import deque
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import Message, Method
from ice_punch.turn.challenge import Credentials
from ice_punch.turn.exchange import Again, Exchange, Outcome, Route

MAX_OUTSTANDING: Final = 10
"""Transactions with one server at a time, RFC 8489 section 6.2."""


class Exchanges:
    def __init__(self, route: Route, credentials: Credentials, random: RandomSource) -> None:
        self._route = route
        self._credentials = credentials
        self._random = random
        self._out: dict[bytes, Exchange] = {}
        """By the id of the latest transaction."""
        self._waiting: deque[Exchange] = deque()
        self._waiting_channels: deque[Exchange] = deque()

    def start(self, exchange: Exchange, now: float) -> None:
        """Begin, or wait for one of those that are out to end. Channels wait longest: data does
        without them."""
        if exchange.method == Method.CHANNEL_BIND:
            self._waiting_channels.append(exchange)
        else:
            self._waiting.append(exchange)
        self._begin_waiting(now)

    def clear(self) -> None:
        """Forget them all, without a word to their owners."""
        self._out.clear()
        self._waiting.clear()
        self._waiting_channels.clear()

    def receive(self, response: Message, source: Address, now: float) -> bool:
        """False for a response to nothing that is out."""
        exchange = self._out.get(response.transaction_id)
        if exchange is None:
            return False
        outcome = exchange.receive(response, source, self._credentials, now)
        if outcome is Again.AGAIN:
            del self._out[response.transaction_id]
            self._begin(exchange, now)
        elif outcome is not None:
            self._end(response.transaction_id, outcome, now)
        return True

    def handle_timer(self, now: float) -> None:
        for transaction_id, exchange in list(self._out.items()):
            outcome = exchange.handle_timer(now)
            if outcome is not None and transaction_id in self._out:
                self._end(transaction_id, outcome, now)

    def timers(self) -> list[float]:
        times = (exchange.get_timer() for exchange in self._out.values())
        return [time for time in times if time is not None]

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return [t for exchange in self._out.values() for t in exchange.datagrams_to_send(now)]

    def _begin_waiting(self, now: float) -> None:
        while len(self._out) < MAX_OUTSTANDING:
            waiting = self._waiting or self._waiting_channels
            if not waiting:
                break
            self._begin(waiting.popleft(), now)

    def _begin(self, exchange: Exchange, now: float) -> None:
        self._out[exchange.begin(self._credentials, self._route, self._random, now)] = exchange

    def _end(self, transaction_id: bytes, outcome: Outcome, now: float) -> None:
        exchange = self._out.pop(transaction_id)
        exchange.done(outcome, exchange.began_at, now)
        self._begin_waiting(now)
