"""What deploy/ hands out is what the programs it is for understand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from redis_support import free_port
from signaling_net import get
from signaling_support import ROOM
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from ice_punch.cli import app as cli
from ice_punch.errors import AuthenticationRejected
from ice_punch.net.ice_server import IceServer
from ice_punch.net.relay import Relay
from signaling.auth import TrustedProxies
from signaling.client import SignalingClient
from signaling.events import Welcomed
from signaling.hooks import IceRequest
from signaling.server import SignalingServer
from signaling.turn_credentials import TurnCredentials, TurnServer
from support.coturn import free_ports

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CADDYFILE = ("--adapter", "caddyfile", "--config", str(DEPLOY / "caddy" / "Caddyfile"))
VARIABLES = {"SIGNAL_HOST": "signal.example.org", "RELAY_IP": "203.0.113.10"}


def filled(text: str) -> str:
    """As Compose replaces variables."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda match: VARIABLES[match[1]], text)


def switches(arguments: list[str]) -> dict[str, Any]:
    """What ``ice-punch serve`` makes of them. Raises a usage error for what it does not know."""
    command = typer.main.get_command(cli.app).commands["serve"]  # type: ignore[attr-defined]
    parameters: dict[str, Any] = command.make_context("serve", list(arguments)).params
    return parameters


# -- Compose ----------------------------------------------------------------------------------


def test_the_server_understands_its_command() -> None:
    first, *arguments = map(filled, COMPOSE["services"]["signaling"]["command"])
    assert first == "serve"
    told = switches(arguments)
    assert told["workers"] == 2
    proxy = COMPOSE["services"]["proxy"]["networks"]["inside"]["ipv4_address"]
    assert TrustedProxies(told["trusted_proxy"]).trusts(proxy)
    assert told["turn"] == [
        "turn:signal.example.org:3478",
        "turn:signal.example.org:3478?transport=tcp",
    ]
    assert told["redis"].startswith("redis://valkey:")
    assert told["turn_secret_file"] == ["/run/secrets/turn-secret"]
    # Whatever the drain takes, Docker waits for it.
    grace = int(COMPOSE["services"]["signaling"]["stop_grace_period"].rstrip("s"))
    assert grace > told["drain"] + 5


def test_what_services_share_is_there() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"], source
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", [])) <= set(services)
        assert service["restart"] == "unless-stopped", name
        assert "privileged" not in service
    addresses = [
        s["networks"]["inside"]["ipv4_address"] for s in services.values() if "networks" in s
    ]
    assert len(set(addresses)) == len(addresses)
    assert "ports" not in services["valkey"]
    assert "ports" not in services["signaling"]


def test_the_image_is_made_of_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    [installed] = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(installed.split(",")) <= set(extras)


@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed")
def test_the_relay_starts_with_the_shared_secret(tmp_path: Path) -> None:
    """The container's own command, with a port that is free and paths of this test."""
    secret = b"a-secret-that-two-services-share"
    (tmp_path / "turn-secret").write_bytes(secret + b"\n")
    port = free_ports("127.0.0.1")
    [script] = COMPOSE["services"]["relay"]["command"]
    script = (
        script.replace("$$", "$")
        .replace("/tmp/turnserver", f"{tmp_path}/turnserver")
        .replace("/etc/coturn/turnserver.conf", str(DEPLOY / "coturn" / "turnserver.conf"))
        .replace("/run/secrets", str(tmp_path))
        .replace("exec turnserver", f"exec turnserver --userdb={tmp_path}/db -p {port}")
    )
    environment = {**os.environ, "SIGNAL_HOST": "signal.example.org", "RELAY_IP": "127.0.0.1"}

    async def allocate(shared: bytes) -> None:
        source = TurnCredentials([TurnServer((f"turn:127.0.0.1:{port}",), shared)])
        [info] = source.ice_servers(IceRequest("peer", "", True, "", "127.0.0.1")).servers
        uri = IceServer.parse(info.urls[0], info.username, info.credential)
        relay = await Relay.open(uri, on_datagram=lambda *_: None, local_ip="127.0.0.1")
        await relay.close()

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMPOSE["services"]["relay"]["entrypoint"], script],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_port(port)
        asyncio.run(allocate(secret))
        with pytest.raises(AuthenticationRejected):
            asyncio.run(allocate(b"replace-me-with-a-long-random-secret"))
    finally:
        process.terminate()
        process.wait(5)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


