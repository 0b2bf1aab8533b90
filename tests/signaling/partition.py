"""Two servers and a Redis in this network namespace; a firewall cuts one server off for a while.

Run with ``unshare --net``: it brings up the loopback interface and loads nftables rules.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "signaling")]

from redis_support import RedisServer  # noqa: E402
from shared_world import LIMITS, SETTLE, Talker, all_heard, until  # noqa: E402

from signaling.backends.redis import RedisBackend  # noqa: E402
from signaling.server import SignalingServer  # noqa: E402

# Both servers speak to the same Redis, each by a loopback address of its own.
CUT_OFF, SOUND = "127.0.0.2", "127.0.0.3"


def nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


async def server(port: int, address: str) -> SignalingServer:
    backend = RedisBackend(
        f"redis://{address}:{port}/0", random.SystemRandom(), LIMITS, settle=SETTLE
    )
    return await SignalingServer.start(port=0, backend=backend, limits=LIMITS)


async def run(redis: RedisServer) -> dict[str, object]:
    cut_off, sound = await server(redis.port, CUT_OFF), await server(redis.port, SOUND)
    async with (
        cut_off,
        sound,
        Talker(cut_off.port) as a,
        Talker(cut_off.port) as local,
        Talker(sound.port) as b,
        Talker(sound.port) as c,
    ):
        talking = asyncio.gather(
            a.say(b, 80), b.say(a, 80), a.say(local, 150), c.say(local, 80), b.say(c, 80)
        )
        await asyncio.sleep(0.5)
        nft(
            "table ip bus {\n chain out {\n type filter hook output priority 0;\n"
            f" ip daddr {CUT_OFF} tcp dport {redis.port} drop\n"
            f" ip saddr {CUT_OFF} tcp sport {redis.port} drop\n }}\n}}\n"
        )
        await until(lambda: not cut_off.ready, "noticed", 10)
        before = len(local.heard[a.id])
        await asyncio.sleep(1.0)
        ready = [cut_off.ready, sound.ready]
        during = len(local.heard[a.id]) - before
        nft("delete table ip bus\n")
        await until(lambda: cut_off.ready, "back", 15)
        await talking
        await all_heard([a, local, b, c])
        return {
            "ready_during": ready,
            "local_during": during,
            "disconnections": [one.disconnections for one in (a, local, b)],
        }


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    directory = Path(sys.argv[1])
    with RedisServer(directory, host="0.0.0.0") as redis:
        redis.host = "127.0.0.1"
        print(json.dumps(asyncio.run(run(redis))))


if __name__ == "__main__":
    main()
