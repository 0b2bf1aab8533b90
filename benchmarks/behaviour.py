"""What happens in five situations, ice-punch and aioice side by side: measured, not read from code.

Takes a bit more than two minutes, most of them spent waiting for a peer that never answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from harness import STUN, Ground, need_namespaces, table, where
from party import STACKS, Side

from ice_punch.lab.kernel import KernelInternet

LONG_ROUND_TRIP = 1.2
SESSION = 60.0
"""Seconds that a session over the long round trip is watched."""
SILENCE = 80.0
FLOOD = 5000
SHAPED_LIKE_STUN = bytes.fromhex("00010004") + b"twenty bytes of data"
"""Application data whose first bytes could be a Binding request's, without the magic cookie."""


async def pair(stack: str) -> tuple[Side, Side]:
    """Two connected sides in this process."""
    sides = [STACKS[stack](controlling, []) for controlling in (True, False)]
    descriptions = [(await side.gather())["description"] for side in sides]
    await asyncio.gather(
        *(s.connect(d) for s, d in zip(sides, reversed(descriptions), strict=True))
    )
    return sides[0], sides[1]


def address_of(side: Side) -> tuple[str, int]:
    host = next(c for c in side.connection.local_candidates if str(c.type) == "host")
    return (host.host, host.port)


async def first_of(side: Side) -> bytes:
    data: bytes = await asyncio.wait_for(side.connection.recv(), 5)
    return data


async def data_from_a_stranger(stack: str) -> str:
    """A datagram from an address that never passed a check, then one from the peer."""
    a, b = await pair(stack)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"from a stranger", address_of(b))
        await asyncio.sleep(0.1)
        await a.connection.send(b"from the peer")
        got = await first_of(b)
    await asyncio.gather(a.close(), b.close())
    return "delivered" if got == b"from a stranger" else "dropped"


async def data_shaped_like_stun(stack: str) -> str:
    """Application data that shares a STUN header's type and length, but not its cookie."""
    a, b = await pair(stack)
    await a.connection.send(SHAPED_LIKE_STUN)
    await a.connection.send(b"the end")
    got = await first_of(b)
    await asyncio.gather(a.close(), b.close())
    return "delivered" if got == SHAPED_LIKE_STUN else "lost without a word"


async def nobody_reads(stack: str) -> str:
    """How many datagrams are held for a reader that does not come."""
    a, b = await pair(stack)
    for number in range(FLOOD):
        await a.connection.send(b"%d" % number)
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    held = 0
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(b.connection.recv(), 0.3)
            held += 1
    await asyncio.gather(a.close(), b.close())
    return f"{held} held"


async def peer_never_answers(stack: str) -> str:
    """The time until a failure is reported, and its words."""
    here, there = (STACKS[stack](controlling, []) for controlling in (True, False))
    await here.gather()
    description = (await there.gather())["description"]
    await there.close()
    # Its port stays taken, so that no ICMP error tells.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("0.0.0.0", _port(description)))
        began = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE):
                await here.connect(description)
        except TimeoutError:
            return f"nothing in {SILENCE:.0f} s"
        except Exception as error:
            took, name = time.monotonic() - began, type(error).__name__
        else:
            return "connected?"
    await here.close()
    return f"{name} after {took:.1f} s"


def _port(description: str) -> int:
    line = next(line for line in description.splitlines() if " typ host" in line)
    return int(line.split()[5])


def long_round_trip() -> dict[str, str]:
    """Sessions that carry nothing but consent checks, RFC 7675, over a round trip of 1.2 s."""
    with contextlib.ExitStack() as stack:
        grounds = {
            name: stack.enter_context(Ground(KernelInternet(rtt=LONG_ROUND_TRIP)))
            for name in STACKS
        }
        for name, ground in grounds.items():
            for party, controlling in ((ground.a, True), (ground.b, False)):
                party.tell(do="gather", stack=name, controlling=controlling, servers=[STUN])
        begin = {}
        for name, ground in grounds.items():
            told = [ground.a.answer(), ground.b.answer()]
            begin[name] = time.monotonic() + 0.2
            ground.a.tell(do="connect", remote=told[1]["description"], at=begin[name])
            ground.b.tell(do="connect", remote=told[0]["description"], at=begin[name])
        for ground in grounds.values():
            for party in (ground.a, ground.b):
                party.answer()
                party.tell(do="stay", seconds=SESSION)
        return {name: _lasted(ground) for name, ground in grounds.items()}


def _lasted(ground: Ground) -> str:
    lasted = [party.answer()["lasted"] for party in (ground.a, ground.b)]
    ended = [seconds for seconds in lasted if seconds is not None]
    return f"closed after {min(ended):.0f} s" if ended else f"alive after {SESSION:.0f} s"


Probe = Callable[[str], Coroutine[Any, Any, str]]
PROBES: dict[str, Probe] = {
    "a datagram from a stranger": data_from_a_stranger,
    "data shaped like STUN, without the cookie": data_shaped_like_stun,
    f"{FLOOD} datagrams and nobody reads": nobody_reads,
    "the peer never answers": peer_never_answers,
}


def run(probe: Probe) -> dict[str, str]:
    async def every_stack() -> list[str]:
        return await asyncio.gather(*(probe(stack) for stack in STACKS))

    return dict(zip(STACKS, asyncio.run(every_stack()), strict=True))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    need_namespaces()
    print(where())
    print()
    rows: list[list[str]] = []

    def add(name: str, result: dict[str, str]) -> None:
        rows.append([name, *(result[stack] for stack in STACKS)])

    with KernelInternet(nat_a="none", nat_b="none") as net:
        for name, probe in PROBES.items():
            add(name, net.peer_a.call(partial(run, probe), timeout=100))
    add(f"consent, round trip {LONG_ROUND_TRIP:g} s", long_round_trip())
    print(table(["", *STACKS], rows))


if __name__ == "__main__":
    main()
