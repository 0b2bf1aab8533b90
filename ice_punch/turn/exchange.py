"""One request of a TURN client until its final answer, with as many transactions as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    ERROR_CODE,
    AttributeType,
    ClientTransaction,
    ErrorCode,
    FailureReason,
    Message,
    MessageClass,
    Method,
    TransactionSucceeded,
)
from ice_punch.turn.challenge import Credentials, Proof, is_bid_down

MAX_CHALLENGES: Final = 3
"""401 and 438 responses to one request; more are a server's error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request came to nothing."""

    code: int | None
    """None without a usable error response; ``reason`` then says what kind, as in
    ``AllocationFailed``."""
    reason: str
    response: Message | None = None


@dataclass(slots=True)
class Route:
    """How a client and its server reach each other."""

    server: Address
    local: Address
    reliable: bool
    """Over TCP or TLS a request is sent once, and has Ti to be answered."""
    rto: float


Outcome = Message | Failure
Attribute = tuple[AttributeType[Any], Any]


class Again(Enum):
    """The request is to be begun anew, with the credentials as they are now."""

    AGAIN = "again"


class Exchange:
    """Its transactions, one after the other: each 401 or 438 that can be met begins another."""

    def __init__(
        self,
        method: Method,
        attributes: Sequence[Attribute],
        done: Callable[[Outcome, float, float], None],
    ) -> None:
        """``done`` is for the owner to call with the outcome, ``began_at``, and now."""
        self.method = method
        self.done = done
        self.began_at = 0.0
        """When its latest transaction did."""
        self._attributes = attributes
        self._transaction: ClientTransaction | None = None
        self._used: Proof | None = None
        self._challenges = 0
        self._unproven: ErrorCode | None = None
        """A 400 that was discarded for want of integrity."""

    @property
    def is_authenticated(self) -> bool:
        """Whether what is out carries our credentials."""
        return self._used is not None

    def begin(
        self, credentials: Credentials, route: Route, random: RandomSource, now: float
    ) -> bytes:
        """Start a transaction; its id."""
        request = Message(self.method, MessageClass.REQUEST, random.randbytes(12))
        for attribute, value in self._attributes:
            request.add(attribute, value)
        credentials.add_to(request)
        self._used = proof = credentials.proof
        self.began_at = now
        self._transaction = ClientTransaction(
            request,
            route.local,
            route.server,
            now,
            key=None if proof is None else proof.key,
            algorithms=() if proof is None else (proof.integrity,),
            fingerprint=False,
            rto=route.rto,
            reliable=route.reliable,
        )
        return request.transaction_id

    def receive(
        self, response: Message, source: Address, credentials: Credentials, now: float
    ) -> Outcome | Again | None:
        """What a response with the id of the latest transaction leads to; None: it goes on."""
        transaction = self._transaction
        is_error = response.message_class is MessageClass.ERROR
        if transaction is None or response.method != self.method:
            return None
        error = response.get(ERROR_CODE) if is_error else None
        if error is not None and not response.unknown_required:
            # RFC 8489 section 9.2.5: these two can not be protected, and a 400 that is not is void
            if error.code in (401, 438):
                return self._challenged(response, error.code, credentials)
            if error.code == 400 and not response.integrity:
                self._unproven = error
                return None
        if is_bid_down(response):
            return None
        transaction.receive_message(response, source, now)
        return self._outcome()

    def _challenged(
        self, response: Message, code: int, credentials: Credentials
    ) -> Failure | Again:
        self._challenges += 1
        if self._challenges > MAX_CHALLENGES:
            return Failure(code, "the server asks for credentials again and again", response)
        objection = credentials.answer(response, self._used, stale=code == 438)
        return Again.AGAIN if objection is None else Failure(code, objection, response)

    def handle_timer(self, now: float) -> Outcome | None:
        if self._transaction is None:
            return None
        self._transaction.handle_timer(now)
        return self._outcome()

    def get_timer(self) -> float | None:
        return None if self._transaction is None else self._transaction.get_timer()

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return [] if self._transaction is None else self._transaction.datagrams_to_send(now)

    def _outcome(self) -> Outcome | None:
        assert self._transaction is not None
        event = self._transaction.next_event()
        if event is None:
            return None
        if isinstance(event, TransactionSucceeded):
            return event.response
        response = event.response
        error = None if response is None else response.get(ERROR_CODE)
        if event.reason is FailureReason.ERROR_RESPONSE and error is not None:
            return Failure(error.code, readable(error.reason), response)
        if event.reason is FailureReason.INTEGRITY_VIOLATION:
            return Failure(None, "unauthenticated: no answer was protected with the password")
        if event.reason is FailureReason.INVALID_RESPONSE:
            return Failure(None, "unusable: an answer that can not be understood", response)
        if self._unproven is not None:
            code, reason = self._unproven
            return Failure(None, f"silent: nothing but {code} {readable(reason)} without proof")
        return Failure(None, "silent: no answer")


def readable(text: str) -> str:
    """A server's phrase, for people: one short line."""
    return "".join(c for c in text if c.isprintable())[:100]
