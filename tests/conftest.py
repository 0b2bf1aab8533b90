"""What holds for every test."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Under nohup, or in the background of a shell, signals are ignored, and so by every program
    that a test starts and interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_srv_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the name servers of this host for the SRV records of the names in it;
    ``tests/net/test_net_srv.py`` brings its own."""

    async def none(*_: object) -> list[object]:
        return []

    monkeypatch.setattr("ice_punch.net.srv.find_targets", none)
