"""Fragments that carry trickled candidates: ``application/trickle-ice-sdpfrag``, RFC 8840."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate
from ice_punch.sdp.attributes import MAX_SENT_UFRAG, PWD, UFRAG, Attributes, check
from ice_punch.sdp.candidate_line import format_candidate
from ice_punch.sdp.description import Description
from ice_punch.sdp.lines import MAX_CANDIDATES, TOKEN, Line, read_lines, split_sections

MEDIA_TYPE = "application/trickle-ice-sdpfrag"
"""RFC 8840 section 4.4."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """The candidates of one generation for one media section.

    Raises:
        InvalidDescription: A field breaks its grammar.
    """

    ufrag: str
    pwd: str = field(repr=False)
    mid: str | None = "0"
    """None when there is no pseudo ``m=`` section: the fragment speaks of the whole session."""
    candidates: tuple[Candidate, ...] = ()
    """All candidates of the generation so far, in the order they were first sent."""
    end_of_candidates: bool = False
    ignored: int = field(default=0, compare=False)
    """Candidate lines of a parsed fragment that were valid and left out."""

    def __post_init__(self) -> None:
        check(UFRAG, self.ufrag, "the ufrag is 4 to 256 ice-chars")
        check(PWD, self.pwd, "the password is 22 to 256 ice-chars")
        if self.mid is not None:
            check(TOKEN, self.mid, "the mid is a token")
        elif self.candidates:
            raise InvalidDescription("candidates belong to a mid")

    def belongs_to(self, description: Description) -> bool:
        """Whether this is a fragment of the description's generation.

        One of another generation must be discarded (RFC 8840 section 4.4).
        """
        same_pwd = hmac.compare_digest(self.pwd, description.pwd)
        return self.ufrag == description.ufrag and same_pwd

    def new_candidates(self, known: Iterable[Candidate]) -> tuple[Candidate, ...]:
        """The candidates that are not known yet, in their order (RFC 8840 section 4.4).

        Two candidates are the same when address, port, transport and component are.
        """
        seen = {_identity(candidate) for candidate in known}
        new = []
        for candidate in self.candidates:
            if _identity(candidate) not in seen:
                seen.add(_identity(candidate))
                new.append(candidate)
        return tuple(new)

    def to_sdp(self) -> str:
        """The fragment, its lines ending in CRLF.

        Ufrag and password stand where :meth:`Description.to_sdp` has them, at the media level
        (RFC 8840 section 4.4); a fragment without a media section has them at the session level.

        Raises:
            InvalidDescription: The ufrag has more than 32 characters (RFC 8839 section 5.4), there
                are more than 128 candidates, or one that :func:`format_candidate` refuses.
        """
        if len(self.ufrag) > MAX_SENT_UFRAG:
            raise InvalidDescription(f"a ufrag sent has at most {MAX_SENT_UFRAG} characters")
        if len(self.candidates) > MAX_CANDIDATES:
            raise InvalidDescription(f"a fragment has at most {MAX_CANDIDATES} candidates")
        lines = []
        if self.mid is not None:
            # RFC 8840 section 4.4: the content of a pseudo m= line that nobody reads.
            lines.append("m=audio 9 RTP/AVP 0")
        lines += [f"a=ice-ufrag:{self.ufrag}", f"a=ice-pwd:{self.pwd}"]
        if self.mid is not None:
            lines.append(f"a=mid:{self.mid}")
        lines += [f"a={format_candidate(candidate)}" for candidate in self.candidates]
        if self.end_of_candidates:
            lines.append("a=end-of-candidates")
        return "\r\n".join(lines) + "\r\n"

    @classmethod
    def parse(cls, text: str, *, mid: str | None = None) -> Fragment:
        """Read a fragment: the section with this ``mid``, or the first one without ``mid``.

        What pseudo ``m=`` lines say, and every attribute that is unknown, is ignored (RFC 8840
        sections 4.4 and 9.2). ``end-of-candidates`` at the session level holds for every section.

        Raises:
            InvalidDescription: A line breaks the grammar, or there is no ``ice-ufrag`` and
                ``ice-pwd``. The message names the line and what is wrong with it.
        """
        session, sections = split_sections(read_lines(text))
        section: list[Line] = []
        for candidate_section in sections:
            if mid is None or _mid_of(candidate_section) == mid:
                section = candidate_section
                break
        attributes = Attributes(session, section)
        ufrag, pwd = attributes.credentials()
        return cls(
            ufrag=ufrag,
            pwd=pwd,
            mid=(attributes.get("mid") or "0") if section else None,
            candidates=tuple(attributes.candidates),
            end_of_candidates=attributes.end_of_candidates,
            ignored=attributes.ignored,
        )


def _mid_of(section: Iterable[Line]) -> str | None:
    return next((line.argument for line in section if line.name == "mid"), None)


def _identity(candidate: Candidate) -> tuple[str, int, str, int]:
    return (candidate.host, candidate.port, candidate.transport, candidate.component)
