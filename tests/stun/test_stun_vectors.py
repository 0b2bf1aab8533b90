"""The published test vectors: RFC 5769 section 2, and RFC 8489 appendix B.1."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from stun_wire import attribute

from ice_punch.stun import (
    ICE_CONTROLLED,
    NONCE,
    PASSWORD_ALGORITHM,
    PRIORITY,
    REALM,
    SOFTWARE,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    AlgorithmParameters,
    AttributeType,
    Integrity,
    Message,
    MessageClass,
    Method,
    PasswordAlgorithm,
    StunParseError,
    long_term_key,
    parse_message,
    short_term_key,
    userhash,
)

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
KEY = short_term_key("VOkJxbRl1RmTxUk/WvJxBt")
LONG_TERM_ID = bytes.fromhex("78ad3433c6ad72c029da412e")
MATRIX = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"

REQUEST = bytes.fromhex(
    "00010058 2112a442 b7e7a701bc34d686fa87dfae"
    "80220010 5354554e207465737420636c69656e74"
    "00240004 6e0001ff"
    "80290008 932ff9b151263b36"
    "00060009 6576746a3a68367659202020"
    "00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004 e57a3bcf"
)
IPV4_RESPONSE = bytes.fromhex(
    "0101003c 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f7220"
    "00200008 0001a147e112a643"
    "00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004 c07d4c96"
)
IPV6_RESPONSE = bytes.fromhex(
    "01010048 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f7220"
    "00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014 a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004 c8fb0b4c"
)
LONG_TERM_REQUEST = bytes.fromhex(
    "00010060 2112a442 78ad3433c6ad72c029da412e"
    "00060012 e3839ee38388e383aae38383e382afe382b90000"
    "0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341"
    "0014000b 6578616d706c652e6f726700"
    "00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"
)

# As printed, B.1 counts the header into its length (0x9c) and leaves out PASSWORD-ALGORITHM;
# erratum 6268 corrects the length, adds the attribute and computes the HMAC anew.
B1_ATTRIBUTES = (
    "001e0020 4a3cf38fef6992bda952c6780417da0f2481941556 9e60b205c46e41407f1704"
    "00150029 6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c394653"
    "54767936347341000000"
    "0014000b 6578616d706c652e6f726700"
)
B1_PRINTED = bytes.fromhex(
    "0001009c 2112a442 78ad3433c6ad72c029da412e" + B1_ATTRIBUTES + "001c0020"
    "e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01"
)
B1_CORRECTED = bytes.fromhex(
    "00010090 2112a442 78ad3433c6ad72c029da412e" + B1_ATTRIBUTES + "001d0004 00020000"
    "001c0020"
    "b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
)


def test_rfc5769_2_1_request() -> None:
    message = parse_message(REQUEST)
    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.REQUEST)
    assert message.transaction_id == ID
    assert message.get(SOFTWARE) == "STUN test client"
    assert message.get(PRIORITY) == 0x6E0001FF
    assert message.get(ICE_CONTROLLED) == 0x932FF9B151263B36
    assert message.get(USERNAME) == "evtj:h6vY"
    assert message.integrity == {Integrity.SHA1}
    assert message.has_fingerprint
    assert message.unknown_required == ()
    assert message.verify(KEY)
    assert not message.verify(short_term_key("VOkJxbRl1RmTxUk/WvJxBs"))
    assert not message.verify(KEY, Integrity.SHA256)


def test_rfc5769_2_2_ipv4_response() -> None:
    message = parse_message(IPV4_RESPONSE)
    assert message.message_class is MessageClass.SUCCESS
    assert message.get(SOFTWARE) == "test vector"
    assert message.get(XOR_MAPPED_ADDRESS) == ("192.0.2.1", 32853)
    assert message.verify(KEY)
    assert message.has_fingerprint


def test_rfc5769_2_3_ipv6_response() -> None:
    message = parse_message(IPV6_RESPONSE)
    assert message.get(XOR_MAPPED_ADDRESS) == ("2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert message.verify(KEY)
    assert message.has_fingerprint


def test_rfc5769_2_4_request_with_long_term_credentials() -> None:
    message = parse_message(LONG_TERM_REQUEST)
    assert message.get(USERNAME) == MATRIX
    assert message.get(NONCE) == "f//499k954d6OL34oL9FSTvy64sA"
    assert message.get(REALM) == "example.org"
    assert not message.has_fingerprint
    assert message.verify(long_term_key(MATRIX, "example.org", "TheMatrIX"))


@pytest.mark.parametrize(
    ("vector", "padding"), [(REQUEST, b"   "), (IPV4_RESPONSE, b" "), (IPV6_RESPONSE, b" ")]
)
def test_rfc5769_vectors_are_built_byte_for_byte_but_for_their_padding(
    vector: bytes, padding: bytes
) -> None:
    """The vectors pad with spaces, which RFC 8489 section 14 no longer lets us send: the HMAC and
    the CRC are those of the vector with zeros in that place."""
    parsed = parse_message(vector)
    built = Message(parsed.method, parsed.message_class, ID)
    kinds: list[AttributeType[Any]] = [SOFTWARE, PRIORITY, ICE_CONTROLLED, USERNAME]
    for kind in (*kinds, XOR_MAPPED_ADDRESS):
        value = parsed.get(kind)
        if value is not None:
            built.add(kind, value)
    data = built.to_bytes(key=KEY)
    text = parsed.get(USERNAME) or "test vector"
    type_ = 0x0006 if parsed.get(USERNAME) else 0x8022
    padded = attribute(type_, text.encode(), padding)
    zeroed = attribute(type_, text.encode())
    assert data[:-32] == vector.replace(padded, zeroed)[:-32]
    covered = data[:2] + (len(data) - 28).to_bytes(2, "big") + data[4:-32]
    assert data[-28:-8] == hmac.new(KEY, covered, hashlib.sha1).digest()


def test_rfc5769_2_4_is_built_byte_for_byte() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, LONG_TERM_ID)
    message.add(USERNAME, MATRIX)
    message.add(NONCE, "f//499k954d6OL34oL9FSTvy64sA")
    message.add(REALM, "example.org")
    key = long_term_key(MATRIX, "example.org", "TheMatrIX")
    assert message.to_bytes(key=key, fingerprint=False) == LONG_TERM_REQUEST


def test_rfc8489_b_1_as_printed_is_no_stun_message() -> None:
    with pytest.raises(StunParseError):
        parse_message(B1_PRINTED)


def test_rfc8489_b_1_corrected_by_erratum_6268() -> None:
    key = long_term_key(MATRIX, "example.org", "TheMatrIX", PasswordAlgorithm.SHA256)
    message = parse_message(B1_CORRECTED)
    assert message.get(USERHASH) == userhash(MATRIX, "example.org")
    assert message.get(NONCE) == "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"
    assert message.get(REALM) == "example.org"
    assert message.get(PASSWORD_ALGORITHM) == AlgorithmParameters(PasswordAlgorithm.SHA256)
    assert message.integrity == {Integrity.SHA256}
    assert message.verify(key, Integrity.SHA256)
    assert not message.verify(key[:-1], Integrity.SHA256)
    assert not message.verify(key)


def test_rfc8489_b_1_corrected_is_built_byte_for_byte() -> None:
    message = Message(Method.BINDING, MessageClass.REQUEST, LONG_TERM_ID)
    message.add(USERHASH, userhash(MATRIX, "example.org"))
    message.add(NONCE, "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")
    message.add(REALM, "example.org")
    message.add(PASSWORD_ALGORITHM, AlgorithmParameters(PasswordAlgorithm.SHA256))
    key = long_term_key(MATRIX, "example.org", "TheMatrIX", PasswordAlgorithm.SHA256)
    data = message.to_bytes(key=key, algorithms=(Integrity.SHA256,), fingerprint=False)
    assert data == B1_CORRECTED
