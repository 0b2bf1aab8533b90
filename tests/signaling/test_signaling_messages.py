"""The wire: what each message looks like, and what comes of frames that are none."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling import (
    client,
    codes,
    entrance,
    handover,
    limits,
    link,
    negotiation,
    session,
    spoken,
)
from signaling.errors import InvalidMessage
from signaling.limits import Limits
from signaling.messages import (
    KINDS,
    AskIce,
    ClientMessage,
    CloseCode,
    Drain,
    Error,
    ErrorCode,
    FreshIce,
    Hello,
    IceInfo,
    IceServerInfo,
    Kind,
    Leave,
    LimitsInfo,
    Observed,
    PeerInfo,
    PeerNotice,
    Ping,
    Pong,
    Relayed,
    ReportOutcome,
    Resume,
    Resumed,
    SendSignal,
    SeqAck,
    ServerMessage,
    SignalAck,
    Welcome,
    byte_length,
    decode_client_message,
    decode_server_message,
    encode,
    encode_ack,
    encode_relayed,
)

FROM_CLIENT: list[tuple[ClientMessage, str]] = [
    (Hello(v=1, room="r"), '{"type":"hello","v":1,"room":"r"}'),
    (
        Hello(
            v=1,
            room="r",
            token="t",
            meta="m",
            max_peers=2,
            resume=Resume(sid="s", key="k", seq=3),
        ),
        '{"type":"hello","v":1,"room":"r","token":"t","meta":"m","max_peers":2,'
        '"resume":{"sid":"s","key":"k","seq":3}}',
    ),
    (
        SendSignal(id=1, to="p", link="l", gen=0, kind="offer", data="d"),
        '{"type":"signal","id":1,"to":"p","link":"l","gen":0,"kind":"offer","data":"d"}',
    ),
    (SeqAck(seq=0), '{"type":"ack","seq":0}'),
    (AskIce(), '{"type":"ice"}'),
    (ReportOutcome(outcome="direct", ms=7), '{"type":"outcome","outcome":"direct","ms":7}'),
    (Leave(), '{"type":"leave"}'),
    (Ping(n=3), '{"type":"ping","n":3}'),
]
FROM_SERVER: list[tuple[ServerMessage, str]] = [
    (
        Welcome(
            v=1,
            self="p",
            order=1,
            sid="s",
            key="k",
            peers=[PeerInfo(id="q", order=2, meta="m", away=True)],
            ping=25.0,
            window=30.0,
            limits=LimitsInfo(frame=1, data=2, meta=3, candidates=4, peers=5, rate=6.0, burst=7),
            ice=IceInfo(
                servers=[IceServerInfo(urls=["turn:h"], username="u", credential="c")], ttl=60
            ),
            you=Observed(ip="192.0.2.1", port=9),
        ),
        '{"type":"welcome","v":1,"self":"p","order":1,"sid":"s","key":"k",'
        '"peers":[{"id":"q","order":2,"meta":"m","away":true}],"ping":25.0,"window":30.0,'
        '"limits":{"frame":1,"data":2,"meta":3,"candidates":4,"peers":5,"rate":6.0,"burst":7},'
        '"ice":{"servers":[{"urls":["turn:h"],"username":"u","credential":"c"}],"ttl":60},'
        '"you":{"ip":"192.0.2.1","port":9}}',
    ),
    (Resumed(seq=2, rx=1, peers=[]), '{"type":"resumed","seq":2,"rx":1,"peers":[]}'),
    (
        PeerNotice(seq=1, event="leave", id="q", order=2, reason="left"),
        '{"type":"peer","seq":1,"event":"leave","id":"q","order":2,"reason":"left"}',
    ),
    (
        Relayed(seq=1, sender="q", link="l", gen=0, kind="cand", data="d"),
        '{"type":"signal","seq":1,"from":"q","link":"l","gen":0,"kind":"cand","data":"d"}',
    ),
    (SignalAck(id=1, status="queued"), '{"type":"ack","id":1,"status":"queued"}'),
    (
        FreshIce(servers=[IceServerInfo(urls=["stun:h"])], ttl=60),
        '{"type":"ice","servers":[{"urls":["stun:h"]}],"ttl":60}',
    ),
    (Pong(n=0), '{"type":"pong","n":0}'),
    (
        Error(code="busy", message="m", retry_after=1.5, fatal=True),
        '{"type":"error","code":"busy","message":"m","retry_after":1.5,"fatal":true}',
    ),
    (Drain(in_s=0.0, jitter_s=2.0), '{"type":"drain","in_s":0.0,"jitter_s":2.0}'),
]


@pytest.mark.parametrize(("message", "text"), FROM_CLIENT)
def test_client_messages_on_the_wire(message: ClientMessage, text: str) -> None:
    assert encode(message) == text
    assert decode_client_message(text) == message


@given(st.text(), st.integers(1, 2**53 - 1), st.sampled_from(KINDS))
def test_what_every_signal_costs_is_written_as_all_else(data: str, id: int, kind: Kind) -> None:
    """Frames have a shorter way where they are many: the same ones."""
    relayed = Relayed(id, "sender", "a-link", 0, kind, data)
    text, size = encode_relayed(relayed)
    assert (text, size) == (encode(relayed), len(text.encode()))
    status: Literal["delivered", "queued", "unavailable"]
    for status in ("delivered", "queued", "unavailable"):
        assert encode_ack(id, status) == encode(SignalAck(id=id, status=status))


@pytest.mark.parametrize(("message", "text"), FROM_SERVER)
def test_server_messages_on_the_wire(message: ServerMessage, text: str) -> None:
    assert encode(message) == text
    assert decode_server_message(text) == message


def test_a_type_the_client_does_not_know_is_none() -> None:
    assert decode_server_message('{"type":"news","text":"hello"}') is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"type":"welcome"}', '{"type":"pong","n":"x"}'])
def test_a_frame_from_the_server_that_makes_no_sense_is_the_one_error(text: str) -> None:
    with pytest.raises(InvalidMessage):
        decode_server_message(text)


@given(st.text())
def test_any_text_is_a_message_or_the_one_error(text: str) -> None:
    for decode in (decode_client_message, decode_server_message):
        with contextlib.suppress(InvalidMessage):
            decode(text)


def test_secrets_are_not_in_the_words_for_debugging() -> None:
    resume = Resume(sid="hidden-sid", key="hidden-key", seq=1)
    signal = SendSignal(id=1, to="p", link="l", gen=0, kind="offer", data="hidden-data")
    relayed = Relayed(seq=1, sender="q", link="l", gen=0, kind="offer", data="hidden-data")
    server = IceServerInfo(urls=["turn:h"], username="u", credential="hidden-credential")
    welcome = FROM_SERVER[0][0]
    hello = Hello(v=1, room="hidden-room", token="hidden-token", meta="m", resume=resume)
    for thing in (resume, hello, signal, relayed, server):
        assert "hidden" not in repr(thing)
    assert "'k'" not in repr(welcome)


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("abc", 3), ("é", 2), ("€", 3), ("😀", 4), ("\ud800", 3)]
)
def test_lengths_are_in_bytes_of_utf_8(text: str, size: int) -> None:
    assert byte_length(text) == size


def test_close_codes_tell_what_to_do() -> None:
    come_back = {code.name for code in CloseCode if 4000 <= code < 4500}
    assert come_back == {
        *("DRAIN", "SLOW", "IDLE", "BUS_LOST", "BUSY", "HELLO_TIMEOUT", "OUTLIVED"),
    }
    assert all(code < 5000 for code in CloseCode)


def test_the_document_names_every_message_code_and_limit() -> None:
    document = Path(__file__).parents[2] / "docs" / "reference" / "signaling-protocol.md"
    text = document.read_text(encoding="utf-8")
    for _, frame in [*FROM_CLIENT, *FROM_SERVER]:
        assert f"`{json.loads(frame)['type']}" in text
    for word in (*ErrorCode, *KINDS):
        assert f"`{word}`" in text, word
    for code in CloseCode:
        assert f"| {int(code)} |" in text, code
    for name in Limits.__dataclass_fields__:
        value = getattr(Limits(), name)
        assert f"| `{name}` | {value:g} |" in text, (name, value)


def test_the_document_has_the_numbers_of_the_code_that_are_no_limits_of_a_server() -> None:
    document = Path(__file__).parents[2] / "docs" / "reference" / "signaling-protocol.md"
    text = " ".join(document.read_text(encoding="utf-8").split())
    for sentence in (
        f"({negotiation.MAX_WAITING} of them, for {negotiation.MAX_WAIT:g} s)",
        f"Restarts are {negotiation.RESTART_INTERVAL:g} s apart",
        f"at most {session.WINDOW} signals unconfirmed",
        f"silent for {session.SILENT_PINGS * Limits().ping:g} s",
        f"or for {session.ANSWER_TIMEOUT:g} s while a signal is unconfirmed",
        f"acknowledges every {session.ACK_EVERY} frames",
        f"between 0 and {client.BACKOFF_FIRST:g} s, doubling with every failure to at most "
        f"{client.BACKOFF_MAX:g} s",
        f"once a connection held for {client.STABLE_AFTER:g} s",
        f"clients accept {limits.SERVER_FRAME} bytes",
        f"`<room>`: {limits.ROOM_MIN_LENGTH} to {limits.ROOM_MAX_LENGTH} characters",
        f"at most {limits.TOKEN_MAX_LENGTH} characters",
        f"`link`: 1 to {limits.LINK_MAX_LENGTH} characters",
        f"`<secret>`: {link.SECRET_BYTES} to 64 random bytes",
        f"from 1 to {codes.NUMBERS[-1]} and two of the {len(codes.words())} words",
        f"which has {spoken.SEATS} seats",
        f"after {codes.TRIES} the code is void",
        f"after {handover.MAX_EXCHANGES} of any kind",
        f"after {entrance.ICE_REFRESH:.0%} of it".replace("%", " %"),
    ):
        assert sentence in text, sentence
