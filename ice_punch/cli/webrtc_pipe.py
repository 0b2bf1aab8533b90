"""Standard input and output, and files, where the peer speaks WebRTC: a page, or a command."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ice_punch.cli.pipe import Pipe, PipeOptions
from ice_punch.cli.stdio import InputReader
from ice_punch.errors import ChannelClosed, IcePunchError, MessageTooLarge, TransferFailed

if TYPE_CHECKING:
    from ice_punch.channel import Channel
    from ice_punch.cli.output import Output
    from ice_punch.webrtc import FileArrived, WebRtcChannel

SENT = "all files have been sent"
LONGEST_LINE = 16384
"""Bytes of piped input without a line break that leave as they are."""


def as_webrtc(channel: Channel) -> WebRtcChannel | None:
    """The channel, if it is one with data channels; what they need is imported by then."""
    if "ice_punch.webrtc" in sys.modules:
        from ice_punch.webrtc import WebRtcChannel

        if isinstance(channel, WebRtcChannel):
            return channel
    return None


class WebRtcPipe(Pipe):
    """Lines are messages, reliable and in order. What is received as datagrams is written too, and
    with ``--size`` sent."""

    def __init__(
        self,
        channel: WebRtcChannel,
        options: PipeOptions,
        output: Output,
        *,
        directory: str | None,
        send: tuple[str, ...],
    ) -> None:
        super().__init__(channel, options, output.warning)
        self._webrtc = channel
        self._report = output
        self._unsent = list(send)
        if directory is not None:
            from ice_punch.webrtc import FileReceiver, files

            receiver = FileReceiver(
                directory,
                on_arrived=self._on_arrived,
                on_failed=output.file_failed,
                progress=lambda *_: self._note_received(),
            )
            channel.serve(files.PROTOCOL, receiver.receive)

    def _on_arrived(self, file: FileArrived) -> None:
        self._note_received()
        self._report.file_received(str(file.path), file.size, file.sha256)

    # -- from the peer ------------------------------------------------------------------------

    async def _receive(self) -> str:
        datagrams = asyncio.ensure_future(super()._receive())
        messages = asyncio.ensure_future(self._receive_messages())
        both = (datagrams, messages)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            return next(task.result() for task in both if task.done())
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _receive_messages(self) -> str:
        while True:
            try:
                message = await self._webrtc.messages.recv()
            except ChannelClosed as error:
                return str(error)
            self._note_received()
            if isinstance(message, str):
                message = message.removesuffix("\n").encode() + b"\n"
            await self._writer.write(self._shown(message))

    # -- to the peer --------------------------------------------------------------------------

    async def run(self) -> str:
        """As of every pipe. Raises TransferFailed where it ends before all files were sent."""
        reason = await super().run()
        if self._unsent:
            raise TransferFailed(f"{self._unsent[0]} was not sent: {reason}")
        return reason

    async def _send(self) -> str:
        if not self._unsent:
            return await super()._send()
        from ice_punch.webrtc import send_file

        while self._unsent:
            try:
                sent = await send_file(self._webrtc, self._unsent[0])
            except ChannelClosed as error:
                return str(error)
            self._report.file_sent(self._unsent.pop(0), sent.size, sent.sha256)
        return SENT

    async def _send_line(self, line: bytes) -> None:
        try:
            await self._webrtc.messages.send(line.decode(errors="replace"))
        except MessageTooLarge as error:
            self._on_unsent(f"not sent: {error}")

    async def _send_blocks(self, reader: InputReader) -> bool:
        if self._options.size is not None:
            return await super()._send_blocks(reader)
        sent, rest = 0, b""
        while chunk := await reader.read():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await self._send_piped(line, line + b"\n")
            if len(rest) > LONGEST_LINE:
                await self._webrtc.messages.send(rest)
                rest = b""
            sent += 1
        if rest:
            await self._send_piped(rest, rest)
        with suppress(IcePunchError):
            await self._webrtc.messages.drain()
        return sent > 0

    async def _send_piped(self, line: bytes, whole: bytes) -> None:
        """A line of text as text; bytes that are none, as they are."""
        try:
            message: str | bytes = line.decode()
        except UnicodeDecodeError:
            message = whole
        if len(line) > LONGEST_LINE:
            message = whole
        for at in range(0, max(1, len(message)), LONGEST_LINE):
            await self._webrtc.messages.send(message[at : at + LONGEST_LINE])
