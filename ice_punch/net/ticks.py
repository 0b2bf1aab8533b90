"""Calls that many have due at the same instants, with one timer of the event loop for each."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

_common: weakref.WeakValueDictionary[int, Ticks] = weakref.WeakValueDictionary()


class Ticks:
    """Instants of an event loop, and who is called then. To wait here is two steps of C, where a
    timer of the event loop's own is looked for among all others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[float, dict[Callable[[], object], None]] = {}

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Ticks:
        """Those that all share on ``loop``."""
        found = _common.get(id(loop))
        if found is None:
            found = _common[id(loop)] = Ticks(loop)
        return found

    def call_at(self, instant: float, callback: Callable[[], object]) -> None:
        """Call ``callback`` once, at a time of the event loop's that others are likely to want."""
        waiting = self._waiting.get(instant)
        if waiting is None:
            waiting = self._waiting[instant] = {}
            self._loop.call_at(instant, self._run, instant)
        waiting[callback] = None

    def cancel(self, instant: float, callback: Callable[[], object]) -> None:
        """Do not call ``callback`` at ``instant``."""
        waiting = self._waiting.get(instant)
        if waiting is not None:
            waiting.pop(callback, None)

    def _run(self, instant: float) -> None:
        waiting = self._waiting[instant]
        try:
            while waiting:
                waiting.popitem()[0]()
        finally:
            if waiting:  # the others must not pay for what one of them raised
                self._loop.call_soon(self._run, instant)
            else:
                del self._waiting[instant]
