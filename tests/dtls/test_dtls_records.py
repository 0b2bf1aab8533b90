"""Datagrams and the records in them: RFC 6347 section 4.1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ice_punch.dtls import admission, records


def record(kind: int, body: bytes, epoch: int = 0, version: bytes = b"\xfe\xfd") -> bytes:
    return (
        bytes((kind,))
        + version
        + epoch.to_bytes(2)
        + (7).to_bytes(6)
        + len(body).to_bytes(2)
        + body
    )


def test_a_datagram_is_split_into_its_records() -> None:
    """RFC 6347 section 4.1.1."""
    first, second = record(22, b"hello"), record(20, b"\x01")
    assert records.split_records(first + second) == ([first, second], True)


def test_a_cut_or_foreign_tail_is_told_apart() -> None:
    """RFC 6347 section 4.1.1: no record spans two datagrams."""
    first = record(22, b"hello")
    for tail in (b"\x16", first[:-1], b"\x00" * 20, record(22, b"x", version=b"\x03\x03")):
        assert records.split_records(first + tail) == ([first], False)


def test_a_record_longer_than_the_standard_allows_is_malformed() -> None:
    """RFC 6347 section 4.1, RFC 5246 section 6.2.3."""
    assert records.split_records(record(23, bytes(20000)))[1] is False


def test_unified_headers_are_understood() -> None:
    """RFC 9147 section 4, for the day that OpenSSL speaks DTLS 1.3."""
    long = b"\x2e\x00\x01\x00\x05abcde"  # two bytes of sequence number, with a length
    short = b"\x22\x01rest"  # one byte, without
    assert records.split_records(long + short) == ([long, short], True)
    assert records.epoch(long) == records.epoch(short) == 2


def test_records_of_one_flight_share_datagrams_up_to_the_mtu() -> None:
    """RFC 6347 section 4.1.1, 4.2.3."""
    flight = [record(22, bytes(size)) for size in (87, 87, 87, 287, 10)]
    assert [len(d) for d in records.pack(flight, 300)] == [300, 300, 23]


def test_application_records_stand_alone() -> None:
    first, second = record(20, b"\x01"), record(23, b"secret", 1)
    assert records.pack([first, second, second, first], 1200) == [first, second, second, first]


@given(st.binary(max_size=200))
def test_any_bytes_split_without_an_exception(data: bytes) -> None:
    found, whole = records.split_records(data)
    assert data.startswith(b"".join(found))
    assert whole == (b"".join(found) == data and bool(found))
    for one in found:
        if records.epoch(one) == 0:
            admission.is_sane_plaintext(one)
        records.handshake_type(one)
        records.plain_alert(one)


@given(st.binary(max_size=100))
def test_impossible_fragments_are_recognised(body: bytes) -> None:
    """RFC 6347 section 4.2.2."""
    if admission.is_sane_plaintext(record(22, body)):
        assert int.from_bytes(body[6:9]) + int.from_bytes(body[9:12]) <= int.from_bytes(body[1:4])
