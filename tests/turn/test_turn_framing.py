"""Messages on a byte stream (RFC 8656 section 12.5): however the stream is cut, they come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_punch.stun import SOFTWARE, Message, MessageClass, Method
from ice_punch.turn import StreamFraming
from ice_punch.turn.channel_data import decode_channel_data, encode_channel_data
from ice_punch.turn.framing import MAX_MESSAGE

CHANNEL = b"\x40\x01"


def stun(software: str = "") -> bytes:
    message = Message(Method.REFRESH, MessageClass.REQUEST, bytes(12))
    if software:
        message.add(SOFTWARE, software)
    return message.to_bytes()


def channel_data(size: int) -> bytes:
    return encode_channel_data(CHANNEL, bytes(range(size)))


MESSAGES = [stun(), channel_data(0), channel_data(1), channel_data(7), stun("abc"), channel_data(4)]
STREAM = b"".join(map(StreamFraming.frame, MESSAGES))


def split(chunks: list[bytes], framing: StreamFraming | None = None) -> list[bytes]:
    framing = framing or StreamFraming()
    return [message for chunk in chunks for message in framing.receive_data(chunk)]


def test_a_stream_cut_at_every_two_places_gives_the_same_messages() -> None:
    for first, second in itertools.combinations_with_replacement(range(len(STREAM) + 1), 2):
        chunks = [STREAM[:first], STREAM[first:second], STREAM[second:]]
        assert split(chunks) == MESSAGES


def test_a_stream_byte_by_byte_gives_each_message_with_its_last_byte() -> None:
    framing = StreamFraming()
    ends = list(itertools.accumulate(len(StreamFraming.frame(m)) for m in MESSAGES))
    for index, byte in enumerate(STREAM):
        got = framing.receive_data(bytes([byte]))
        assert len(got) == (index + 1 in ends)


@pytest.mark.parametrize("size", range(9))
def test_rfc8656_12_5_channel_data_is_padded_to_4_bytes_and_its_length_is_not(size: int) -> None:
    message = channel_data(size)
    framed = StreamFraming.frame(message)
    assert len(framed) % 4 == 0
    assert len(framed) - len(message) < 4
    assert framed[: len(message)] == message
    assert int.from_bytes(framed[2:4], "big") == size
    assert split([framed]) == [message]
    assert decode_channel_data(message) == bytes(range(size))


def test_stun_is_not_padded() -> None:
    assert StreamFraming.frame(stun("abc")) == stun("abc")


@pytest.mark.parametrize(
    "junk",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x50\x00\x00\x04abcd",
        b"\x80\x00\x00\x04abcd",
        b"\x00\x01\x00\x00\x21\x12\xa4\x43",
        b"\x00\x01\x00\x02\x21\x12\xa4\x42",
    ],
)
def test_what_is_neither_stun_nor_channel_data_breaks_the_stream(junk: bytes) -> None:
    framing = StreamFraming()
    assert split([STREAM + junk + STREAM], framing) == MESSAGES
    assert framing.broken
    assert split([STREAM], framing) == []


def test_a_wrong_cookie_is_noticed_before_the_length_is_waited_for() -> None:
    framing = StreamFraming()
    framing.receive_data(b"\x00\x01\xff\xfc\x21\x13")
    assert framing.broken


def test_the_longest_messages_pass_and_no_more_than_one_is_held() -> None:
    longest = StreamFraming.frame(encode_channel_data(CHANNEL, bytes(0xFFFF)))
    assert split([longest[:-1], longest[-1:]]) == [longest[:-1]]
    header = b"\x00\x01\xff\xfc\x21\x12\xa4\x42"
    whole = header + bytes(MAX_MESSAGE - len(header))
    framing = StreamFraming()
    assert split([whole[i : i + 999] for i in range(0, len(whole), 999)], framing) == [whole]
    assert not framing.broken


def test_a_bound_on_messages_is_kept() -> None:
    framing = StreamFraming(max_message=100)
    assert split([StreamFraming.frame(channel_data(96))], framing) == [channel_data(96)]
    framing.receive_data(channel_data(97)[:4])
    assert framing.broken


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_stream_raises_and_what_comes_out_was_in_it(chunks: list[bytes]) -> None:
    framing = StreamFraming()
    stream = b"".join(chunks)
    at = 0
    for message in split(chunks, framing):
        assert stream.startswith(message, at)
        at += len(StreamFraming.frame(message))


@given(
    st.lists(st.binary(max_size=300).map(lambda d: encode_channel_data(CHANNEL, d)), max_size=6),
    st.data(),
)
def test_any_channel_data_in_any_pieces_comes_out_whole(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(StreamFraming.frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    bounds = [0, *cuts, len(stream)]
    assert split([stream[a:b] for a, b in itertools.pairwise(bounds)]) == messages
