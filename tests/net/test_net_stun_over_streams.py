"""STUN over TCP and TLS, as TURN has it: RFC 8489 sections 6.2.2 and 6.2.3, whatever the relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import pytest

from ice_punch.net import relay as relay_module
from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from ice_punch.net.turn_server import TurnServerShell
from ice_punch.net.udp import bind
from ice_punch.stun import XOR_MAPPED_ADDRESS, Message, MessageClass, Method, parse_message
from ice_punch.turn import allow_every_peer

HERE = "127.0.0.1"


def serve():
    return TurnServerShell.start(
        HERE, 0, users={"robot": "secret"}, peer_filter=allow_every_peer, tcp_ports=[0]
    )


def request():
    return Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12))


def test_rfc8489_6_2_2_3_one_connection_serves_a_relay_for_as_long_as_it_lives():
    """And it is the client that closes it."""

    async def main():
        async with await serve() as shell, asyncio.timeout(10):
            uri = f"turn:{HERE}:{shell.tcp_addresses[0][1]}?transport=tcp"
            relay = await Relay.open(
                IceServer.parse(uri, "robot", "secret"), on_datagram=lambda *_: None
            )
            connections = dict(shell._connections)
            assert len(connections) == 1
            for _ in range(3):
                with bind(HERE) as peer:
                    relay.send(b"to one more peer", peer.getsockname())
                    while True:
                        with contextlib.suppress(BlockingIOError):
                            assert peer.recv(100) == b"to one more peer"
                            break
                        await asyncio.sleep(0.005)
                assert shell._connections == connections
            await relay.close()
            while shell._connections:
                await asyncio.sleep(0.005)

    asyncio.run(main())


def test_rfc8489_6_2_2_6_what_was_asked_before_the_client_stopped_is_answered():
    """The last request and the end of the client's side come in one piece."""

    async def main():
        async with await serve() as shell, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*shell.tcp_addresses[0])
            asked = [request() for _ in range(50)]
            writer.write(b"".join(message.to_bytes() for message in asked))
            writer.write_eof()
            answers = await reader.read(-1)
            local = writer.get_extra_info("sockname")
            writer.close()
        found = []
        while answers:
            size = 20 + int.from_bytes(answers[2:4], "big")
            found.append(parse_message(answers[:size]))
            answers = answers[size:]
        assert [m.transaction_id for m in found] == [m.transaction_id for m in asked]
        assert all(m.get(XOR_MAPPED_ADDRESS) == local for m in found)

    asyncio.run(main())


def test_rfc8489_6_2_2_7_the_server_never_connects_to_a_client(monkeypatch):
    """Not when the client's connection broke, and not with data for it at hand."""
    connected = []
    connect = socket.socket.connect

    def watched(sock, address):
        connected.append((sock.type, address))
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", watched)

    async def main():
        async with await serve() as shell, asyncio.timeout(10):
            uri = f"turn:{HERE}:{shell.tcp_addresses[0][1]}?transport=tcp"
            server = IceServer.parse(uri, "robot", "secret")
            relay = await Relay.open(server, on_datagram=lambda *_: None)
            assert (socket.SOCK_STREAM, shell.tcp_addresses[0]) in connected
            connected.clear()
            with bind(HERE) as peer:
                relay.send(b"permitted?", peer.getsockname())
                while True:
                    with contextlib.suppress(BlockingIOError):
                        peer.recv(100)
                        break
                    await asyncio.sleep(0.005)
                relay._session.disconnect()
                for _ in range(20):
                    with contextlib.suppress(OSError):
                        peer.sendto(b"for the client", relay.relayed_address)
                    await asyncio.sleep(0.01)
            assert shell.server.allocations == 0
            await relay.close()

    asyncio.run(main())
    assert [address for kind, address in connected if kind == socket.SOCK_STREAM] == []


def client_hello():
    """What a relay's TLS says first: cipher suites, compression methods and the server's name."""
    context = relay_module._tls_context(None)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="turn.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()[5 + 4 + 2 + 32 :]  # record, handshake, version, random
    hello = hello[1 + hello[0] :]  # session id
    size = int.from_bytes(hello[:2], "big")
    suites = [int.from_bytes(hello[n : n + 2], "big") for n in range(2, 2 + size, 2)]
    hello = hello[2 + size :]
    return context, suites, list(hello[1 : 1 + hello[0]]), hello


def test_rfc8489_6_2_3_1_the_suite_that_every_server_has_is_offered():
    """TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, and the one of DHE or TLS 1.3 beside it."""
    _, suites, _, _ = client_hello()
    assert 0xC02F in suites
    assert {0x009E, 0x1301} & set(suites)


def test_rfc8489_6_2_3_3_nothing_without_forward_secrecy_nothing_weak_and_no_compression():
    context, suites, compressions, hello = client_hello()
    assert compressions == [0]
    assert b"turn.example.org" in hello
    by_id = {cipher["id"] & 0xFFFF: cipher for cipher in context.get_ciphers()}
    for suite in suites:
        if suite == 0x00FF:  # TLS_EMPTY_RENEGOTIATION_INFO_SCSV, no suite
            continue
        cipher = by_id[suite]
        assert cipher["protocol"] == "TLSv1.3" or "DHE" in cipher["name"]
        assert not any(
            weak in cipher["name"] for weak in ("RC4", "DES", "NULL", "MD5", "EXP", "ADH", "AECDH")
        )
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
