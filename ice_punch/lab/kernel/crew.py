"""Processes of ours in network namespaces, without a new interpreter for each.

One process has imported everything once (:mod:`party`) and forks whenever somebody is needed. It
belongs to this process and ends with it; whoever it forked ends when this side of the channel to
them closes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from ice_punch.lab.kernel.namespaces import LaboratoryError
from ice_punch.lab.kernel.processes import signals_held

PARTY = "ice_punch.lab.kernel.party"
MAX_REQUEST = 60_000
"""Bytes."""

Message = dict[str, Any]


class Member:
    """A process in a namespace, and the channel to it: one JSON object a line, both ways."""

    def __init__(self, name: str, channel: socket.socket) -> None:
        self.name = name
        self._channel = channel
        self._unread = b""

    def __enter__(self) -> Member:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._channel.fileno()

    def close(self) -> None:
        """The process ends when it notices."""
        self._channel.close()

    def tell(self, **message: Any) -> None:
        """Raises LaboratoryError when nobody listens any more."""
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise LaboratoryError(f"{self.name} is gone: {error}") from None

    def hear(self, timeout: float) -> Message:
        """The next message. Raises LaboratoryError when none comes in time, or when it says that
        something failed."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise LaboratoryError(f"{self.name} said nothing for {timeout:g} s")
            try:
                part = self._channel.recv(1 << 16)
            except OSError:
                part = b""
            if not part:
                raise LaboratoryError(f"{self.name} ended without a word")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        message: Message = json.loads(line)
        if "error" in message:
            raise LaboratoryError(f"{self.name}: {message['error']}")
        return message

    def wait_until_gone(self, timeout: float) -> None:
        """Until it has closed its end, or the time is over."""
        with contextlib.suppress(LaboratoryError):
            while True:
                self.hear(timeout)


def wait_for(members: Iterable[Member], timeout: float) -> list[Member]:
    """Those that have something to say, after ``timeout`` seconds at the latest."""
    waiting = list(members)
    ready = [member for member in waiting if b"\n" in member._unread]
    return ready or select.select(waiting, [], [], max(0.0, timeout))[0]


def hire(namespace: str, role: str, **parameters: Any) -> Member:
    """A new process in ``namespace``. Raises LaboratoryError when it can not be had."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            request = json.dumps({"namespace": namespace, "role": role, **parameters}).encode()
            _recruiter().send(request, theirs)
        except BaseException:
            ours.close()
            raise
    return Member(f"the {role} in {namespace}", ours)


class _Recruiter:
    def __init__(self) -> None:
        from ice_punch.lab.kernel.internet import own_environment

        self.owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, signals_held():
            self.process = subprocess.Popen(
                # The number is for people who look at the list of processes.
                [sys.executable, "-m", PARTY, str(self.owner)],
                stdin=theirs.fileno(),
                env=own_environment(),
                start_new_session=True,
            )

    def send(self, request: bytes, channel: socket.socket) -> None:
        if len(request) > MAX_REQUEST:
            raise LaboratoryError("too much to say to a new process")
        try:
            socket.send_fds(self._control, [request], [channel.fileno()])
        except OSError as error:
            raise LaboratoryError(f"no process can be had: {error}") from None

    def end(self) -> None:
        self._control.close()
        if self.owner == os.getpid():
            self.process.wait()


_lock = threading.Lock()
_current: _Recruiter | None = None


def _recruiter() -> _Recruiter:
    global _current
    with _lock:
        if _current is not None and (
            _current.owner != os.getpid() or _current.process.poll() is not None
        ):
            _current.end()
            _current = None
        if _current is None:
            _current = _Recruiter()
        return _current


@atexit.register
def dismiss() -> None:
    """End the process that forks; the next ``hire`` starts another one."""
    global _current
    with _lock:
        if _current is not None:
            _current.end()
            _current = None
