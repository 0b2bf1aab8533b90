"""Megabytes a second over a data channel, reliable and unordered: ice-punch and stock aiortc.

Each talks to itself and to the other: two processes over the loopback interface, of which one sends
as fast as its channel takes messages.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from harness import HERE, at_least_one, interleaved, table, where

from ice_punch import GatheringOptions
from ice_punch.webrtc import WebRtcPeer, peer_connection

RUNS = 5
SECONDS = 1.0
AIORTC, OURS, HYBRID = "aiortc", "ice-punch", "peer_connection"
"""The last is aiortc on our ICE."""
PAIRS = {
    "aiortc to aiortc": (AIORTC, AIORTC),
    "ice-punch to ice-punch": (OURS, OURS),
    "ice-punch to aiortc": (OURS, AIORTC),
    "aiortc to ice-punch": (AIORTC, OURS),
}
ON_OUR_ICE = {
    "peer_connection to peer_connection": (HYBRID, HYBRID),
    "aiortc to peer_connection": (AIORTC, HYBRID),
    "peer_connection to aiortc": (HYBRID, AIORTC),
}
ALL = PAIRS | ON_OUR_ICE
BASE = "aiortc to aiortc"
WORKLOADS = {"reliable, 16384 bytes": (True, 16384), "unordered, 1100 bytes": (False, 1100)}
LOOPBACK = GatheringOptions(interface="lo", ipv6=False)
HIGH = 256 * 1024
"""Bytes that wait to be sent, past which whoever sends waits."""


# -- one process ------------------------------------------------------------------------------


class AiortcParty:
    def __init__(self, pc: RTCPeerConnection) -> None:
        self.pc = pc
        self.received = 0
        self.pc.on("datachannel", lambda channel: channel.on("message", self._count))

    def _count(self, message: bytes) -> None:
        self.received += len(message)

    async def offer(self, reliable: bool) -> str:
        bound = {} if reliable else {"ordered": False, "maxRetransmits": 0}
        self._channel = self.pc.createDataChannel("x", **bound)
        self._open, self._low = asyncio.Event(), asyncio.Event()
        self._channel.on("open", self._open.set)
        self._channel.bufferedAmountLowThreshold = HIGH // 2
        self._channel.on("bufferedamountlow", self._low.set)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def answer(self, sdp: str) -> str:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return self.pc.localDescription.sdp

    async def begin(self, sdp: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        await self._open.wait()

    async def flood(self, size: int, seconds: float) -> None:
        message, until = bytes(size), time.perf_counter() + seconds
        while time.perf_counter() < until:
            self._channel.send(message)
            if self._channel.bufferedAmount > HIGH:
                self._low.clear()
                await self._low.wait()


class OurParty:
    def __init__(self) -> None:
        self.peer = WebRtcPeer(options=LOOPBACK, trickle=False)
        self.received = 0

    async def offer(self, reliable: bool) -> str:
        self._reliable = reliable
        return await self.peer.create_offer()

    async def answer(self, sdp: str) -> str:
        answer = await self.peer.create_answer(sdp)
        self._reading = asyncio.ensure_future(self._read())
        return answer

    async def _read(self) -> None:
        channel = await (await self.peer.connect()).accept_channel()
        async for message in channel:
            self.received += len(message)

    async def begin(self, sdp: str) -> None:
        await self.peer.set_answer(sdp)
        bound: dict[str, Any] = {} if self._reliable else {"ordered": False, "max_retransmits": 0}
        self._channel = await (await self.peer.connect()).open_channel("x", **bound)

    async def flood(self, size: int, seconds: float) -> None:
        message, until = bytes(size), time.perf_counter() + seconds
        while time.perf_counter() < until:
            await self._channel.send(message)
            if self._channel.buffered > HIGH // 2:  # an unreliable channel would drop
                await self._channel.drain(HIGH // 4)


async def party(kind: str) -> None:
    """Do what comes on standard input, one JSON object a line, and answer each."""
    this: AiortcParty | OurParty
    if kind == OURS:
        this = OurParty()
    elif kind == HYBRID:
        this = AiortcParty(peer_connection(options=LOOPBACK))
    else:
        this = AiortcParty(RTCPeerConnection(RTCConfiguration(iceServers=[])))
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, arguments = json.loads(line)
        if command == "count":
            answer: Any = [this.received, time.process_time()]
        else:
            answer = await getattr(this, command)(*arguments)
        print(json.dumps(answer), flush=True)


# -- the other side of it ---------------------------------------------------------------------


class Process:
    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "data_channels.py"), "--party", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, command: str, *arguments: Any) -> Any:
        self.tell(command, *arguments)
        return self.hear()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def processes(pair: str) -> Iterator[tuple[Process, Process]]:
    both = Process(ALL[pair][0]), Process(ALL[pair][1])
    try:
        yield both
    finally:
        for process in both:
            process.end()


@dataclass(frozen=True, slots=True)
class Measured:
    rate: float
    """Megabytes a second that arrived."""
    cpu: float
    """Seconds of CPU for a gigabyte, both processes."""
    busier: float
    """The same of the busier process: what bounds the rate where each has a processor."""


def measure(pair: str, workload: str, seconds: float) -> Measured:
    reliable, size = WORKLOADS[workload]
    with processes(pair) as (sender, receiver):
        answer = receiver.ask("answer", sender.ask("offer", reliable))
        sender.ask("begin", answer)
        sender.ask("flood", size, 0.3)  # beyond slow start
        began = time.perf_counter()
        (before, cpu_r), (_, cpu_s) = receiver.ask("count"), sender.ask("count")
        came = 0
        while not came:  # a busy machine may let nothing through for a moment
            sender.ask("flood", size, seconds)
            (after, cpu_r2), (_, cpu_s2) = receiver.ask("count"), sender.ask("count")
            took, came = time.perf_counter() - began, after - before
    used = cpu_r2 - cpu_r, cpu_s2 - cpu_s
    return Measured(came / took / 1e6, sum(used) / (came / 1e9), max(used) / (came / 1e9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=RUNS, help="of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run (%(default)s)")
    parser.add_argument("--party", choices=(AIORTC, OURS, HYBRID), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.party:
        with mock.patch("aioice.ice.get_host_addresses", return_value=["127.0.0.1"]):
            asyncio.run(party(given.party))
        return
    print(where(), "\n")
    for workload in WORKLOADS:
        results = interleaved(
            list(ALL), given.runs, lambda pair, w=workload: measure(pair, w, given.seconds)
        )
        base = statistics.median(m.rate for m in results[BASE])
        base_busier = statistics.median(m.busier for m in results[BASE])
        rows = []
        for pair, measured in results.items():
            rates = [m.rate for m in measured]
            rate = statistics.median(rates)
            cpu = statistics.median(m.cpu for m in measured)
            spread = f"{min(rates):.1f}-{max(rates):.1f}"
            busier = statistics.median(m.busier for m in measured)
            rows.append(
                (
                    *(pair, f"{rate:.1f}", spread, f"{cpu:.0f}", f"{busier:.0f}"),
                    *(f"{rate / base:.2f}", f"{base_busier / busier:.2f}"),
                )
            )
        head = (workload, "MB/s", "spread", "CPU s/GB", "busier side", "ratio", "by CPU time")
        print(table(head, rows), f"\nload {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    main()
