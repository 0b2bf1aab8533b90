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


LONGEST = (
    "web/test_web_page_and_program.py",
    "docs/test_docs_commands.py",
    "lab/test_lab_agreement.py",
    "web/test_web_page.py",
    "signaling/test_signaling_processes.py",
    "signaling/test_signaling_shared.py",
    "integration/test_kernel_nats.py",
    "web/test_web_two_browsers.py",
    "soak/test_soak_sessions.py",
    "integration/test_kernel_path_mtu.py",
    "benchmarks/test_benchmarks_dtls.py",
    "integration/test_interop_link_webrtcbin.py",
    "lab/test_lab_matrix.py",
    "web/test_web_lan.py",
    "webrtc/test_aiortc_own_tests.py",
    "integration/test_interop_link_libdatachannel.py",
)
"""Begun first where files run at a time, so that no process is left alone with one of them. Between
those with browsers are others."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The order is the workers'. In them xdist takes back the option that asked for them.
    if hasattr(config, "workerinput"):
        turns = {name: turn for turn, name in enumerate(LONGEST)}
        items.sort(key=lambda i: turns.get("/".join(i.path.parts[-2:]), len(LONGEST)))


@pytest.fixture(autouse=True)
def no_srv_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the name servers of this host for the SRV records of the names in it;
    ``tests/net/test_net_srv.py`` brings its own."""

    async def none(*_: object) -> list[object]:
        return []

    monkeypatch.setattr("ice_punch.net.srv.find_targets", none)
