"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Under nohup, or in the background of a shell, signals are ignored, and so by every program
    that a test starts and interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
