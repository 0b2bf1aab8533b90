"""``ice-punch token``, and ``serve`` deciding who may enter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import only_line
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from ice_punch.cli import app
from signaling.client import SignalingClient
from signaling.errors import ServerRefused
from signaling.link import Link
from support.commands import Command

SERVE = ("serve", "--host", "127.0.0.1", "--port", "0", "--no-stun", "--json")
SECRET = "a-secret-that-is-long-enough-for-tokens"


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(SECRET + "\n")
    return str(path)


def mint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["token", *arguments]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    return only_line(said.out)


def enter(url: str, token: str, room: str = "standup") -> str:
    """The error code of trying, ``in`` if there was none."""

    async def run() -> str:
        client = SignalingClient(url, room, token=token)
        try:
            await client.connect(5)
        except ServerRefused as error:
            return f"{error.code} {error.close_code}"
        finally:
            await client.close()
        return "in"

    return asyncio.run(run())


def test_a_minted_token_opens_its_room_and_no_other(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.write_text("the-secret-of-last-year-was-this-one-here")
    switches = ("--auth", "token", "--token-key", key, "--previous-token-key", str(old))
    with Command(*SERVE, *switches) as server:
        url = server.event("serving")["url"]
        token = mint(capfd, "--key", key, "--room", "standup")
        assert enter(url, token) == "in"
        assert enter(url, token, "lunch") == "unauthorized 4501"
        assert enter(url, "") == "unauthorized 4501"
        assert enter(url, mint(capfd, "--key", str(old), "--room", "stand*")) == "in"
        stale = mint(capfd, "--key", key, "--room", "standup", "--ttl", "0.001")
        assert enter(url, stale) == "in"  # the clocks may differ by half a minute
        assert SECRET not in str(server)
        assert token not in str(server)


def test_a_token_for_a_link_opens_its_room_by_the_name_it_has_on_the_wire(
    key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands themselves enter it: what they call the room is what the token has to say."""
    everywhere = mint(capfd, "--key", key, "--room", "*")
    with Command(*SERVE, "--auth", "token", "--token-key", key) as server:
        url = server.event("serving")["url"]
        listen = ("listen", "--server", url, "--json")
        with Command(*listen, environment={"ICE_PUNCH_TOKEN": everywhere}) as listening:
            link = listening.event("listening")["link"]
            other = link.replace("/j/", "/j/x")
            for opens, text in ((False, other), (True, link), (True, link.partition("#")[0])):
                token = mint(capfd, "--key", key, "--link", text)
                room = Link.parse(link).wire_room
                assert enter(url, token, room) == ("in" if opens else "unauthorized 4501")
            connect = ("connect", link, "--json")
            with Command(*connect, environment={"ICE_PUNCH_TOKEN": token}) as connecting:
                connecting.event("connected")


