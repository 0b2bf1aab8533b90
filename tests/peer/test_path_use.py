"""What is sent keeps the path MTU confirmed, RFC 8899 section 5.1.1."""

from __future__ import annotations

import asyncio
import socket
from unittest import mock

import pytest

from ice_punch import GatheringOptions
from ice_punch.path_mtu import PathMtuSearch
from support.channels import channels
from support.loopback import LOOPBACK


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 loopback")
def test_large_datagrams_between_middling_ones_have_an_ipv6_path_confirmed() -> None:
    async def run() -> list[int]:
        gathering = GatheringOptions(interface=LOOPBACK, ipv4=False)
        async with channels(encrypt=False, gathering=gathering) as (a, _):
            async with asyncio.timeout(10):
                while a.stats.path_mtu == 1280:
                    await asyncio.sleep(0.02)
            with mock.patch.object(PathMtuSearch, "used") as used:
                for _turn in range(3):
                    for size in (700, 700, 5000):
                        a.send_nowait(bytes((99,)) * size)
                    await asyncio.sleep(0.06)
                return [call.args[0] for call in used.call_args_list]

    assert max(asyncio.run(run())) > 5000
