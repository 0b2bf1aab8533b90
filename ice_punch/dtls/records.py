"""DTLS records as they stand in datagrams (RFC 6347 section 4.1, RFC 9147 section 4).

OpenSSL reads and writes memory, which has no datagram boundaries: this is where they are made
and kept. Nothing here is trusted for security; OpenSSL authenticates every record itself.
"""

from __future__ import annotations

from collections.abc import Iterable

HEADER_SIZE = 13
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23

# RFC 6347 section 4.1 and RFC 5246 section 6.2.3; OpenSSL has room for this much
_MAX_LENGTH = (1 << 14) + 256
# RFC 9147 section 4.1: content types of plaintext records; 26 is ACK
_PLAINTEXT_TYPES = frozenset((20, 21, 22, 23, 24, 25, 26))
# RFC 6347 section 4.1; DTLS 1.0's number stands on the first ClientHello, RFC 9147 keeps 1.2's
_VERSIONS = (b"\xfe\xfd", b"\xfe\xff")


def split_records(data: bytes) -> tuple[list[bytes], bool]:
    """The whole records at the front of ``data``, and whether all of it was records.

    RFC 6347 section 4.1.1: several records may share a datagram, none spans two.
    """
    records: list[bytes] = []
    start, size = 0, len(data)
    while start < size:
        end = _end_of_record(data, start)
        if end is None or end > size:
            return records, False
        records.append(data[start:end])
        start = end
    return records, bool(records)


def _end_of_record(data: bytes, start: int) -> int | None:
    first = data[start]
    if first in _PLAINTEXT_TYPES:
        if len(data) < start + HEADER_SIZE or data[start + 1 : start + 3] not in _VERSIONS:
            return None
        length = int.from_bytes(data[start + 11 : start + 13])
        return start + HEADER_SIZE + length if length <= _MAX_LENGTH else None
    # RFC 9147 section 4: the unified header, 001CSLEE; we never agree on a connection id
    if first & 0xF0 == 0x20:
        length_at = start + (3 if first & 0x08 else 2)
        if not first & 0x04:
            return len(data)
        return length_at + 2 + int.from_bytes(data[length_at : length_at + 2])
    return None


def epoch(record: bytes) -> int:
    """The epoch; a unified header tells its two low bits only, and is never of epoch 0."""
    if record[0] in _PLAINTEXT_TYPES:
        return int.from_bytes(record[3:5])
    return record[0] & 0x03 or 4


def is_cut_short(record: bytes, expansion: int) -> bool:
    """Whether a protected record is smaller than ``expansion``, what its cipher adds to content."""
    is_protected = record[0] in _PLAINTEXT_TYPES and epoch(record) > 0
    return is_protected and len(record) < HEADER_SIZE + expansion


def renumbered(record: bytes, sequence_number: int) -> bytes:
    """An unprotected record under another sequence number, which nothing authenticates."""
    return record[:5] + sequence_number.to_bytes(6) + record[11:]


def handshake_type(record: bytes) -> int | None:
    """The message type of an unprotected handshake record, else None."""
    if record[0] != HANDSHAKE or epoch(record) != 0 or len(record) <= HEADER_SIZE:
        return None
    return record[HEADER_SIZE]


def max_fragment_length(record: bytes) -> int:
    """Bytes that a ClientHello wants records to have in them at most (RFC 6066 section 4): OpenSSL
    keeps to it, and does not tell."""
    for code, length in ((1, 512), (2, 1024), (3, 2048), (4, 4096)):
        # By its type and its length, with its one byte: that may be there by chance, once in 10^9.
        if bytes((0, 1, 0, 1, code)) in record:
            return length
    return _MAX_LENGTH


def pack(records: Iterable[bytes], mtu: int) -> list[bytes]:
    """Records in their order as few datagrams of at most ``mtu`` bytes.

    A record larger than ``mtu`` stands alone, and so does every record of application data.
    """
    datagrams: list[bytes] = []
    joinable = False
    for record in records:
        application = record[0] == APPLICATION_DATA
        if joinable and not application and len(datagrams[-1]) + len(record) <= mtu:
            datagrams[-1] += record
        else:
            datagrams.append(record)
            joinable = not application
    return datagrams


def plain_alert(datagram: bytes) -> int | None:
    """The description of the unprotected alert that ends a datagram, else None."""
    record = split_records(datagram)[0][-1]
    if record[0] == ALERT and epoch(record) == 0 and len(record) == HEADER_SIZE + 2:
        return record[-1]
    return None


def with_alert(datagram: bytes, description: int) -> bytes:
    """The same datagram with another description in the unprotected alert that ends it, if any."""
    if plain_alert(datagram) is None:
        return datagram
    return datagram[:-1] + bytes((description,))
