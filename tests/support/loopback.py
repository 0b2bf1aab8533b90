"""Peers on the loopback interface, which only an explicit ``interface="lo"`` admits."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from ice_punch import GatheringOptions, IceConnection, PeerOptions
from ice_punch.ice import AgentConfig
from signaling.server import SignalingServer

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
GATHERING = GatheringOptions(interface=LOOPBACK, ipv6=False)
OPTIONS = PeerOptions(interface=LOOPBACK, ipv6=False, timeout=15)


@contextlib.asynccontextmanager
async def connected_pair(
    *, agent_config: AgentConfig | None = None, receive_queue: int = 1024
) -> AsyncIterator[tuple[IceConnection, IceConnection]]:
    """Two plain connections, connected."""
    async with (
        IceConnection(
            controlling=True,
            options=GATHERING,
            agent_config=agent_config,
            receive_queue=receive_queue,
        ) as a,
        IceConnection(
            controlling=False,
            options=GATHERING,
            agent_config=agent_config,
            receive_queue=receive_queue,
        ) as b,
    ):
        for connection in (a, b):
            async for _ in connection.gather():
                pass
        a.set_remote_description(b.local_description)
        b.set_remote_description(a.local_description)
        await asyncio.gather(a.connect(5), b.connect(5))
        yield a, b


@contextlib.asynccontextmanager
async def signaling() -> AsyncIterator[str]:
    """A signaling server; its URL."""
    server = await SignalingServer.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()
