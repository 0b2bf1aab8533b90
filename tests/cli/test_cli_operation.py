"""What an operator has of ``ice-punch serve``: pages, metrics, a log, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cli_support import only_line
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from ice_punch.cli import app
from ice_punch.cli.open_files import RESERVED
from signaling.client import SignalingClient
from signaling.events import Welcomed
from signaling.link import Link
from support.commands import Command

SERVE = ("serve", "--host", "127.0.0.1", "--port", "0", "--no-stun", "--json")
ROOM = "a-room-of-22-characters"


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_pages_and_metrics_of_a_server_with_a_client() -> None:
    with Command(*SERVE, "--metrics-port", "0") as server:
        event = server.event("serving")
        url = event["url"]
        [metrics] = event["metrics"]

        async def run() -> list[tuple[int, str]]:
            async with SignalingClient(url, ROOM) as client:
                await client.connect(5)
                return [
                    await asyncio.to_thread(get, address)
                    for address in (f"{url}/healthz", f"{url}/readyz", f"{url}/metrics", metrics)
                ]

        health, ready, here, beside = asyncio.run(run())
        assert health == (200, "ok\n")
        assert ready == (200, "ready\n")
        for code, text in (here, beside):
            assert code == 200
            seen = samples(text)
            assert seen["icepunch_connections",] == 1
            assert seen["icepunch_rooms",] == 1
            assert seen["icepunch_sessions", "present"] == 1
            assert seen["icepunch_ready",] == 1
            assert ROOM not in text
        root = metrics.removesuffix("/metrics")
        assert get(f"{root}/healthz") == (200, "ok\n")
        assert get(f"{root}/readyz") == (200, "ready\n")
        assert get(f"{root}/j/{ROOM}")[0] == 404


def test_metrics_are_not_for_everybody(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-bearer-token-of-the-operator\n")
    with Command(*SERVE) as server:
        url = f"{server.event('serving')['url']}/metrics"
        assert get(url)[0] == 200
        for header in ("X-Forwarded-For", "Forwarded", "Via"):
            assert get(url, **{header: "203.0.113.7"})[0] == 403
    switches = ("--metrics-token-file", str(token), "--metrics-port", "0")
    with Command(*SERVE, *switches) as server:
        event = server.event("serving")
        url = f"{event['url']}/metrics"
        assert get(url)[0] == 403
        assert get(url, Authorization="Bearer wrong")[0] == 403
        assert get(url, Authorization="Basic a-bearer-token-of-the-operator")[0] == 403
        good = "Bearer a-bearer-token-of-the-operator"
        assert get(url, Authorization=good)[0] == 200
        assert get(url, Authorization=good, Via="a proxy")[0] == 200
        [beside] = event["metrics"]
        assert get(beside)[0] == 401
        assert get(beside, Authorization=good)[0] == 200


def test_the_log_tells_what_happened_and_no_secret() -> None:
    with Command(*SERVE, "--verbose") as server:
        url = server.event("serving")["url"]
        link = Link.create(url, random.SystemRandom())
        payload = "a-payload-that-nobody-is-to-read"

        async def run() -> str:
            async with (
                SignalingClient(url, link.room) as one,
                SignalingClient(url, link.room) as two,
            ):
                await one.connect(5)
                await two.connect(5)
                await one.send(two.self_id, "link-1", 0, "offer", payload)
                event = await anext(one)
                assert isinstance(event, Welcomed)
                await asyncio.sleep(0.1)
                return one._session._key

        key = asyncio.run(run())
        server.until(
            lambda: (
                sum(e.get("message", "").startswith("session ended") for e in server.events) == 2
            ),
            10,
            "the ends in the log",
        )
        logged = [event for event in server.events if event["event"] == "log"]
        opened = next(e for e in logged if e["message"].startswith("session opened"))
        assert opened["level"] == "info"
        assert set(opened["fields"]) == {"room", "peer"}
        assert opened["time"].endswith("+00:00")
        listening = next(e for e in logged if e["message"].startswith("listening"))
        assert listening["fields"] == {"url": url}
        assert "worker" not in listening
        assert server.errors == []
        everything = json.dumps(server.events)
        for secret in (link.room, key, payload):
            assert secret not in everything


def test_sigterm_sends_clients_away_and_ends() -> None:
    with Command(*SERVE, "--drain", "2") as server:
        url = server.event("serving")["url"].replace("http", "ws") + "/v1/ws"

        async def run() -> tuple[list[str], int | None]:
            async with connect(
                url, subprotocols=[Subprotocol("icepunch.v1")], compression=None, proxy=None
            ) as connection:
                await connection.send(json.dumps({"type": "hello", "v": 1, "room": ROOM}))
                heard = [json.loads(await connection.recv())["type"]]
                server.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(ConnectionClosed):
                    async with asyncio.timeout(5):
                        while True:
                            message = json.loads(await connection.recv())
                            heard.append(message["type"])
                            assert message["jitter_s"] >= 0
                return heard, connection.close_code

        began = time.monotonic()
        assert asyncio.run(run()) == (["welcome", "drain"], 4000)
        assert server.exit_code(10) == 0
        assert time.monotonic() - began < 8


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads /proc, Linux")
def test_it_takes_all_the_open_files_it_may_and_no_more_connections_than_that() -> None:
    """Out of files a server would leave newcomers without a word; now they are told."""

    def start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        few = 'ulimit -Sn 80 && ulimit -Hn 150 && exec "$@"'
        return subprocess.Popen(["sh", "-c", few, "sh", *command], **options)

    async def knock(stack: contextlib.AsyncExitStack, url: str) -> None:
        await stack.enter_async_context(
            connect(
                url.replace("http", "ws") + "/v1/ws",
                subprotocols=[Subprotocol("icepunch.v1")],
                compression=None,
                proxy=None,
            )
        )

    async def fill(url: str) -> int:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(150):
                try:
                    async with asyncio.timeout(5):
                        await knock(stack, url)
                except InvalidStatus as refusal:
                    return number if refusal.response.status_code == 429 else -1
        raise AssertionError("more connections than files")

    with Command(*SERVE, start=start) as server:
        url = server.event("serving")["url"]
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3:5] == ["150", "150"]
        assert asyncio.run(fill(url)) == 150 - RESERVED


def test_a_metrics_port_that_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    with Command(*SERVE, "--metrics-port", "0") as server:
        port = server.event("serving")["metrics"][0].split(":")[2].partition("/")[0]
        arguments = ["--host", "127.0.0.1", "--port", "0", "--no-stun", "--metrics-port", port]
        assert app.run(["serve", *arguments]) == 1
        assert f"port {port}" in only_line(capfd.readouterr().err)
