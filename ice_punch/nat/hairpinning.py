"""Whether two hosts behind one NAT reach each other through it: RFC 4787 section 6, RFC 5780
section 3.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.nat.behaviour import FilteringBehaviour, MappingBehaviour
from ice_punch.nat.transactions import INTERVAL, Answer, Transactions
from ice_punch.stun import StunParseError, parse_message

ROUNDS: Final = 3
"""How often everything is sent before nothing counts as an answer."""
ROUND_INTERVAL: Final = 0.5
"""Seconds."""


class HairpinningBehaviour(StrEnum):
    """RFC 4787 section 6."""

    OPEN = "open"
    """There is no NAT."""
    NONE = "none"
    INTERNAL_SOURCE = "internal source"
    """What comes back in has the sender's internal address as source."""
    EXTERNAL_SOURCE = "external source"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HairpinningVerdict:
    behaviour: HairpinningBehaviour
    reason: str


class HairpinResult(StrEnum):
    """What was seen, before anything is known of the NAT's other behaviour."""

    NO_ANSWER = "no answer"
    NO_NAT = "no nat"
    NOTHING = "nothing"
    FROM_INTERNAL = "from internal"
    FROM_EXTERNAL = "from external"


@dataclass(frozen=True, slots=True)
class HairpinTested:
    result: HairpinResult
    reason: str


def hairpinning_verdict(
    tested: HairpinTested, mapping: MappingBehaviour, filtering: FilteringBehaviour
) -> HairpinningVerdict:
    """The hairpinning behaviour. That nothing came back says nothing where the NAT would filter
    it: where mappings depend on the destination nobody inside knows which port the other's
    packets would come from, so no filter that looks at ports can have been opened to it."""
    match tested.result:
        case HairpinResult.FROM_INTERNAL:
            return HairpinningVerdict(HairpinningBehaviour.INTERNAL_SOURCE, tested.reason)
        case HairpinResult.FROM_EXTERNAL:
            return HairpinningVerdict(HairpinningBehaviour.EXTERNAL_SOURCE, tested.reason)
        case HairpinResult.NO_NAT:
            return HairpinningVerdict(HairpinningBehaviour.OPEN, tested.reason)
        case HairpinResult.NO_ANSWER:
            return HairpinningVerdict(HairpinningBehaviour.UNKNOWN, tested.reason)
    varies = mapping is not MappingBehaviour.ENDPOINT_INDEPENDENT
    by_port = filtering in (
        FilteringBehaviour.ADDRESS_AND_PORT_DEPENDENT,
        FilteringBehaviour.UNKNOWN,
    )
    if varies and by_port:
        why = "the NAT's filter may have stopped what its hairpin let through"
        return HairpinningVerdict(HairpinningBehaviour.UNKNOWN, why)
    return HairpinningVerdict(HairpinningBehaviour.NONE, tested.reason)


class HairpinDiscovery:
    """Sends from some sockets to the mapped address of another, and back.

    ``target`` and ``senders`` have sent nothing before. They send to each other's mapped
    addresses, so that filters are open both ways. With one sender the test is that of RFC 5780; a
    NAT with several external addresses may need more, since the filter opens to those only that
    the senders were seen at.
    """

    def __init__(
        self,
        server: Address,
        target: Address,
        senders: Sequence[Address],
        random: RandomSource,
        now: float,
        *,
        software: str | None = "ice-punch",
        rto: float = 0.5,
        rc: int = 4,
        rm: int = 3,
    ) -> None:
        """Raises ValueError without a sender, or if the target is one."""
        if not senders or target in senders:
            raise ValueError("hairpinning shows between two sockets")
        self._server = server
        self._target = target
        self._waiting = [target, *dict.fromkeys(senders)]
        self._transactions = Transactions(random, software, rto=rto, rc=rc, rm=rm)
        self._mapped: dict[Address, Address] = {}
        self._sent: dict[bytes, Address] = {}
        """Who has sent what, by transaction id."""
        self._rounds = 0
        self._turn_of_target = True
        self._next_at: float | None = now
        self._event: HairpinTested | None = None
        self.done = False
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        answer = self._transactions.receive_datagram(data, source, local, now)
        if answer is not None:
            self._take([answer], now)
            return
        try:
            sender = self._sent.get(parse_message(data).transaction_id)
        except StunParseError:
            return
        if sender is None or sender == local or self.done:
            return
        if source == sender:
            self._finish(HairpinResult.FROM_INTERNAL, "it came back with the internal address")
        else:
            self._finish(HairpinResult.FROM_EXTERNAL, "it came back as if from outside")

    def handle_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error came back for what ``local`` sent to ``destination``."""
        self._take(self._transactions.handle_icmp_error(local, destination, now), now)

    def handle_timer(self, now: float) -> None:
        self._take(self._transactions.handle_timer(now), now)
        if self._next_at is None or now < self._next_at:
            return
        if self._waiting:
            self._transactions.ask(self._waiting.pop(0), self._server, now)
            self._next_at = now + INTERVAL if self._waiting else None
        elif self._rounds == ROUNDS:
            self._finish(HairpinResult.NOTHING, "nothing came back")
        else:
            self._send_round(now)

    def get_timer(self) -> float | None:
        timers = (self._next_at, self._transactions.get_timer())
        return min((timer for timer in timers if timer is not None), default=None)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self._transactions.datagrams_to_send()

    def next_event(self) -> HairpinTested | None:
        event, self._event = self._event, None
        return event

    def _take(self, answers: list[Answer], now: float) -> None:
        for answer in answers:
            if answer.mapped is not None:
                self._mapped[answer.local] = answer.mapped
            elif answer.local == self._target:
                self._finish(HairpinResult.NO_ANSWER, answer.reason)
                return
        asked = not self._waiting and not self._transactions.busy
        if self.done or not answers or not asked:
            return
        mapped = self._mapped[self._target]
        if len(self._mapped) == 1:
            self._finish(HairpinResult.NO_ANSWER, answers[-1].reason)
        elif mapped == self._target:
            self._finish(HairpinResult.NO_NAT, "the server sees the local address")
        else:
            self._next_at = now

    def _send_round(self, now: float) -> None:
        """First the target, whose filter has to be open, then, a moment later, the others."""
        mapped = self._mapped[self._target]
        senders = [local for local in self._mapped if local != self._target]
        if self._turn_of_target:
            for local in senders:
                self._send(self._target, self._mapped[local])
            self._next_at = now + INTERVAL
        else:
            for local in senders:
                self._send(local, mapped)
            self._rounds += 1
            self._next_at = now + ROUND_INTERVAL
        self._turn_of_target = not self._turn_of_target

    def _send(self, local: Address, destination: Address) -> None:
        transaction_id = self._transactions.send_once(local, destination, request=True)
        self._sent[transaction_id] = local

    def _finish(self, result: HairpinResult, reason: str) -> None:
        if not self.done:
            self.done = True
            self._transactions.stop()
            self._waiting.clear()
            self._next_at = None
            self._event = HairpinTested(result, reason)
