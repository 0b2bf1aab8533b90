"""A pytest plugin for aiortc's own tests: our connection in the place of aioice's, on loopback."""

from __future__ import annotations

from typing import Any

import aiortc.rtcicetransport
import aiortc.rtcpeerconnection
import pytest

from ice_punch import GatheringOptions
from ice_punch.ice import AgentConfig
from ice_punch.webrtc import AioiceConnection

LOOPBACK = GatheringOptions(
    interface_filter=lambda address: address.ip in ("127.0.0.1", "::1"), follow_network=False
)
IMPATIENT = AgentConfig(give_up_after=1.5)


class OnLoopback(AioiceConnection):
    """aiortc's default STUN server is on the Internet: no test asks it. Its tests shorten aioice's
    patience, and this shortens ours."""

    made = 0

    def __init__(self, ice_controlling: bool, **arguments: Any) -> None:
        arguments.pop("stun_server", None)
        super().__init__(ice_controlling, options=LOOPBACK, agent_config=IMPATIENT, **arguments)
        OnLoopback.made += 1


def pytest_configure() -> None:
    aiortc.rtcicetransport.Connection = OnLoopback  # type: ignore[assignment,misc]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"connections of ours: {OnLoopback.made}")
