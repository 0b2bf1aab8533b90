"""Keys and names of RFC 8489 section 9: OpaqueString, HMAC keys, USERHASH, the nonce cookie."""

from __future__ import annotations

import base64
import binascii
import hashlib
import unicodedata
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Final

from ice_punch.stun.integrity import KEYS_REMEMBERED


class PasswordAlgorithm(IntEnum):
    """RFC 8489 section 18.5."""

    MD5 = 1
    SHA256 = 2


class SecurityFeature(IntFlag):
    """The 24 bits of RFC 8489 section 18.1; bit 0 is the most significant one."""

    PASSWORD_ALGORITHMS = 1 << 23
    USERNAME_ANONYMITY = 1 << 22


NONCE_COOKIE_PREFIX: Final = "obMatJos2"
_COOKIE_LENGTH: Final = len(NONCE_COOKIE_PREFIX) + 4


def make_nonce(features: SecurityFeature, rest: str) -> str:
    """A NONCE that announces ``features``: the nonce cookie and then ``rest`` (section 9.2)."""
    encoded = base64.b64encode(int(features).to_bytes(3, "big")).decode()
    return NONCE_COOKIE_PREFIX + encoded + rest


def security_features(nonce: str) -> SecurityFeature | None:
    """The features a NONCE announces, or None when it has no nonce cookie (section 9.2)."""
    if not nonce.startswith(NONCE_COOKIE_PREFIX):
        return None
    encoded = nonce[len(NONCE_COOKIE_PREFIX) : _COOKIE_LENGTH]
    if len(encoded) != 4:
        return None
    try:
        octets = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return SecurityFeature(int.from_bytes(octets, "big")) if len(octets) == 3 else None


@lru_cache(maxsize=KEYS_REMEMBERED)
def short_term_key(password: str) -> bytes:
    """RFC 8489 section 9.1.1. Raises ValueError where ``opaque_string`` does."""
    return opaque_string(password).encode()


def long_term_key(
    username: str,
    realm: str,
    password: str,
    algorithm: PasswordAlgorithm = PasswordAlgorithm.MD5,
) -> bytes:
    """RFC 8489 sections 9.2.2 and 18.5.1: 16 bytes for MD5, 32 for SHA-256.

    Raises ValueError where ``opaque_string`` does.
    """
    text = ":".join(
        (
            opaque_string(_unquoted(username)),
            opaque_string(_unquoted(realm)),
            opaque_string(password.rstrip("\0")),
        )
    ).encode()
    if algorithm is PasswordAlgorithm.SHA256:
        return hashlib.sha256(text).digest()
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """The 32 bytes of USERHASH, RFC 8489 section 14.4. Raises ValueError as ``opaque_string``."""
    return hashlib.sha256(f"{opaque_string(username)}:{opaque_string(realm)}".encode()).digest()


def _unquoted(text: str) -> str:
    text = text.rstrip("\0")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def opaque_string(text: str) -> str:
    """The OpaqueString profile of RFC 8265 section 4.2: what user names and passwords become.

    Non-ASCII spaces become U+0020 and the text is normalized to NFC; case and width stay. Raises
    ValueError for an empty text and for code points that the FreeformClass of RFC 8264 section 4.3
    has no place for: controls, unassigned, private, invisible.
    """
    if text.isascii() and text.isprintable() and text:
        return text
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text)
    result = unicodedata.normalize("NFC", spaced)
    if not result:
        raise ValueError("an empty user name, realm or password")
    for index, character in enumerate(result):
        if not _is_freeform(result, index, character):
            raise ValueError(f"U+{ord(character):04X} can not be part of a user name or password")
    return result


# RFC 8264 section 9.6, which is RFC 5892 section 2.6
_EXCEPTIONS_VALID: Final = frozenset("\u00df\u03c2\u06fd\u06fe\u0f0b\u3007")
_EXCEPTIONS_DISALLOWED: Final = frozenset(
    "\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b"
)

# RFC 8264 section 9.13: Default_Ignorable_Code_Point of Unicode, which unicodedata lacks
_DEFAULT_IGNORABLE: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)

# RFC 8264 section 9.9: conjoining Hangul
_OLD_HANGUL_JAMO: Final = ((0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7FB))

_ARABIC_INDIC: Final = frozenset(map(chr, range(0x0660, 0x066A)))
_EXTENDED_ARABIC_INDIC: Final = frozenset(map(chr, range(0x06F0, 0x06FA)))


def _is_freeform(text: str, index: int, character: str) -> bool:
    """The derivation of RFC 8264 section 8, as far as the FreeformClass goes."""
    if character in _EXCEPTIONS_VALID:
        return True
    if character in _EXCEPTIONS_DISALLOWED:
        return False
    contextual = _contextual_rule(text, index, character)
    if contextual is not None:
        return contextual
    code = ord(character)
    if _within(code, _OLD_HANGUL_JAMO) or _within(code, _DEFAULT_IGNORABLE):
        return False
    # Letters, marks, numbers, punctuation, symbols, spaces. Not: Cc, Cf, Cs, Co, Cn (which holds
    # the noncharacters), Zl, Zp
    category = unicodedata.category(character)
    return category[0] in "LMNPS" or category == "Zs"


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _contextual_rule(text: str, index: int, character: str) -> bool | None:
    """RFC 5892 appendix A; None for a character without such a rule.

    Of appendix A.1 the virama rule alone is here: joining types are not in unicodedata.
    """
    before = text[index - 1] if index else ""
    after = text[index + 1 : index + 2]
    if character in "\u200c\u200d":
        return before != "" and unicodedata.combining(before) == 9
    if character == "\u00b7":
        return before == "l" and after == "l"
    if character == "\u0375":
        return _script(after) == "GREEK"
    if character in "\u05f3\u05f4":
        return _script(before) == "HEBREW"
    if character == "\u30fb":
        return any(_script(c) in ("HIRAGANA", "KATAKANA", "CJK") for c in text if c != character)
    if character in _ARABIC_INDIC:
        return not _EXTENDED_ARABIC_INDIC.intersection(text)
    if character in _EXTENDED_ARABIC_INDIC:
        return not _ARABIC_INDIC.intersection(text)
    return None


def _script(character: str) -> str:
    """The first word of the character's name, which for letters is the script."""
    return unicodedata.name(character, "").partition(" ")[0] if character else ""
