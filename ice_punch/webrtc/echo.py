"""``icepunch.test.1``: the other end of a test of latency and throughput."""

from __future__ import annotations

import asyncio
import contextlib
import json

from ice_punch.errors import IcePunchError
from ice_punch.webrtc.data_channel import DataChannel

PROTOCOL = "icepunch.test.1"
REPORT_EVERY = 1.0
"""Seconds."""


async def serve_echo(channel: DataChannel) -> None:
    """Send every text message back as it is, count binary ones, and tell once a second how many
    messages and bytes have come since the channel was opened."""
    counts = {"received": 0, "bytes": 0}
    reporting = asyncio.ensure_future(_report(channel, counts))
    try:
        async for message in channel:
            if isinstance(message, str):
                await channel.send(message)
            else:
                counts["received"] += 1
                counts["bytes"] += len(message)
    finally:
        reporting.cancel()


async def _report(channel: DataChannel, counts: dict[str, int]) -> None:
    with contextlib.suppress(IcePunchError):
        while True:
            await asyncio.sleep(REPORT_EVERY)
            await channel.send(json.dumps(counts))
