"""Several server processes on one port; what they share goes through the bus."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from ice_punch.cli.serve import loop_factory, signaling
from ice_punch.cli.serve_policy import CannotServe, ServeArguments
from signaling.errors import SignalingError
from signaling.telling import tell

_log = logging.getLogger("ice_punch.workers")

START_TIMEOUT = 20.0
END_TIMEOUT = 28.0
RESTART_AFTER = 1.0


class Workers:
    """``arguments.workers`` processes. One that dies is started again.

    Each is a session of its own, so that Ctrl-C reaches this process alone, which passes it on;
    and each ends when this process does.
    """

    def __init__(self, arguments: ServeArguments, stun_ports: list[int]) -> None:
        self._arguments = arguments
        self._stun_ports = stun_ports
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserved: socket.socket | None = None
        self._closing = False
        self.metrics_ports: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> int:
        """The port they share. Raises :class:`CannotServe`."""
        port = self._reserve()
        self._arguments = replace(self._arguments, port=port)
        for number in range(self._arguments.workers):
            metrics_port = await self._spawn(number)
            if metrics_port is not None:
                self.metrics_ports.append(metrics_port)
        return port

    async def close(self) -> None:
        """Let all drain, at once; end what does not."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for process in self._processes.values():
            process.terminate()
        await asyncio.gather(*map(_ended, self._processes.values()))
        if self._reserved is not None:
            self._reserved.close()

    def _reserve(self) -> int:
        """Bind the port without listening on it: nobody else gets it between two workers."""
        host = self._arguments.host
        reuse = getattr(socket, "SO_REUSEPORT", None)
        if reuse is None:
            raise CannotServe("this system has no SO_REUSEPORT, by which --workers share a port")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._reserved = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._reserved.setsockopt(socket.SOL_SOCKET, reuse, 1)
            if family == socket.AF_INET6:
                self._reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._reserved.bind((host, self._arguments.port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            port = self._arguments.port
            text = f"can not listen on {host or '*'} port {port}: {why.lower()}"
            raise CannotServe(
                f"{text}; --port takes another" if "in use" in text else text
            ) from None
        return int(self._reserved.getsockname()[1])

    async def _spawn(self, number: int) -> int | None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=work,
            args=(self._arguments, self._stun_ports, number, theirs),
            name=f"ice-punch worker {number}",
        )
        process.start()
        theirs.close()
        self._processes[number] = process
        told = await _hear(ours)
        if isinstance(told, str) or told is None:
            raise CannotServe(told or f"worker {number} did not start")
        task = asyncio.create_task(self._watch(number, process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        metrics_port: int | None = told[0]
        return metrics_port

    async def _watch(self, number: int, process: SpawnProcess) -> None:
        await _readable(process.sentinel)
        process.join(1)
        if not self._closing:
            ended = {"worker": number, "exit": process.exitcode}
            tell(_log, "worker ended, another one starts", ended, logging.WARNING)
        while not self._closing:
            await asyncio.sleep(RESTART_AFTER)
            try:
                await self._spawn(number)
            except CannotServe:
                continue
            return


def work(arguments: ServeArguments, stun_ports: list[int], number: int, parent: Connection) -> None:
    """A worker: in a process of its own."""
    os.setsid()
    if arguments.verbose:
        from ice_punch.cli.logs import show_log

        show_log(as_json=arguments.json, worker=number)
    factory: Callable[[], Any] | None = loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_work(arguments, stun_ports, number, parent))


async def _work(
    arguments: ServeArguments, stun_ports: list[int], number: int, parent: Connection
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    process = multiprocessing.parent_process()
    assert process is not None

    def orphaned() -> None:
        loop.remove_reader(sentinel)
        ended.set()

    sentinel = process.sentinel
    loop.add_reader(sentinel, orphaned)
    try:
        async with signaling(arguments, stun_ports, worker=number, reuse_port=True) as serving:
            parent.send((serving.metrics_port,))
            parent.close()
            await ended.wait()
    except (CannotServe, SignalingError, OSError) as error:
        if parent.closed:
            raise
        parent.send(str(error))


async def _hear(connection: Connection) -> Any:
    """What a worker says when it has started, or why it did not; ``None`` if it only ended."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _readable(connection.fileno())
        return connection.recv()
    except (EOFError, OSError, TimeoutError):
        return None
    finally:
        connection.close()


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    # A duplicate: whoever else looks at the original keeps its own reader.
    copy = os.dup(fd)
    loop.add_reader(copy, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)


async def _ended(process: SpawnProcess) -> None:
    if not process.is_alive():
        return
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await _readable(process.sentinel)
    except TimeoutError:
        process.kill()
    process.join(1)
