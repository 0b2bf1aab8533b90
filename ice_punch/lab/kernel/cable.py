"""Cables between network namespaces: pairs of TAP devices, and this process between them.

Many kernels are built without ``tc netem``; every one that runs containers has TAP. What a cable
does to a packet is what the virtual internet's link does (:class:`LinkDirection`), so both lose
the same packets in the same order. Run as a program it reads one line, a list of cables as JSON,
prints ``ready`` when the devices exist, and ends with its standard input or by a signal.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time

from ice_punch.lab.kernel.cables import Cable, from_line
from ice_punch.lab.links import LinkDirection

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
MAX_FRAME = 65536
MAX_QUEUED = 20000
FRAMES_PER_TURN = 64
ETHERNET_HEADER = 14
IP_TYPES = (b"\x08\x00", b"\x86\xdd")
TELLS_NEIGHBOURS = range(130, 138)
"""ICMPv6 types that are about the wire itself: multicast listeners and neighbours."""


def open_tap(namespace: str, device: str) -> int:
    """Make a TAP device in a namespace; it lives as long as the returned descriptor."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _set_namespace(there)
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    finally:
        _set_namespace(home)
        os.close(there)
        os.close(home)
    return fd


class Direction:
    """Frames on their way from one end to the other."""

    def __init__(self, source: int, target: int, link: LinkDirection) -> None:
        self.source = source
        self.target = target
        self.link = link
        self.queue: list[tuple[float, int, bytes]] = []
        self._number = 0

    def take(self) -> None:
        """Read what has come in, and note when it is to come out, if it is."""
        for _ in range(FRAMES_PER_TURN):
            try:
                frame = os.read(self.source, MAX_FRAME)
            except OSError:
                # Nothing more, or the device is down for the moment.
                return
            now = time.monotonic()
            for due in self.arrivals(frame, now):
                if len(self.queue) < MAX_QUEUED:
                    self._number += 1
                    heapq.heappush(self.queue, (due, self._number, frame))

    def arrivals(self, frame: bytes, now: float) -> tuple[float, ...]:
        """When it arrives: an IP packet by the link's lottery, anything else at once."""
        if not _is_ip_packet(frame):
            return (now,)
        return self.link.carry(len(frame) - ETHERNET_HEADER, now).arrivals

    def release(self) -> None:
        """Let out what is due."""
        while self.queue and self.queue[0][0] <= time.monotonic():
            frame = heapq.heappop(self.queue)[2]
            try:
                os.write(self.target, frame)
            except OSError:
                # Down, or its queue is full: a cable loses frames then.
                continue


def _is_ip_packet(frame: bytes) -> bool:
    if frame[12:14] not in IP_TYPES:
        return False
    about_wire = frame[12:14] == IP_TYPES[1] and (
        (frame[20] == 58 and len(frame) > 54 and frame[54] in TELLS_NEIGHBOURS) or frame[20] == 0
    )
    return not about_wire


def carry(cables: list[Cable], ends: list[tuple[int, int]]) -> None:
    """Carry frames until standard input is closed."""
    directions: list[Direction] = []
    for cable, (inner, outer) in zip(cables, ends, strict=True):
        up, down = (random.Random(seed) for seed in cable.seeds)  # noqa: S311
        directions += [
            Direction(inner, outer, LinkDirection(cable.up, up)),
            Direction(outer, inner, LinkDirection(cable.down, down)),
        ]
    by_source = {direction.source: direction for direction in directions}
    stdin = sys.stdin.fileno()
    watched = [stdin, *by_source]
    while True:
        due = min((d.queue[0][0] for d in directions if d.queue), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        # Of all waits of the kernel this one is the most exact.
        ready, _, _ = select.select(watched, [], [], timeout)
        if stdin in ready:
            return
        for fd in ready:
            by_source[fd].take()
        for direction in directions:
            direction.release()


def main() -> None:
    # Whoever lays the cables holds its own signals back meanwhile, and that is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    cables = from_line(sys.stdin.readline())
    ends = [(open_tap(*cable.inner), open_tap(*cable.outer)) for cable in cables]
    print("ready", flush=True)
    carry(cables, ends)


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main()
