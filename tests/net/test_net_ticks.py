"""One timer of the event loop for all who are due at the same instant."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from ice_punch.net.ticks import Ticks

SOON = 0.05


def test_all_are_called_at_the_instant_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *arguments: Any) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, *arguments)

        monkeypatch.setattr(loop, "call_at", counted)
        called: dict[int, float] = {}
        calls = [lambda n=n: called.setdefault(n, loop.time()) for n in range(100)]
        instant = loop.time() + SOON
        for call in calls:
            Ticks.of(loop).call_at(instant, call)
        Ticks.of(loop).cancel(instant, calls[7])
        Ticks.of(loop).cancel(instant + 1, calls[8])
        assert timers == [instant]
        monkeypatch.undo()
        async with asyncio.timeout(10):
            while len(called) < 99:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert sorted(called) == [n for n in range(100) if n != 7]
        assert min(called.values()) >= instant - loop_slack(loop)

    asyncio.run(run())


def loop_slack(loop: asyncio.AbstractEventLoop) -> float:
    """Seconds by which a loop calls a timer early."""
    slack: float = getattr(loop, "_clock_resolution", 0.001)
    return slack


def test_who_raises_and_who_is_cancelled_meanwhile_takes_nobody_with_him() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        ticks, told, called = Ticks.of(loop), [], []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        instant = loop.time() + SOON

        def unwanted() -> None:
            called.append("unwanted")

        def fails() -> None:
            raise ValueError("a handler of the application's")

        def cancels() -> None:
            ticks.cancel(instant, unwanted)

        for call in (unwanted, lambda: called.append("first"), cancels, fails):
            ticks.call_at(instant, call)
        async with asyncio.timeout(10):
            while not called:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert called == ["first"]
        assert [type(error) for error in told] == [ValueError]
        ticks.call_at(instant, unwanted)  # the instant is over: at once, like any timer
        async with asyncio.timeout(10):
            while len(called) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_loop_that_ends_takes_those_who_wait_with_it() -> None:
    class Waits:
        def call(self) -> None:
            pass

    async def run() -> weakref.ref[Waits]:
        waits = Waits()
        loop = asyncio.get_running_loop()
        Ticks.of(loop).call_at(loop.time() + 3600, waits.call)
        return weakref.ref(waits)

    left = asyncio.run(run())
    gc.collect()
    assert left() is None
