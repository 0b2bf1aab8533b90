"""Both ways at once over a link that loses a tenth, reorders and doubles: what arrives is what was
sent, once where it is encrypted, and everything else is counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import zlib
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest

from ice_punch import DatagramTooLarge, GatheringOptions
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.scenario import Scenario, peer
from support.channels import End
from support.introduction import Mailbox, Party, introduce
from support.netns import NETNS

pytestmark = NETNS

SECONDS = 30.0 if os.environ.get("ICE_PUNCH_SOAK") == "soak" else 4.0
RATE = 400_000.0
"""Bytes a second: what the laboratory's cables carry beside everything else."""
ROUGH = LinkProfile(delay=0.01, jitter=0.005, loss=0.1, reordering=0.1, duplication=0.1)
HERE = GatheringOptions(ipv6=False)
HEAD = 12


def datagram(number: int, rng: random.Random, limit: int) -> bytes:
    """A number, filler, and a checksum over both; 0x80 is neither STUN nor DTLS."""
    size = rng.choice((0, 20, 188, 600, 1100, limit - HEAD))
    body = b"\x80" + number.to_bytes(7) + rng.randbytes(size)
    return body + zlib.crc32(body).to_bytes(4)


def party(first: bool, encrypt: bool) -> Party:
    async def run(mailbox: Mailbox) -> dict[str, Any]:
        end = End(first, encrypt=encrypt, gathering=HERE)
        mailbox.send(await end.describe())
        async with await end.connect(await mailbox.recv()) as channel:
            channel.pacing_rate = RATE
            got: Counter[int] = Counter()
            damaged = late = newest = 0

            async def read() -> None:
                nonlocal damaged, late, newest
                async for data in channel:
                    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:]):
                        damaged += 1
                        continue
                    number = int.from_bytes(data[1:8])
                    got[number] += 1
                    late += number < newest
                    newest = max(newest, number)

            reading = asyncio.ensure_future(read())
            rng, sent = random.Random(first), 0
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                for _ in range(rng.choice((1, 1, 5, 30))):
                    # A link that loses so much may be taken for a narrower one while this waits.
                    with contextlib.suppress(DatagramTooLarge):
                        await channel.send(datagram(sent, rng, channel.max_datagram_size))
                        sent += 1
                await asyncio.sleep(0)
            await channel.drain()
            await asyncio.sleep(0.5)
            reading.cancel()
            mailbox.send("done")
            await mailbox.recv()
            return {
                "sent": sent,
                "got": len(got),
                "doubled": sum(count > 1 for count in got.values()),
                "newest": newest,
                "damaged": damaged,
                "late": late,
                "stats": asdict(channel.stats),
                "dropped": channel.stats.dropped,
                "state": channel.connection.state.value,
            }

    return run


@pytest.mark.timeout(120)
@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_what_arrives_is_what_was_sent(encrypt: bool) -> None:
    link = AccessLink.both(ROUGH)
    scenario = Scenario(a=peer(NatKind.NONE), b=peer(NatKind.NONE, link))
    with KernelInternet.of(scenario, seed=5) as net:
        ends = introduce(
            net.peer_a, party(True, encrypt), net.peer_b, party(False, encrypt), timeout=100
        )
    for here, there in (ends, reversed(ends)):
        assert here["state"] in ("connected", "completed")
        assert here["damaged"] == 0
        assert here["sent"] > 100 * SECONDS
        assert here["newest"] < there["sent"]
        assert 0.7 * there["sent"] < here["got"] < 0.98 * there["sent"]
        assert here["late"] > 0
        assert here["stats"]["datagrams_sent"] == here["sent"]
        dropped = dict(here["dropped"])
        malformed = dropped.pop("malformed")
        assert not any(dropped.values()), dropped
        if encrypt:
            # RFC 6347 section 4.1.2.6: a record that came twice is dropped, and counted.
            assert here["doubled"] == 0
            assert malformed > 0
        else:
            assert here["doubled"] > 0
            assert malformed == 0
