"""The Binding transactions that a test of NAT behaviour consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    ERROR_CODE,
    RESPONSE_PORT,
    SOFTWARE,
    ClientTransaction,
    FailureReason,
    Message,
    MessageClass,
    Method,
    StunParseError,
    TransactionFailed,
    mapped_address,
    parse_message,
)

INTERVAL: Final = 0.1
"""Seconds between new transactions: RFC 5780 section 5 allows ten a second."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a transaction ended."""

    local: Address
    """The socket that had asked."""
    arrived_at: Address | None
    """The socket that the response came to, which RESPONSE-PORT makes another one; None: no
    response came."""
    mapped: Address | None
    """Where the server saw the request come from; None if it did not answer, or with an error."""
    reason: str
    """Why there is no ``mapped``."""


class Transactions:
    """Asks servers from any number of sockets, each at its own pace."""

    def __init__(
        self, random: RandomSource, software: str | None, *, rto: float, rc: int, rm: int
    ) -> None:
        """``rto`` (seconds), ``rc`` and ``rm`` are those of RFC 8489 section 6.2.1."""
        self._random = random
        self._software = software
        self._timing = (rto, rc, rm)
        self._out: dict[bytes, ClientTransaction] = {}
        self._outgoing: list[Transmit] = []

    @property
    def busy(self) -> bool:
        return bool(self._out)

    @property
    def patience(self) -> float:
        """Seconds after which a transaction has failed."""
        rto, rc, rm = self._timing
        return rto * ((1 << (rc - 1)) - 1 + rm)

    def ask(
        self, local: Address, server: Address, now: float, *, response_port: int | None = None
    ) -> None:
        """Ask from ``local``; with ``response_port`` the response is to go to that port of the
        address which the server sees (RFC 5780 section 7.5)."""
        request = self._request(MessageClass.REQUEST)
        if response_port is not None:
            request.add(RESPONSE_PORT, response_port)
        rto, rc, rm = self._timing
        transaction = ClientTransaction(request, local, server, now, rto=rto, rc=rc, rm=rm)
        self._out[request.transaction_id] = transaction
        self._outgoing += transaction.datagrams_to_send(now)

    def send_once(self, local: Address, destination: Address, *, request: bool) -> bytes:
        """Send a Binding request, whose response is not waited for, or an indication. Returns the
        transaction id."""
        message = self._request(MessageClass.REQUEST if request else MessageClass.INDICATION)
        self._outgoing.append(Transmit(message.to_bytes(), local, destination))
        return message.transaction_id

    def receive_datagram(
        self, data: bytes, source: Address, local: Address, now: float
    ) -> Answer | None:
        """The end of a transaction, if this is one."""
        try:
            message = parse_message(data)
        except StunParseError:
            return None
        transaction = self._out.get(message.transaction_id)
        if transaction is None or source != transaction.destination:
            return None
        elsewhere = local != transaction.local
        if elsewhere and transaction.request.get(RESPONSE_PORT) is None:
            return None
        transaction.receive_message(message, source, now)
        return self._ended(transaction, local)

    def handle_icmp_error(self, local: Address, destination: Address, now: float) -> list[Answer]:
        """A hard ICMP error came back for what ``local`` sent to ``destination``."""
        answers = []
        for transaction in list(self._out.values()):
            if (transaction.local, transaction.destination) == (local, destination):
                transaction.handle_icmp_error(now)
                answers.append(self._ended(transaction, None))
        return [answer for answer in answers if answer is not None]

    def handle_timer(self, now: float) -> list[Answer]:
        answers = []
        for transaction in list(self._out.values()):
            transaction.handle_timer(now)
            self._outgoing += transaction.datagrams_to_send(now)
            answers.append(self._ended(transaction, None))
        return [answer for answer in answers if answer is not None]

    def get_timer(self) -> float | None:
        timers = [transaction.get_timer() for transaction in self._out.values()]
        return min((timer for timer in timers if timer is not None), default=None)

    def datagrams_to_send(self) -> list[Transmit]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def stop(self) -> None:
        self._out.clear()

    def _request(self, message_class: MessageClass) -> Message:
        message = Message(Method.BINDING, message_class, self._random.randbytes(12))
        if self._software is not None:
            message.add(SOFTWARE, self._software)
        return message

    def _ended(self, transaction: ClientTransaction, arrived_at: Address | None) -> Answer | None:
        outcome = transaction.next_event()
        if outcome is None:
            return None
        del self._out[transaction.request.transaction_id]
        if isinstance(outcome, TransactionFailed):
            return Answer(transaction.local, arrived_at, None, describe(outcome))
        return Answer(transaction.local, arrived_at, mapped_address(outcome.response), "")


def describe(failure: TransactionFailed) -> str:
    """What went wrong, for people."""
    error = failure.response.get(ERROR_CODE) if failure.response is not None else None
    if error is not None:
        return f"the server answered {error.code} {error.reason}".rstrip()
    return {
        FailureReason.TIMEOUT: "the server does not answer",
        FailureReason.UNREACHABLE: "the server is unreachable",
    }.get(failure.reason, "the server's answer can not be used")
