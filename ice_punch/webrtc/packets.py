"""Which SCTP packets (RFC 9260 section 3) are fit to be parsed. Sans-IO."""

from __future__ import annotations

COMMON_HEADER = 12
CHUNK_HEADER = 4

_DATA, _INIT, _INIT_ACK, _SACK, _FORWARD_TSN = 0, 1, 2, 3, 192
_LEAST_LENGTH = {_DATA: 17, _INIT: 20, _INIT_ACK: 20, _SACK: 16, _FORWARD_TSN: 8}
"""Bytes of a chunk with its header; of DATA with at least one byte (section 3.3.1)."""
_BARE_SACK = bytes((_SACK, 0, 0, 16))
_PARAMETERS_AT = {_INIT: 20, _INIT_ACK: 20, 4: 4, 5: 4, 6: 4, 9: 4, 130: 4}
"""Where parameters or causes begin: heartbeats, ABORT, ERROR and RE-CONFIG have nothing else."""


def is_well_formed(packet: bytes) -> bool:
    """Whether all lengths in a packet add up: a parser that trusts them would run in circles."""
    at, end = COMMON_HEADER, len(packet)
    if end < COMMON_HEADER + CHUNK_HEADER or end % 4:
        return False
    while at < end:
        if at + CHUNK_HEADER > end:
            return False
        type_, length = packet[at], int.from_bytes(packet[at + 2 : at + 4], "big")
        if length < _LEAST_LENGTH.get(type_, CHUNK_HEADER) or at + length > end:
            return False
        if type_ in (_INIT, _INIT_ACK) and (at != COMMON_HEADER or at + _padded(length) != end):
            return False  # section 6.10: these two stand alone
        begin = _PARAMETERS_AT.get(type_)
        if begin is not None and not _parameters_add_up(packet, at + begin, at + length):
            return False
        at += _padded(length)
    return True


def acknowledges_alone(packet: bytes) -> bool:
    """Whether there is one SACK in a packet and nothing else, and no gap or duplicate in it."""
    return (
        len(packet) == COMMON_HEADER + 16 and packet[12:16] == _BARE_SACK and not any(packet[24:])
    )


def _parameters_add_up(packet: bytes, at: int, end: int) -> bool:
    while at + CHUNK_HEADER <= end:
        length = int.from_bytes(packet[at + 2 : at + 4], "big")
        if length < CHUNK_HEADER or at + length > end:
            return False
        at += _padded(length)
    return True


def _padded(length: int) -> int:
    return length + -length % 4
