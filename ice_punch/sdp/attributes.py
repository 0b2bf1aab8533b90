"""The attributes of RFC 8839 section 5 and their companions, read at both levels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate
from ice_punch.sdp.candidate_line import (
    is_ip_or_mdns,
    parse_candidate,
    parse_component,
    parse_connection_address,
    parse_port,
)
from ice_punch.sdp.fingerprint import Fingerprint
from ice_punch.sdp.lines import MAX_CANDIDATES, TOKEN, Line

UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}", re.ASCII)
PWD = re.compile(r"[A-Za-z0-9+/]{22,256}", re.ASCII)
MAX_SENT_UFRAG = 32
"""Characters, RFC 8839 section 5.4."""
OPTION = re.compile(r"[A-Za-z0-9+/]+", re.ASCII)
TLS_ID = re.compile(r"[A-Za-z0-9+/\-_]{20,255}", re.ASCII)

# RFC 8839 section 5.6 has them apart by spaces; libdatachannel writes commas.
_OPTIONS = re.compile(rf"{OPTION.pattern}(?:[ ,]{OPTION.pattern})*", re.ASCII)
_BOTH_LEVELS = {
    "ice-ufrag": UFRAG,
    "ice-pwd": PWD,
    # A session-level attribute; some senders write it beside the others of the media level.
    "ice-pacing": re.compile(r"[0-9]{1,10}", re.ASCII),
    "setup": re.compile(r"actpass|active|passive|holdconn", re.ASCII | re.IGNORECASE),
}
_MEDIA_LEVEL = {
    "mid": TOKEN,
    "tls-id": TLS_ID,
    "sctp-port": re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII),
    "max-message-size": re.compile(r"[0-9]{1,18}", re.ASCII),
}


class Setup(StrEnum):
    """RFC 4145 section 4, as RFC 8842 section 5 uses it. ``HOLDCONN`` is only ever received."""

    ACTPASS = "actpass"
    ACTIVE = "active"
    PASSIVE = "passive"
    HOLDCONN = "holdconn"


@dataclass(frozen=True, slots=True)
class RemoteCandidate:
    """One entry of ``remote-candidates``, RFC 8839 section 5.2."""

    component: int
    host: str
    port: int


class Attributes:
    """What the attribute lines of a session level and of one media section say together.

    A value at the media level takes precedence (RFC 8839 section 5.4; RFC 8122 section 5 for the
    set of fingerprints); options of both levels hold (RFC 8839 section 5.6).

    Raises:
        InvalidDescription: A known attribute breaks its grammar or contradicts itself.
    """

    def __init__(self, session: Iterable[Line], section: Iterable[Line]) -> None:
        self.candidates: list[Candidate] = []
        self.ignored = 0
        self.options: list[str] = []
        self.remote_candidates: list[RemoteCandidate] = []
        self.lite = False
        self.ice_mismatch = False
        self.end_of_candidates = False
        self._values: dict[str, str] = {}
        self._fingerprints: list[Fingerprint | None] = []
        self._read_level(session, _BOTH_LEVELS, media=False)
        self._read_level(section, _BOTH_LEVELS | _MEDIA_LEVEL, media=True)

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def get_number(self, name: str) -> int | None:
        value = self._values.get(name)
        return None if value is None else int(value)

    def setup(self) -> Setup | None:
        value = self._values.get("setup")
        return None if value is None else Setup(value.lower())

    def credentials(self) -> tuple[str, str]:
        """The ufrag and the password.

        Raises:
            InvalidDescription: One is missing (RFC 8839 section 5.4).
        """
        ufrag, pwd = self.get("ice-ufrag"), self.get("ice-pwd")
        if ufrag is None or pwd is None:
            missing = "ice-ufrag" if ufrag is None else "ice-pwd"
            raise InvalidDescription(f"there is no {missing}")
        return ufrag, pwd

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """The fingerprints that can be verified, without repetitions.

        Raises:
            InvalidDescription: There are fingerprints, and none of them can. Taking that for a
                description without DTLS would let the peer go unverified.
        """
        usable = dict.fromkeys(f for f in self._fingerprints if f is not None)
        if self._fingerprints and not usable:
            raise InvalidDescription("no fingerprint has a hash function that is known and secure")
        return tuple(usable)

    def _read_level(
        self, lines: Iterable[Line], singles: dict[str, re.Pattern[str]], *, media: bool
    ) -> None:
        seen: dict[str, str] = {}
        fingerprints: list[Fingerprint | None] = []
        for line in lines:
            if line.type != "a":
                continue
            if line.name in singles:
                value = line.required(singles[line.name])
                if seen.setdefault(line.name, value) != value:
                    raise line.fail(f"{line.name} is there twice, with two values")
            elif line.name == "fingerprint":
                fingerprints.append(_parse_fingerprint(line))
            elif line.name == "candidate":
                self._read_candidate(line, media=media)
            elif line.name == "remote-candidates" and media:
                self.remote_candidates += _parse_remote_candidates(line)
            else:
                self._read_flag_or_options(line, media=media)
        self._values |= seen
        if fingerprints:
            self._fingerprints = fingerprints

    def _read_flag_or_options(self, line: Line, *, media: bool) -> None:
        match line.name:
            case "ice-options":
                for option in line.required(_OPTIONS).replace(",", " ").split(" "):
                    if option not in self.options:
                        self.options.append(option)
            case "ice-lite":
                self.lite = line.flag()
            case "end-of-candidates":
                self.end_of_candidates = line.flag()
            case "ice-mismatch" if media:
                self.ice_mismatch = line.flag()

    def _read_candidate(self, line: Line, *, media: bool) -> None:
        # RFC 8839 section 5.1: a media-level attribute only.
        if not media or len(self.candidates) >= MAX_CANDIDATES:
            self.ignored += 1
            return
        try:
            candidate = parse_candidate(line.value)
        except InvalidDescription as error:
            raise line.fail(str(error)) from None
        if candidate is None:
            self.ignored += 1
        else:
            self.candidates.append(candidate)


def check(pattern: re.Pattern[str], text: str, rule: str) -> None:
    """Raises: InvalidDescription: The text does not match. Only the rule is shown."""
    if pattern.fullmatch(text) is None:
        raise InvalidDescription(rule)


def format_remote_candidates(entries: Iterable[RemoteCandidate]) -> str:
    """The value of a ``remote-candidates`` attribute, RFC 8839 section 5.2."""
    return " ".join(
        f"{parse_component(str(entry.component))} "
        f"{parse_connection_address(entry.host)} {parse_port(str(entry.port))}"
        for entry in entries
    )


def _parse_fingerprint(line: Line) -> Fingerprint | None:
    try:
        return Fingerprint.parse(line.argument or "")
    except InvalidDescription as error:
        raise line.fail(str(error)) from None


def _parse_remote_candidates(line: Line) -> list[RemoteCandidate]:
    fields = (line.argument or "").split(" ")
    if len(fields) % 3 or len(fields) > 3 * MAX_CANDIDATES:
        raise line.fail("remote-candidates is not made of component, address and port")
    entries = []
    for component, address, port in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        try:
            entry = RemoteCandidate(
                parse_component(component), parse_connection_address(address), parse_port(port)
            )
        except InvalidDescription as error:
            raise line.fail(str(error)) from None
        if is_ip_or_mdns(entry.host):
            entries.append(entry)
    return entries
