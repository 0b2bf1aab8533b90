"""Arbitrary faults while four conversations go on: nothing is lost, nothing comes twice.

``ICE_PUNCH_SOAK=soak`` makes it many more.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from redis_support import RedisServer, needs_redis
from shared_world import Talker, all_heard, servers, until

from signaling.server import SignalingServer

pytestmark = needs_redis
ROUNDS = 100 if os.environ.get("ICE_PUNCH_SOAK") == "soak" else 4
SIGNALS, PAUSE = 30, 0.05


async def break_something(
    what: str,
    redis: RedisServer,
    both: list[SignalingServer],
    talkers: list[Talker],
    chance: random.Random,
) -> None:
    match what:
        case "forget":
            redis.kill()
            await until(lambda: not any(server.ready for server in both), "noticed")
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            redis.start()
        case "hang":
            redis.freeze()
            await asyncio.sleep(chance.uniform(0.1, 1.2))
            redis.thaw()
        case "deaf":
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        case "cut":
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
        case "move":
            for _ in range(chance.choice([1, 2])):
                chance.choice(talkers).move(chance.choice(both).port)
                await asyncio.sleep(chance.uniform(0.0, 0.1))


@pytest.mark.timeout(3600 if ROUNDS > 10 else 110)
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_or_doubled(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    faults = ["forget", "hang", "deaf", "cut", "move", "move"]

    async def run(redis: RedisServer) -> None:
        async with (
            servers(redis) as both,
            Talker(both[0].port) as a,
            Talker(both[0].port) as b,
            Talker(both[1].port) as c,
        ):
            for _ in range(ROUNDS):
                talking = asyncio.gather(
                    *(
                        one.say(to, SIGNALS, pause=PAUSE)
                        for one, to in ((a, c), (c, a), (a, b), (b, c))
                    )
                )
                await asyncio.sleep(chance.uniform(0.1, 0.5))
                await break_something(chance.choice(faults), redis, both, [a, b, c], chance)
                await until(lambda: all(server.ready for server in both), "ready")
                await talking
                await all_heard([a, b, c])

    with RedisServer(tmp_path) as redis:
        asyncio.run(run(redis))
