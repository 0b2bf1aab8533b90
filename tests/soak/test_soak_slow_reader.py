"""A reader that has stopped, a sender at full rate: memory stays flat, and drops are counted."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from pathlib import Path

import pytest

from support.channels import channels

SECONDS = 60.0 if os.environ.get("ICE_PUNCH_SOAK") == "soak" else 2.0
BURST = [bytes((99,)) * 1200] * 52
FLAT = 4_000_000
"""Bytes. What is held is bounded by the receive queue, 1.2 MB of datagrams."""


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see memory")
@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_memory_stays_flat_while_nobody_reads(encrypt: bool) -> None:
    async def test() -> None:
        async with channels(encrypt=encrypt) as (a, b):

            async def flood(seconds: float) -> None:
                ends = time.monotonic() + seconds
                while time.monotonic() < ends:
                    await a.send_many(BURST)
                    await asyncio.sleep(0)

            await flood(0.5)
            begun, before = b.stats.datagrams_received, resident()
            await flood(SECONDS)
            grown = resident() - before
            stats = b.stats
            print(f"{stats.datagrams_received - begun} datagrams, {grown / 1000:.0f} kB more")
            assert grown < FLAT
            assert stats.datagrams_received - begun > 1000 * SECONDS
            # Whatever came is here or was counted: the oldest went.
            held = await b.recv_many()
            assert len(held) == 1024
            assert stats.dropped_oldest == stats.datagrams_received - 1024

    asyncio.run(test())
