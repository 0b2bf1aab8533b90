"""Candidate lines, RFC 8839 section 5.1, with the TCP types of RFC 6544 section 4.5."""

from __future__ import annotations

import ipaddress
import re

from ice_punch.datagram import Address
from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import MAX_PRIORITY, Candidate, CandidateType, is_usable_address
from ice_punch.sdp.lines import quoted

MAX_LINE = 2048
"""Characters of one candidate line."""
DISCARD_PORT = 9

_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+", re.ASCII)  # RFC 3261 section 25.1
_COMPONENT = re.compile(r"[0-9]{1,3}", re.ASCII)
_PRIORITY = re.compile(r"[0-9]{1,10}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,16}", re.ASCII)
_FQDN = re.compile(r"[A-Za-z0-9\-.]{4,255}", re.ASCII)
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?[0-9]+\.?", re.ASCII)
_MDNS_NAME = re.compile(r"[A-Za-z0-9\-]{1,63}\.local", re.ASCII | re.IGNORECASE)
_VCHARS = re.compile(r"[\x21-\x7e]*", re.ASCII)
_TCP_TYPES = frozenset({"active", "passive", "so"})
_TYPES = frozenset(CandidateType)


def parse_candidate(line: str) -> Candidate | None:
    """Read a candidate line: ``candidate:...``, with or without ``a=`` before it.

    Returns:
        None when the line is valid and must be ignored: a transport other than UDP and TCP, an
        unknown candidate type, a host name other than ``<label>.local``, or an address that no
        datagram can be sent to.

    Raises:
        InvalidDescription: The line breaks the grammar of RFC 8839 section 5.1.
    """
    line = line.removesuffix("\n").removesuffix("\r")
    if len(line) > MAX_LINE:
        raise InvalidDescription(f"a candidate line is longer than {MAX_LINE} characters")
    name, colon, rest = line.removeprefix("a=").partition(":")
    if not colon or name.lower() != "candidate":
        raise InvalidDescription(f"{quoted(line)} is not a candidate line")
    fields = rest.split(" ")
    if len(fields) < 8:
        raise InvalidDescription("a candidate line has at least 8 fields")
    foundation, component, transport, priority, host, port, typ, type_ = fields[:8]
    _match(_FOUNDATION, foundation, "foundation")
    component_id = parse_component(component)
    transport = _match(_TOKEN, transport, "transport").lower()
    priority_value = _parse_priority(priority)
    address = parse_connection_address(host)
    port_number = parse_port(port)
    if typ.lower() != "typ":
        raise InvalidDescription(f"{quoted(typ)} stands where 'typ' is expected")
    type_ = _match(_TOKEN, type_, "candidate type").lower()
    related_address, extensions = _parse_related_address(type_, fields[8:])
    tcptype = None
    if transport == "tcp":
        tcptype, extensions = _parse_tcptype(extensions)
        if tcptype is None:
            return None

    if transport not in ("udp", "tcp") or type_ not in _TYPES:
        return None
    if not is_reachable(address):
        return None
    if port_number == 0 and tcptype != "active":
        return None
    return Candidate(
        foundation=foundation,
        component=component_id,
        transport=transport,
        priority=priority_value,
        host=address,
        port=port_number,
        type=CandidateType(type_),
        related_address=related_address,
        tcptype=tcptype,
        extensions=tuple(extensions),
    )


def format_candidate(candidate: Candidate) -> str:
    """Write a candidate as ``candidate:...``, without ``a=``.

    A reflexive or relayed candidate without related address gets the hidden one of RFC 8839
    section 5.1; a host candidate never has one. An active TCP candidate has the discard port
    (RFC 6544 section 4.5).

    Raises:
        InvalidDescription: The candidate can not be written by that grammar.
    """
    host = parse_connection_address(candidate.host)
    if not is_ip_or_mdns(host):
        raise InvalidDescription(f"{quoted(host)} is neither an IP address nor an mDNS name")
    port = DISCARD_PORT if candidate.tcptype == "active" else candidate.port
    fields = [
        f"candidate:{_match(_FOUNDATION, candidate.foundation, 'foundation')}",
        str(parse_component(str(candidate.component))),
        _match(_TOKEN, candidate.transport, "transport"),
        str(_parse_priority(str(candidate.priority))),
        host,
        str(parse_port(str(port))),
        "typ",
        candidate.type,
    ]
    if candidate.type is not CandidateType.HOST:
        related = candidate.related_address
        if related is None:
            related = ("::" if candidate.ip_version == 6 else "0.0.0.0", DISCARD_PORT)  # noqa: S104
        fields += ["raddr", parse_connection_address(related[0])]
        fields += ["rport", str(parse_port(str(related[1])))]
    if candidate.transport == "tcp":
        if candidate.tcptype not in _TCP_TYPES:
            raise InvalidDescription("a TCP candidate has the tcptype active, passive or so")
        fields += ["tcptype", candidate.tcptype]
    for name, value in candidate.extensions:
        fields += [_extension_name(name), _match(_VCHARS, value, "extension value")]
    return " ".join(fields)


