"""Sealed payloads: opened by the same secret in the same place, and by nothing else."""

from __future__ import annotations

import random
from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from signaling_support import OTHER_ROOM, ROOM

from signaling.errors import SealBroken
from signaling.sealing import Sealer, sealed_size

SECRET = bytes(range(16))
PLACE = {"sender": "alice", "to": "bob", "link": "link-1", "generation": 0, "kind": "offer"}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens(text: str) -> None:
    sealed = Sealer(SECRET, ROOM).seal(text, **PLACE)
    assert Sealer(SECRET, ROOM).open(sealed, **PLACE) == text
    assert len(sealed) == sealed_size(len(text.encode()))
    assert text not in sealed or len(text) < 8


def test_the_form_is_the_documented_one() -> None:
    sealed = Sealer(SECRET, ROOM, random=random.Random(4)).seal("hello", **PLACE)
    data = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    key = HKDF(SHA256(), 32, b"icepunch.v1 seal", ROOM.encode()).derive(SECRET)
    fields = (b"alice", b"bob", b"link-1", b"0", b"offer")
    bound = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    assert data[:12] == random.Random(4).randbytes(12)
    assert AESGCM(key).decrypt(data[:12], data[12:], bound) == b"hello"


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "mallory"},
        {"to": "mallory"},
        {"link": "link-2"},
        {"generation": 1},
        {"kind": "answer"},
        {"sender": "bob", "to": "alice"},
        {"sender": "aliceb", "to": "ob"},
        {"link": "link-10", "generation": 0},
        {"link": "link-", "generation": 10},
    ],
)
def test_a_payload_moved_elsewhere_does_not_open(change: dict[str, object]) -> None:
    sealer = Sealer(SECRET, ROOM)
    sealed = sealer.seal("candidate", **PLACE)
    with pytest.raises(SealBroken):
        sealer.open(sealed, **(PLACE | change))


@pytest.mark.parametrize(
    "other", [Sealer(bytes(16), ROOM), Sealer(SECRET, OTHER_ROOM), Sealer(SECRET + b"\0", ROOM)]
)
def test_another_secret_or_room_does_not_open(other: Sealer) -> None:
    sealed = Sealer(SECRET, ROOM).seal("candidate", **PLACE)
    with pytest.raises(SealBroken, match="another secret"):
        other.open(sealed, **PLACE)


def test_every_altered_character_is_noticed() -> None:
    sealer = Sealer(SECRET, ROOM)
    sealed = sealer.seal("hello", **PLACE)
    for place in range(len(sealed)):
        altered = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(SealBroken):
            sealer.open(altered, **PLACE)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:length], **PLACE)


@given(st.text())
def test_any_other_text_is_a_broken_seal(text: str) -> None:
    with pytest.raises(SealBroken):
        Sealer(SECRET, ROOM).open(text, **PLACE)


def test_the_same_text_is_never_sealed_the_same_way_twice() -> None:
    sealer = Sealer(SECRET, ROOM)
    assert len({sealer.seal("x", **PLACE) for _ in range(100)}) == 100


def test_a_secret_in_the_links_text_form_is_the_same_secret() -> None:
    sealed = Sealer(SECRET, ROOM).seal("hello", **PLACE)
    assert Sealer("AAECAwQFBgcICQoLDA0ODw", ROOM).open(sealed, **PLACE) == "hello"


@pytest.mark.parametrize("secret", [b"too short", "AAECAwQFBgcICQoL", "not base64url at all!", ""])
def test_a_secret_needs_128_bits(secret: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"128 bits|base64"):
        Sealer(secret, ROOM)


def test_a_sealer_does_not_show_its_secret() -> None:
    assert repr(Sealer(SECRET, ROOM)) == "Sealer()"
