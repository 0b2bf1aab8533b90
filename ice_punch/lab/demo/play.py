"""The demo behind ``make demo``: a server and two peers, each a process, punch a hole."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from rich.console import Console

from ice_punch.errors import IcePunchError
from ice_punch.lab import kernel
from ice_punch.lab.demo.events import PeerStory, parse_event, text
from ice_punch.lab.demo.tables import Exchange, print_story
from ice_punch.lab.kernel import KernelHost, KernelInternet, has_cable
from ice_punch.lab.kernel.processes import ProcessGroup, exit_on_signals
from ice_punch.net.interfaces import local_addresses

RTT = 0.04
"""Seconds between the peers, where the laboratory can make packets wait."""
START_TIMEOUT = 20.0
CONNECT_TIMEOUT = 60.0
MESSAGE_TIMEOUT = 5.0
CLOSE_TIMEOUT = 3.0
SELECT_TIMEOUT = 2.0
MESSAGE_SIZE = 64
ROUNDS = 3


class DemoFailed(IcePunchError):
    """The demo did not come to its end."""


class Place:
    """Where one process of the demo runs, and how it is told to."""

    def __init__(
        self, processes: ProcessGroup, host: KernelHost | None = None, options: Sequence[str] = ()
    ) -> None:
        self._processes = processes
        self._host = host
        self.options = tuple(options)

    def popen(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return self._processes.popen(
            command if self._host is None else self._host.command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )


class Program:
    """One running command: its events, and the datagrams that come out of it."""

    def __init__(
        self,
        name: str,
        place: Place,
        command: list[str],
        wake: queue.SimpleQueue[None],
        environment: dict[str, str] | None = None,
    ) -> None:
        self.story = PeerStory(name)
        self.url: str | None = None
        self.received: list[bytes] = []
        self._wake = wake
        self._process = place.popen([*command, *place.options], environment or {})
        self._follow(self._process.stderr, self._read_events)
        self._follow(self._process.stdout, self._read_datagrams)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, datagram: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(datagram)
            self._process.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C, so to speak."""
        if self.ended:
            return
        if sys.platform == "win32":
            self._process.terminate()
        else:
            self._process.send_signal(signal.SIGINT)

    def _follow(self, stream: IO[bytes] | None, read: Callable[[IO[bytes]], None]) -> None:
        assert stream is not None

        def follow() -> None:
            # The stream may be closed under the reader when the demo is interrupted.
            with contextlib.suppress(OSError, ValueError):
                read(stream)
            self._wake.put(None)

        threading.Thread(target=follow, daemon=True).start()

    def _read_events(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode(errors="replace")
            event = parse_event(line)
            if event is not None and event["event"] == "serving":
                self.url = text(event.get("url"))
            self.story.feed(line)
            self._wake.put(None)

    def _read_datagrams(self, stream: IO[bytes]) -> None:
        while data := stream.read(MESSAGE_SIZE):
            self.received.append(data)
            self._wake.put(None)


class Demo:
    """The cast and the plot."""

    def __init__(self, console: Console, program: Sequence[str]) -> None:
        self.console = console
        self.program = list(program)
        self.exchanges: list[Exchange] = []
        self.stories: list[PeerStory] = []
        self._programs: list[Program] = []
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self, public: Place, a: Place, b: Place) -> None:
        """Raises :class:`DemoFailed` with the reason."""
        server = self._start("server", public, "serve")
        self._wait(lambda: server.url is not None, START_TIMEOUT, "the server did not start")
        assert server.url is not None
        listener = self._start("a", a, "listen", "--server", server.url, *_SIZE)
        self.stories.append(listener.story)
        self._wait(lambda: listener.story.link is not None, START_TIMEOUT, "peer a has no link")
        link = {"ICE_PUNCH_LINK": listener.story.link or ""}
        connector = self._start("b", b, "connect", *_SIZE, environment=link)
        self.stories.append(connector.story)
        peers = (listener, connector)
        self._wait(
            lambda: all(peer.story.connected is not None for peer in peers),
            CONNECT_TIMEOUT,
            "the peers did not connect",
        )
        for number in range(1, ROUNDS + 1):
            self._exchange(listener, connector, f"question {number}")
            self._exchange(connector, listener, f"answer {number}")
        with contextlib.suppress(DemoFailed):
            self._wait(lambda: all(peer.story.nominated for peer in peers), SELECT_TIMEOUT, "")
        connector.interrupt()
        with contextlib.suppress(DemoFailed):
            self._wait(lambda: all(peer.ended for peer in peers), CLOSE_TIMEOUT, "", alive=False)

    def _start(
        self,
        name: str,
        place: Place,
        *command: str,
        environment: dict[str, str] | None = None,
    ) -> Program:
        line = [*self.program, *command, "--json"]
        program = Program(name, place, line, self._wake, environment)
        self._programs.append(program)
        return program

    def _exchange(self, sender: Program, receiver: Program, message: str) -> None:
        datagram = f"{message} from peer {sender.story.name}".ljust(MESSAGE_SIZE - 1).encode()
        datagram += b"\n"
        before = len(receiver.received)
        began = time.monotonic()
        sender.send(datagram)
        try:
            self._wait(
                lambda: len(receiver.received) > before,
                MESSAGE_TIMEOUT,
                f"peer {receiver.story.name} did not receive what was sent",
            )
        finally:
            arrived = receiver.received[before:] == [datagram]
            self.exchanges.append(
                Exchange(
                    sender.story.name,
                    receiver.story.name,
                    datagram.decode().strip(),
                    arrived,
                    time.monotonic() - began,
                )
            )
        if not arrived:
            raise DemoFailed(f"peer {receiver.story.name} received something else than was sent")

    def _wait(
        self, condition: Callable[[], bool], timeout: float, otherwise: str, *, alive: bool = True
    ) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if alive:
                self._check_alive()
            left = deadline - time.monotonic()
            if left <= 0:
                raise DemoFailed(f"{otherwise} within {timeout:g} s")
            with contextlib.suppress(queue.Empty):
                # A process that ends closes its streams, which wakes us; this is for the others.
                self._wake.get(timeout=min(left, 0.5))

    def _check_alive(self) -> None:
        for program in self._programs:
            if program.story.error is not None:
                raise DemoFailed(self._why(program))
        for program in self._programs:
            if program.ended:
                raise DemoFailed(self._why(program))

    def _why(self, program: Program) -> str:
        who = program.story.name if program.story.name == "server" else f"peer {program.story.name}"
        # What it said last may still be on its way from the pipe.
        time.sleep(0.05)
        return f"{who}: {program.story.complaint or 'ended without a word'}"


