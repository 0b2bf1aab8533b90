"""The punched socket given to another program."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ice_punch import IceConnection, connect, listen
from ice_punch.detached import DetachedSocket
from ice_punch.errors import ChannelClosed, DetachFailed, InvalidConfiguration
from ice_punch.stun import MessageClass, Method, parse_message
from support.loopback import OPTIONS, connected_pair, signaling

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = pytest.mark.parametrize(
    "factory",
    [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(
            uvloop.new_event_loop if uvloop else None,
            id="uvloop",
            marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
        ),
    ],
)
ECHO = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as sock:
    sock.setblocking(True)
    sock.settimeout(5)
    while (data := sock.recv(65535)) != b"end":
        sock.send(data[::-1])
"""


def run(coroutine: Any, factory: Any = None) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)


async def both_detached(
    a: IceConnection, b: IceConnection
) -> tuple[DetachedSocket, DetachedSocket]:
    return await a.detach(), await b.detach()


@LOOPS
def test_two_sockets_that_were_punched_go_on_without_us(factory: Any) -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            await a.send(b"first")
            assert await b.recv() == b"first"
            here, there = await both_detached(a, b)
            assert (here.local, here.remote) == (there.remote, there.local)
            assert here.path.kind == "direct"
            assert here.max_datagram_size >= 1252
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(here.socket, b"by itself")
            assert await asyncio.wait_for(loop.sock_recv(there.socket, 2048), 2) == b"by itself"
            for connection in (a, b):
                with pytest.raises(ChannelClosed):
                    connection.send_nowait(b"x")
            await asyncio.gather(a.close(), b.close())
            assert here.fileno() >= 0  # closing the connection does not close it
            # Datagrams of one size in a row come one by one: the next owner knows of no offload.
            for _ in range(5):
                here.socket.send(bytes(100))
            assert len(await asyncio.wait_for(loop.sock_recv(there.socket, 65535), 2)) == 100
            here.close()
            here.close()
            there.close()

    run(test(), factory)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's pacing of sockets")
def test_a_socket_that_carries_our_data_no_more_is_not_paced_any_more() -> None:
    async def test() -> None:
        async with connected_pair() as (a, _):
            a.pacing_rate = 50_000
            carrying = a._driver.data._socket
            assert carrying is not None

            def rate() -> int:
                return carrying._socket.getsockopt(socket.SOL_SOCKET, 47)  # SO_MAX_PACING_RATE

            assert rate() == 50_000
            detached = await a.detach()
            assert rate() & 0xFFFFFFFF == 0xFFFFFFFF
            detached.close()

    run(test())


def test_another_program_takes_the_descriptor() -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            here, there = await both_detached(a, b)
            child = subprocess.Popen(
                [sys.executable, "-c", ECHO, str(there.fileno())], pass_fds=(there.fileno(),)
            )
            there.close()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(here.socket, b"forward")
            assert await asyncio.wait_for(loop.sock_recv(here.socket, 2048), 10) == b"drawrof"
            await loop.sock_sendall(here.socket, b"end")
            assert await loop.run_in_executor(None, child.wait, 10) == 0
            here.close()

    run(test())


@LOOPS
def test_a_task_keeps_the_nats_awake_until_it_is_cancelled(factory: Any) -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            here, there = await both_detached(a, b)
            loop = asyncio.get_running_loop()
            task = here.keep_alive(0.02)
            for _ in range(3):
                data = await asyncio.wait_for(loop.sock_recv(there.socket, 2048), 2)
                message = parse_message(data)
                assert message.method == Method.BINDING
                assert message.message_class is MessageClass.INDICATION
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            still_going = here.keep_alive(0.01)
            here.close()
            await asyncio.wait_for(still_going, 2)  # ends with the socket
            there.close()

    run(test(), factory)


