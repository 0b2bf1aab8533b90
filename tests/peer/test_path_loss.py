"""The loss of a path is told by small checks while it is used, in virtual time and for real."""

from __future__ import annotations

import asyncio
import random

import pytest

from ice_punch.path_loss import FIRST_INTERVAL, PATIENCE, LossMeter
from support.channels import channels


def measure(loss: float, seconds: float, rtt: float | None = 0.1, seed: int = 5) -> LossMeter:
    meter, chance, now = LossMeter(), random.Random(seed), 0.0
    answer_at = None
    while now < seconds:
        meter.used(now)
        if answer_at is not None and now >= answer_at:
            answer_at = None
            meter.answered()
        if meter.handle_timer(now, rtt):
            answer_at = now + (rtt or 0.0) if chance.random() >= loss else None
        now += 0.05
    return meter


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_the_loss_that_is_told_is_about_the_one_there_is(loss: float) -> None:
    told = [measure(loss, 60, seed=seed).loss for seed in range(50)]
    assert sum(told) / len(told) == pytest.approx(loss, abs=0.04)
    assert max(told) - min(told) < (0.6 if 0 < loss < 1 else 1e-9)


def test_nothing_is_asked_while_nothing_is_sent() -> None:
    meter = LossMeter()
    assert meter.get_timer() is None
    meter.used(7.0)
    assert meter.get_timer() == 7.0 + FIRST_INTERVAL
    assert meter.handle_timer(7.0 + FIRST_INTERVAL, None)
    meter.answered()
    assert meter.get_timer() is None
    assert (meter.samples, meter.loss) == (1, 0.0)


def test_a_slow_path_is_no_lossy_one() -> None:
    assert measure(0.0, 60, rtt=2.5).loss == 0.0


def test_an_answer_that_is_too_late_changes_nothing() -> None:
    meter = LossMeter()
    meter.used(0.0)
    assert meter.handle_timer(FIRST_INTERVAL, None)
    assert not meter.handle_timer(FIRST_INTERVAL + PATIENCE, None)
    meter.answered()
    assert (meter.samples, meter.loss) == (1, 1.0)


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_channel_tells_of_loss_also_while_the_peer_sends_data(encrypt: bool) -> None:
    async def run() -> tuple[float | None, float | None]:
        async with channels(encrypt=encrypt) as (a, b):
            data = a.connection.carrier.data
            make, count = data._probes.make, 0

            def lose_every_other(pair: object, payload: int, size: int) -> bytes | None:
                nonlocal count
                probe = make(pair, payload, size)  # type: ignore[arg-type]
                count += size < 0
                return None if size < 0 and count % 2 else probe

            data._probes.make = lose_every_other  # type: ignore[method-assign]
            async with asyncio.timeout(30):
                while data._meter.samples < 6 or b.connection.carrier.data._meter.samples < 6:
                    a.send_nowait(b"there")
                    b.send_nowait(b"and back")
                    await asyncio.sleep(0.02)
            return a.stats.loss, b.stats.loss

    lossy, whole = asyncio.run(run())
    assert lossy is not None
    assert 0.3 < lossy < 0.7
    assert whole == 0.0
