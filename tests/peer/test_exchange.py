"""What the signaling server has to carry until two peers have a path."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any

import ice_punch
from signaling.effects import Effect, Send
from signaling.server import SignalingServer
from support.loopback import OPTIONS


class Tap:
    """Counts the frames of each connection that are neither the entry nor about candidates."""

    def __init__(self, server: SignalingServer) -> None:
        self.from_clients: dict[int, Counter[str]] = defaultdict(Counter)
        self.to_clients: dict[int, Counter[str]] = defaultdict(Counter)
        self._candidates: set[tuple[int, int]] = set()
        self._backend: Any = server._backend
        self._heard, self._apply = self._backend.on_message, self._backend._apply
        self._backend.on_message, self._backend._apply = self.on_message, self.apply

    def on_message(self, connection: int, data: str, now: float) -> None:
        frame = json.loads(data)
        if frame.get("kind") == "cand":
            self._candidates.add((connection, frame["id"]))
        elif frame["type"] == "signal":
            self.from_clients[connection][frame["kind"]] += 1
        self._heard(connection, data, now)

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                frame = json.loads(effect.text)
                known = (effect.connection, frame.get("id")) in self._candidates
                if frame["type"] == "signal" and frame["kind"] != "cand":
                    self.to_clients[effect.connection][frame["kind"]] += 1
                elif frame["type"] == "ack" and not known:
                    self.to_clients[effect.connection]["ack"] += 1
        self._apply(effects)


def test_an_offer_and_its_answer_are_two_messages_of_the_server_to_each_side() -> None:
    async def run() -> tuple[list[list[str]], list[list[str]]]:
        async with (
            await SignalingServer.start("127.0.0.1", 0) as server,
            ice_punch.listen(f"http://127.0.0.1:{server.port}", OPTIONS) as listener,
        ):
            tap = Tap(server)
            channel = await ice_punch.connect(listener.link, OPTIONS)
            accepted = await listener.accept()
            await channel.send(b"there is a path")
            assert await accepted.recv() == b"there is a path"
            counted = tap.from_clients, tap.to_clients
            carried = [sorted(sorted(c.elements()) for c in by.values()) for by in counted]
            await accepted.close()
            await channel.close()
            return carried[0], carried[1]

    from_clients, to_clients = asyncio.run(run())
    assert from_clients == [["answer"], ["offer"]]
    assert to_clients == [["ack", "answer"], ["ack", "offer"]]
