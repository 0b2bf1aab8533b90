"""``--manual``: the two sides carry blobs by copy and paste, and need no server."""

from __future__ import annotations

import asyncio
import os
import threading

from ice_punch.cli.arguments import SessionArguments
from ice_punch.cli.output import Output
from ice_punch.cli.run import run
from ice_punch.cli.session import carry
from ice_punch.cli.stdio import descriptor
from ice_punch.errors import InvalidDescription
from ice_punch.peer.manual import ManualPeer

MAX_LINE = 64 * 1024


def run_manual_listen(arguments: SessionArguments, output: Output) -> int:
    return run(_listen(arguments, output))


def run_manual_connect(offer: str | None, arguments: SessionArguments, output: Output) -> int:
    return run(_connect(offer, arguments, output))


async def _listen(arguments: SessionArguments, output: Output) -> int:
    with arguments.recorded(arguments.peer_options(output), output) as options:
        async with ManualPeer(options) as peer:
            output.blob("offer", await peer.offer())
            while True:
                answer = await read_line()
                if answer is None:
                    raise InvalidDescription("the input ended before the answer came")
                try:
                    channel = await peer.connect(answer)
                    break
                except InvalidDescription as error:
                    output.warning(f"{error}; paste the answer again")
            return await carry(channel, arguments.pipe, output)


async def _connect(offer: str | None, arguments: SessionArguments, output: Output) -> int:
    with arguments.recorded(arguments.peer_options(output), output) as options:
        async with ManualPeer(options) as peer:
            given = offer if offer is not None else await read_line()
            if given is None:
                raise InvalidDescription("the input ended before the offer came")
            output.blob("answer", await peer.answer(given))
            channel = await peer.connect()
            return await carry(channel, arguments.pipe, output)


async def read_line() -> str | None:
    """The next line of standard input that is not empty, and not a byte more: the rest is data.
    None at the end."""
    fd = descriptor("stdin")
    if fd is None:
        return None
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def tell(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        text = _read_line(fd)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, text)

    # A daemon: Ctrl-C is not to wait for somebody to press return.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    return await line


def _read_line(fd: int) -> str | None:
    line = bytearray()
    while len(line) < MAX_LINE:
        try:
            byte = os.read(fd, 1)
        except OSError:
            byte = b""
        if not byte and not line.strip():
            return None
        if byte in (b"", b"\n", b"\r"):
            if line.strip():
                break
            line.clear()
        else:
            line += byte
    return line.decode("utf-8", "replace")
