"""The laboratory on real kernels: NATs, hosts and links in network namespaces.

Every name is imported when it is first used, so that the processes of the laboratory start with
no more than they need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME = {
    **dict.fromkeys(
        ("LaboratoryError", "available", "enter", "leftovers", "remove_leftovers", "run_in"),
        "ice_punch.lab.kernel.namespaces",
    ),
    **dict.fromkeys(("KernelHost", "KernelInternet", "has_cable"), "ice_punch.lab.kernel.internet"),
    "can_run": "ice_punch.lab.kernel.ability",
}

if TYPE_CHECKING:
    from ice_punch.lab.kernel.ability import can_run
    from ice_punch.lab.kernel.internet import KernelHost, KernelInternet, has_cable
    from ice_punch.lab.kernel.namespaces import (
        LaboratoryError,
        available,
        enter,
        leftovers,
        remove_leftovers,
        run_in,
    )

__all__ = [
    "KernelHost",
    "KernelInternet",
    "LaboratoryError",
    "available",
    "can_run",
    "enter",
    "has_cable",
    "leftovers",
    "remove_leftovers",
    "run_in",
]


def __getattr__(name: str) -> object:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(home), name)
