"""A cable with delay, jitter and loss between two network namespaces: two TAP devices and this
process between them.

Many kernels are built without ``tc netem``; every one that runs containers has TAP. The file is
run by its path in an isolated interpreter, so it imports nothing but the standard library. It
prints a line when the devices exist, and ends with its standard input or by a signal.
"""

from __future__ import annotations

import argparse
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

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
MAX_FRAME = 65536
MAX_QUEUED = 20000
FRAMES_PER_TURN = 64


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

    def __init__(self, source: int, target: int, randomness: random.Random) -> None:
        self.source = source
        self.target = target
        self.random = randomness
        self.queue: list[tuple[float, int, bytes]] = []
        self._number = 0
        self._last_due = 0.0

    def take(self, delay: float, jitter: float, loss: float) -> None:
        """Read what has come in and note when it is to come out."""
        for _ in range(FRAMES_PER_TURN):
            try:
                frame = os.read(self.source, MAX_FRAME)
            except BlockingIOError:
                return
            except OSError:
                # The device is down for the moment.
                return
            if len(self.queue) >= MAX_QUEUED or (loss and self.random.random() < loss):
                continue
            due = time.monotonic() + delay
            if jitter:
                due += self.random.random() * jitter
            self._last_due = max(self._last_due, due)
            self._number += 1
            heapq.heappush(self.queue, (self._last_due, self._number, frame))

    def release(self) -> None:
        """Let out what is due."""
        while self.queue and self.queue[0][0] <= time.monotonic():
            frame = heapq.heappop(self.queue)[2]
            try:
                os.write(self.target, frame)
            except OSError:
                # Down, or its queue is full: a cable loses frames then.
                continue


def carry(ends: tuple[int, int], delay: float, jitter: float, loss: float, seed: int) -> None:
    """Carry frames both ways until standard input is closed."""
    there, back = ends
    directions = [
        Direction(there, back, random.Random(f"{seed}/up")),  # noqa: S311
        Direction(back, there, random.Random(f"{seed}/down")),  # noqa: S311
    ]
    stdin = sys.stdin.fileno()
    while True:
        due = min((d.queue[0][0] for d in directions if d.queue), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([stdin, there, back], [], [], timeout)
        if stdin in ready:
            return
        for direction in directions:
            if direction.source in ready:
                direction.take(delay, jitter, loss)
            direction.release()


def main() -> None:
    parser = argparse.ArgumentParser(description="a cable between two network namespaces")
    parser.add_argument("ends", nargs=4, help="NAMESPACE DEVICE NAMESPACE DEVICE")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, one way")
    parser.add_argument("--jitter", type=float, default=0.0, help="seconds")
    parser.add_argument("--loss", type=float, default=0.0, help="0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Whoever lays the cable holds its own signals back meanwhile, and that is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    one, device, other, other_device = arguments.ends
    ends = (open_tap(one, device), open_tap(other, other_device))
    print("ready", flush=True)
    carry(ends, arguments.delay, arguments.jitter, arguments.loss, arguments.seed)


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main()
