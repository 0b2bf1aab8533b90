"""Any datagram is a STUN message or ``StunParseError``; a message survives being written again, and
a Binding server answers with one datagram at most."""

from __future__ import annotations

from stun_repair import fingerprinted, repaired, signed

from ice_punch.stun import (
    ATTRIBUTES,
    NONCE,
    USERNAME,
    AttributeType,
    BindingServer,
    Integrity,
    Message,
    StunParseError,
    looks_like_stun,
    mapped_address,
    opaque_string,
    parse_message,
    security_features,
)

KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
"""The password of RFC 5769."""
CLIENT = ("192.0.2.1", 32853)
SERVER = ("198.51.100.1", 3478)


LARGEST = 60_000
"""Bytes of a datagram that may be signed once more."""


def check(data: bytes) -> None:
    data = data[:LARGEST]
    _read(data)
    message = repaired(data)
    _read(message)
    _read(fingerprinted(message))
    for sha256 in (False, True):
        protected = fingerprinted(signed(message, KEY, sha256=sha256))
        read = _read(protected)
        if read is not None:
            algorithm = Integrity.SHA256 if sha256 else Integrity.SHA1
            assert read.verify(KEY, algorithm)
            assert not read.verify(KEY + b"x", algorithm)
            assert read.has_fingerprint


def _read(data: bytes) -> Message | None:
    try:
        message = parse_message(data)
    except StunParseError:
        return None
    assert looks_like_stun(data)
    repr(message)
    for algorithm in Integrity:
        assert message.verify(KEY, algorithm) <= (algorithm in message.integrity)
    mapped_address(message)
    _look_at_text(message)
    _write_again(message)
    _serve(data)
    return message


def _look_at_text(message: Message) -> None:
    nonce, username = message.get(NONCE), message.get(USERNAME)
    if nonce is not None:
        security_features(nonce)
    if username is not None:
        try:
            opaque_string(username)
        except ValueError:
            return


def _write_again(message: Message) -> None:
    again = parse_message(message.to_bytes(key=KEY, algorithms=tuple(Integrity)))
    assert again.verify(KEY)
    assert again.verify(KEY, Integrity.SHA256)
    assert (again.method, again.message_class) == (message.method, message.message_class)
    assert again.transaction_id == message.transaction_id
    made = Message(message.method, message.message_class, message.transaction_id)
    for kind in ATTRIBUTES.values():
        value = message.get(kind)
        assert again.get(kind) == value
        if value is not None:
            _check_all(message, kind)
            try:
                made.add(kind, value)
            except ValueError:
                continue  # what is received may be longer than what may be sent
            encoded = kind.encode(value, message.transaction_id)
            decoded = kind.decode(encoded, message.transaction_id)
            # OpaqueString (RFC 8265 section 4.2) may make another text of it, but once only.
            assert kind.encode(decoded, message.transaction_id) == encoded
    parse_message(made.to_bytes())


def _check_all(message: Message, kind: AttributeType[object]) -> None:
    try:
        values = message.get_all(kind)
    except StunParseError:
        return
    assert values[0] == message.get(kind)


def _serve(data: bytes) -> None:
    server, other = (BindingServer(SERVER, ("198.51.100.2", 3479)) for _ in range(2))
    server.receive_datagram(data, CLIENT, SERVER, 0.0)
    answers = server.datagrams_to_send(0.0)
    # The short way of plain requests, and the full path
    other.answer_plain = lambda *_: None  # type: ignore[method-assign]
    other.receive_datagram(data, CLIENT, SERVER, 0.0)
    assert (other.datagrams_to_send(0.0), other.counters) == (answers, server.counters)
    assert len(answers) <= 1
    for answer in answers:
        assert answer.destination[0] == CLIENT[0]
        parse_message(answer.data)
