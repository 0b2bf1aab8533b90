"""Sockets for tests of the server and the client: all on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from signaling_support import ROOM
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from signaling.server import SignalingServer

SUBPROTOCOL = Subprotocol("icepunch.v1")


@asynccontextmanager
async def raw_client(server: SignalingServer) -> AsyncIterator[ClientConnection]:
    """A WebSocket with the right subprotocol, and nothing said yet."""
    url = f"ws://127.0.0.1:{server.port}/v1/ws"
    async with connect(
        url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None, close_timeout=0.2
    ) as connection:
        yield connection


async def say(connection: ClientConnection, type: str, **fields: Any) -> None:
    await connection.send(json.dumps({"type": type, **fields}))


async def hear(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        message: dict[str, Any] = json.loads(await connection.recv())
    return message


async def join(connection: ClientConnection, room: str = ROOM) -> dict[str, Any]:
    await say(connection, "hello", v=1, room=room)
    welcome = await hear(connection)
    assert welcome["type"] == "welcome", welcome
    return welcome


async def get(port: int, request: str) -> str:
    """The whole answer to a request written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace("\n", "\r\n").encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer.decode()


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until ``condition`` holds, or fail."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Wire:
    """A TCP forwarder that can be cut, and held shut, between a client and a server."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.shut = False

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection; what is under way is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.transport.abort() if sink in self._writers and not source.at_eof() else sink.close()


@asynccontextmanager
async def other_service(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Something that listens and is not a signaling server; its URL."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behave(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
