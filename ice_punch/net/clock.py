"""The clock of an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What ``loop.time`` tells, in seconds, and without a step between where that is only one."""
    own = getattr(type(loop).time, "__code__", None)
    plain = own is asyncio.BaseEventLoop.time.__code__
    return time.monotonic if plain else loop.time
