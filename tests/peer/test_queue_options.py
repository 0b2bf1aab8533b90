"""Queue lengths are what was asked for, whichever way the channel was made, or a typed error."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ice_punch import IceConnection
from ice_punch.errors import InvalidConfiguration
from ice_punch.peer.manual import ManualPeer
from support.loopback import GATHERING, OPTIONS


@pytest.mark.parametrize("encrypt", [True, False])
def test_a_channel_made_by_hand_has_the_send_queue_it_was_given(encrypt: bool) -> None:
    options = replace(OPTIONS, encrypt=encrypt, send_queue=4, newest_wins=True)

    async def run() -> tuple[bytes, int]:
        async with ManualPeer(options) as a, ManualPeer(options) as b:
            answer = await b.answer(await a.offer())
            connecting = asyncio.ensure_future(b.connect())
            there, here = await a.connect(answer), await connecting
        async with there, here:
            assert there.newest_wins
            there.pacing_rate = 1_000_000.0
            there.send_many_nowait([b"%04d" % n * 250 for n in range(40)])
            queued, dropped = there.stats.queued, there.stats.dropped_queue_full
            assert queued == 4
            await there.drain()
            datagrams: list[bytes] = []
            while len(datagrams) < 40 - dropped:
                datagrams += await asyncio.wait_for(here.recv_many(), 5)
            return datagrams[-1][:4], dropped

    last, dropped = asyncio.run(run())
    assert last == b"0039"
    assert dropped > 0


@pytest.mark.parametrize("name", ["receive_queue", "send_queue"])
@pytest.mark.parametrize("length", [0, -1])
def test_a_queue_that_holds_nothing_is_refused(name: str, length: int) -> None:
    queue: dict[str, Any] = {name: length}

    async def run() -> None:
        with pytest.raises(InvalidConfiguration, match=f"queue of {length}"):
            IceConnection(options=GATHERING, **queue)

    asyncio.run(run())
    with pytest.raises(InvalidConfiguration, match=f"queue of {length}"):
        replace(OPTIONS, **queue).gathering()
