"""The addresses of this host as they come and go, RFC 8445 section 5.1.1.4."""

from ice_punch.net.monitor.monitor import NetworkChanged, NetworkMonitor, Snapshot, compare
from ice_punch.net.monitor.watch import NetworkWatch, WatchStats, network_watch

__all__ = [
    "NetworkChanged",
    "NetworkMonitor",
    "NetworkWatch",
    "Snapshot",
    "WatchStats",
    "compare",
    "network_watch",
]
