"""What came and what went, of the addresses that somebody uses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.monitor.watch import NetworkWatch

DEBOUNCE = 0.1
"""Seconds from the first news to the look at what came of it: changes come in bundles."""
LONGEST_DEBOUNCE = 5.0
"""Seconds. For an address that comes and goes all the time the wait doubles each time."""
CALM = 10.0
"""Seconds without a change after which what was before counts no more."""
AT_ONCE = 2
"""Changes of one address, going and coming back, that are looked at as soon as any."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look at the host's interfaces shows."""

    usable: tuple[InterfaceAddress, ...]
    """What gathering would use now, most preferred first."""
    present: frozenset[str]
    """Every address that the host has."""
    running: frozenset[str]
    """Those of interfaces that are up and have a carrier."""


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """Addresses of this host came, or went."""

    added: tuple[InterfaceAddress, ...]
    removed: tuple[str, ...]
    """IP addresses."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def compare(used: Iterable[str], now: Snapshot) -> NetworkChanged:
    """What has to be added to the addresses in use, and what is gone of them.

    An address in use that gathering would pass over by now, a deprecated one, stays: it still
    works. One whose interface lost its carrier goes only where another one is left: it may get it
    back, and there is nothing better.
    """
    used = tuple(dict.fromkeys(used))
    added = tuple(a for a in now.usable if a.ip in now.running and a.ip not in used)
    gone = [ip for ip in used if ip not in now.present]
    idle = [ip for ip in used if ip in now.present and ip not in now.running]
    if added or any(ip in now.running for ip in used):
        gone += idle
    return NetworkChanged(added, tuple(gone))


class NetworkMonitor:
    """Tells ``on_change`` of addresses that came and went, a tenth of a second after they did."""

    def __init__(
        self,
        watch: NetworkWatch,
        look: Callable[[], Snapshot],
        used: Callable[[], Iterable[str]],
        on_change: Callable[[NetworkChanged], None],
        *,
        debounce: float = DEBOUNCE,
    ) -> None:
        """``used`` gives the addresses in use at the time. Needs a running event loop."""
        self._watch = watch
        self._look = look
        self._used = used
        self._on_change = on_change
        self._debounce = debounce
        self._recent: Counter[str] = Counter()
        """How often an address came or went lately."""
        self._changed_at = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._unsubscribe: Callable[[], None] | None = None
        self._due: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """May be called again. What changed since the addresses were listed is found as well."""
        if self._unsubscribe is None:
            self._unsubscribe = self._watch.subscribe(self.look_soon)
            self.look_soon()

    def close(self) -> None:
        """May be called again."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def look_soon(self) -> None:
        """Something may have changed."""
        if self._due is not None or self._unsubscribe is None:
            return
        if self._loop.time() - self._changed_at >= CALM:
            self._recent.clear()
        times = max(self._recent.values(), default=0)
        wait = self._debounce * 2.0 ** min(max(0, times - AT_ONCE), 10)
        self._due = self._loop.call_later(min(wait, LONGEST_DEBOUNCE), self._compare)

    def _compare(self) -> None:
        self._due = None
        try:
            change = compare(self._used(), self._look())
        except OSError:
            return  # the system can not be asked just now; the next news has it asked again
        if change:
            self._recent.update([*(a.ip for a in change.added), *change.removed])
            self._changed_at = self._loop.time()
            self._on_change(change)
