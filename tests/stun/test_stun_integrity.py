"""The HMACs are those of RFC 2104, whatever the key, and remembering keys changes nothing."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.stun import Integrity
from ice_punch.stun import integrity as module
from ice_punch.stun.integrity import KEYS_REMEMBERED, authentication_code

HASHES = {Integrity.SHA1: hashlib.sha1, Integrity.SHA256: hashlib.sha256}


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=300), st.sampled_from(Integrity))
def test_rfc2104_any_key_and_any_data(key: bytes, data: bytes, algorithm: Integrity) -> None:
    expected = hmac.digest(key, data, HASHES[algorithm])
    for _ in range(2):  # the second time with what is remembered of the key
        assert authentication_code(key, algorithm, data) == expected


@pytest.mark.parametrize("algorithm", Integrity)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128])
def test_rfc2104_2_a_key_longer_than_a_block_is_hashed_first(
    size: int, algorithm: Integrity
) -> None:
    key = bytes(range(size))
    assert authentication_code(key, algorithm, b"x") == hmac.digest(key, b"x", HASHES[algorithm])


def test_a_key_is_not_taken_for_another() -> None:
    """Zeros at the end of a short key mean nothing to an HMAC; they are remembered apart all the
    same, and one algorithm's state is not the other's."""
    assert authentication_code(b"k", Integrity.SHA1, b"x") == authentication_code(
        b"k\0", Integrity.SHA1, b"x"
    )
    assert len(authentication_code(b"k", Integrity.SHA256, b"x")) == 32
    assert len(authentication_code(b"k", Integrity.SHA1, b"x")) == 20


@pytest.mark.parametrize("algorithm", Integrity)
def test_keys_are_remembered_up_to_a_bound(algorithm: Integrity) -> None:
    states = module._sha1_states if algorithm is Integrity.SHA1 else module._sha256_states
    for number in range(2 * KEYS_REMEMBERED):
        key = b"key %d" % number
        expected = hmac.digest(key, b"data", HASHES[algorithm])
        assert authentication_code(key, algorithm, b"data") == expected
    assert len(states) == KEYS_REMEMBERED
    first = hmac.digest(b"key 0", b"data", HASHES[algorithm])
    assert authentication_code(b"key 0", algorithm, b"data") == first
