"""STUN and TURN servers as people name them: the URIs of RFC 7064 and RFC 7065."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from ice_punch.errors import InvalidConfiguration
from ice_punch.stun import opaque_string

USERNAME_VARIABLE = "ICE_PUNCH_TURN_USERNAME"
PASSWORD_VARIABLE = "ICE_PUNCH_TURN_PASSWORD"  # noqa: S105
DEFAULT_PORT = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}
MAX_USERNAME = 508
"""Bytes, RFC 8489 section 14.3: less than 509."""

_SCHEME = re.compile(r"(stuns?|turns?):", re.IGNORECASE)
_TRANSPORT = re.compile(r"transport=([A-Za-z0-9._~-]+)", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server and how to reach it. The password shows neither in ``repr`` nor in ``str``."""

    scheme: str
    """``stun``, ``stuns``, ``turn`` or ``turns``; the ``s`` is TLS."""
    host: str
    """A host name or an IP address in canonical form, IPv6 without brackets."""
    port: int
    transport: str
    """``udp`` or ``tcp``, between us and the server."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    leaves_port_to_dns: bool = field(default=False, repr=False, compare=False)
    """Whether it was named by a host name alone: SRV records may tell other ports and hosts."""

    def __post_init__(self) -> None:
        """Raises InvalidConfiguration for what no server can be."""
        if self.scheme not in DEFAULT_PORT:
            raise InvalidConfiguration(f"{self.scheme!r} is none of stun, stuns, turn and turns")
        if self.transport not in ("udp", "tcp"):
            raise InvalidConfiguration(f"transport {self.transport!r} is neither udp nor tcp")
        if self.is_tls and self.transport != "tcp":
            raise InvalidConfiguration(
                f"{self.uri}: {self.scheme} runs over TLS and TCP; DTLS is not supported"
            )
        if not 1 <= self.port <= 65535:
            raise InvalidConfiguration(f"{self.host}: port {self.port} is not in 1 to 65535")
        _check_credentials(self.username, self.password)

    @classmethod
    def parse(cls, uri: str, username: str | None = None, password: str | None = None) -> IceServer:
        """Read a URI by RFC 7064 section 3.1 or RFC 7065 section 3.1.

        Credentials are for ``turn`` and ``turns`` and are left out of ``stun`` servers, so that
        one pair can be given for a whole list. Raises InvalidConfiguration, in one line that names
        what is wrong and does not repeat more of the URI than its scheme and host.
        """
        match = _SCHEME.match(uri)
        if match is None:
            shown = uri.partition(":")[0] if ":" in uri else uri
            raise InvalidConfiguration(
                f"{_short(shown)!r} does not start a STUN or TURN URI: expected stun:HOST[:PORT] "
                "or turn:HOST[:PORT][?transport=udp|tcp]"
            )
        scheme = match[1].lower()
        rest = uri[match.end() :]
        if rest.startswith("//"):
            raise InvalidConfiguration(
                f"{scheme}:// is not a {scheme.upper()} URI: leave the slashes out ({scheme}:HOST)"
            )
        authority, question, query = rest.partition("?")
        if "@" in authority:
            raise InvalidConfiguration(
                f"a {scheme} URI carries no credentials: set {USERNAME_VARIABLE} and "
                f"{PASSWORD_VARIABLE}, or pass them apart from the URI"
            )
        host, port = _split_host_port(authority, f"{scheme}:")
        transport = "tcp" if scheme in ("stuns", "turns") else "udp"
        if question:
            transport = _parse_query(scheme, query)
        if scheme == "stuns" and _is_ip(host):
            # RFC 8489 section 8.1: there is no name to hold the server's certificate against.
            raise InvalidConfiguration("a stuns URI names its server, an IP address is no name")
        relays = scheme in ("turn", "turns")
        return cls(
            scheme,
            host,
            DEFAULT_PORT[scheme] if port is None else port,
            transport,
            username if relays else None,
            password if relays else None,
            port is None and not _is_ip(host),
        )

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("stuns", "turns")

    @property
    def is_relay(self) -> bool:
        return self.scheme in ("turn", "turns")

    @property
    def uri(self) -> str:
        """The URI in its shortest form: what is default is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT.get(self.scheme) else f":{self.port}"
        default = "tcp" if self.is_tls else "udp"
        query = "" if self.transport == default else f"?transport={self.transport}"
        return f"{self.scheme}:{host}{port}{query}"

    def __str__(self) -> str:
        return self.uri

    def with_credentials(self, username: str | None, password: str | None) -> IceServer:
        """The same server with credentials; a ``stun`` server stays without."""
        if not self.is_relay:
            return self
        return replace(self, username=username, password=password)


