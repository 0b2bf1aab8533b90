"""Standard input and output as the two ends of a channel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ice_punch.cli.stdio import InputReader, OutputWriter, descriptor
from ice_punch.errors import ChannelClosed, DatagramRefused, DatagramTooLarge, IcePunchError

if TYPE_CHECKING:
    from ice_punch.channel import Channel

END_OF_INPUT = "the input has ended"
OUTPUT_GONE = "nobody reads the output"
RATE = 10_000
"""Datagrams a second from a file: UDP does not tell that the peer can not follow."""
BURST = 16
LAST_WORDS = 0.2
"""Seconds that a slow standard output gets after Ctrl-C."""


@dataclass(frozen=True, slots=True)
class PipeOptions:
    size: int | None = None
    """Bytes per datagram of what is piped in; None sends what there is, as soon as it is there."""
    linger: float = 1.0
    """Seconds without a datagram from the peer, after the input has ended, to close the channel."""


def input_is_terminal() -> bool:
    return _is_terminal(descriptor("stdin"))


class Pipe:
    """Carries both ways until one of them ends."""

    def __init__(
        self, channel: Channel, options: PipeOptions, on_unsent: Callable[[str], None]
    ) -> None:
        """``on_unsent`` is told why a line typed at the terminal was not sent."""
        self._channel = channel
        self._options = options
        self._on_unsent = on_unsent
        self._loop = asyncio.get_running_loop()
        self._last_received = 0.0
        self._output = descriptor("stdout")
        self._to_terminal = _is_terminal(self._output)
        self._writer = OutputWriter(self._output)

    async def run(self) -> str:
        """Returns why it is over; what the peer sent before is written by then.

        Raises ConsentLost when the peer vanished, DatagramTooLarge or DatagramRefused for what is
        piped in and can not be sent.
        """
        receiving = asyncio.ensure_future(self._receive())
        sending = asyncio.ensure_future(self._send())
        try:
            await asyncio.wait(
                (receiving, sending, self._writer.failed), return_when=asyncio.FIRST_COMPLETED
            )
            if self._writer.failed.done():
                return OUTPUT_GONE
            over = sending if sending.done() else receiving
            reason = over.result()
            await self._writer.drain()
            return reason
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._writer.drain()
            raise
        finally:
            for task in (receiving, sending):
                task.cancel()
            await asyncio.gather(receiving, sending, return_exceptions=True)

    # -- from the peer ------------------------------------------------------------------------

    async def _receive(self) -> str:
        while True:
            try:
                datagram = await self._channel.recv()
            except ChannelClosed as error:
                return str(error)
            self._note_received()
            await self._writer.write(self._shown(datagram))

    def _note_received(self) -> None:
        self._last_received = self._loop.time()

    def _shown(self, data: bytes) -> bytes:
        return _for_terminal(data) if self._to_terminal else data

    # -- to the peer --------------------------------------------------------------------------

    async def _send(self) -> str:
        source = descriptor("stdin")
        terminal = _is_terminal(source)
        reader = InputReader(source)
        try:
            sent = await (self._send_lines(reader) if terminal else self._send_blocks(reader))
        except IcePunchError:
            if not self._channel.closed:
                raise
            sent = False  # receiving has the reason
        if not sent and not terminal:
            await self._loop.create_future()  # there is only receiving
        await self._linger()
        return END_OF_INPUT

    async def _send_lines(self, reader: InputReader) -> bool:
        rest = b""
        while chunk := await reader.read():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await self._send_line(line)
        if rest:
            await self._send_line(rest)
        return True

    async def _send_line(self, line: bytes) -> None:
        try:
            await self._channel.send(line)
        except (DatagramTooLarge, DatagramRefused) as error:
            self._on_unsent(f"not sent: {error}")

    async def _send_blocks(self, reader: InputReader) -> bool:
        exact = self._options.size
        sent, rest = 0, b""
        began, before = self._loop.time(), 0
        while chunk := await reader.read():
            rest += chunk
            while rest:
                size = exact or self._channel.max_datagram_size
                # What fills no datagram goes at once, unless a size was asked for or more is there.
                if len(rest) < size and (exact or reader.ready):
                    break
                await self._channel.send(rest[:size])
                rest = rest[size:]
                sent += 1
                ahead = (sent - before) / RATE - (self._loop.time() - began)
                if ahead > BURST / RATE:
                    await asyncio.sleep(ahead)
                elif ahead < 0:
                    began, before = self._loop.time(), sent
        if rest:
            await self._channel.send(rest)
            sent += 1
        return sent > 0

    async def _linger(self) -> None:
        ended = self._loop.time()
        while True:
            idle = self._loop.time() - max(ended, self._last_received)
            if idle >= self._options.linger:
                return
            await asyncio.sleep(min(self._options.linger - idle, 3600.0))


def _is_terminal(fd: int | None) -> bool:
    return fd is not None and os.isatty(fd)


def _for_terminal(datagram: bytes) -> bytes:
    """A line; control characters of the peer's are not for our terminal to obey."""
    text = datagram.decode(errors="replace").removesuffix("\n")
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return shown.encode() + b"\n"
