"""Signaling that moves with its host: a connection whose own address is gone is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ice_punch.net.gathering_options import GatheringOptions
from ice_punch.net.monitor import network_watch
from signaling.client import SignalingClient

DEBOUNCE = 0.1
"""Seconds from the first news to the look at what came of it."""


class SignalingFollower:
    """Tells a signaling client when this host's networks change."""

    def __init__(self, client: SignalingClient, options: GatheringOptions) -> None:
        """Needs a running event loop."""
        self._client = client
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def __enter__(self) -> SignalingFollower:
        if self._options.follow_network:
            watch = network_watch(self._options.snapshot)
            self._unsubscribe = watch.subscribe(self._look_soon)
        return self

    def __exit__(self, *_: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _look_soon(self) -> None:
        if self._due is None:
            self._due = self._loop.call_later(DEBOUNCE, self._look)

    def _look(self) -> None:
        self._due = None
        ip = self._client.local_ip
        now = self._options.snapshot()
        gone = ip is not None and ip not in now.running
        self._client.network_changed(lost=gone)
