"""The few messages of Multicast DNS that names of candidates need, RFC 6762 section 18."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL: Final = 120
"""Seconds, of a record with a host's address (section 10)."""
MAX_SIZE: Final = 9000
"""Section 17."""
MAX_QUESTIONS: Final = 64
"""Of one message, that are looked at."""

_UNIQUE: Final = 0x8000
"""The top bit of a class: of a question, that the answer may be unicast (section 5.4); of a record,
that it is the only one of its name (section 10.2)."""
_ADDRESS_TYPES: Final = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.local", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    """In lower case, without the final dot."""
    unicast: bool


@dataclass(frozen=True, slots=True)
class Packet:
    id: int
    is_query: bool
    questions: tuple[Question, ...]
    """Those that ask for addresses."""
    addresses: tuple[tuple[str, str], ...]
    """Names and the IP addresses that they are said to have, of a response."""


def is_candidate_name(name: str) -> bool:
    """Draft section 3.2.1: one label before ``.local``."""
    return _NAME.fullmatch(name) is not None


def mentions(data: bytes, names: Iterable[str]) -> bool:
    """Whether a message can be about one of these names: a look that costs little, for whoever
    hears all that a network says. A name stands in full where it comes first."""
    lowered = data.lower()
    return any(name.partition(".")[0].encode() in lowered for name in names)


def parse(data: bytes) -> Packet | None:
    """None for what is no message, or none of ours."""
    if len(data) > MAX_SIZE:
        return None
    try:
        message = dns.message.from_wire(
            data, ignore_trailing=True, one_rr_per_rrset=True, continue_on_error=True
        )
    except (dns.exception.DNSException, ValueError, IndexError, KeyError, OverflowError):
        return None
    # Section 18.14: names in records are compressed, in NSEC of browsers too; DNS knows only some.
    if any(not isinstance(e.exception, dns.name.DecompressionForbidden) for e in message.errors):
        return None
    # Section 18: of any other kind it is to be ignored in silence.
    if message.opcode() != dns.opcode.QUERY or message.rcode() != 0:
        return None
    is_query = not message.flags & dns.flags.QR
    return Packet(
        id=message.id,
        is_query=is_query,
        questions=_questions(message) if is_query else (),
        addresses=() if is_query else _addresses(message),
    )


def query(name: str) -> bytes:
    """Section 5.2: for addresses of both families, to be answered by multicast."""
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(0)
    owner = dns.name.from_text(name)
    message.question = [
        dns.rrset.RRset(owner, dns.rdataclass.IN, kind) for kind in _ADDRESS_TYPES.values()
    ]
    return message.to_wire()


def response(name: str, ip: str, *, ttl: int = TTL) -> bytes:
    """An answer, an announcement (section 8.3), or with a TTL of 0 a goodbye (section 10.1)."""
    return _response(name, ip, ttl, id=0, unique=_UNIQUE)


def unicast_response(name: str, ip: str, id: int) -> bytes:
    """To one who asks like any resolver: its id again, a short TTL, no cache-flush bit (section
    6.7)."""
    return _response(name, ip, 10, id=id, unique=0)


def _response(name: str, ip: str, ttl: int, *, id: int, unique: int) -> bytes:
    message = dns.message.QueryMessage(id=id)
    message.flags = dns.flags.QR | dns.flags.AA
    address = ipaddress.ip_address(ip)
    rdclass = dns.rdataclass.RdataClass.make(dns.rdataclass.IN | unique)
    rdtype = _ADDRESS_TYPES[address.version]
    record = dns.rdata.GenericRdata(rdclass, rdtype, address.packed)
    answer = dns.rrset.RRset(dns.name.from_text(name), rdclass, rdtype)
    answer.add(record, ttl)
    message.answer = [answer]
    return message.to_wire()


def _questions(message: dns.message.Message) -> tuple[Question, ...]:
    asked: dict[Question, None] = {}
    for question in message.question[:MAX_QUESTIONS]:
        if question.rdclass & ~_UNIQUE not in (dns.rdataclass.IN, dns.rdataclass.ANY):
            continue
        if question.rdtype in (*_ADDRESS_TYPES.values(), dns.rdatatype.ANY):
            asked[Question(_text(question.name), bool(question.rdclass & _UNIQUE))] = None
    return tuple(asked)


def _addresses(message: dns.message.Message) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for record in (*message.answer, *message.additional):
        if record.rdtype not in _ADDRESS_TYPES.values() or record.ttl == 0:
            continue
        if record.rdclass & ~_UNIQUE != dns.rdataclass.IN:
            continue
        for data in record:
            packed = data.to_generic().data
            if len(packed) == (4 if record.rdtype == dns.rdatatype.A else 16):
                found[_text(record.name), str(ipaddress.ip_address(packed))] = None
    return tuple(found)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
