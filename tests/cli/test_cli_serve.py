"""``ice-punch serve``: both servers, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from cli_support import only_line

from ice_punch.cli import app
from ice_punch.dtls import Certificate
from ice_punch.stun import (
    CHANGE_REQUEST,
    OTHER_ADDRESS,
    ChangeRequest,
    Message,
    MessageClass,
    Method,
    parse_message,
)
from signaling.client import SignalingClient
from signaling.events import Welcomed
from support.commands import PUNCH, Command
from support.coturn import free_ports

LOCAL = ("--host", "127.0.0.1")


def test_people_see_the_addresses_and_the_next_command() -> None:
    port = free_ports("127.0.0.1")
    command = ["serve", *LOCAL, "--port", str(port), "--stun-port", str(port + 1)]
    with Command(*command) as server:
        server.until(lambda: b"next" in server.output, 10, "next command")
        text = server.output.decode()
        assert f"http://127.0.0.1:{port}\n" in text
        assert f"127.0.0.1:{port + 1}\n" in text
        assert f"127.0.0.1:{port + 2}\n" in text
        assert text.rstrip().endswith(f"ice-punch listen --server http://127.0.0.1:{port}")
        assert server.errors == []
        assert app.run(["stun", f"127.0.0.1:{port + 1}", f"127.0.0.1:{port + 2}"]) == 0
        began = time.monotonic()
        server.interrupt()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 1.0
        assert server.errors == []


def test_ports_of_the_systems_choice_and_sigterm() -> None:
    with Command("serve", "--port", "0", "--stun-port", "0", "--json") as server:
        event = server.event("serving")
        assert all(re.fullmatch(r"http://[0-9.]+:[1-9][0-9]*", url) for url in event["urls"])
        assert event["url"] == event["urls"][0]
        assert event["urls"][-1].startswith("http://127.0.0.1:")
        assert len({a.rpartition(":")[2] for a in event["stun"]}) == 2
        assert bytes(server.output) == b""
        for url in event["urls"]:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
                assert answer.read().strip() == b"ok"
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_peers_are_told_both_stun_ports(server: str) -> None:
    async def welcome() -> list[str]:
        url = server.replace("127.0.0.1", "localhost").replace("http", "ws") + "/v1/ws"
        client = SignalingClient(url, "A" * 22)
        await client.connect(5)
        try:
            async for event in client:
                assert isinstance(event, Welcomed)
                return [uri for info in event.ice_servers for uri in info.urls]
        finally:
            await client.close()
        return []

    told = asyncio.run(welcome())
    assert len(set(told)) == 2
    for uri in told:
        assert uri.startswith("stun:localhost:")
    assert app.run(["stun", *told, "-4"]) == 0


def test_with_two_addresses_stun_answers_from_where_it_is_asked_to_rfc5780() -> None:
    two = ("--stun-address", "127.0.0.1", "--stun-address", "127.0.0.2")
    with Command("serve", "--port", "0", "--stun-port", "0", *two, "--json") as server:
        told = server.event("serving")["stun"]
        assert {address.rpartition(":")[0] for address in told} == {"127.0.0.1"}
        first, second = (int(address.rpartition(":")[2]) for address in told)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.settimeout(5)
            for change_ip in (False, True):
                for change_port in (False, True):
                    request = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12))
                    request.add(CHANGE_REQUEST, ChangeRequest(change_ip, change_port))
                    client.sendto(request.to_bytes(), ("127.0.0.1", first))
                    data, source = client.recvfrom(2048)
                    response = parse_message(data)
                    assert response.get(OTHER_ADDRESS) == ("127.0.0.2", second)
                    assert source == (
                        "127.0.0.2" if change_ip else "127.0.0.1",
                        second if change_port else first,
                    )


def test_stun_addresses_of_one_family_are_two_at_most(capfd: pytest.CaptureFixture[str]) -> None:
    for addresses, switches in (
        (["127.0.0.1", "127.0.0.2", "127.0.0.3"], []),
        (["127.0.0.1", "127.0.0.1"], []),
        (["0.0.0.0"], []),
        (["localhost"], []),
        (["127.0.0.1", "::1"], ["--stun-port", "0"]),
        (["127.0.0.1"], ["--no-stun"]),
    ):
        given = [word for address in addresses for word in ("--stun-address", address)]
        assert app.run(["serve", *LOCAL, "--port", "0", *given, *switches]) == 2
        assert "--stun-address" in only_line(capfd.readouterr().err)


def test_a_public_host_is_what_peers_are_told() -> None:
    with Command(
        "serve", *LOCAL, "--port", "0", "--no-stun", "--public-host", "2001:db8::1", "--json"
    ) as server:
        event = server.event("serving")
        assert event["urls"] == [f"http://[2001:db8::1]:{event['url'].rpartition(':')[2]}"]
        assert event["stun"] == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken(kind: socket.SocketKind, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = str(taken.getsockname()[1])
        ports = ("--port", port, "--stun-port", "0")
        if kind is socket.SOCK_DGRAM:
            ports = ("--port", "0", "--stun-port", port)
        assert app.run(["serve", *LOCAL, *ports]) == 1
        said = capfd.readouterr()
        line = only_line(said.err)
        assert f"port {port}" in line
        assert ("--stun-port" if kind is socket.SOCK_DGRAM else "--port") in line
        assert said.out == ""


def test_tls(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Certificate.generate().to_pem())
    not_pem = tmp_path / "not.pem"
    not_pem.write_text("nothing")
    tls = ("--tls-cert", str(both), "--tls-key")
    with Command("serve", *LOCAL, "--port", "0", "--no-stun", "--json", *tls, str(both)) as server:
        url = server.event("serving")["url"]
        assert url.startswith("https://127.0.0.1:")
        assert app.run(["listen", "--server", url]) == 1
        assert "certificate" in only_line(capfd.readouterr().err)
    for files, code in (((*tls, str(not_pem)), 1), (tls[:2], 2), ((*tls, "/nowhere"), 1)):
        assert app.run(["serve", *LOCAL, "--port", "0", "--no-stun", *files]) == code
        assert only_line(capfd.readouterr().err).startswith("ice-punch: ")


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert re.fullmatch(r"ice-punch \d+\.\d+\.\d+\n", capfd.readouterr().out)
    assert app.run([]) == 2
    said = capfd.readouterr()
    assert "listen" in said.out
    assert said.err == ""
    assert app.run(["serve", "--help"]) == 0
    assert "public-host" in capfd.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    loaded = subprocess.run(
        [PUNCH[0], "-X", "importtime", *PUNCH[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert not re.search(r"\b(asyncio|cryptography|OpenSSL|websockets|msgspec)\b", loaded)
