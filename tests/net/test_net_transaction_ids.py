"""RFC 8489 section 5: transaction ids come from the system's random source, all 96 bits of them."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from ice_punch.net.stun_client import probe
from ice_punch.net.stun_server import StunServer
from ice_punch.net.turn_server import TurnServerShell
from ice_punch.stun import BindingServer, MessageClass, StunParseError, parse_message
from ice_punch.turn import TurnServer, allow_every_peer
from support.loopback import connected_pair


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Whatever 12 bytes the system's random source gives."""
    found: set[bytes] = set()
    urandom = os.urandom

    def watched(size: int) -> bytes:
        data = urandom(size)
        if size == 12:
            found.add(data)
        return data

    monkeypatch.setattr(os, "urandom", watched)
    monkeypatch.setattr(random.SystemRandom, "randbytes", lambda self, size: watched(size))
    return found


def watch_requests(
    monkeypatch: pytest.MonkeyPatch, owner: type, call: str, position: int
) -> list[bytes]:
    """The transaction ids of the requests that a call is given."""
    seen: list[bytes] = []
    original = getattr(owner, call)

    def watched(self: object, *arguments: object) -> object:
        try:
            message = parse_message(arguments[position])  # type: ignore[arg-type]
        except StunParseError:
            pass
        else:
            if message.message_class is MessageClass.REQUEST:
                seen.append(message.transaction_id)
        return original(self, *arguments)

    monkeypatch.setattr(owner, call, watched)
    return seen


def test_rfc8489_5_4_a_probe_draws_its_ids(
    drawn: set[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_requests(monkeypatch, BindingServer, "receive_datagram", 0)

    async def main() -> None:
        async with await StunServer.start("127.0.0.1", 0) as server:
            server._server.answer_plain = lambda *_: None  # type: ignore[method-assign]
            uri = f"stun:127.0.0.1:{server.addresses[0][1]}"
            for _ in range(20):
                async for result in probe([IceServer.parse(uri)], ipv6=False):
                    assert result.error is None

    asyncio.run(main())
    assert len(set(seen)) == 20
    assert set(seen) <= drawn


def test_rfc8489_5_4_an_agent_draws_the_ids_of_its_checks(
    drawn: set[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ice_punch.ice import Agent

    seen = watch_requests(monkeypatch, Agent, "receive_datagram", 0)

    async def main() -> None:
        async with connected_pair():
            pass

    asyncio.run(main())
    assert len(set(seen)) >= 2
    assert set(seen) <= drawn


def test_rfc8489_5_4_a_relay_draws_the_ids_of_its_requests(
    drawn: set[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_requests(monkeypatch, TurnServer, "receive_datagram", 0)

    async def main() -> None:
        async with await TurnServerShell.start(
            "127.0.0.1", 0, users={"robot": "secret"}, peer_filter=allow_every_peer, tcp_ports=[]
        ) as shell:
            uri = f"turn:127.0.0.1:{shell.udp_addresses[0][1]}"
            relay = await Relay.open(
                IceServer.parse(uri, "robot", "secret"), on_datagram=lambda *_: None
            )
            await relay.close()

    asyncio.run(main())
    assert len(set(seen)) >= 2
    assert set(seen) <= drawn
