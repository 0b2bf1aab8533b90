"""Load for one STUN server on this host: Binding requests from many addresses of 127.0.0.0/8.

Every address has some requests out at any time; what is lost is asked again. Answers are read one
by one and held against the request and the address that asked. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import struct
import time

from ice_punch.stun import (
    XOR_MAPPED_ADDRESS,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)

LOST_AFTER = 0.2
SOL_UDP, UDP_SEGMENT = 17, 103
SUCCESS = b"\x01\x01"


class Client:
    """One address that asks, with ``out`` requests on their way."""

    def __init__(self, number: int, server: tuple[str, int], out: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((f"127.1.{number >> 8}.{number & 255}", 0))
        self.socket.connect(server)
        self.address = self.socket.getsockname()
        self.requests = [
            Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12)).to_bytes(
                fingerprint=False
            )
            for _ in range(out)
        ]
        self.ids = {request[8:20] for request in self.requests}
        self.asked_at = 0.0
        size = len(self.requests[0])
        self._segments = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))] if out > 1 else []

    def ask(self, count: int, now: float) -> None:
        """As one packet of the kernel's where it can, so that the load costs less than the
        server."""
        self.asked_at = now
        if self._segments and count > 1:
            try:
                self.socket.sendmsg(self.requests[:count], self._segments)
            except OSError:
                self._segments = []
            else:
                return
        for request in self.requests[:count]:
            with contextlib.suppress(OSError):
                self.socket.send(request)

    def read(self) -> tuple[int, int]:
        """How many right and wrong answers there are."""
        right = wrong = 0
        receive, ids = self.socket.recv, self.ids
        for _ in range(len(self.requests)):
            try:
                data = receive(2048)
            except OSError:
                break
            if data[:2] == SUCCESS and data[8:20] in ids:
                right += 1
            else:
                wrong += 1
        if right and not self._tells_us(data):
            return 0, right + wrong
        return right, wrong

    def _tells_us(self, data: bytes) -> bool:
        try:
            return parse_message(data).get(XOR_MAPPED_ADDRESS) == self.address
        except StunParseError:
            return False


def load(server: tuple[str, int], sources: int, out: int, seconds: float) -> dict[str, float]:
    clients = [Client(number, server, out) for number in range(1, sources + 1)]
    by_descriptor = {client.socket.fileno(): client for client in clients}
    right = wrong = 0
    with select.epoll() as poll:
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        began = now = time.monotonic()
        looked_at = 0.0
        while now < began + seconds:
            if now >= looked_at + LOST_AFTER:
                looked_at = now
                for client in clients:
                    if client.asked_at < now - LOST_AFTER:
                        client.ask(out, now)
            for descriptor, _ in poll.poll(LOST_AFTER):
                client = by_descriptor[descriptor]
                good, bad = client.read()
                right, wrong = right + good, wrong + bad
                client.ask(good + bad, now)
            now = time.monotonic()
    return {"right": right, "wrong": wrong, "seconds": now - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--ip", default="127.0.0.1", help="the server's")
    parser.add_argument("--sources", type=int, default=64, help="addresses that ask")
    parser.add_argument("--out", type=int, default=4, help="requests of each on their way")
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    server = (arguments.ip, arguments.port)
    print(json.dumps(load(server, arguments.sources, arguments.out, arguments.seconds)))


if __name__ == "__main__":
    main()
