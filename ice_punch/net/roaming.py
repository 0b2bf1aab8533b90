"""A session that moves with its host from network to network: what the monitor sees is gathered on
and given up, RFC 8445 section 5.1.1.4."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.net.gatherer import Gatherer, GatheringOptions
from ice_punch.net.monitor import NetworkChanged, NetworkMonitor, network_watch


class Roaming:
    """Keeps a gatherer's candidates those of the addresses that this host has."""

    def __init__(
        self,
        gatherer: Gatherer,
        options: GatheringOptions,
        *,
        on_change: Callable[[NetworkChanged], None] | None = None,
    ) -> None:
        """``on_change`` is told what changed once the gatherer knows. Needs a running event
        loop."""
        self._gatherer = gatherer
        self._on_change = on_change
        self._monitor = NetworkMonitor(
            network_watch(options.snapshot),
            options.snapshot,
            gatherer.addresses_in_use,
            self._changed,
        )

    def start(self) -> None:
        """Once there are sockets. May be called again."""
        self._gatherer.on_vanished = self._monitor.look_soon
        self._monitor.start()

    def close(self) -> None:
        self._gatherer.on_vanished = None
        self._monitor.close()

    def _changed(self, change: NetworkChanged) -> None:
        self._gatherer.change(change)
        if self._on_change is not None:
            self._on_change(change)
