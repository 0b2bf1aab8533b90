"""What one attempt costs its signaling server: one message from each side, candidates aside."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest

import ice_punch
from ice_punch.channel import Channel
from ice_punch.peer import Listener
from signaling.effects import Effect, Send
from signaling.engines import Socket
from signaling.server import SignalingServer
from support.loopback import OPTIONS


async def _accept(listener: Listener) -> Channel:
    return await listener.accept()


def test_an_offer_and_its_answer_are_two_messages_of_the_server_each_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    heard: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    take, apply = SignalingServer.on_message, SignalingServer._apply

    def on_message(self: SignalingServer, socket: Socket, data: str | bytes) -> None:
        said[socket.owner_data.number].append(json.loads(data))
        take(self, socket, data)

    def _apply(self: SignalingServer, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                heard[effect.connection].append(json.loads(effect.text))
        apply(self, effects)

    monkeypatch.setattr(SignalingServer, "on_message", on_message)
    monkeypatch.setattr(SignalingServer, "_apply", _apply)

    async def run() -> None:
        async with (
            await SignalingServer.start("127.0.0.1", 0) as server,
            ice_punch.listen(server.urls[0], OPTIONS) as listener,
        ):
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, OPTIONS) as channel:
                other = await accepting
                await channel.send(b"through")
                assert await other.recv() == b"through"
                await asyncio.sleep(0.1)
                check()
                await other.close()

    def check() -> None:
        host, guest = sorted(said)
        for number, kind in ((host, "answer"), (guest, "offer")):
            signals = [message for message in said[number] if message["type"] == "signal"]
            assert [m["kind"] for m in signals if m["kind"] != "cand"] == [kind]
            candidates = {m["id"] for m in signals if m["kind"] == "cand"}
            told = [
                message
                for message in heard[number]
                if message["type"] not in ("welcome", "peer")
                and message.get("kind") != "cand"
                and message.get("id") not in candidates
            ]
            assert sorted(message["type"] for message in told) == ["ack", "signal"]

    asyncio.run(run())
