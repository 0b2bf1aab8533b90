"""What the pairs and servers of a report show."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ice_punch.report import PairReport, Report, ServerReport


def is_direct(pair: PairReport) -> bool:
    return "relay" not in (pair.local_type, pair.remote_type)


def heard_directly(report: Report) -> bool:
    return any(p.requests_received or p.responses_received for p in report.pairs if is_direct(p))


def neighbours(report: Report) -> bool:
    """Whether the two are likely on one local network: no server need be asked there."""
    return any(
        pair.local_type == pair.remote_type == "host"
        and _network(pair.local) == _network(pair.remote)
        for pair in report.pairs
    )


def _network(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    try:
        bits = 64 if ":" in host else 24
        return str(ipaddress.ip_network((host, bits), strict=False))
    except ValueError:
        return address


def over_udp(server: ServerReport) -> bool:
    if server.outcome == "unresolved" or not server.purpose:
        return False
    uri = server.uri
    return server.purpose == "address" or (uri.startswith("turn:") and "transport=tcp" not in uri)


def host_of(uri: str) -> str:
    """Of a URI of RFC 7064 or RFC 7065."""
    rest = uri.partition(":")[2].partition("?")[0]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]


def names_of(servers: Iterable[ServerReport]) -> str:
    """``stun:a``, ``stun:a and stun:b``, or the first two of many."""
    uris = list(dict.fromkeys(server.uri for server in servers))
    if len(uris) > 3:
        return f"{uris[0]}, {uris[1]} and {len(uris) - 2} others"
    return " and ".join(filter(None, [", ".join(uris[:-1]), uris[-1]]))
