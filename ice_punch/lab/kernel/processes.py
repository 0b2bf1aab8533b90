"""Processes that must not outlive whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, NoReturn

GRACE = 2.0
"""Seconds between asking a process to end and ending it."""


_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class ProcessGroup:
    """Starts processes, each in a session of its own, and ends them all."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[Any]] = []

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """:class:`subprocess.Popen` with the same options, remembered."""
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, start_new_session=True, **options
        )
        self._started.append(process)
        return process

    def stop(self, grace: float = GRACE) -> None:
        """End every process that still runs, with everything in its session."""
        with signals_held():
            self._stop(grace)

    def _stop(self, grace: float) -> None:
        running = [p for p in self._started if p.poll() is None]
        for process in running:
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in running:
            _signal_group(process.pid, _KILL)
            process.wait()
        for process in self._started:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):
                        stream.close()
        self._started.clear()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C and friends waiting, here and for the programs started meanwhile."""
    on_main_thread = threading.current_thread() is threading.main_thread()
    if not on_main_thread or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_ENDING))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the block by :class:`SystemExit`, so that it can clean up.

    Does nothing beside handlers that the program has itself, and in other threads than the main.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_processes(pids: Iterable[int], grace: float = GRACE) -> None:
    """End processes that are not our children."""
    remaining = [pid for pid in pids if pid != os.getpid()]
    for number in (signal.SIGTERM, _KILL):
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + grace
        while remaining and time.monotonic() < deadline:
            remaining = [pid for pid in remaining if _runs(pid)]
            if remaining:
                time.sleep(0.01)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
