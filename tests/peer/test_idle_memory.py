"""What an idle encrypted channel keeps in Python, beside what OpenSSL does."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAIRS = 10


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="measured with CPython")
@pytest.mark.usefixtures("bench")
def test_an_idle_channel_keeps_a_bounded_amount_of_memory() -> None:
    """37 kB with CPython 3.11 as soon as consent is all there is to do, 33 some seconds later."""
    from loopback_pair import pair

    async def run() -> float:
        kept = [await pair(encrypt=True) for _ in range(2)]
        gc.collect()
        tracemalloc.start()
        try:
            kept += [await pair(encrypt=True) for _ in range(PAIRS)]
            async with asyncio.timeout(30):
                while not all(c.connection._driver.agent.settled for p in kept for c in p):
                    await asyncio.sleep(0.1)
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await asyncio.gather(*(channel.close() for p in kept for channel in p))
        return size / (2 * PAIRS)

    each = asyncio.run(run())
    print(f"{each / 1000:.1f} kB")
    assert each < 42_000
