"""Numbered datagrams to a peer that sends them back, and how long none came."""

from __future__ import annotations

import asyncio
import contextlib
import time

from ice_punch import Channel, IceConnection


class Sender:
    """Sends a number every 20 ms, and notes when which came back."""

    def __init__(self, connection: IceConnection | Channel) -> None:
        self.connection = connection
        self.back: dict[int, float] = {}
        self.sent = 0
        self._tasks = [asyncio.ensure_future(t()) for t in (self._send, self._receive)]

    async def _send(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self.connection.send_nowait(b"%d" % self.sent)
                self.sent += 1
            await asyncio.sleep(0.02)

    async def _receive(self) -> None:
        while True:
            self.back.setdefault(int(await self.connection.recv()), time.monotonic())

    async def flows(self) -> float:
        """The seconds until what is sent from now on comes back."""
        began, first = time.monotonic(), self.sent
        async with asyncio.timeout(20):
            while not any(number >= first for number in self.back):
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
