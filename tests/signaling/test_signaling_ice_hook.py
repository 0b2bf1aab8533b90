"""ICE servers from a provider's HTTP interface: its forms, its failures, its slowness."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from signaling_net import other_service

from signaling.errors import InvalidIceServer
from signaling.hooks import IceRequest
from signaling.ice_hook import (
    ANSWER_MAX,
    AT_ONCE,
    RETRY_TTL,
    HookRequest,
    IceHook,
    parse_headers,
)
from signaling.messages import IceInfo, IceServerInfo

REQUEST = IceRequest("peer-1", "robot", True, "signal.example.org", "198.51.100.1")
WITHOUT = IceInfo(servers=[], ttl=RETRY_TTL)
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(body: bytes, status: str = "200 OK", seen: list[bytes] | None = None) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")]
        rest = await reader.readexactly(int(length[0].split()[1])) if length else b""
        if seen is not None:
            seen.append(head + rest)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return behave


async def asked(hook: IceHook, request: IceRequest = REQUEST) -> IceInfo:
    answer = hook.ice_servers(request)
    return answer if isinstance(answer, IceInfo) else await answer


def ask(behave: Behaviour, **options: Any) -> IceInfo:
    async def run() -> IceInfo:
        async with other_service(behave) as url:
            hook = IceHook(HookRequest(url + "/servers?key=1"), **options)
            try:
                return await asked(hook)
            finally:
                hook.close()

    return asyncio.run(run())


RELAY = IceServerInfo(urls=["turn:relay.example.org"], username="user", credential="word")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"iceServers": [{"urls": ["stun:s"]}, {"urls": "turn:t", "username": "u"}]},
            IceInfo([IceServerInfo(["stun:s"]), IceServerInfo(["turn:t"], "u")], 3600),
        ),
        (
            {
                "ice_servers": [
                    {
                        "url": "turn:relay.example.org",
                        "urls": "turn:relay.example.org",
                        "username": "user",
                        "credential": "word",
                    }
                ],
                "ttl": "86400",
            },
            IceInfo([RELAY], 86400),
        ),
        (
            {
                "username": "user",
                "password": "word",
                "uris": ["turn:relay.example.org"],
                "ttl": 600,
            },
            IceInfo([RELAY], 600),
        ),
        ({"iceServers": []}, IceInfo([], 3600)),
        ({"iceServers": [], "ttl": 1}, IceInfo([], 60)),
        ({"iceServers": [], "ttl": 1e9}, IceInfo([], 86400)),
    ],
    ids=["cloudflare", "twilio", "matrix", "none", "too brief", "too long"],
)
def test_the_forms_of_several_providers(answer: Any, expected: IceInfo) -> None:
    assert ask(answering(json.dumps(answer).encode())) == expected


def test_what_is_asked() -> None:
    async def run() -> None:
        seen: list[bytes] = []
        async with other_service(answering(b'{"iceServers":[]}', seen=seen)) as url:
            headers = parse_headers("Authorization: Bearer key:1\n\nX-Y: z\n")
            for method in ("POST", "GET"):
                hook = IceHook(
                    HookRequest(url + "/a?b=c", headers, method, 900),  # type: ignore[arg-type]
                )
                await asked(hook)
                hook.close()
        posted, got = seen
        assert posted.startswith(b"POST /a?b=c HTTP/1.1\r\n")
        assert b"Authorization: Bearer key:1\r\n" in posted
        body = json.loads(posted.partition(b"\r\n\r\n")[2])
        assert body == {"ttl": 900, "user": "robot.peer-1", "customIdentifier": "robot.peer-1"}
        assert got.startswith(b"GET /a?b=c HTTP/1.1\r\n")
        assert got.endswith(b"\r\n\r\n")

    asyncio.run(run())


@pytest.mark.parametrize(
    "behave",
    [
        answering(b"{}"),
        answering(b"[]"),
        answering(b"not json"),
        answering(b"[" * 60_000),
        answering(b'{"iceServers":[{"urls":[]}]}'),
        answering(b'{"iceServers":[{"urls":7}]}'),
        answering(b'{"iceServers":[],"ttl":"soon"}'),
        answering(b'{"iceServers":[' + b'{"urls":"stun:s"},' * 20 + b'{"urls":"stun:s"}]}'),
        answering(b'{"iceServers":[]}' + b" " * ANSWER_MAX),
        answering(b'{"iceServers":[]}', "401 Unauthorized"),
        answering(b'{"iceServers":[]}', "302 Found\r\nLocation: http://127.0.0.1:1/"),
        answering(b"", "500 Oops"),
    ],
)
def test_an_answer_that_is_none_costs_the_relay_and_nothing_else(behave: Behaviour) -> None:
    assert ask(behave) == WITHOUT


def test_a_provider_that_says_nothing_or_a_byte_at_a_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X")
            await writer.drain()
            await asyncio.sleep(0.05)

    for behave in (silent, dripping):
        began = time.monotonic()
        assert ask(behave, timeout=0.3) == WITHOUT
        assert time.monotonic() - began < 2.0


def test_after_a_failure_nobody_waits_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        now = [0.0]
        seen: list[bytes] = []
        behave = answering(b'{"iceServers":[{"urls":"stun:s"}]}', "503 Busy", seen)
        async with other_service(behave) as url:
            headers = {"Authorization": "Bearer top-secret"}
            hook = IceHook(HookRequest(url + "/secret-path", headers), clock=lambda: now[0])
            assert await asked(hook) == WITHOUT
            now[0] = 4.9
            assert hook.ice_servers(REQUEST) == WITHOUT
            assert len(seen) == hook.asked == hook.failed == 1
            now[0] = 5.1
            await asked(hook)
            assert len(seen) == 2
            hook.close()

    with caplog.at_level(logging.INFO, "signaling"):
        asyncio.run(run())
    assert "503" in caplog.text
    assert "secret" not in caplog.text


def test_questions_are_bounded() -> None:
    async def run() -> None:
        release = asyncio.Event()

        async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            body = b'{"iceServers":[]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

        async with other_service(held) as url:
            hook = IceHook(HookRequest(url))
            waiting = [
                asyncio.create_task(asked(hook, REQUEST._replace(peer=f"peer-{i}")))
                for i in range(AT_ONCE)
            ]
            await asyncio.sleep(0)
            assert hook.ice_servers(REQUEST._replace(peer="late")) == WITHOUT
            release.set()
            assert await asyncio.gather(*waiting) == [IceInfo([], 3600)] * AT_ONCE
            assert hook.failed == 0
            for _ in range(3):
                await asked(hook, REQUEST._replace(peer="greedy"))
            assert hook.ice_servers(REQUEST._replace(peer="greedy")) == WITHOUT
            assert hook.capped == 1
            assert hook.ice_servers(REQUEST._replace(relay=False)) == IceInfo([])
            hook.close()

    asyncio.run(run())


def test_where_no_password_would_be_safe() -> None:
    HookRequest("https://provider.example.org/x")
    HookRequest("http://127.0.0.1:9000/x")
    for url in ("http://provider.example.org/", "ftp://x", "https://", "https://u:p@x/", "nothing"):
        with pytest.raises(InvalidIceServer):
            HookRequest(url)
    with pytest.raises(InvalidIceServer, match="NAME: VALUE"):
        parse_headers("Authorization Bearer x")
    assert "Bearer" not in repr(HookRequest("https://x/", {"Authorization": "Bearer y"}))