def parse_component(text: str) -> int:
    """Raises: InvalidDescription: The text is not a number from 1 to 256."""
    component = int(_match(_COMPONENT, text, "component"))
    if not 1 <= component <= 256:
        raise InvalidDescription(f"component {component} is not within 1 to 256")
    return component


def parse_connection_address(text: str) -> str:
    """A ``connection-address``: an IP address in canonical form, or a host name in lower case.

    Raises:
        InvalidDescription: The text is none of them.
    """
    if ":" in text:  # RFC 8839 section 5.1: the presence of a colon indicates IPv6
        try:
            # A zone means nothing to another host, and the grammar has none.
            return str(ipaddress.IPv6Address("" if "%" in text else text))
        except ValueError:
            raise InvalidDescription(f"{quoted(text)} is not an IPv6 address") from None
    if _ENDS_IN_NUMBER.fullmatch(text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise InvalidDescription(f"{quoted(text)} is not an IPv4 address") from None
    if not _FQDN.fullmatch(text):
        raise InvalidDescription(f"{quoted(text)} is neither an IP address nor a host name")
    return text.lower()


def parse_port(text: str) -> int:
    """Raises: InvalidDescription: The text is not a number from 0 to 65535."""
    port = int(_match(_PORT, text, "port"))
    if port > 65535:
        raise InvalidDescription(f"port {port} is not within 0 to 65535")
    return port


def is_ip_or_mdns(address: str) -> bool:
    """Whether a parsed connection address is one RFC 8839 section 5.1 lets us look at.

    Of the host names these are the ones of draft-ietf-mmusic-mdns-ice-candidates section 3.3:
    a single label before ``.local``.
    """
    if ":" in address or _ENDS_IN_NUMBER.fullmatch(address):
        return True
    return _MDNS_NAME.fullmatch(address) is not None


def is_reachable(address: str) -> bool:
    """Whether a datagram could be sent to a parsed connection address, once resolved."""
    if not is_ip_or_mdns(address):
        return False
    if address.endswith(".local"):
        return True
    return is_usable_address(address, loopback=True, link_local=True)


def _match(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise InvalidDescription(f"{quoted(text)} is not a {what}")
    return text


def _parse_priority(text: str) -> int:
    priority = int(_match(_PRIORITY, text, "priority"))
    if not 1 <= priority <= MAX_PRIORITY:
        raise InvalidDescription(f"priority {priority} is not within 1 to 2^31 - 1")
    return priority


def _parse_related_address(
    type_: str, fields: list[str]
) -> tuple[Address | None, list[tuple[str, str]]]:
    """The related address, and the name/value pairs after it."""
    host: str | None = None
    port: int | None = None
    if len(fields) >= 2 and fields[0].lower() == "raddr":
        host = parse_connection_address(fields[1])
        fields = fields[2:]
    if len(fields) >= 2 and fields[0].lower() == "rport":
        port = parse_port(fields[1])
        fields = fields[2:]
    if type_ == CandidateType.HOST and (host is not None or port is not None):
        # RFC 8839 section 5.1
        raise InvalidDescription("a host candidate has no raddr and no rport")
    if type_ in _TYPES and type_ != CandidateType.HOST and (host is None or port is None):
        # RFC 8839 section 5.1
        raise InvalidDescription(f"a {type_} candidate has raddr and rport")
    if len(fields) % 2:
        raise InvalidDescription(f"the extension {quoted(fields[-1])} has no value")
    pairs = zip(fields[::2], fields[1::2], strict=True)
    extensions = [
        (_extension_name(name), _match(_VCHARS, value, "extension value")) for name, value in pairs
    ]
    related = (host, port) if host is not None and port is not None else None
    return related, extensions


def _extension_name(name: str) -> str:
    if name.lower() in ("raddr", "rport"):
        raise InvalidDescription(f"{name} stands only once, right after the candidate type")
    return _match(_TOKEN, name, "extension name")


def _parse_tcptype(extensions: list[tuple[str, str]]) -> tuple[str | None, list[tuple[str, str]]]:
    """The TCP type, and the other extensions. RFC 6544 section 4.5 wants exactly one; a line
    without is grammatical all the same, and of no use."""
    values = [value.lower() for name, value in extensions if name.lower() == "tcptype"]
    if not values:
        return None, extensions
    if len(values) != 1 or values[0] not in _TCP_TYPES:
        raise InvalidDescription("a TCP candidate has one tcptype: active, passive or so")
    return values[0], [pair for pair in extensions if pair[0].lower() != "tcptype"]
