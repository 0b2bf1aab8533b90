"""``ice-punch listen`` and ``ice-punch connect``: one peer, one pipe."""

from __future__ import annotations

import asyncio
import os
import shlex
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ice_punch.cli.arguments import SessionArguments
from ice_punch.cli.output import Output
from ice_punch.cli.pipe import Pipe, PipeOptions, input_is_terminal
from ice_punch.cli.run import run
from ice_punch.cli.webrtc_pipe import WebRtcPipe, as_webrtc
from ice_punch.errors import IcePunchError, InvalidConfiguration, PeerSilent
from ice_punch.peer import Listener, PeerOptions, connect, listen
from signaling.spoken import CodeOffer, fetch_link

if TYPE_CHECKING:
    from ice_punch.channel import Channel
    from ice_punch.report import ServerReport

LINK_VARIABLE = "ICE_PUNCH_LINK"
SEATS = 2
"""This side and the one peer that it waits for."""
MISCONFIGURED = ("rejected", "denied", "unresolved")
"""Outcomes of servers that somebody has to mend, though a path was found without them."""
SERVER_PATIENCE = 5.0
"""Seconds in which the answer of a server may still come after the path was found."""


def run_listen(server: str, arguments: SessionArguments, output: Output) -> int:
    return run(_listen(server, arguments, output))


def run_connect(link: str | None, arguments: SessionArguments, output: Output) -> int:
    link = link or os.environ.get(LINK_VARIABLE)
    if not link:
        raise InvalidConfiguration(
            f"the link is missing: ice-punch connect 'LINK', or {LINK_VARIABLE} in the environment"
        )
    return run(_connect(link, arguments, output))


async def _listen(server: str, arguments: SessionArguments, output: Output) -> int:
    with arguments.recorded(arguments.peer_options(output), output) as options:
        return await _accept_one(server, options, arguments, output)


async def _accept_one(
    server: str, options: PeerOptions, arguments: SessionArguments, output: Output
) -> int:
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listen(server, options, max_peers=SEATS))
        plain = () if arguments.encrypt else ("--no-encrypt",)
        offer: CodeOffer | None = None
        if arguments.code:
            offer = await stack.enter_async_context(listener.offer_code())
            command = ["ice-punch", "connect", *plain, "--server", server, "--code", offer.code]
            output.spoken(offer.code, shlex.join(command))
        else:
            output.listening(listener.link, *plain)
        while True:
            try:
                channel = await _next(listener, offer)
            except PeerSilent as error:
                why = error if error.diagnosis is None else error.diagnosis.sentence
                output.warning(f"{why}; waiting for another")
                continue
            return await carry(channel, arguments.pipe, output, arguments.files, arguments.send)


async def _next(listener: Listener, offer: CodeOffer | None) -> Channel:
    """The next channel. Raises what ends the code before anybody used it."""
    if offer is None:
        return await listener.accept()
    accepting = asyncio.ensure_future(listener.next_channel())
    taken = asyncio.ensure_future(offer.taken())
    try:
        await asyncio.wait({accepting, taken}, return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            taken.result()
        return await accepting
    finally:
        for task in (accepting, taken):
            task.cancel()
        await asyncio.wait({accepting, taken})


def run_connect_by_code(server: str, code: str, arguments: SessionArguments, output: Output) -> int:
    return run(_connect_by_code(server, code, arguments, output))


async def _connect_by_code(
    server: str, code: str, arguments: SessionArguments, output: Output
) -> int:
    options = arguments.peer_options(output)
    link = await fetch_link(server, code, token=options.token, ssl=options.ssl)
    return await _connect(str(link), arguments, output)


async def _connect(link: str, arguments: SessionArguments, output: Output) -> int:
    with arguments.recorded(arguments.peer_options(output), output) as options:
        async with connect(link, options) as channel:
            return await carry(channel, arguments.pipe, output, arguments.files, arguments.send)


async def carry(
    channel: Channel,
    options: PipeOptions,
    output: Output,
    files: str | None = None,
    send: tuple[str, ...] = (),
) -> int:
    """Pipe until one side ends it, or all files to ``send`` have arrived; ``files`` is a directory
    for those of the peer. Raises ConsentLost, TransferFailed, and what can not be sent."""
    async with channel:
        limit = channel.max_datagram_size
        if options.size is not None and options.size > limit and not input_is_terminal():
            raise InvalidConfiguration(
                f"--size {options.size} is too large for this path (limit {limit})"
            )
        output.connected(channel)
        remarks = _Remarks(channel, output)
        watching = asyncio.ensure_future(remarks.watch())
        by_peer = False
        reason = "interrupted"
        try:
            reason = await _pipe(channel, options, output, files, send).run()
            by_peer = channel.closed
        except asyncio.CancelledError:
            # Ctrl-C is how a session ends, not how it fails.
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        except IcePunchError as error:
            reason = str(error)
            raise
        finally:
            watching.cancel()
            remarks.tell(last=True)
            output.closed(reason, channel, by_peer=by_peer)
    return 0


def _pipe(
    channel: Channel,
    options: PipeOptions,
    output: Output,
    files: str | None,
    send: tuple[str, ...],
) -> Pipe:
    webrtc = as_webrtc(channel)
    if webrtc is None:
        return Pipe(channel, options, output.warning)
    return WebRtcPipe(webrtc, options, output, directory=files, send=send)


class _Remarks:
    """Tells why the path is relayed, once it is chosen, and of each server that turned us away."""

    def __init__(self, channel: Channel, output: Output) -> None:
        self._channel = channel
        self._output = output
        self._told: set[ServerReport] = set()
        self._told_why = False

    async def watch(self) -> None:
        until = asyncio.get_running_loop().time() + SERVER_PATIENCE
        while asyncio.get_running_loop().time() < until:
            self.tell()
            await asyncio.sleep(0.25)

    def tell(self, *, last: bool = False) -> None:
        if not self._told_why and (last or self._channel.connection.selected_pair is not None):
            self._told_why = True
            why = self._channel.why_relayed
            if why is not None:
                self._output.relayed(why)
        for server in self._channel.report().servers:
            if server.outcome in MISCONFIGURED and server not in self._told:
                self._told.add(server)
                detail = f": {server.detail}" if server.detail else ""
                self._output.warning(f"{server.uri} is of no use{detail}")
