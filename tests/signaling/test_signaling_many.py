"""Two thousand clients on one server: they meet, speak, vanish all at once, and come back."""

from __future__ import annotations

import asyncio
import random
import resource
import sys
from collections import Counter
from pathlib import Path

import pytest
from signaling_net import eventually

from signaling.events import Event, PeerJoined, Resumed, SignalReceived, Welcomed
from signaling.limits import Limits
from signaling.server import SignalingServer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from signaling_clients import LeanClient

CLIENTS = 2000
LIMITS = Limits(
    connections_per_address=CLIENTS,
    sessions_per_address=CLIENTS,
    accept_rate=1e5,
    accept_burst=10**5,
)


@pytest.mark.usefixtures("engine")
@pytest.mark.timeout(400)
def test_2000_connections_come_speak_and_come_back_with_nothing_lost_or_doubled() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CLIENTS + 200
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            pytest.skip(f"this process may have only {hard} files open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    heard: Counter[tuple[int, str]] = Counter()
    welcomed: Counter[int] = Counter()
    resumed: set[int] = set()
    partner: dict[int, str] = {}

    def on_event(client: LeanClient, event: Event) -> None:
        match event:
            case Welcomed():
                welcomed[id(client)] += 1
                if event.peers:
                    partner[id(client)] = event.peers[0].id
            case PeerJoined():
                partner[id(client)] = event.peer.id
            case Resumed():
                resumed.add(id(client))
            case SignalReceived():
                heard[id(client), event.data] += 1

    async def run() -> None:
        chance = random.Random(1)
        async with await SignalingServer.start(port=0, limits=LIMITS) as server:
            address = ("127.0.0.1", server.port)
            clients = [
                LeanClient(address, f"room-of-a-pair-{index // 2:08}", chance, on_event)
                for index in range(CLIENTS)
            ]
            for begin in range(0, CLIENTS, 100):
                for client in clients[begin : begin + 100]:
                    client.start()
                await asyncio.sleep(0.01)
            await eventually(lambda: len(partner) == CLIENTS, 60)
            sizes = server.sizes
            assert (sizes["rooms"], sizes["sessions"]) == (CLIENTS // 2, CLIENTS)

            for client in clients:
                client.send(partner[id(client)], "before")
            await eventually(lambda: len(heard) == CLIENTS, 60)

            for client in clients:
                assert client._transport is not None
                client._transport.abort()
                client.send(partner[id(client)], "while away")
            await eventually(lambda: len(resumed) == CLIENTS, 60)
            await eventually(lambda: len(heard) == 2 * CLIENTS, 60)
            assert server.sizes["away"] == 0
            for client in clients:
                client.close()
            await eventually(lambda: server.sizes["connections"] == 0, 30)

    asyncio.run(run())
    assert set(heard.values()) == {1}
    assert set(welcomed.values()) == {1}