def test_what_a_token_says_as_json(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    told = json.loads(
        mint(
            capfd,
            *("--key", key, "--room", "a", "--room", "b*", "--ttl", "60"),
            *("--permission", "join", "--relay", "--subject", "robot", "--json"),
        )
    )
    assert told.keys() == {"token", "kid", "rooms", "permissions", "relay", "expires_at"}
    assert told["rooms"] == ["a", "b*"]
    assert told["permissions"] == ["join"]
    assert told["relay"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--room", "r"), "--key"),
        (("--key", "KEY"), "--room"),
        (("--key", "/nowhere", "--room", "r"), "/nowhere"),
        (("--key", "KEY", "--room", ""), "1 to 128"),
        (("--key", "KEY", "--link", "not-a-link"), "--link"),
        (("--key", "KEY", "--room", "r", "--ttl", "0"), "lasts"),
        (("--key", "KEY", "--room", "r", "--ttl", "nan"), "lasts"),
        (("--key", "KEY", "--room", "r", "--permission", "fly"), "fly"),
        (("--key", "KEY", "--room", "r", "--max-peers", "1"), "2 seats"),
    ],
)
def test_wrong_use_of_token(
    arguments: tuple[str, ...], words: str, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["token", *(key if a == "KEY" else a for a in arguments)]) == 2
    said = capfd.readouterr()
    assert words in only_line(said.err)
    assert said.out == ""
    assert SECRET not in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--auth", "open", "--host", "0.0.0.0"), "loopback"),
        (("--auth", "open", "--trusted-proxy", "127.0.0.1"), "proxy"),
        (("--auth", "open", "--origin", "*"), "every web page"),
        (("--auth", "token"), "--token-key"),
        (("--token-key", "KEY"), "--auth token"),
        (("--auth", "token", "--token-key", "SHORT"), "32 bytes"),
        (("--auth", "maybe"), "maybe"),
        (("--origin", "example.org"), "example.org"),
        (("--trusted-proxy", "proxy.example.org"), "proxy.example.org"),
        (("--turn", "turn:relay.example.org"), "belong together"),
        (("--turn-secret-file", "KEY"), "belong together"),
        (("--turn", "stun:x", "--turn-secret-file", "KEY"), "no TURN server"),
        (("--turn", "turn:x", "--turn-secret-file", "SHORT"), "16 bytes"),
        (
            ("--turn", "turn:x", "--turn-secret-file", "KEY", "--turn-secret-file", "KEY"),
            "once for each",
        ),
        (("--ice-server", "turn:relay.example.org"), "STUN servers only"),
        (("--ice-hook", "http://provider.example.org/"), "https"),
        (("--ice-hook-headers", "KEY"), "--ice-hook"),
        (("--metrics-token-file", "SHORT"), "16 bytes"),
        (("--metrics-port", "0", "--metrics-host", "0.0.0.0"), "--metrics-token-file"),
        (("--workers", "2"), "--redis"),
        (("--redis", "nonsense"), "redis://"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_start(
    arguments: tuple[str, ...],
    words: str,
    key: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    short = tmp_path / "short"
    short.write_text("short")
    files = {"KEY": key, "SHORT": str(short)}
    given = [files.get(word, word) for word in arguments]
    if "--host" not in given:
        given += ["--host", "127.0.0.1"]
    assert app.run(["serve", "--port", "0", "--no-stun", *given]) == 2
    said = capfd.readouterr()
    assert words in only_line(said.err)
    assert said.out == ""


def test_open_rooms_need_no_capability_on_this_machine() -> None:
    with Command(*SERVE, "--auth", "open") as server:
        assert enter(server.event("serving")["url"], "", "lobby") == "in"
    with Command(*SERVE) as server:
        url = server.event("serving")["url"]
        assert enter(url, "", "lobby") == "bad_room 4507"


def test_pages_of_others_are_refused_where_they_can_read_why() -> None:
    async def knock(url: str, origin: str | None, **where: Any) -> str:
        async with connect(
            url.replace("http", "ws") + "/v1/ws",
            subprotocols=[Subprotocol("icepunch.v1")],
            compression=None,
            proxy=None,
            origin=None if origin is None else Origin(origin),
            **where,
        ) as connection:
            await connection.send(json.dumps({"type": "hello", "v": 1, "room": "A" * 22}))
            answer = json.loads(await connection.recv())
            if answer["type"] == "welcome":
                return "in"
            await connection.wait_closed()
            return f"{answer['code']} {connection.close_code}"

    for mode in ("capability", "open"):
        with Command(*SERVE, "--auth", mode, "--origin", "https://app.example.org") as server:
            url = server.event("serving")["url"]
            for origin, expected in (
                (None, "in"),
                (url, "in"),
                ("https://app.example.org", "in"),
                ("https://app.example.org.evil.example", "forbidden_origin 4501"),
                ("null", "forbidden_origin 4501"),
            ):
                assert asyncio.run(knock(url, origin)) == expected, (mode, origin)
            port = int(url.rpartition(":")[2])
            # A name that was made to point here. Elsewhere it is the room whose name lets in.
            answer = asyncio.run(
                knock(
                    f"http://evil.example:{port}",
                    f"http://evil.example:{port}",
                    host="127.0.0.1",
                    port=port,
                )
            )
            assert answer == ("forbidden_origin 4501" if mode == "open" else "in")


def test_without_a_bus_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-stun",
        "--redis",
        "redis://127.0.0.1:9",
    ]
    assert app.run(["serve", *arguments]) == 1
    assert "Redis" in only_line(capfd.readouterr().err)
