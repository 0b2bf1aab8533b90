"""The lines of a session description, RFC 4566 section 5, and the tokens they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ice_punch.errors import InvalidDescription

MAX_TEXT = 65536
"""Characters of a description or fragment. Longer ones are refused unread."""
MAX_CANDIDATES = 128
"""Candidates kept of one description or fragment. The rest is counted."""

TOKEN = re.compile(r"[!#$%&'*+\-.^_`{|}~A-Za-z0-9]+", re.ASCII)
"""RFC 4566 section 9."""
_LINE = re.compile(r"([a-z])=([^\x00\r]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """``type=value``; of an attribute also its name in lower case and what follows the colon."""

    number: int
    type: str
    value: str
    name: str = ""
    argument: str | None = None

    def fail(self, reason: str) -> InvalidDescription:
        return InvalidDescription(f"line {self.number}: {reason}")

    def required(self, pattern: re.Pattern[str]) -> str:
        """The argument, which must match.

        Raises:
            InvalidDescription: It does not. The argument is not shown: it may be a password.
        """
        if self.argument is None or pattern.fullmatch(self.argument) is None:
            raise self.fail(f"the value of {self.name} breaks its grammar")
        return self.argument

    def flag(self) -> bool:
        if self.argument is not None:
            raise self.fail(f"{self.name} takes no value")
        return True


def read_lines(text: str) -> list[Line]:
    """Split a text whose lines end in CRLF or bare LF (RFC 4566 section 5 allows both).

    Raises:
        InvalidDescription: The text is too long, or a line is not ``type=value``.
    """
    if len(text) > MAX_TEXT:
        raise InvalidDescription(f"the description is longer than {MAX_TEXT} characters")
    lines = []
    for number, raw in enumerate(text.split("\n"), 1):
        content = raw.removesuffix("\r")
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            # Not shown: it may be a mangled password.
            raise InvalidDescription(f"line {number}: not of the form type=value")
        if match[1] == "a":
            name, colon, argument = match[2].partition(":")
            # RFC 8840 section 9.2: attribute names are case-insensitive on receipt.
            lines.append(Line(number, "a", match[2], name.lower(), argument if colon else None))
        else:
            lines.append(Line(number, match[1], match[2]))
    return lines


def split_sections(lines: Iterable[Line]) -> tuple[list[Line], list[list[Line]]]:
    """The session-level lines, and the lines of each media section, its ``m=`` line first."""
    session: list[Line] = []
    sections: list[list[Line]] = []
    for line in lines:
        if line.type == "m":
            sections.append([line])
        elif sections:
            sections[-1].append(line)
        else:
            session.append(line)
    return session, sections


def quoted(text: str) -> str:
    """The text as an error message may show it: bounded, and without control characters."""
    escaped = ascii(text[:60])[1:-1]
    shown = escaped if len(text) <= 60 and len(escaped) <= 60 else f"{escaped[:57]}..."
    return f"'{shown}'"
