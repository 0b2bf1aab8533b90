"""Which external ports and addresses a NAT hands out, RFC 4787 sections 4.1 and 4.2.

Found from what one server sees of several sockets, asked one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.nat.transactions import INTERVAL, Answer, Transactions

MAX_STEP: Final = 10_000
"""A larger difference between ports is none that anyone counts by."""
MINIMUM_OBSERVATIONS: Final = 3


class AllocationBehaviour(StrEnum):
    """How the external port of a new mapping is chosen, RFC 4787 section 4.2."""

    OPEN = "open"
    """There is no NAT."""
    PRESERVING = "preserving"
    PARITY_PRESERVING = "parity-preserving"
    CONTIGUOUS = "contiguous"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    UNKNOWN = "unknown"


class PoolingBehaviour(StrEnum):
    """Which of several external addresses a mapping gets, RFC 4787 section 4.1."""

    PAIRED = "paired"
    ARBITRARY = "arbitrary"
    UNKNOWN = "unknown"


class SocketMapping(NamedTuple):
    """Where a server saw a socket that had not been used before."""

    local: Address
    mapped: Address


@dataclass(frozen=True, slots=True)
class AllocationVerdict:
    behaviour: AllocationBehaviour
    step: int | None
    """Of sequential allocation: from one new mapping to the next."""
    reason: str


@dataclass(frozen=True, slots=True)
class PoolingVerdict:
    behaviour: PoolingBehaviour
    external_ips: tuple[str, ...]
    """All that were seen."""
    reason: str


def allocation_verdict(mappings: Sequence[SocketMapping]) -> AllocationVerdict:
    """The port allocation, from mappings in the order in which they came into being.

    Three quarters of them have to agree, since other hosts take ports too. Parity that is kept
    by chance is one in 2 to the power of their number. Sockets that were used in the order of
    their ports can not tell contiguous from sequential allocation.
    """
    number = len(mappings)
    if number < MINIMUM_OBSERVATIONS:
        return _unknown(f"{number} mappings are too few")
    if all(local == mapped for local, mapped in mappings):
        return AllocationVerdict(AllocationBehaviour.OPEN, None, "there is no NAT")
    preserved = sum(local[1] == mapped[1] for local, mapped in mappings)
    if _most(preserved, number):
        why = f"{preserved} of {number} ports are the internal ones"
        return AllocationVerdict(AllocationBehaviour.PRESERVING, None, why)

    neighbours, neighbouring = _contiguity(mappings)
    step, steps, followers = _common_step(mappings)
    contiguous = neighbours >= 2 and _most(neighbouring, neighbours)
    sequential = step is not None and _most(followers, steps)
    if contiguous and sequential:
        return _unknown("contiguous or sequential: the ports were used in their order")
    if contiguous:
        why = f"{neighbouring} of {neighbours} neighbours stay neighbours"
        return AllocationVerdict(AllocationBehaviour.CONTIGUOUS, None, why)
    if sequential:
        why = f"{followers} of {steps} ports follow the one before by {step}"
        return AllocationVerdict(AllocationBehaviour.SEQUENTIAL, step, why)
    if all((local[1] - mapped[1]) % 2 == 0 for local, mapped in mappings):
        if len({local[1] % 2 for local, _ in mappings}) < 2:
            return _unknown("all internal ports have one parity")
        why = f"all {number} ports have the parity of the internal ones"
        return AllocationVerdict(AllocationBehaviour.PARITY_PRESERVING, None, why)
    return AllocationVerdict(
        AllocationBehaviour.RANDOM, None, f"{number} ports show no order of any kind"
    )


def pooling_verdict(mappings: Iterable[SocketMapping]) -> PoolingVerdict:
    """Whether the mappings of one internal address have one external address. A NAT that has no
    more than one is paired."""
    by_host: dict[str, list[str]] = {}
    for local, mapped in mappings:
        by_host.setdefault(local[0], []).append(mapped[0])
    seen = tuple(dict.fromkeys(ip for ips in by_host.values() for ip in ips))
    most = max((len(ips) for ips in by_host.values()), default=0)
    if any(len(set(ips)) > 1 for ips in by_host.values()):
        why = f"one host was seen at several of {len(seen)} addresses"
        return PoolingVerdict(PoolingBehaviour.ARBITRARY, seen, why)
    if most < 2:
        return PoolingVerdict(PoolingBehaviour.UNKNOWN, seen, "no host has two mappings")
    why = f"all {most} mappings of a host have one address"
    return PoolingVerdict(PoolingBehaviour.PAIRED, seen, why)


def _unknown(reason: str) -> AllocationVerdict:
    return AllocationVerdict(AllocationBehaviour.UNKNOWN, None, reason)


def _most(count: int, of: int) -> bool:
    return count > 0 and 4 * count >= 3 * of


def _contiguity(mappings: Sequence[SocketMapping]) -> tuple[int, int]:
    """How many pairs of neighbouring internal ports there are, and how many have neighbouring
    external ones."""
    external = {local: mapped[1] for local, mapped in mappings}
    pairs = [
        (external[ip, port], external[ip, port + 1])
        for ip, port in external
        if (ip, port + 1) in external
    ]
    return len(pairs), sum(upper - lower == 1 for lower, upper in pairs)


def _common_step(mappings: Sequence[SocketMapping]) -> tuple[int | None, int, int]:
    """The step that most ports follow the one before by, the number of steps, and how many of
    them are that one. A NAT with several addresses may count for each of them apart."""
    ports: dict[str, list[int]] = {}
    for _, (ip, port) in mappings:
        ports.setdefault(ip, []).append(port)
    best: tuple[int | None, int, int] = (None, 0, 0)
    for series in ([[mapped[1] for _, mapped in mappings]], list(ports.values())):
        steps = [later - port for one in series for port, later in pairwise(one)]
        for step, count in Counter(steps).most_common(1):
            if 0 < abs(step) <= MAX_STEP and len(steps) >= 2 and count > best[2]:
                best = (step, len(steps), count)
    return best


@dataclass(frozen=True, slots=True)
class AllocationDetermined:
    allocation: AllocationVerdict
    pooling: PoolingVerdict
    mappings: tuple[SocketMapping, ...]


class AllocationDiscovery:
    """Asks one server from one socket after the other, and judges what it sees.

    ``sockets`` have sent nothing before. For a clear verdict they are eight or more with
    neighbouring ports, in the order that :func:`port_order` gives.
    """

    def __init__(
        self,
        server: Address,
        sockets: Sequence[Address],
        random: RandomSource,
        now: float,
        *,
        software: str | None = "ice-punch",
        rto: float = 0.5,
        rc: int = 4,
        rm: int = 3,
    ) -> None:
        """Raises ValueError for fewer than three different sockets."""
        if len(set(sockets)) < MINIMUM_OBSERVATIONS:
            raise ValueError("port allocation shows with three sockets or more")
        self._server = server
        self._waiting = list(dict.fromkeys(sockets))
        self._transactions = Transactions(random, software, rto=rto, rc=rc, rm=rm)
        self._mappings: list[SocketMapping] = []
        self._next_at: float | None = now
        self._event: AllocationDetermined | None = None
        self.done = False
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        answer = self._transactions.receive_datagram(data, source, local, now)
        self._take([] if answer is None else [answer], now)

    def handle_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error came back for what ``local`` sent to ``destination``."""
        self._take(self._transactions.handle_icmp_error(local, destination, now), now)

    def handle_timer(self, now: float) -> None:
        self._take(self._transactions.handle_timer(now), now)
        if self._next_at is not None and now >= self._next_at and not self._transactions.busy:
            self._next_at = now + INTERVAL
            self._transactions.ask(self._waiting.pop(0), self._server, now)

    def get_timer(self) -> float | None:
        return self._transactions.get_timer() if self._transactions.busy else self._next_at

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self._transactions.datagrams_to_send()

    def next_event(self) -> AllocationDetermined | None:
        event, self._event = self._event, None
        return event

    def _take(self, answers: list[Answer], now: float) -> None:
        for answer in answers:
            if answer.mapped is not None:
                self._mappings.append(SocketMapping(answer.local, answer.mapped))
            # A server that is silent to the first socket is not asked by all the others.
            if not self._waiting or not self._mappings:
                self._finish(answer.reason)

    def _finish(self, reason: str) -> None:
        self._waiting.clear()
        self._next_at = None
        self.done = True
        allocation = allocation_verdict(self._mappings)
        if not self._mappings:
            allocation = _unknown(reason)
        self._event = AllocationDetermined(
            allocation, pooling_verdict(self._mappings), tuple(self._mappings)
        )


def port_order(first: int, number: int) -> list[int]:
    """``number`` neighbouring ports around ``first``, each beside one that came before, and no
    three in a row: an order that tells all kinds of allocation apart."""
    return [first + (n + 1) // 2 * (1 if n % 2 else -1) for n in range(number)]
