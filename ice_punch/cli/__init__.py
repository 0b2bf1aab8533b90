"""The command line: arguments, printing, exit codes. No logic."""

from __future__ import annotations

import os
import signal
from typing import Any

INTERRUPTED = 130
"""The exit code after Ctrl-C, where nothing was achieved before it."""


def main() -> int:
    """The entry point of ``ice-punch``. Returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # or it is ignored
        signal.signal(signal.SIGINT, _end_at_once)
    try:
        from ice_punch.cli.app import run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


def let_interrupts_raise() -> None:
    """To be called before the work begins that has something to clear away.

    Until then Ctrl-C ends the program at once: a KeyboardInterrupt in the middle of an import may
    be swallowed there, or turned into another error.
    """
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_: Any) -> None:
    os._exit(INTERRUPTED)
