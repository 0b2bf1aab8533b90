"""What a signaling server's statistics are told of an attempt: once, by the side that offers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import ice_punch
from ice_punch.errors import NoRoute, PeerSilent
from ice_punch.peer.meeting import run_and_report
from signaling.server import SignalingServer
from support.loopback import OPTIONS


def test_a_direct_path_is_counted_once() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start("127.0.0.1", 0) as server,
            ice_punch.listen(f"http://127.0.0.1:{server.port}", OPTIONS) as listener,
        ):
            channel = await ice_punch.connect(listener.link, OPTIONS)
            accepted = await listener.accept()
            async with asyncio.timeout(5):
                while not server.counters["outcome_direct"]:
                    await asyncio.sleep(0.01)
            await accepted.close()
            await channel.close()
            outcomes = {n: c for n, c in server.counters.items() if n.startswith("outcome")}
            assert outcomes == {"outcome_direct": 1}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "offers", "told"),
    [
        (NoRoute("no path"), True, ["failed"]),
        (NoRoute("no path"), False, []),
        (PeerSilent("nobody"), True, []),
    ],
)
def test_a_failure_is_told_if_both_were_there(
    error: Exception, offers: bool, told: list[str]
) -> None:
    async def fail() -> None:
        raise error

    said: list[str] = []
    attempt: Any = SimpleNamespace(run=fail, negotiation=SimpleNamespace(offers=offers))
    client: Any = SimpleNamespace(report_outcome=said.append)
    with pytest.raises(type(error)):
        asyncio.run(run_and_report(attempt, client))
    assert said == told
