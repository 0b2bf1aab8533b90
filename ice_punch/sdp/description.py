"""Session descriptions of one data stream, RFC 8839, 8842 and 8841."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ice_punch.datagram import Address
from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.sdp.attributes import (
    MAX_SENT_UFRAG,
    OPTION,
    PWD,
    TLS_ID,
    UFRAG,
    Attributes,
    RemoteCandidate,
    Setup,
    check,
    format_remote_candidates,
)
from ice_punch.sdp.candidate_line import (
    DISCARD_PORT,
    format_candidate,
    is_ip_or_mdns,
    parse_connection_address,
    parse_port,
)
from ice_punch.sdp.fingerprint import Fingerprint
from ice_punch.sdp.lines import MAX_CANDIDATES, TOKEN, Line, quoted, read_lines, split_sections

MAX_SECTIONS = 64
DEFAULT_PACING = 50
"""Milliseconds that hold where ``ice-pacing`` is absent, RFC 8839 section 5.5."""

_PROTOCOL = re.compile(rf"{TOKEN.pattern}(?:/{TOKEN.pattern})*", re.ASCII)
_MEDIA = re.compile(
    rf"({TOKEN.pattern}) ([0-9]{{1,16}})(?:/[0-9]+)? ({_PROTOCOL.pattern})((?: {TOKEN.pattern})+)",
    re.ASCII,
)
_ORIGIN = re.compile(r"\S+ ([0-9]{1,20}) ([0-9]{1,20}) \S+ \S+ \S+", re.ASCII)

_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104
_DEFAULT_ORDER = (
    CandidateType.RELAY,
    CandidateType.SRFLX,
    CandidateType.PRFLX,
    CandidateType.HOST,
)


RENOMINATION = "renomination"
"""The ICE option of a side that lets another pair be nominated later
(draft-thatcher-ice-renomination)."""


@dataclass(frozen=True, slots=True)
class OtherMedia:
    """Another media section, which is not taken: as it is named when it is rejected."""

    media: str
    protocol: str
    formats: tuple[str, ...]
    mid: str | None = None

    def to_lines(self) -> list[str]:
        """Rejected: with port 0 (RFC 3264 section 6)."""
        lines = [
            f"m={self.media} 0 {self.protocol} {' '.join(self.formats)}",
            f"c=IN IP4 {_UNSPECIFIED[0]}",
        ]
        if self.mid is not None:
            lines.append(f"a=mid:{self.mid}")
        return [*lines, "a=inactive"]


@dataclass(frozen=True, slots=True)
class Description:
    """What one agent tells the other: how to reach it, and who it is.

    Raises:
        InvalidDescription: A field breaks its grammar.
    """

    ufrag: str
    pwd: str = field(repr=False)
    options: tuple[str, ...] = ("trickle", "ice2")
    pacing: int | None = None
    """Milliseconds."""
    lite: bool = False
    setup: Setup | None = None
    fingerprints: tuple[Fingerprint, ...] = ()
    tls_id: str | None = None
    mid: str = "0"
    candidates: tuple[Candidate, ...] = ()
    end_of_candidates: bool = False
    protocol: str = "UDP/DTLS/SCTP"
    formats: tuple[str, ...] = ("webrtc-datachannel",)
    media: str = "application"
    ice_mismatch: bool = False
    remote_candidates: tuple[RemoteCandidate, ...] = ()
    sctp_port: int | None = 5000
    """Mandatory with SCTP (RFC 8841 section 5.1), and None without it."""
    max_message_size: int | None = None
    """Bytes of an SCTP user message; 0 is without limit (RFC 8841 section 6)."""
    session_id: int = 0
    session_version: int = 0
    default_destination: Address | None = field(default=None, compare=False)
    """What ``c=`` and ``m=`` named in a description that was parsed; None where that is a name."""
    before: tuple[OtherMedia, ...] = field(default=(), compare=False)
    """The media sections before this one. An answer has every section of its offer."""
    after: tuple[OtherMedia, ...] = field(default=(), compare=False)
    bundle: bool = field(default=True, compare=False)
    """Whether the section is in a BUNDLE group; an answer has one if the offer has (RFC 8843
    section 7.3)."""
    ignored: int = field(default=0, compare=False)
    """Candidate lines of a parsed description that were valid and left out."""

    def __post_init__(self) -> None:
        absent = self.ice_mismatch and not self.ufrag and not self.pwd
        if not absent:
            check(UFRAG, self.ufrag, "the ufrag is 4 to 256 ice-chars")
            check(PWD, self.pwd, "the password is 22 to 256 ice-chars")
        for option in self.options:
            check(OPTION, option, "an ICE option is made of ice-chars")
        for format_ in self.formats:
            check(TOKEN, format_, "a format is a token")
        check(TOKEN, self.mid, "the mid is a token")
        check(TOKEN, self.media, "the media is a token")
        check(_PROTOCOL, self.protocol, "the protocol is tokens joined by '/'")
        if not self.formats:
            raise InvalidDescription("a media description has a format")
        if not self.protocol.upper().endswith("DTLS/SCTP"):
            object.__setattr__(self, "sctp_port", None)
        if self.tls_id is not None:
            check(TLS_ID, self.tls_id, "the tls-id is 20 to 255 of its characters")
        _check_number(self.pacing, 10**10 - 1, "ice-pacing")
        _check_number(self.sctp_port, 65535, "sctp-port")
        _check_number(self.max_message_size, 10**18 - 1, "max-message-size")
        _check_number(self.session_id, 10**20 - 1, "the session id")
        _check_number(self.session_version, 10**20 - 1, "the session version")

    @property
    def effective_pacing(self) -> int:
        """Milliseconds, RFC 8839 section 5.5."""
        return DEFAULT_PACING if self.pacing is None else self.pacing

    @property
    def is_mismatched(self) -> bool:
        """Whether the default destination is missing among the candidates (RFC 8839 section 4.2.5).

        An unspecified address with port 9 is no mismatch, nor is a name.
        """
        default = self.default_destination
        if default is None or (default[0] in _UNSPECIFIED and default[1] == DISCARD_PORT):
            return False
        transport = _transport(self.protocol)
        return not any(
            c.component == 1 and c.address == default and c.transport == transport
            for c in self.candidates
        )

    def in_place_of(self, remote: Description) -> Description:
        """This one as an answer to ``remote``, or as a later offer: with the same media sections in
        the same order, of which all others are rejected, the same mid, and bundled if that is."""
        return replace(
            self, mid=remote.mid, before=remote.before, after=remote.after, bundle=remote.bundle
        )

    def is_ice_restart(self, previous: Description) -> bool:
        """Whether this description restarts ICE: both ufrag and password differ.

        RFC 8839 section 4.4.1.1.1. The level they stand at does not count.
        """
        return self.ufrag != previous.ufrag and self.pwd != previous.pwd

    def changes_dtls_association(self, previous: Description) -> bool:
        """Whether the sender of both wants a new DTLS association (RFC 8842 section 4).

        Without tls-id a new role or set of fingerprints tells. The transport parameters, which
        would tell too, change with every restart of ICE and are not looked at. ``actpass`` is a
        question, not a role (RFC 8842 section 5.5).
        """
        if set(self.fingerprints) != set(previous.fingerprints):
            return True
        if self.tls_id is not None or previous.tls_id is not None:
            return self.tls_id != previous.tls_id
        roles = {self.setup, previous.setup} - {Setup.ACTPASS, None}
        return len(roles) > 1

    def to_sdp(self) -> str:
        """The whole description, its lines ending in CRLF.

        Raises:
            InvalidDescription: It holds what must not be sent: a ufrag of more than 32 characters
                (RFC 8839 section 5.4), ``holdconn`` (RFC 8842 section 5.1), candidates beside
                ``ice-mismatch`` (RFC 8839 section 4.2.5) or beyond 128, or one that
                :func:`format_candidate` refuses.
        """
        if len(self.ufrag) > MAX_SENT_UFRAG:
            raise InvalidDescription(f"a ufrag sent has at most {MAX_SENT_UFRAG} characters")
        if self.setup is Setup.HOLDCONN:
            raise InvalidDescription("holdconn is not for DTLS")
        if self.ice_mismatch and self.candidates:
            raise InvalidDescription("a description with ice-mismatch has no candidates")
        if len(self.candidates) > MAX_CANDIDATES:
            raise InvalidDescription(f"a description has at most {MAX_CANDIDATES} candidates")
        host, port = self._default_candidate()
        version = 6 if ":" in host else 4
        lines = [
            "v=0",
            f"o=- {self.session_id} {self.session_version} IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
        ]
        if self.bundle:
            lines.append(f"a=group:BUNDLE {self.mid}")
        if self.options:
            lines.append(f"a=ice-options:{' '.join(self.options)}")
        if self.lite:
            lines.append("a=ice-lite")
        elif self.pacing is not None:  # RFC 8839 section 4.3.1: a lite agent has no pacing
            lines.append(f"a=ice-pacing:{self.pacing}")
        for other in self.before:
            lines += other.to_lines()
        lines += [
            f"m={self.media} {port} {self.protocol} {' '.join(self.formats)}",
            f"c=IN IP{version} {host}",
            f"a=mid:{self.mid}",
        ]
        if self.ufrag:
            lines += [f"a=ice-ufrag:{self.ufrag}", f"a=ice-pwd:{self.pwd}"]
        lines += [f"a=fingerprint:{fingerprint.to_sdp()}" for fingerprint in self.fingerprints]
        if self.setup is not None:
            lines.append(f"a=setup:{self.setup}")
        if self.tls_id is not None:
            lines.append(f"a=tls-id:{self.tls_id}")
        if self.sctp_port is not None:
            lines.append(f"a=sctp-port:{self.sctp_port}")
        if self.max_message_size is not None:
            lines.append(f"a=max-message-size:{self.max_message_size}")
        if self.ice_mismatch:
            lines.append("a=ice-mismatch")
        lines += [f"a={format_candidate(candidate)}" for candidate in self.candidates]
        if self.remote_candidates:
            lines.append(f"a=remote-candidates:{format_remote_candidates(self.remote_candidates)}")
        if self.end_of_candidates:
            lines.append("a=end-of-candidates")
        for other in self.after:
            lines += other.to_lines()
        return "\r\n".join(lines) + "\r\n"

    @classmethod
    def parse(cls, text: str) -> Description:
        """Read a description: its first data channel, else its first media section that is not
        rejected, and the session level.

        Attributes that are unknown, or stand at a level they do not belong to, are ignored.

        Raises:
            InvalidDescription: The text breaks the grammar, or has no ``ice-ufrag`` and
                ``ice-pwd``. The message names the line and what is wrong with it.
        """
        lines = read_lines(text)
        if not lines or lines[0].type != "v" or lines[0].value != "0":
            raise InvalidDescription("a description begins with v=0")
        session, sections = split_sections(lines)
        if len(sections) > MAX_SECTIONS:
            raise InvalidDescription(f"a description has at most {MAX_SECTIONS} media sections")
        index, media = _choose(sections)
        section = sections[index]
        attributes = Attributes(session, section)
        # RFC 8839 section 4.2.5: a mismatch may be all that the sender has to say.
        absent = attributes.ice_mismatch and attributes.get("ice-ufrag") is None
        ufrag, pwd = ("", "") if absent else attributes.credentials()
        session_id, session_version = _parse_origin(session)
        return cls(
            ufrag=ufrag,
            pwd=pwd,
            options=tuple(attributes.options),
            pacing=attributes.get_number("ice-pacing"),
            lite=attributes.lite,
            setup=attributes.setup(),
            fingerprints=attributes.fingerprints(),
            tls_id=attributes.get("tls-id"),
            mid=attributes.get("mid") or "0",
            candidates=tuple(attributes.candidates),
            end_of_candidates=attributes.end_of_candidates,
            protocol=media.protocol,
            formats=media.formats,
            media=media.name,
            ice_mismatch=attributes.ice_mismatch,
            remote_candidates=tuple(attributes.remote_candidates),
            sctp_port=attributes.get_number("sctp-port"),
            max_message_size=attributes.get_number("max-message-size"),
            session_id=session_id,
            session_version=session_version,
            default_destination=_parse_default([*session, *section], media.port or DISCARD_PORT),
            before=tuple(map(_other, sections[:index])),
            after=tuple(map(_other, sections[index + 1 :])),
            bundle=_is_bundled(session, attributes.get("mid")),
            ignored=attributes.ignored,
        )

    def _default_candidate(self) -> Address:
        """RFC 8839 section 4.2.1.2: the candidate most likely to work for a peer without ICE."""
        transport = _transport(self.protocol)
        for type_ in _DEFAULT_ORDER:
            matching = [
                c
                for c in self.candidates
                if (c.type, c.transport, c.component) == (type_, transport, 1)
                and not (c.is_mdns or c.port == 0 or c.tcptype == "active")
            ]
            if matching:
                return max(matching, key=lambda c: c.priority).address
        return (_UNSPECIFIED[0], DISCARD_PORT)


def _check_number(number: int | None, maximum: int, what: str) -> None:
    if number is not None and not 0 <= number <= maximum:
        raise InvalidDescription(f"{what} is a number from 0 to {maximum}")


def _transport(protocol: str) -> str:
    return "tcp" if protocol.upper().startswith("TCP") else "udp"


@dataclass(frozen=True, slots=True)
class _Media:
    name: str
    port: int
    protocol: str
    formats: tuple[str, ...]

    @property
    def is_data_channel(self) -> bool:
        """RFC 8841 section 5."""
        return (
            self.name == "application"
            and self.protocol.upper().endswith("DTLS/SCTP")
            and "webrtc-datachannel" in map(str.lower, self.formats)
        )


def _choose(sections: Sequence[list[Line]]) -> tuple[int, _Media]:
    """The section to take, of those whose port is not 0: these are rejected (RFC 3264 section 6),
    unless they are ``bundle-only`` (RFC 8843 section 6)."""
    first: tuple[int, _Media] | None = None
    for index, section in enumerate(sections):
        if first is not None and not section[0].value.startswith("application "):
            continue
        media = _parse_media(section[0])
        if media.port == 0 and not _has(section, "bundle-only"):
            continue
        if media.is_data_channel:
            return index, media
        if first is None:
            first = index, media
    if first is None:
        raise InvalidDescription(
            "every m= section is rejected" if sections else "there is no m= line"
        )
    return first


def _has(section: Iterable[Line], attribute: str) -> bool:
    return any(line.type == "a" and line.value == attribute for line in section)


def _other(section: Sequence[Line]) -> OtherMedia:
    """Raises InvalidDescription for an ``m=`` line that breaks the grammar."""
    media = _parse_media(section[0])
    mids = [
        line.value.removeprefix("mid:")
        for line in section
        if line.type == "a" and line.value.startswith("mid:")
    ]
    mid = mids[0] if mids and TOKEN.fullmatch(mids[0]) else None
    return OtherMedia(media.name, media.protocol, media.formats, mid)


def _is_bundled(session: Iterable[Line], mid: str | None) -> bool:
    groups = (
        line.value.split(" ")
        for line in session
        if line.type == "a" and line.value.startswith("group:BUNDLE")
    )
    return any(mid in group[1:] for group in groups)


def _parse_media(line: Line) -> _Media:
    match = _MEDIA.fullmatch(line.value)
    if match is None:
        raise line.fail(f"{quoted(line.value)} is not media, port, protocol and formats")
    try:
        port = parse_port(match[2])
    except InvalidDescription as error:
        raise line.fail(str(error)) from None
    return _Media(match[1], port, match[3], tuple(match[4].split()))


def _parse_default(lines: Iterable[Line], port: int) -> Address | None:
    """The default destination; the ``c=`` line of the media level counts (RFC 4566 section 5.7)."""
    host = None
    for line in lines:
        if line.type != "c":
            continue
        fields = line.value.split(" ")
        if len(fields) != 3:
            raise line.fail("c= is not network type, address type and address")
        try:
            host = parse_connection_address(fields[2].partition("/")[0])
        except InvalidDescription as error:
            raise line.fail(str(error)) from None
    if host is None or not is_ip_or_mdns(host) or host.endswith(".local"):
        return None
    return (host, port)


def _parse_origin(session: Iterable[Line]) -> tuple[int, int]:
    for line in session:
        match = _ORIGIN.fullmatch(line.value) if line.type == "o" else None
        if match is not None:
            return int(match[1]), int(match[2])
    return 0, 0
