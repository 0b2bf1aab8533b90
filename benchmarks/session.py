"""One session of two parties, from gathering to its end, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness import RELAY, STUN, Ground

from ice_punch.datagram import Address, format_address
from ice_punch.lab.outcome import Outcome, SideOutcome
from ice_punch.lab.scenario import Relays, Scenario, Verdict

MARGIN = 0.25
"""Seconds for both parties to read what they shall do."""

Stacks = tuple[str, str]
"""That of a, and that of b."""


def meet(
    ground: Ground,
    stacks: Stacks,
    scenario: Scenario,
    servers: Sequence[Address] = (STUN,),
    *,
    controlling_first: bool = True,
) -> Outcome:
    """Both sides gather, learn of each other as the scenario has it, connect, and greet each other
    on the path that they have settled on. Its NATs and round trip are those of the ground.

    Times are from the first start: ``valid_at`` is when ``connect()`` has returned, ``direct_at``
    when the pair that it ended with became valid, if that is direct. A side that hears no greeting
    has failed. What the peer sees of aioice's end is known where the peer is aioice too.
    """
    relay = None if scenario.relays is Relays.NONE else RELAY
    roles = (controlling_first, not controlling_first)
    for party, stack, controlling in zip(ground.parties, stacks, roles, strict=True):
        party.tell(do="gather", stack=stack, controlling=controlling, servers=servers, relay=relay)
    descriptions = [party.answer()["description"] for party in ground.parties]
    start = time.monotonic() + MARGIN
    delays = (max(0.0, -scenario.skew), max(0.0, scenario.skew))
    for party, other, delay in zip(ground.parties, reversed(descriptions), delays, strict=True):
        patience = scenario.seconds - delay
        party.tell(do="connect", remote=other, at=start + delay, patience=patience)
    told = [party.answer() for party in ground.parties]
    if all("connected" in side for side in told):
        for party in ground.parties:
            party.tell(do="exchange")
        for party, side in zip(ground.parties, told, strict=True):
            side |= party.answer()
    for party in ground.parties:
        party.ask(do="close")
    zero = min(side["began"] for side in told)
    a, b = (_side(zero, *pair) for pair in (told, reversed(told)))
    return Outcome(scenario, 0, _verdict(told), a, b)


def kinds(outcome: Outcome) -> tuple[str, str]:
    """``direct`` or ``relayed``, for each side."""
    a, b = ("relayed" if side.relayed else "direct" for side in (outcome.a, outcome.b))
    return a, b


def selected_time(outcome: Outcome) -> float | None:
    """Seconds until both sides had a nominated pair; ``None`` if they never had."""
    if outcome.a.selected_at is None or outcome.b.selected_at is None:
        return None
    return max(outcome.a.selected_at, outcome.b.selected_at)


def _verdict(told: list[dict[str, Any]]) -> Verdict:
    if not all(side.get("heard") for side in told):
        return Verdict.FAILED
    return Verdict.RELAYED if any(side["relayed"] for side in told) else Verdict.DIRECT


def _side(zero: float, own: dict[str, Any], other: dict[str, Any]) -> SideOutcome:
    started_at = own["began"] - zero
    if "heard" not in own:
        return SideOutcome(started_at, state="failed", reason=own.get("failed", ""))
    settled = own.get("valid_since", own["connected"]) - zero
    local = own.get("local") or other.get("heard_from")
    return SideOutcome(
        started_at,
        valid_at=own["connected"] - zero,
        direct_at=None if own["relayed"] else settled,
        selected_at=own["nominated"] - zero,
        relayed=own["relayed"],
        ends=(_text(local), _text(own["remote"])),
        state="completed",
    )


def _text(address: list[Any] | None) -> str:
    return "" if address is None else format_address((address[0], address[1]))
