"""Who lives in the kernel's namespaces: peers, STUN servers and TURN servers.

As a program it is the one that forks: its standard input is a socket by which requests come, each
with a channel for the new process. See :mod:`crew`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from ice_punch.connection import IceConnection
from ice_punch.errors import IcePunchError
from ice_punch.ice import (
    CandidatePair,
    IceState,
    RestartAdvised,
    SelectedPairChanged,
    StateChanged,
)
from ice_punch.ice.advice import addresses_within
from ice_punch.lab.kernel.namespaces import enter_for_good
from ice_punch.lab.outcome import ends_of, name_of
from ice_punch.net import relay as _relay  # imported once, before anyone is forked
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.net.recording_file import RecordingFiles
from ice_punch.net.stun_server import StunServer
from ice_punch.net.turn_server import TurnServerShell

__all__ = ["SETTLED", "main"]

assert _relay

MAX_LINE = 1 << 20
DATA_MARK = b"\xc0lab"
"""No first byte of STUN, of ChannelData or of DTLS (RFC 7983)."""
SETTLED = (IceState.COMPLETED, IceState.FAILED)

Request = dict[str, Any]


class Channel:
    """The other end of a :class:`crew.Member`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def tell(self, **message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Request:
        """Ends the process when nobody is there any more."""
        line = await self._reader.readline()
        if not line:
            os._exit(0)
        request: Request = json.loads(line)
        return request

    async def drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()


# -- peers ------------------------------------------------------------------------------------


class _Connection(IceConnection):
    """One whose pairs can be looked at."""

    @property
    def valid_list(self) -> list[CandidatePair]:
        return self._agent.valid_list

    @property
    def final_pair(self) -> CandidatePair | None:
        if self.state is IceState.FAILED:
            return None
        return self._agent.selected_pair() or self._agent.data_pair()


class Peer:
    """One connection, from gathering to the end."""

    def __init__(self, channel: Channel, connection: _Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._valid_at: float | None = None
        self._direct_at: float | None = None
        self._selected_at: float | None = None
        self._state = IceState.NEW
        self._reason = ""
        self._sent = 0
        self._received: set[int] = set()
        self._packets_before = 0
        self._arrivals: list[float] = []
        self._restarts: list[asyncio.Task[None]] = []
        self._told = asyncio.Event()
        self._told.set()
        self._told_at = 0.0

    async def run(self) -> None:
        connection, channel = self._connection, self._channel
        watching = asyncio.ensure_future(self._watch())
        connection.set_data_handler(self._on_data)
        async for _ in connection.gather():
            pass
        channel.tell(gathered=connection.local_description)
        order = await channel.hear()
        await _until(order["start"])
        self._packets_before = packets_sent()
        sending = asyncio.ensure_future(self._send(order["interval"], order["end"]))
        await _until(order["at"])
        connection.set_remote_description(order["remote"])
        way = order["way"]
        while "stop" not in (letter := await channel.hear()):
            self._spawn(self._restarted(letter["remote"], way))
        channel.tell(report=self._report())
        for task in (watching, sending, *self._restarts):
            task.cancel()

    # -- restarts -----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._restarts.append(asyncio.ensure_future(work))

    async def _advised(self, advice: RestartAdvised) -> None:
        if not self._connection.restarting:
            self._connection.restart(fresh_sockets=advice.fresh_sockets)
            await self._describe(addresses_within(fresh_sockets=advice.fresh_sockets))

    async def _describe(self, within: float) -> None:
        self._told.clear()
        await self._connection.addresses_known(within)
        self._told_at = time.monotonic()
        self._told.set()
        self._channel.tell(restart=self._connection.local_description)

    async def _restarted(self, remote: str, way: float) -> None:
        """The other side's restart, or its answer to ours. Checks begin once each side has the
        other's description."""
        if not self._connection.restarting:
            self._connection.restart(asked=True)
            await self._describe(addresses_within(fresh_sockets=False))
        await self._told.wait()
        if self._connection.restarting:
            self._connection.set_remote_description(remote, start_at=self._told_at + way)

    # -- what happens -------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for event in self._connection.events():
            if isinstance(event, RestartAdvised):
                self._spawn(self._advised(event))
            now = time.monotonic()
            self._note_direct()
            if isinstance(event, SelectedPairChanged) and self._selected_at is None:
                self._selected_at = now
            elif isinstance(event, StateChanged):
                self._state, self._reason = event.state, event.reason
                if self._valid_at is None and event.state in (
                    IceState.CONNECTED,
                    IceState.COMPLETED,
                ):
                    self._valid_at = now
                self._channel.tell(settled=event.state in SETTLED)

    def _note_direct(self) -> None:
        direct = (pair for pair in self._connection.valid_list if not pair.relayed)
        known = [pair.valid_since for pair in direct if pair.valid_since is not None]
        if self._direct_at is None:
            self._direct_at = min(known, default=None)

    async def _send(self, interval: float | None, end: float) -> None:
        """Numbered datagrams, each when it is due, whatever became of the one before."""
        if interval is None:
            return
        due = time.monotonic()
        while due < end:
            with contextlib.suppress(IcePunchError):
                self._connection.send_nowait(DATA_MARK + self._sent.to_bytes(4, "big"))
                self._sent += 1
            due += interval
            await _until(due)

    def _on_data(self, data: bytes) -> None:
        if data.startswith(DATA_MARK):
            self._received.add(int.from_bytes(data[len(DATA_MARK) :], "big"))
            self._arrivals.append(time.monotonic())

    def _report(self) -> Request:
        self._note_direct()
        pair = self._connection.final_pair
        relayed = None if pair is None else pair.relayed
        return {
            "valid_at": self._valid_at,
            "direct_at": self._direct_at,
            "selected_at": self._selected_at,
            "relayed": relayed,
            "pair": name_of(pair),
            "ends": ends_of(pair),
            "state": self._state,
            "reason": self._reason,
            "packets_sent": packets_sent() - self._packets_before,
            "sent": self._sent,
            "received": len(self._received),
            "longest_gap": max(
                (later - at for at, later in itertools.pairwise(self._arrivals)), default=None
            ),
        }


async def _peer(channel: Channel, request: Request) -> None:
    servers = [
        IceServer.parse(uri, request["username"], request["password"]) for uri in request["servers"]
    ]
    record = None if request["record"] is None else RecordingFiles(request["record"])
    connection = _Connection(
        controlling=request["controlling"],
        ice_servers=servers,
        options=GatheringOptions(timeout=request["gathering_timeout"]),
        record=record,
    )
    async with connection:
        await Peer(channel, connection).run()
        await channel.drain()


def packets_sent() -> int:
    """IP packets that this namespace has sent, without those about the wire itself."""
    total = 0
    with contextlib.suppress(OSError), open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Ip:"))
        total += int(dict(zip(names, values, strict=True))["OutRequests"])
    with (
        contextlib.suppress(OSError),
        open("/proc/thread-self/net/snmp6", encoding="ascii") as file,
    ):
        counters = dict(line.split() for line in file)
        total += int(counters.get("Ip6OutRequests", 0)) - int(counters.get("Icmp6OutMsgs", 0))
    return total


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


# -- servers ----------------------------------------------------------------------------------


async def _servers(channel: Channel, request: Request) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for first, second in request["stun"]:
            port = request["port"]
            alternate = (second, port + 1)
            await stack.enter_async_context(
                await StunServer.start(first, port, alternate=alternate)
            )
        if request["turn"]:
            await stack.enter_async_context(
                await TurnServerShell.start(
                    request["turn"],
                    request["port"],
                    users={request["username"]: request["password"]},
                    tcp_ports=request["tcp_ports"],
                )
            )
        channel.tell(serving=True)
        await channel.hear()


# -- the process that forks -------------------------------------------------------------------

_ROLES: dict[str, Callable[[Channel, Request], Awaitable[None]]] = {
    "peer": _peer,
    "servers": _servers,
}


async def _play(request: Request, sock: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE)
    channel = Channel(reader, writer)
    try:
        await _ROLES[request["role"]](channel, request)
    except IcePunchError as error:
        channel.tell(error=str(error).partition("\n")[0])
    except Exception as error:
        channel.tell(error=repr(error))
    await channel.drain()


def _live(request: Request, sock: socket.socket) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            enter_for_good(request["namespace"])
        except IcePunchError as error:
            sock.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        else:
            sock.setblocking(False)
            asyncio.run(_play(request, sock))
            status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Fork for every request, until nobody is there to send one."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The kernel takes the children that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    # What is imported is not copied for the sake of its reference counts.
    gc.freeze()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            devnull = os.open(os.devnull, os.O_RDONLY)
            os.dup2(devnull, 0)
            os.close(devnull)
            _live(json.loads(message), socket.socket(fileno=fds[0]))
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
