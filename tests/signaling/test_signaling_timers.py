"""The server's one timer, on both event loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from signaling_net import hear, raw_client, say
from signaling_support import ROOM

from signaling.limits import Limits
from signaling.server import SignalingServer

uvloop = pytest.importorskip("uvloop")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_timers_that_are_due_already_disturb_nobody(loop: Any) -> None:
    """A busy server is late: what it sets a timer for has passed before it gets to it."""

    async def run() -> None:
        async with await SignalingServer.start(port=0, limits=Limits(hello_timeout=0.05)) as server:
            backend: Any = server._backend
            real = backend.get_timer
            backend.get_timer = lambda: None if real() is None else real() - 60
            async with raw_client(server) as one, raw_client(server) as two:
                for client in (one, two):
                    await say(client, "hello", v=1, room=ROOM)
                    assert (await hear(client))["type"] == "welcome"
                await say(one, "ping", n=1)
                assert (await hear(one))["type"] == "peer"
                assert (await hear(one))["type"] == "pong"

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
