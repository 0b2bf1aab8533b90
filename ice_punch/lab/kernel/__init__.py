"""The laboratory on real kernels: NATs, hosts and links in network namespaces."""

from ice_punch.lab.kernel.internet import (
    KernelHost,
    KernelInternet,
    LaboratoryError,
    available,
    enter,
    has_cable,
    leftovers,
    remove_leftovers,
    run_in,
)

__all__ = [
    "KernelHost",
    "KernelInternet",
    "LaboratoryError",
    "available",
    "enter",
    "has_cable",
    "leftovers",
    "remove_leftovers",
    "run_in",
]