def test_a_keep_alive_has_an_interval_and_waits_for_nobody() -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            here, there = await both_detached(a, b)
            for wrong in (0, -1.0, math.inf, math.nan):
                with pytest.raises(InvalidConfiguration):
                    here.keep_alive(wrong)
            asked: list[int] = []

            class Blocking:
                def fileno(self) -> int:
                    return here.fileno()

                def send(self, _: bytes, flags: int = 0) -> None:
                    asked.append(flags)

            task = replace(here, socket=Blocking()).keep_alive()  # type: ignore[arg-type]
            await asyncio.sleep(0)
            task.cancel()
            assert asked == [getattr(socket, "MSG_DONTWAIT", 0)]
            here.close()
            there.close()

    run(test())


def test_what_came_before_can_be_read_and_what_comes_later_is_the_sockets() -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            await a.send(b"before")
            while not b.counters["data_received"]:
                await asyncio.sleep(0.005)
            there = await b.detach()
            a.send_nowait(b"after")
            loop = asyncio.get_running_loop()
            assert await b.recv() == b"before"
            with pytest.raises(ChannelClosed):
                await b.recv()
            async with asyncio.timeout(2):
                while await loop.sock_recv(there.socket, 2048) != b"after":
                    pass  # checks of the agent that has not detached
            there.close()

    run(test())


def test_what_waits_in_the_kernel_is_still_ours_in_the_pieces_it_was_sent_in() -> None:
    async def test() -> None:
        async with connected_pair() as (a, b):
            assert b.path is not None
            sent = [bytes([n]) * 1000 for n in range(40)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                a.send_many_nowait(sent)  # one packet of the kernel's, where it has offload
                stranger.sendto(b"stranger", b.path.local)
                there = await b.detach()  # the event loop has not read it
                stranger.sendto(b"stranger", there.local)
            assert await b.recv_many() == sent
            a.send_many_nowait([b"x" * 100, b"y" * 100])
            loop = asyncio.get_running_loop()
            came = [await asyncio.wait_for(loop.sock_recv(there.socket, 65535), 5)]
            while came[-1] != b"y" * 100:
                came.append(await asyncio.wait_for(loop.sock_recv(there.socket, 65535), 5))
            # Between them there may be a check of the agent that has not detached.
            assert [data for data in came if data[0] > 3] == [b"x" * 100, b"y" * 100]
            there.close()

    run(test())


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_a_peer_met_through_signaling_has_time_to_detach_too(encrypt: bool) -> None:
    options = replace(OPTIONS, encrypt=encrypt)

    async def test() -> None:
        async with signaling() as url, listen(server=url, options=options) as listener:
            accepting = asyncio.ensure_future(listener.accept())
            async with connect(listener.link, options=options) as one, await accepting as other:
                await one.send(b"ready")
                assert await other.recv() == b"ready"
                here = await one.connection.detach()
                await asyncio.sleep(0.5)  # a goodbye would have come by now
                assert one.closed
                assert not other.closed
                there = await other.connection.detach()
                while True:  # what the agent said until it detached
                    try:
                        here.socket.recv(2048)
                    except BlockingIOError:
                        break
                there.socket.send(b"by itself")
                loop = asyncio.get_running_loop()
                assert await asyncio.wait_for(loop.sock_recv(here.socket, 2048), 5) == b"by itself"
                here.close()
                there.close()

    run(test())


def test_what_is_not_connected_or_closed_can_not_be_detached() -> None:
    async def test() -> None:
        connection = IceConnection()
        with pytest.raises(ChannelClosed, match="not established"):
            await connection.detach()
        await connection.close()
        with pytest.raises(ChannelClosed, match="is closed"):
            await connection.detach()

    run(test())


def test_a_relayed_path_has_no_socket_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    class Relay:
        congested = False

        def set_writable_handler(self, _: object) -> None: ...

        def send(self, *_: object) -> bool:
            return True

    async def test() -> None:
        async with connected_pair() as (a, _):
            data = a._driver.data
            data._socket, data._path = None, Relay()
            with pytest.raises(DetachFailed):
                await a.detach()
            a.send_nowait(b"goes on")

    run(test())


def test_the_port_is_free_once_the_socket_is_closed() -> None:
    async def test() -> None:
        async with connected_pair() as (a, _):
            here = await a.detach()
            here.close()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(here.local)

    run(test())
