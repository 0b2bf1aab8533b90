"""Links: what they say, what they hide, and what is wrong with a broken one."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.errors import InvalidLink, InvalidServerUrl
from signaling.limits import is_room_name
from signaling.link import Link, ServerUrl, room_path, wire_room
from signaling.randomness import base64url

ROOM = "AAECAwQFBgcICQoLDA0ODw"
SECRET = "EBESExQVFhcYGRobHB0eHw"
GOOD = f"http://signal.example:8080/j/{ROOM}#{SECRET}"


def test_a_link_holds_server_room_and_secret() -> None:
    link = Link.parse(GOOD)
    assert link.server == ServerUrl(False, "signal.example", 8080)
    assert link.room == ROOM
    assert link.secret == bytes(range(16, 32))
    assert str(link) == GOOD
    assert link.without_secret == f"http://signal.example:8080/j/{ROOM}"
    assert link.websocket_url == "ws://signal.example:8080/v1/ws"
    assert link.server.room_url(link.wire_room) == "ws://signal.example:8080/v1/ws/2fc5"


@pytest.mark.parametrize(
    ("server", "shown", "socket"),
    [
        ("http://localhost:8080", "http://localhost:8080", "ws://localhost:8080/v1/ws"),
        ("https://signal.example/", "https://signal.example", "wss://signal.example/v1/ws"),
        ("https://signal.example:443", "https://signal.example", "wss://signal.example/v1/ws"),
        ("http://signal.example:443", "http://signal.example:443", "ws://signal.example:443/v1/ws"),
        ("wss://SIGNAL.example", "https://signal.example", "wss://signal.example/v1/ws"),
        ("ws://[2001:db8::1]:99", "http://[2001:db8::1]:99", "ws://[2001:db8::1]:99/v1/ws"),
        ("http://bücher.example", "http://xn--bcher-kva.example", None),
        ("  http://192.0.2.1  ", "http://192.0.2.1", "ws://192.0.2.1/v1/ws"),
    ],
)
def test_create_makes_a_link_that_parses_to_itself(
    server: str, shown: str, socket: str | None
) -> None:
    link = Link.create(server, random.Random(1))
    assert str(link.server) == shown
    assert Link.parse(str(link)) == link
    if socket is not None:
        assert link.websocket_url == socket


def test_the_path_of_a_room_is_the_documents() -> None:
    room = wire_room(ROOM)
    digest = hashlib.sha256(b"icepunch.v1 path\0" + room.encode()).hexdigest()
    assert room_path(room) == f"/v1/ws/{digest[:4]}"
    page = (Path(__file__).parents[2] / "docs/reference/signaling-protocol.md").read_text()
    assert 'first 4 hexadecimal\n  digits of `SHA-256("icepunch.v1 path" || 0x00' in page


@given(st.text())
def test_a_path_tells_no_room(room: str) -> None:
    """Four digits of a hash, whatever a server with tokens calls its rooms."""
    assert re.fullmatch(r"/v1/ws/[0-9a-f]{4}", room_path(room))


def test_rooms_spread_over_the_paths() -> None:
    source = random.Random(4)
    paths = {room_path(base64url(source.randbytes(32))) for _ in range(4000)}
    assert len(paths) > 3700  # 3880 of 65,536 on average


def test_every_link_is_another_room_with_another_secret() -> None:
    source = random.Random(3)
    links = [Link.create("http://h", source) for _ in range(100)]
    assert len({link.room for link in links}) == len({link.secret for link in links}) == 100
    assert all(len(link.room) == 22 and len(link.secret) == 16 for link in links)


def test_the_secret_is_shown_by_str_alone() -> None:
    link = Link.parse(GOOD)
    for text in (repr(link), link.without_secret, link.websocket_url, str(link.server)):
        assert SECRET not in text
        assert repr(link.secret) not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (GOOD.replace("/j/", "/j/ "), "blanks"),
        (GOOD + "\x00", "blanks"),
        (f"signal.example/j/{ROOM}#{SECRET}", "must begin with http:// or https://"),
        (f"ftp://signal.example/j/{ROOM}#{SECRET}", "must begin with http:// or https://"),
        (f"http:///j/{ROOM}#{SECRET}", "names no host"),
        (f"http://:8080/j/{ROOM}#{SECRET}", "names no host"),
        (f"http://bad_host!/j/{ROOM}#{SECRET}", "host name is not valid"),
        (f"http://me:pw@signal.example/j/{ROOM}#{SECRET}", "user name"),
        (f"http://signal.example:0/j/{ROOM}#{SECRET}", "port"),
        (f"http://signal.example:65536/j/{ROOM}#{SECRET}", "port"),
        (f"http://signal.example:x/j/{ROOM}#{SECRET}", "port"),
        (f"http://[::1/j/{ROOM}#{SECRET}", "not a URL"),
        (f"http://signal.example#{SECRET}", "names no room"),
        (f"http://signal.example/j/#{SECRET}", "names no room"),
        (f"http://signal.example/j/short#{SECRET}", "room is cut off"),
        (f"http://signal.example/j/{ROOM}/x#{SECRET}", "does not"),
        (f"http://signal.example/k/{ROOM}#{SECRET}", "this version knows"),
        (f"http://signal.example/j/{ROOM}?x=1#{SECRET}", "query"),
        (f"http://signal.example/j/{ROOM}", "no secret"),
        (f"http://signal.example/j/{ROOM}#", "no secret"),
        (f"http://signal.example/j/{ROOM}#{SECRET[:20]}", "secret (after #) is cut off"),
        (f"http://signal.example/j/{ROOM}#{SECRET[:21]}", "secret (after #) is garbled"),
        (f"http://signal.example/j/{ROOM}#{SECRET[:-1]}!", "secret (after #) is garbled"),
        (f"http://signal.example/j/{ROOM}#{SECRET[:-1]}B", "secret (after #) is garbled"),
        (f"http://signal.example/j/{ROOM}#{SECRET}é", "secret (after #) is garbled"),
        (f"http://signal.example/j/{ROOM}#{'A' * 200}", "secret (after #) is garbled"),
        (f"http://signal.example/j/{ROOM}#2.{SECRET}", "format 2"),
    ],
)
def test_a_broken_link_is_told_in_one_sentence_without_its_secret(text: str, says: str) -> None:
    with pytest.raises(InvalidLink) as caught:
        Link.parse(text)
    message = str(caught.value)
    assert says in message or (says == "does not" and "should read" in message)
    assert SECRET[:12] not in message
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)


@given(st.text())
def test_any_text_is_a_link_or_an_invalid_link(text: str) -> None:
    for candidate in (text, GOOD + text, GOOD.replace("signal.example:8080", text)):
        with contextlib.suppress(InvalidLink):
            Link.parse(candidate)


@pytest.mark.parametrize(
    "text",
    ["", "signal.example", "localhost:8080", "http://", "http://h/path", "http://h?x"],
)
def test_what_is_no_server_url_is_told(text: str) -> None:
    with pytest.raises(InvalidServerUrl):
        ServerUrl.parse(text)


def test_a_link_given_as_server_url_does_not_show_its_secret() -> None:
    for text in (GOOD, "http://user:hunter2@h"):
        with pytest.raises(InvalidServerUrl) as caught:
            ServerUrl.parse(text)
        assert SECRET not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_the_room_on_the_wire_is_a_hash_that_can_be_entered() -> None:
    link = Link.create("http://h", random.Random(1))
    hashed = base64url(hashlib.sha256(b"icepunch.v1 room\0" + link.room.encode()).digest())
    assert link.wire_room == wire_room(link.room) == hashed
    assert is_room_name(link.wire_room)
    assert link.room not in link.wire_room
