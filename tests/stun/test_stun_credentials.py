"""Keys, OpaqueString, USERHASH and the nonce cookie: RFC 8489 sections 9 and 14.4, RFC 8265."""

from __future__ import annotations

import hashlib

import pytest

from ice_punch.stun import (
    PasswordAlgorithm,
    SecurityFeature,
    long_term_key,
    make_nonce,
    opaque_string,
    security_features,
    short_term_key,
    userhash,
)


def test_rfc8489_9_1_1_the_short_term_key_is_the_password() -> None:
    assert short_term_key("VOkJxbRl1RmTxUk/WvJxBt") == b"VOkJxbRl1RmTxUk/WvJxBt"
    assert short_term_key("caf\u0065\u0301") == "caf\u00e9".encode()


def test_rfc8489_9_2_2_the_long_term_key_of_the_rfcs_example() -> None:
    assert long_term_key("user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"


def test_rfc8489_18_5_1_2_the_long_term_key_with_sha_256() -> None:
    key = long_term_key("user", "realm", "pass", PasswordAlgorithm.SHA256)
    assert key == hashlib.sha256(b"user:realm:pass").digest()


def test_rfc8489_9_2_2_quotes_and_trailing_nulls_are_no_part_of_the_key() -> None:
    plain = long_term_key("user", "realm", "pass")
    assert long_term_key('"user"\0', '"realm"\0\0', "pass\0") == plain
    assert long_term_key("user", "realm", '"pass"') != plain
    assert long_term_key('"', "realm", "pass") != plain


def test_rfc8489_14_4_1_userhash() -> None:
    assert userhash("user", "realm") == hashlib.sha256(b"user:realm").digest()
    assert userhash("cafe\u0301", "r") == hashlib.sha256("caf\u00e9:r".encode()).digest()
    assert len(userhash("user", "realm")) == 32


# OpaqueString


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("plain ASCII ~!", "plain ASCII ~!"),
        ("CaseStays", "CaseStays"),
        ("a\u00a0b\u2003c\u3000d", "a b c d"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u1e9b\u0323", "\u1e9b\u0323"),
        ("\u03c0\u00df\u5c40\uff21", "\u03c0\u00df\u5c40\uff21"),
        ("\u2168 \u00aa \u265a", "\u2168 \u00aa \u265a"),
        ("\U0001f510", "\U0001f510"),
        ("\u212b", "\u00c5"),
        (" ", " "),
        ("\uac00", "\uac00"),
    ],
)
def test_rfc8265_4_2_what_opaque_string_makes_of_a_text(text: str, prepared: str) -> None:
    assert opaque_string(text) == prepared
    assert opaque_string(prepared) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\tb",
        "\0",
        "x\x7f",
        "\x85",
        "\n",  # nothing, and controls
        "\u00ad",
        "\u200b",
        "\ufeff",
        "\u2060",
        "\u202e",
        "\ufe0f",
        "\U000e0041",  # invisible
        "\ud800",
        "\ue000",
        "\U000f0000",  # surrogates, private use
        "\uffff",
        "\ufdd0",
        "\u0378",
        "\U0010ffff",  # noncharacters, unassigned
        "\u2028",
        "\u2029",
        "\u0640",
        "\u302e",
        "\u1100",
        "\ua960",
        "\ud7b0",
    ],
)
def test_rfc8265_4_2_what_opaque_string_has_no_place_for(text: str) -> None:
    with pytest.raises(ValueError, match=r"empty|U\+"):
        opaque_string(text)
    for prepared in (
        short_term_key,
        lambda t: userhash("a", t),
        lambda t: long_term_key(t, "a", "b"),
    ):
        with pytest.raises(ValueError, match=r"empty|U\+"):
            prepared(text)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ("l\u00b7l", "a\u00b7l"),
        ("l\u00b7l", "l\u00b7"),
        ("\u0375\u03b1", "\u0375a"),
        ("\u05d0\u05f3", "a\u05f3"),
        ("\u05d0\u05f4", "\u05f4"),
        ("\u30ab\u30fb", "a\u30fb"),
        ("\u6f22\u30fb", "\u30fb\u30fb"),
        ("\u0660\u0661", "\u0660\u06f1"),
        ("\u06f0\u06f1", "\u06f0\u0661"),
        ("\u0915\u094d\u200d\u0937", "a\u200db"),
        ("\u0915\u094d\u200c\u0937", "\u200c"),
    ],
)
def test_rfc5892_appendix_a_characters_that_depend_on_their_neighbours(
    allowed: str, refused: str
) -> None:
    assert opaque_string(allowed) == allowed
    with pytest.raises(ValueError, match=r"U\+"):
        opaque_string(refused)


def test_the_error_tells_the_character_and_not_the_password() -> None:
    with pytest.raises(ValueError, match=r"U\+0007") as caught:
        short_term_key("hunter2\7")
    assert "hunter2" not in str(caught.value)


# The nonce cookie


@pytest.mark.parametrize(
    ("features", "cookie"),
    [
        (SecurityFeature(0), "obMatJos2AAAA"),
        (SecurityFeature.PASSWORD_ALGORITHMS, "obMatJos2gAAA"),
        (SecurityFeature.USERNAME_ANONYMITY, "obMatJos2QAAA"),
        (
            SecurityFeature.PASSWORD_ALGORITHMS | SecurityFeature.USERNAME_ANONYMITY,
            "obMatJos2wAAA",
        ),
    ],
)
def test_rfc8489_9_2_1_the_nonce_cookie_tells_the_features_bit_0_leftmost(
    features: SecurityFeature, cookie: str
) -> None:
    assert make_nonce(features, "f//499k") == cookie + "f//499k"
    assert security_features(cookie + "f//499k") == features
    assert security_features(cookie) == features


def test_rfc8489_18_1_unassigned_features_are_kept() -> None:
    features = security_features("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")
    assert features == SecurityFeature(2)
    assert features is not None
    assert SecurityFeature.PASSWORD_ALGORITHMS not in features


@pytest.mark.parametrize(
    "nonce",
    [
        "",
        "f//499k",
        "obMatJos",
        "obMatJos2",
        "obMatJos2AAA",
        "obMatJos2AA=A",
        "obMatJos2A!AA",
        "obMatJos1AAAA",
        "xobMatJos2AAAA",
        "obMatJos2AAA\u20ac",
        "obMatJos2AA==",
    ],
)
def test_rfc8489_9_2_1_a_nonce_without_a_whole_cookie_has_none(nonce: str) -> None:
    assert security_features(nonce) is None
