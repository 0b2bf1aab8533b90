"""Which NATs can be punched, and how fast, worked out without the laboratory.

An address is (owner, key): the owner stands for the IP address, the key for the port that a NAT of
that kind gives towards a destination. What can happen is followed to its fixpoint: who knows
which addresses since when, who has sent where, what got through, which answers came back from the
address that was asked (RFC 8445 section 7.2.5.2.1). Sides send to everything they know, without
pacing; nobody guesses a port. Filters are RFC 4787's: they belong to the internal endpoint.
"""

from __future__ import annotations

from itertools import product
from typing import Any

INFINITY = float("inf")
SERVERS = (("server 1", 0), ("server 2", 0))
MAX_DEPTH = 6
"""Mappings of mappings of mappings: two NATs by port would go on for ever."""

Address = tuple[str, Any]
Nat = tuple[str, str]
"""Mapping and filtering, each ``independent``, ``address`` or ``port``."""
KINDS = ("independent", "address", "port")
NATS: tuple[Nat, ...] = tuple(product(KINDS, KINDS))


def _external(side: str, nat: Nat, destination: Address) -> Address:
    key: Any = {"independent": None, "address": destination[0], "port": destination}[nat[0]]
    return (side, key)


def _depth(address: Address) -> int:
    depth, key = 0, address[1]
    while isinstance(key, tuple):
        depth, key = depth + 1, key[1]
    return depth


class _Table(dict[Any, float]):
    """The earliest time of everything; notes whether anything became earlier."""

    changed = False

    def lower(self, key: Any, time: float) -> None:
        if time < self.get(key, INFINITY) - 1e-12:
            self[key] = time
            self.changed = True


def valid_times(nat_a: Nat, nat_b: Nat, r: float, s: float) -> tuple[float, float]:
    """When a and b have a valid pair at the earliest; ``b`` starts ``s`` after ``a``."""
    nats = {"a": nat_a, "b": nat_b}
    start = {"a": max(0.0, -s), "b": max(0.0, s)}
    other = {"a": "b", "b": "a"}
    known = {side: _Table() for side in nats}
    sent = {side: _Table() for side in nats}
    valid = {side: _Table() for side in nats}
    for side, nat in nats.items():
        for server in SERVERS:
            external = _external(side, nat, server)
            sent[side].lower((external, server), -INFINITY)
            known[other[side]].lower(external, start[other[side]])

    def open_since(side: str, external: Address, source: Address) -> float:
        """Since when ``side``'s NAT lets ``source`` in through the mapping ``external``."""
        exists = min((t for (m, _), t in sent[side].items() if m == external), default=INFINITY)
        match nats[side][1]:
            case "independent":
                return exists
            case "address":
                fits = (t for (_, d), t in sent[side].items() if d[0] == source[0])
            case _:
                fits = (t for (_, d), t in sent[side].items() if d == source)
        return max(exists, min(fits, default=INFINITY))

    tables = [*known.values(), *sent.values(), *valid.values()]
    while True:
        for table in tables:
            table.changed = False
        for side, (target, since) in [(x, item) for x in nats for item in [*known[x].items()]]:
            peer = other[side]
            if _depth(target) > MAX_DEPTH:
                continue
            source = _external(side, nats[side], target)
            sent[side].lower((source, target), since)
            arrives = max(since + r / 2, open_since(peer, target, source))
            if arrives == INFINITY:
                continue
            known[peer].lower(source, max(arrives, start[peer]))
            answers_from = _external(peer, nats[peer], source)
            sent[peer].lower((answers_from, source), arrives)
            comes_back = max(arrives + r / 2, open_since(side, source, answers_from))
            if answers_from == target:
                valid[side].lower(target, comes_back)
        if not any(table.changed for table in tables):
            times = [min(valid[side].values(), default=INFINITY) for side in nats]
            return times[0], times[1]


def can_be_direct(nat_a: Nat, nat_b: Nat) -> bool:
    return max(valid_times(nat_a, nat_b, 1.0, 0.0)) < INFINITY
