"""From Wi-Fi to cellular with a NAT on every way, over real signaling: with both networks for a
while, and with none for half a second."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from ice_punch import ChannelClosed, PeerOptions, connect, listen
from ice_punch.lab.catalogue import find
from ice_punch.lab.kernel import KernelInternet
from support.commands import Command
from support.coturn import Coturn
from support.flow import Sender
from support.introduction import Mailbox, introduce
from support.lan import ip
from support.netns import NETNS

pytestmark = NETNS

SERVER = "203.0.113.10"
URL = f"http://{SERVER}:8080"
OPTIONS = PeerOptions(ipv6=False, timeout=15, ice_servers=(f"stun:{SERVER}:3478",))
WIFI, CELLULAR = "eth0", "eth1"
CELLULAR_IP, CELLULAR_GATEWAY = "10.11.0.2", "10.11.0.1"


def cellular_on() -> None:
    """As the system does: its own routes, and a default route after that of Wi-Fi."""
    route = f"via {CELLULAR_GATEWAY} dev {CELLULAR} onlink"
    ip(
        f"link set {CELLULAR} up",
        f"route replace default {route} table 101",
        f"route append default {route} metric 600",
    )


async def staying(mailbox: Mailbox) -> int:
    echoed = 0
    async with listen(URL, OPTIONS) as listener:
        mailbox.send(listener.link)
        async with await listener.accept() as channel:
            with contextlib.suppress(ChannelClosed):
                while True:
                    await channel.send(await channel.recv())
                    echoed += 1
    return echoed


@pytest.mark.parametrize("overlap", [True, False], ids=["both-for-a-while", "none-for-a-while"])
def test_a_session_moves_to_another_network_behind_another_nat(overlap: bool) -> None:
    async def moving(mailbox: Mailbox) -> dict[str, Any]:
        ip(f"link set {CELLULAR} down")
        async with connect(await mailbox.recv(), OPTIONS) as channel:
            sender = Sender(channel)
            await sender.flows()
            await asyncio.sleep(2.0)
            assert channel.path is not None
            before = channel.path.kind
            if overlap:
                cellular_on()
                await asyncio.sleep(2.5)
                ip(f"link set {WIFI} down")
            else:
                ip(f"link set {WIFI} down")
                await asyncio.sleep(0.5)
                cellular_on()
            gap = await sender.flows()
            sender.stop()
            pair = channel.connection.selected_pair or channel.connection._agent.data_pair()
            assert pair is not None
            return {"kinds": (before, channel.path.kind), "gap": gap, "base": pair.base[0]}

    with (
        KernelInternet.of(find("two-uplinks")) as net,
        Coturn(SERVER, 3478, command_prefix=net.public.command([])),
        Command(
            "serve", "--host", SERVER, "--port", "8080", "--no-stun", "--json",
            start=net.public.popen,
        ) as server,
    ):  # fmt: skip
        server.event("serving")
        us, echoed = introduce(net.peer_a, moving, net.peer_b, staying, timeout=60)
    assert us["kinds"] == ("direct", "direct")
    assert us["base"] == CELLULAR_IP
    assert us["gap"] < 3.0
    assert echoed > 50
