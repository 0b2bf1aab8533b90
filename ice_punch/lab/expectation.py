"""What two NATs allow, worked out on paper rather than by running anything.

``r`` is the round trip between the peers, ``s`` the time between their starts, and each side
knows the port by which STUN servers see the other. Nobody guesses ports.
"""

from __future__ import annotations

from typing import Final

from ice_punch.lab.behaviour import Filtering, Mapping, NatBehaviour
from ice_punch.lab.scenario import Verdict

SLOTS: Final = 0.045
"""Seconds: two slots of Ta, and a bit."""

_INDEPENDENT = Mapping.ENDPOINT_INDEPENDENT
_BY_PORT = Mapping.ADDRESS_AND_PORT_DEPENDENT


def expected(a: NatBehaviour, b: NatBehaviour) -> Verdict:
    """Whether a direct path exists between two NATs; a relay is at hand."""
    return Verdict.DIRECT if _direct(a, b) else Verdict.RELAYED


def _direct(a: NatBehaviour, b: NatBehaviour) -> bool:
    varying = [nat for nat in (a, b) if nat.mapping is not _INDEPENDENT]
    if not varying:
        return True
    if len(varying) == 1:
        # The varying side comes from a port that was never told: the other's filter must not care.
        other = b if varying[0] is a else a
        return not _by_port(other)
    # Both have to learn the other's port from what gets through. By port on both sides, what is
    # learnt is of no use: the answer to it comes from yet another port.
    both_by_port = a.mapping is b.mapping is _BY_PORT
    return not both_by_port and not _by_port(a) and not _by_port(b)


def _by_port(nat: NatBehaviour) -> bool:
    return nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT


def budget(a: NatBehaviour, b: NatBehaviour, r: float, s: float) -> float:
    """Seconds, from the first start, in which both sides have a valid pair if nothing is lost;
    ``s`` is negative where ``b`` is the first.

    The later side's check needs half a round trip to reach the other, which then checks itself.
    Where one NAT maps by address and the other by port, the latter's final port only exists once
    it has learnt the former's: half a round trip more, unless the former started early enough.
    A relay takes one more round trip to it; the relay is half way.
    """
    first = a if s >= 0 else b
    s = abs(s)
    if expected(a, b) is Verdict.RELAYED:
        return s + 1.5 * r + r / 2 + SLOTS
    if {a.mapping, b.mapping} == {Mapping.ADDRESS_DEPENDENT, _BY_PORT}:
        return (s + 2 * r if first.mapping is _BY_PORT else max(2 * r, s + 1.5 * r)) + SLOTS
    return s + 1.5 * r + SLOTS