# -- Caddy ------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_caddy_speaks_for_its_clients_and_keeps_the_operators_pages_inside(tmp_path: Path) -> None:
    port = free_port()

    async def run() -> None:
        async with await SignalingServer.start(
            port=0, proxies=TrustedProxies(["127.0.0.1"])
        ) as server:
            process = subprocess.Popen(
                ["caddy", "run", *CADDYFILE],
                env={
                    **os.environ,
                    "SIGNAL_HOST": f"http://127.0.0.1:{port}",
                    "SIGNAL_UPSTREAM": f"127.0.0.1:{server.port}",
                    "XDG_DATA_HOME": str(tmp_path),
                    "XDG_CONFIG_HOME": str(tmp_path),
                    "HOME": str(tmp_path),
                },
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                await asyncio.to_thread(wait_for_port, port)
                async with connect(
                    f"ws://127.0.0.1:{port}/v1/ws",
                    subprotocols=[Subprotocol("icepunch.v1")],
                    compression=None,
                    proxy=None,
                    local_addr=("127.0.0.5", 0),
                    additional_headers={"X-Forwarded-For": "203.0.113.7"},
                ) as client:
                    await client.send(json.dumps({"type": "hello", "v": 1, "room": ROOM}))
                    welcome = json.loads(await client.recv())
                    assert welcome["you"]["ip"] == "127.0.0.5"
                request = "GET {} HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"
                for path, expected in (
                    ("/healthz", "200"),
                    ("/metrics", "404"),
                    ("/readyz", "404"),
                ):
                    answer = await get(port, request.format(path))
                    assert answer.split()[1] == expected, path
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, 5)

    asyncio.run(run())


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_the_caddyfile_is_valid_as_it_is(tmp_path: Path) -> None:
    done = subprocess.run(
        ["caddy", "validate", *CADDYFILE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
@pytest.mark.parametrize("name", ["several-processes.md", "without-bus.Caddyfile"])
def test_a_hash_of_the_path_keeps_rooms_together_without_a_bus(tmp_path: Path, name: str) -> None:
    """What the page and deploy/ show, with this machine's addresses."""
    page = (ROOT / "docs" / "howto" / "several-processes.md").read_text()
    shown = page.partition("```caddyfile\n")[2].partition("```")[0]
    if name == "without-bus.Caddyfile":
        shown = (DEPLOY / "caddy" / name).read_text()
        shown = shown.replace("{$SIGNAL_HOST:signal.example.org}", "signal.example.org")
    port = free_port()

    async def enter(stack: contextlib.AsyncExitStack, room: str) -> list[int]:
        client = await stack.enter_async_context(SignalingClient(f"http://127.0.0.1:{port}", room))
        await client.connect()
        welcomed = await anext(client)
        assert isinstance(welcomed, Welcomed)
        return [peer.order for peer in welcomed.peers]

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(await SignalingServer.start(port=0))
                for _ in range(2)
            ]
            text = shown.replace("signal.example.org", f"http://127.0.0.1:{port}")
            for number, server in enumerate(servers, 1):
                assert f"10.0.0.{number}:8080" in text
                text = text.replace(f"10.0.0.{number}:8080", f"127.0.0.1:{server.port}")
            (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
            process = subprocess.Popen(
                ["caddy", "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"],
                env={**os.environ, "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                await asyncio.to_thread(wait_for_port, port)
                async with contextlib.AsyncExitStack() as clients:
                    for number in range(16):
                        room = f"{number:08}-and-random-characters"
                        assert await enter(clients, room) == []
                        assert await enter(clients, room) == [1]
                    rooms = [server.sizes["rooms"] for server in servers]
                    assert sum(rooms) == 16
                    assert min(rooms) > 0
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, 5)

    asyncio.run(run())


# -- systemd ----------------------------------------------------------------------------------


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


@needs_systemd
def test_the_unit_is_one_and_gives_the_server_little(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "ice-punch.service").read_text()
    path = tmp_path / "ice-punch.service"
    path.write_text(unit.replace("/opt/ice-punch/bin/ice-punch", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(path) not in done.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert level is not None, judged.stdout + judged.stderr
    assert float(level[1]) < 3.0


@needs_systemd
def test_the_drop_in_for_coturn_is_one(tmp_path: Path) -> None:
    packaged = Path("/lib/systemd/system/coturn.service")
    if not packaged.exists():
        pytest.skip("coturn's unit is not installed")
    shutil.copy(packaged, tmp_path)
    shutil.copytree(DEPLOY / "systemd" / "coturn.service.d", tmp_path / "coturn.service.d")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "coturn.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ice-punch.conf" not in done.stderr, done.stderr


def test_the_servers_switches_in_the_environment_file() -> None:
    unit = (DEPLOY / "systemd" / "ice-punch.service").read_text()
    text = (DEPLOY / "systemd" / "serve.env").read_text()
    [value] = shlex.split(text.removeprefix("ICE_PUNCH_SERVE="))
    told = switches(value.split())
    assert told["workers"] == 2
    assert told["public_host"] == "signal.example.org"
    # What a proxy on this machine speaks for is to be had by that proxy only, without TLS.
    assert told["trusted_proxy"] == ["127.0.0.1"]
    assert told["host"] == "127.0.0.1"
    assert told["no_stun"]
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert stop > told["drain"] + 5
