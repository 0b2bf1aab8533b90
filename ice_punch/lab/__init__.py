"""The NAT laboratory: a virtual internet in virtual time, and kernel NATs in network namespaces.

What its users need has its name here. Every name is imported when it is first used, so that the
processes of the laboratory start with no more than they need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME = {
    **dict.fromkeys(
        (
            "NINE",
            "Blocking",
            "EarlyInbound",
            "Filtering",
            "Hairpinning",
            "Mapping",
            "NatBehaviour",
            "NatKind",
            "Pooling",
            "PortAllocation",
            "Refresh",
        ),
        "ice_punch.lab.behaviour",
    ),
    **dict.fromkeys(("SCENARIOS", "find"), "ice_punch.lab.catalogue"),
    "LaboratoryError": "ice_punch.lab.kernel.namespaces",
    **dict.fromkeys(
        ("PRESETS", "AccessLink", "GilbertElliott", "LinkProfile"), "ice_punch.lab.links"
    ),
    **dict.fromkeys(("Cell", "Matrix"), "ice_punch.lab.matrix"),
    **dict.fromkeys(("MatrixOptions", "MatrixTooLarge", "run_matrix"), "ice_punch.lab.matrix_run"),
    **dict.fromkeys(("Outcome", "SideOutcome"), "ice_punch.lab.outcome"),
    **dict.fromkeys(
        (
            "Event",
            "Habit",
            "Happening",
            "Ip",
            "PeerSetup",
            "Relays",
            "Scenario",
            "Verdict",
            "peer",
        ),
        "ice_punch.lab.scenario",
    ),
    **dict.fromkeys(("VirtualSession", "run"), "ice_punch.lab.virtual.session"),
}

if TYPE_CHECKING:
    from ice_punch.lab.behaviour import (
        NINE,
        Blocking,
        EarlyInbound,
        Filtering,
        Hairpinning,
        Mapping,
        NatBehaviour,
        NatKind,
        Pooling,
        PortAllocation,
        Refresh,
    )
    from ice_punch.lab.catalogue import SCENARIOS, find
    from ice_punch.lab.kernel.namespaces import LaboratoryError
    from ice_punch.lab.links import PRESETS, AccessLink, GilbertElliott, LinkProfile
    from ice_punch.lab.matrix import Cell, Matrix
    from ice_punch.lab.matrix_run import MatrixOptions, MatrixTooLarge, run_matrix
    from ice_punch.lab.outcome import Outcome, SideOutcome
    from ice_punch.lab.scenario import (
        Event,
        Habit,
        Happening,
        Ip,
        PeerSetup,
        Relays,
        Scenario,
        Verdict,
        peer,
    )
    from ice_punch.lab.virtual.session import VirtualSession, run

__all__ = [
    "NINE",
    "PRESETS",
    "SCENARIOS",
    "AccessLink",
    "Blocking",
    "Cell",
    "EarlyInbound",
    "Event",
    "Filtering",
    "GilbertElliott",
    "Habit",
    "Hairpinning",
    "Happening",
    "Ip",
    "LaboratoryError",
    "LinkProfile",
    "Mapping",
    "Matrix",
    "MatrixOptions",
    "MatrixTooLarge",
    "NatBehaviour",
    "NatKind",
    "Outcome",
    "PeerSetup",
    "Pooling",
    "PortAllocation",
    "Refresh",
    "Relays",
    "Scenario",
    "SideOutcome",
    "Verdict",
    "VirtualSession",
    "find",
    "peer",
    "run",
    "run_matrix",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
