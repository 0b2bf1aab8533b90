"""A program at the other end of a tab: ``robot.py listen|connect URL DIRECTORY CAFILE``.

It does what it is told on standard input, one JSON object a line, and tells what happens on
standard output, likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import ice_punch
from ice_punch.errors import IcePunchError
from ice_punch.ice import RestartAdvised
from ice_punch.peer import PeerOptions
from ice_punch.webrtc import FileReceiver, WebRtcChannel, files, send_file


def tell(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class Robot:
    def __init__(self, channel: WebRtcChannel, directory: Path) -> None:
        self.channel = channel
        self.received: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        receiver = FileReceiver(
            directory,
            on_arrived=lambda file: tell("file", path=str(file.path), sha256=file.sha256),
            on_failed=lambda name, why: tell("file-failed", name=name, why=why),
        )
        channel.serve(files.PROTOCOL, receiver.receive)

    async def run(self) -> None:
        path = self.channel.path
        tell("connected", path=path.kind if path else None)
        tasks = [asyncio.ensure_future(w) for w in (self._messages(), self._datagrams())]
        try:
            await self._obey()
        finally:
            for task in tasks:
                task.cancel()

    async def _messages(self) -> None:
        with contextlib.suppress(IcePunchError):
            while True:
                tell("message", text=await self.channel.messages.recv())
        tell("ended")

    async def _datagrams(self) -> None:
        with contextlib.suppress(IcePunchError):
            async for datagram in self.channel:
                if len(datagram) == 8:
                    self.received.add(struct.unpack("!Q", datagram)[0])

    async def _obey(self) -> None:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            match order["do"]:
                case "say":
                    await self.channel.messages.send(order["text"])
                case "send":
                    self._work(self._send(order["path"]))
                case "stream":
                    self._work(self._stream(order["rate"], order["seconds"]))
                case "count":
                    path = self.channel.path
                    kind = path.kind if path else None
                    tell("count", received=len(self.received), path=kind)
                case "ice":
                    connection = self.channel.connection
                    tell("ice", state=connection.state.value, restarting=connection.restarting)
                case "close":
                    await self.channel.close()
                    tell("closed")

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, path: str) -> None:
        try:
            sent = await send_file(self.channel, path)
            tell("sent", sha256=sent.sha256)
        except IcePunchError as error:
            tell("send-failed", why=str(error))

    async def _stream(self, rate: int, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            await self.channel.send(struct.pack("!Q", number))
        tell("streamed", count=int(rate * seconds))


def observe(event: object) -> None:
    if isinstance(event, RestartAdvised):
        tell("advised", why=event.reason)


async def main(role: str, url: str, directory: Path, cafile: str) -> None:
    context = ssl.create_default_context(cafile=cafile) if cafile else None
    options = PeerOptions(ssl=context, timeout=40, observer=observe)
    try:
        if role == "connect":
            tell("link", link=url)
            channel = await ice_punch.connect(url, options)
            await Robot(channel, directory).run()
            return
        async with ice_punch.listen(url, options) as listener:
            tell("link", link=listener.link)
            while True:
                try:
                    channel = await listener.accept()
                except IcePunchError as error:
                    tell("attempt-failed", error=type(error).__name__, why=str(error))
                    continue
                break
            tell("refused", count=listener.refused)
            await Robot(channel, directory).run()
    except IcePunchError as error:
        tell("failed", error=type(error).__name__, why=str(error))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
