"""Certificate fingerprints: RFC 8122 section 5."""

from __future__ import annotations

import hashlib

import pytest

from ice_punch.errors import InvalidDescription
from ice_punch.sdp import Description, Fingerprint

# RFC 8842 section 7
SHA256 = (
    "12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD:B9:B1:3F:82:"
    "18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:4A:AD"
)
SHA1 = "4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB"
SIZES = {"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}


def described(*lines: str, session: str = "") -> str:
    media = "".join(f"a={line}\r\n" for line in lines)
    return (
        f"v=0\r\n{session}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
        f"a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n{media}"
    )


def test_rfc8842_7_examples_are_read_and_written_in_upper_case() -> None:
    fingerprint = Fingerprint.parse(f"SHA-256 {SHA256}")
    assert fingerprint is not None
    assert fingerprint.algorithm == "sha-256"
    assert fingerprint.value == bytes.fromhex(SHA256.replace(":", ""))
    assert fingerprint.to_sdp() == str(fingerprint) == f"sha-256 {SHA256}"


def test_rfc8122_5_hash_names_are_case_insensitive_and_so_are_digits_on_receipt() -> None:
    assert Fingerprint.parse(f"sHa-1 {SHA1.lower()}") == Fingerprint.parse(f"sha-1 {SHA1}")


@pytest.mark.parametrize(("algorithm", "size"), SIZES.items())
def test_rfc8122_5_the_length_is_the_one_of_the_hash(algorithm: str, size: int) -> None:
    good = ":".join(["0A"] * size)
    fingerprint = Fingerprint.parse(f"{algorithm} {good}")
    assert fingerprint is not None
    assert len(fingerprint.value) == size
    for bad in (good + ":0A", good[:-3], "0A"):
        with pytest.raises(InvalidDescription):
            Fingerprint.parse(f"{algorithm} {bad}")
    with pytest.raises(InvalidDescription):
        Fingerprint(algorithm, b"\n" * (size + 1))


@pytest.mark.parametrize(("algorithm", "size"), SIZES.items())
def test_rfc8122_5_a_fingerprint_is_the_hash_of_the_der_form(algorithm: str, size: int) -> None:
    fingerprint = Fingerprint.of(b"certificate", algorithm.upper())
    assert (fingerprint.algorithm, len(fingerprint.value)) == (algorithm, size)
    expected = hashlib.new(algorithm.replace("-", ""), b"certificate").digest()
    assert fingerprint.value == expected


@pytest.mark.parametrize("algorithm", ["md5", "MD5", "md2"])
def test_rfc8122_5_md5_and_md2_are_neither_made_nor_taken(algorithm: str) -> None:
    digest = ":".join(["0A"] * 16)
    assert Fingerprint.parse(f"{algorithm} {digest}") is None
    with pytest.raises(InvalidDescription):
        Fingerprint.of(b"certificate", algorithm)
    with pytest.raises(InvalidDescription):
        Fingerprint(algorithm.lower(), b"\n" * 16)
    # Alone it leaves nothing to verify the peer by; beside a better one it does no harm.
    with pytest.raises(InvalidDescription):
        Description.parse(described(f"fingerprint:{algorithm} {digest}"))
    text = described(f"fingerprint:{algorithm} {digest}", f"fingerprint:sha-256 {SHA256}")
    assert [f.algorithm for f in Description.parse(text).fingerprints] == ["sha-256"]


def test_rfc8122_5_unknown_hash_functions_are_ignored_beside_known_ones() -> None:
    assert Fingerprint.parse("sha3-256 0A:0B") is None
    text = described("fingerprint:sha3-256 0A:0B", f"fingerprint:sha-256 {SHA256}")
    assert len(Description.parse(text).fingerprints) == 1
    with pytest.raises(InvalidDescription):
        Description.parse(described("fingerprint:sha3-256 0A:0B"))
    with pytest.raises(InvalidDescription):
        Fingerprint("sha3-256", bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha-256",
        "sha-256 ",
        f"sha-256  {SHA256}",
        f" sha-256 {SHA256}",
        f"sha-256 {SHA256} ",
        f"sha-256 {SHA256}:",
        f"sha-256 {SHA256.replace(':', '')}",
        f"sha-256 {SHA256.replace(':', '-')}",
        f"sha-256 {SHA256.replace('D', 'G')}",
        f"sha 256 {SHA256}",
        "future 0",
        "future 0A0B",
    ],
)
def test_rfc8122_5_what_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidDescription):
        Fingerprint.parse(text)
    with pytest.raises(InvalidDescription, match="line 5"):
        Description.parse(described(f"fingerprint:{text}"))


def test_rfc8122_5_1_several_fingerprints_are_all_kept_once() -> None:
    text = described(
        f"fingerprint:sha-256 {SHA256}", f"fingerprint:sha-1 {SHA1}", f"fingerprint:SHA-1 {SHA1}"
    )
    assert [f.algorithm for f in Description.parse(text).fingerprints] == ["sha-256", "sha-1"]


def test_rfc8122_5_the_session_level_counts_only_where_the_media_level_is_silent() -> None:
    session = f"a=fingerprint:sha-1 {SHA1}\r\n"
    only_session = Description.parse(described(session=session))
    assert [f.algorithm for f in only_session.fingerprints] == ["sha-1"]
    both = Description.parse(described(f"fingerprint:sha-256 {SHA256}", session=session))
    assert [f.algorithm for f in both.fingerprints] == ["sha-256"]
