"""The command line: arguments, printing, exit codes. No logic."""

from __future__ import annotations

INTERRUPTED = 130
"""The exit code after Ctrl-C, where nothing was achieved before it."""


def main() -> int:
    """The entry point of ``ice-punch``. Returns the exit code."""
    try:
        from ice_punch.cli.app import run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
