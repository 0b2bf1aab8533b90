"""What an idle connection asks of the event loop: to be called at a time that others want too."""

from __future__ import annotations

import asyncio

import pytest

from ice_punch import IceConnection
from ice_punch.driver import NEAR, TICK
from ice_punch.ice import AgentConfig
from support.loopback import connected_pair

SOON = AgentConfig(consent_interval=0.1)


async def _settled(*connections: IceConnection) -> None:
    async with asyncio.timeout(5):
        while not all(c._driver.agent.settled for c in connections):
            await asyncio.sleep(0.01)


def test_consent_far_away_is_due_at_a_tick_and_never_early() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with connected_pair() as (a, b):
            await _settled(a, b)
            await asyncio.sleep(0.3)  # the last answers have come
            for connection in (a, b):
                driver = connection._driver
                due = driver.agent.get_timer()
                assert due is not None
                assert due > loop.time() + NEAR
                at = driver._timer_at
                assert at is not None
                assert due <= at < due + TICK
                if due + TICK <= driver.agent.latest:
                    assert at == pytest.approx(round(at / TICK) * TICK, abs=1e-6)
                    assert driver._timer is None  # it is the loop's, for all who wait for it
                assert at <= max(due, driver.agent.latest)

    asyncio.run(run())


def test_what_is_near_is_done_on_time() -> None:
    async def run() -> None:
        async with connected_pair(agent_config=SOON) as (a, b):
            await _settled(a, b)
            await asyncio.sleep(0.5)
            for connection in (a, b):
                driver = connection._driver
                assert driver._timer is not None
                assert driver._timer.when() == driver.agent.get_timer()

    asyncio.run(run())
