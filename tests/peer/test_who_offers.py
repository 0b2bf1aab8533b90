"""Whoever came to the room later makes the offer; the other asks for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_hostile_signaling import Intruder, _accept, _connect, _offer, _serves

import ice_punch
from ice_punch.peer.post import Restart
from signaling.hall import Hall
from signaling.member import Member
from signaling.messages import SendSignal
from support.loopback import OPTIONS, signaling


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, int]]:
    """The order of the sender, the kind and the generation of every signal."""
    relay, seen = Hall.relay, []

    def watching(hall: Hall, member: Member, signal: SendSignal) -> Any:
        seen.append((member.order, signal.kind, signal.gen))
        return relay(hall, member, signal)

    monkeypatch.setattr(Hall, "relay", watching)
    return seen


def test_a_connector_that_comes_later_offers(relayed: list[tuple[int, str, int]]) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            await _serves(listener)

    asyncio.run(run())
    descriptions = [signal for signal in relayed if signal[1] in ("offer", "answer", "restart")]
    assert descriptions == [(2, "offer", 0), (1, "answer", 0)]


def test_a_connector_that_was_there_first_asks_the_listener_to_offer(
    relayed: list[tuple[int, str, int]],
) -> None:
    async def run() -> None:
        async with signaling() as url:
            late = ice_punch.listen(url, OPTIONS)
            connecting = asyncio.ensure_future(_connect(late.link))
            await asyncio.sleep(0.2)
            async with late:
                accepted, channel = await _accept(late), await connecting
                await channel.send(b"to the one that offered")
                assert await asyncio.wait_for(accepted.recv(), 2) == b"to the one that offered"
                await accepted.send(b"to the one that asked")
                assert await asyncio.wait_for(channel.recv(), 2) == b"to the one that asked"
                await channel.close()
                await accepted.close()

    asyncio.run(run())
    descriptions = [signal for signal in relayed if signal[1] in ("offer", "answer", "restart")]
    assert descriptions == [(1, "restart", 0), (2, "offer", 0), (1, "answer", 0)]


def test_an_offer_out_of_turn_is_refused_with_a_reason() -> None:
    async def run() -> None:
        async with signaling() as url:
            late = ice_punch.listen(url, OPTIONS)
            async with Intruder(late.link) as early, late:
                early.peer_id = late._self_id or await _id_of_the_other(early)
                await early.post("one").send("offer", _offer())
                await _heard(early, "reject", "one")
            async with ice_punch.listen(url, OPTIONS) as listener:
                async with Intruder(listener.link) as later:
                    await later.post("two").send("restart", Restart())
                    await _heard(later, "reject", "two")
                await _serves(listener)

    asyncio.run(run())


async def _id_of_the_other(intruder: Intruder) -> str:
    async with asyncio.timeout(2):
        while not (joined := [e for e in intruder.events if hasattr(e, "peer")]):
            await asyncio.sleep(0.01)
    return str(joined[0].peer.id)


async def _heard(intruder: Intruder, kind: str, link: str) -> None:
    async with asyncio.timeout(2):
        while (kind, link) not in intruder.kinds():
            await asyncio.sleep(0.01)