def run_demo(console: Console, *, program: Sequence[str] | None = None) -> int:
    """Run the demo and print it.

    Returns the exit status: 0 when both sides received what the other sent, 1 when not, 130
    after Ctrl-C. Whatever was started is gone when it returns. ``program`` stands in for this
    very interpreter running ``ice_punch``.
    """
    command = program or (sys.executable, "-m", "ice_punch")
    demo = Demo(console, command)
    failure: str | None = None
    try:
        with exit_on_signals(), contextlib.ExitStack() as stack:
            demo.run(*_cast(console, stack))
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return 130
    except IcePunchError as error:
        failure = str(error)
    print_story(console, demo.stories, demo.exchanges)
    console.print()
    if failure is not None:
        console.print(
            f"Failed. {failure}",
            style="bold red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 1
    kind = text(demo.stories[0].path.get("kind"))
    console.print(
        f"Connected: {kind}. Both sides received what the other sent.",
        style="bold green",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _cast(console: Console, stack: contextlib.ExitStack) -> tuple[Place, Place, Place]:
    """Where server and peers run, announced in one line."""
    reason = kernel.available()
    if reason is None:
        return _kernel_cast(console, stack)
    processes = ProcessGroup()
    stack.callback(processes.stop)
    ip, options = _own_address()
    console.print(
        f"No NAT to punch here ({reason}): both peers run on this host, at {ip}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    server = ("--host", ip, "--port", "0", "--stun-port", "0")
    peer = Place(processes, options=options)
    return Place(processes, options=server), peer, peer


def _kernel_cast(console: Console, stack: contextlib.ExitStack) -> tuple[Place, Place, Place]:
    rtt = RTT if has_cable() else 0.0
    net = stack.enter_context(KernelInternet(rtt=rtt))
    processes = ProcessGroup()
    stack.callback(processes.stop)
    console.print(
        "Two peers, each behind its own port-restricted NAT of the Linux kernel:\n"
        f"a is {net.peer_a.lan_address} behind {net.peer_a.public_address}, "
        f"b is {net.peer_b.lan_address} behind {net.peer_b.public_address}, "
        f"{rtt * 1000:.0f} ms apart.\n"
        f"Signaling and STUN are between them, at {net.public.address}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    server = ("--host", net.public.address, "--port", "8080", "--stun-port", "3478")
    return (
        Place(processes, net.public, server),
        Place(processes, net.peer_a),
        Place(processes, net.peer_b),
    )


def _own_address() -> tuple[str, tuple[str, ...]]:
    """An address of this host that both peers reach, and what they must be told for it."""
    usual = local_addresses(ipv6=False)
    if usual:
        return usual[0].ip, ()
    loopback = local_addresses(lambda a: a.ip == "127.0.0.1", ipv6=False)
    if not loopback:
        raise DemoFailed("this host has no IPv4 address, not even 127.0.0.1")
    return loopback[0].ip, ("--interface", loopback[0].interface)


_SIZE = ("--size", str(MESSAGE_SIZE))
