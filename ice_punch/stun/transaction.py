"""The client's side of a request: RFC 8489 sections 6.2.1, 6.3.3, 6.3.4 and 9.1.4."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ice_punch.datagram import Address, Transmit
from ice_punch.stun.attributes import ERROR_CODE
from ice_punch.stun.codecs import StunParseError
from ice_punch.stun.integrity import Integrity
from ice_punch.stun.message import (
    Message,
    MessageClass,
    Method,
    mapped_address,
    parse_message,
)

DEFAULT_RTO: Final = 0.5
"""Seconds, RFC 8489 section 6.2.1."""
DEFAULT_RC: Final = 7
"""How often a request is sent, RFC 8489 section 6.2.1."""
DEFAULT_RM: Final = 16
"""How many RTO the last send is given to be answered, RFC 8489 section 6.2.1."""
DEFAULT_TI: Final = 39.5
"""Seconds that a request over TCP is given, RFC 8489 section 6.2.2."""


class Retransmission:
    """When a request goes out again, and when to give up: RFC 8489 section 6.2.1.

    The first send is counted as made at ``now``. By default requests leave at 0, 0.5, 1.5, 3.5,
    7.5, 15.5 and 31.5 s, and the transaction has failed at 39.5 s.
    """

    __slots__ = (
        "_cancelled",
        "_next",
        "_rc",
        "_rm",
        "_rto",
        "failed",
        "first_sent_at",
        "last_sent_at",
        "sends",
    )

    def __init__(
        self, now: float, *, rto: float = DEFAULT_RTO, rc: int = DEFAULT_RC, rm: int = DEFAULT_RM
    ) -> None:
        """``rto`` is in seconds. Raises ValueError for a schedule that is none."""
        if rto <= 0 or rc < 1 or rm < 0:
            raise ValueError("a retransmission needs rto > 0, rc >= 1 and rm >= 0")
        self._rto = rto
        self._rc = rc
        self._rm = rm
        self._cancelled = False
        self.sends = 1
        self.first_sent_at = now
        self.last_sent_at = now
        self.failed = False
        self._next = now + (rto if rc > 1 else rm * rto)

    def get_timer(self) -> float | None:
        """The next send or, after the last one, the moment of failure; None once failed."""
        return None if self.failed else self._next

    def handle_timer(self, now: float) -> bool:
        """True: send the request again, now. ``failed`` is set when the time is over."""
        if self.failed or now < self._next:
            return False
        if self._cancelled or self.sends == self._rc:
            self.failed = True
            return False
        self.sends += 1
        self.last_sent_at = now
        if self.sends == self._rc:
            self._next = now + self._rm * self._rto
        else:
            self._next = now + self._rto * 2 ** (self.sends - 1)
        return True

    def cancel(self) -> None:
        """No more sends, but the time that a response is awaited for stays what it was: RFC 8445
        section 7.3.1.4."""
        if self._cancelled or self.failed:
            return
        self._cancelled = True
        if self.sends < self._rc:
            unsent = 2 ** (self._rc - 1) - 2 ** (self.sends - 1)
            self._next = self.last_sent_at + (unsent + self._rm) * self._rto


class FailureReason(StrEnum):
    TIMEOUT = "timeout"
    INTEGRITY_VIOLATION = "integrity-violation"
    """Responses came, and none was protected with the right key: RFC 8489 section 9.1.4."""
    ERROR_RESPONSE = "error-response"
    INVALID_RESPONSE = "invalid-response"
    """A response that ends the transaction and can not be used: unknown comprehension-required
    attributes (RFC 8489 section 6.3.3), no ERROR-CODE (6.3.4), no mapped address."""
    UNREACHABLE = "unreachable"
    """A hard ICMP error: RFC 8489 section 6.2.1."""


@dataclass(frozen=True, slots=True)
class TransactionSucceeded:
    response: Message
    source: Address
    rtt: float | None
    """Seconds; None when the request was sent more than once (Karn, RFC 8489 section 6.2.1)."""


@dataclass(frozen=True, slots=True)
class TransactionFailed:
    reason: FailureReason
    response: Message | None = None
    """What ended the transaction, if a response did. Its ERROR-CODE is that of a server that is
    authenticated only if the transaction had a key."""
    rtt: float | None = None


TransactionEvent = TransactionSucceeded | TransactionFailed


class ClientTransaction:
    """One request to one server until it is answered or given up.

    The request is serialized once, so every send is byte for byte the same. Authentication beyond
    a known key (the 401 and 438 of section 9.2), redirection (3xx) and another try after 5xx are
    the caller's, who sees the error response.
    """

    def __init__(
        self,
        request: Message,
        local: Address,
        destination: Address,
        now: float,
        *,
        key: bytes | None = None,
        algorithms: Iterable[Integrity] = (Integrity.SHA1,),
        fingerprint: bool = True,
        rto: float = DEFAULT_RTO,
        rc: int = DEFAULT_RC,
        rm: int = DEFAULT_RM,
        response_source: Address | None = None,
        reliable: bool = False,
        ti: float = DEFAULT_TI,
    ) -> None:
        """``response_source`` is where the response has to come from if that is not
        ``destination`` (RFC 5780 section 7.2). Over TCP, TLS or another ``reliable`` transport the
        request is sent once and given ``ti`` seconds."""
        self.request = request
        self.local = local
        self.destination = destination
        self.discarded = 0
        """Responses that were dropped for want of the right integrity."""
        self._key = key
        self._algorithms = frozenset(algorithms) if key is not None else frozenset()
        self._reliable = reliable
        self._response_source = response_source or destination
        self._data = request.to_bytes(key=key, algorithms=algorithms, fingerprint=fingerprint)
        self._retransmission = (
            Retransmission(now, rto=ti, rc=1, rm=1)
            if reliable
            else Retransmission(now, rto=rto, rc=rc, rm=rm)
        )
        self._outgoing = [Transmit(self._data, local, destination)]
        self._event: TransactionEvent | None = None
        self.done = False

    @property
    def sends(self) -> int:
        return self._retransmission.sends

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> bool:
        """True when this ended the transaction. What is not its response, or not one that can be
        trusted, is ignored: RFC 8489 sections 6.3 and 9.1.4."""
        if self.done or source != self._response_source or local != self.local:
            return False
        try:
            message = parse_message(data)
        except StunParseError:
            return False
        return self.receive_message(message, source, now)

    def receive_message(self, message: Message, source: Address, now: float) -> bool:
        """The same for a caller that has parsed the datagram and checked its addresses."""
        if (
            self.done
            or message.transaction_id != self.request.transaction_id
            or message.method != self.request.method
            or message.message_class not in (MessageClass.SUCCESS, MessageClass.ERROR)
        ):
            return False
        if self._key is not None and not self._authenticated(message, self._key):
            self.discarded += 1
            if self._reliable:  # RFC 8489 section 9.1.4: at once, there will be no other response
                self._finish(TransactionFailed(FailureReason.INTEGRITY_VIOLATION))
            return self._reliable
        # Karn's algorithm: no sample from a request that was sent more than once
        once = self._retransmission.sends == 1
        rtt = now - self._retransmission.first_sent_at if once else None
        if message.unknown_required:
            self._finish(TransactionFailed(FailureReason.INVALID_RESPONSE, message, rtt))
        elif message.message_class is MessageClass.ERROR:
            coded = message.get(ERROR_CODE) is not None
            reason = FailureReason.ERROR_RESPONSE if coded else FailureReason.INVALID_RESPONSE
            self._finish(TransactionFailed(reason, message, rtt))
        elif message.method == Method.BINDING and mapped_address(message) is None:
            self._finish(TransactionFailed(FailureReason.INVALID_RESPONSE, message, rtt))
        else:
            self._finish(TransactionSucceeded(message, source, rtt))
        return True

    def handle_icmp_error(self, now: float) -> None:
        """A hard ICMP error for this destination ends the transaction: RFC 8489 section 6.2.1."""
        if not self.done:
            self._finish(TransactionFailed(FailureReason.UNREACHABLE))

    def handle_timer(self, now: float) -> None:
        if self.done:
            return
        if self._retransmission.handle_timer(now):
            self._outgoing.append(Transmit(self._data, self.local, self.destination))
        elif self._retransmission.failed:
            # RFC 8489 section 9.1.4
            violated = self.discarded > 0
            self._finish(
                TransactionFailed(
                    FailureReason.INTEGRITY_VIOLATION if violated else FailureReason.TIMEOUT
                )
            )

    def get_timer(self) -> float | None:
        return None if self.done else self._retransmission.get_timer()

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_event(self) -> TransactionEvent | None:
        event, self._event = self._event, None
        return event

    def _finish(self, event: TransactionEvent) -> None:
        self.done = True
        self._event = event
        self._outgoing.clear()

    def _authenticated(self, response: Message, key: bytes) -> bool:
        """RFC 8489 section 9.1.4: with the algorithm of the request, the stronger one if it had
        both."""
        usable = response.integrity & self._algorithms
        for algorithm in (Integrity.SHA256, Integrity.SHA1):
            if algorithm in usable:
                return response.verify(key, algorithm)
        return False