def credentials_from_environment(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """User name and password for TURN from ``ICE_PUNCH_TURN_USERNAME`` and ``.._PASSWORD``.

    Raises InvalidConfiguration when only one of them is set. An empty variable counts as not set.
    """
    username = environ.get(USERNAME_VARIABLE) or None
    password = environ.get(PASSWORD_VARIABLE) or None
    if (username is None) != (password is None):
        missing = PASSWORD_VARIABLE if password is None else USERNAME_VARIABLE
        raise InvalidConfiguration(f"{missing} is not set: TURN needs a user name and a password")
    return username, password


def parse_server_argument(text: str) -> IceServer:
    """``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``, a bare IPv6 address, or a URI: a server to ask.

    Raises InvalidConfiguration.
    """
    text = text.strip()
    if _SCHEME.match(text) and not re.fullmatch(r"[A-Za-z]+:\d*", text):
        return IceServer.parse(text)
    if "@" in text or "://" in text:
        raise InvalidConfiguration("a server is named by HOST[:PORT] or a stun: URI, nothing else")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    host, port = _split_host_port(text, "")
    return IceServer(
        "stun",
        host,
        DEFAULT_PORT["stun"] if port is None else port,
        "udp",
        leaves_port_to_dns=port is None and not _is_ip(host),
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parse_query(scheme: str, query: str) -> str:
    if scheme in ("stun", "stuns"):
        # RFC 7064 section 3.1
        raise InvalidConfiguration(
            f"a {scheme} URI ends after the port: only turn takes ?transport="
        )
    match = _TRANSPORT.fullmatch(query)
    if match is None:
        raise InvalidConfiguration(
            f"{_short(query)!r}: only ?transport=udp or ?transport=tcp is known"
        )
    transport = match[1].lower()
    if transport not in ("udp", "tcp"):
        # RFC 7065 section 3.1 leaves room for others, none of which exists.
        raise InvalidConfiguration(f"transport {_short(match[1])!r} is neither udp nor tcp")
    return transport


def _split_host_port(authority: str, prefix: str) -> tuple[str, int | None]:
    """``host [ ":" port ]`` of RFC 3986 sections 3.2.2 and 3.2.3."""
    shown = _short(prefix + authority)
    if authority.startswith("["):
        literal, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidConfiguration(f"{shown!r}: expected [IPV6-ADDRESS] or [IPV6-ADDRESS]:PORT")
        try:
            ip = ipaddress.IPv6Address(literal)
        except ValueError:
            raise InvalidConfiguration(
                f"{shown!r}: what is in brackets is no IPv6 address"
            ) from None
        if ip.scope_id is not None:
            raise InvalidConfiguration(f"{shown!r}: an address with a zone can not name a server")
        host, port = str(ip), rest[1:]
    else:
        host, _, port = authority.partition(":")
        if ":" in port:
            raise InvalidConfiguration(f"{shown!r}: an IPv6 address goes in brackets")
        host = _host_name(host, shown)
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise InvalidConfiguration(f"{shown!r}: the port is not a number from 1 to 65535")
    return host, int(port)


def _host_name(host: str, shown: str) -> str:
    """An IPv4 address, or a name that DNS can have (RFC 1123 section 2.1; RFC 3986 allows more)."""
    if not host:
        raise InvalidConfiguration(f"{shown!r}: the host is missing")
    try:
        name = unquote(host, errors="strict").encode("idna").decode() if "%" in host else host
    except UnicodeError:
        name = ""
    labels = name.removesuffix(".").split(".")
    if re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise InvalidConfiguration(f"{shown!r}: that is no IPv4 address") from None
    if len(name) > 254 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidConfiguration(f"{shown!r}: that is no host name or IP address")
    return name.lower()


def _check_credentials(username: str | None, password: str | None) -> None:
    try:
        for value in (username, password):
            if value is not None:
                opaque_string(value)
    except ValueError:
        which = "user name" if value is username else "password"
        raise InvalidConfiguration(
            f"the TURN {which} is empty or has characters that RFC 8265 forbids"
        ) from None
    if username is not None and len(opaque_string(username).encode()) > MAX_USERNAME:
        raise InvalidConfiguration(f"the TURN user name is longer than {MAX_USERNAME} bytes")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
