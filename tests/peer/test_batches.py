"""What is seen of many datagrams at once is what is seen of each."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.batches import may_hold_stun, size_of_each
from ice_punch.ice import resembles_stun
from ice_punch.net.udp import split
from ice_punch.stun import COOKIE

STUN = bytes.fromhex("00010000") + COOKIE + bytes(12)
NEARLY = (b"\x14" + STUN[1:], STUN[:7] + b"\x43" + STUN[8:], b"\x00\x00\x00\x00\x21" + bytes(15))


@pytest.mark.parametrize("at", range(64))
def test_one_stun_message_among_many_datagrams_is_seen(at: int) -> None:
    datagrams = [NEARLY[n % 3] for n in range(64)]
    datagrams[at] = STUN
    joined = b"".join(datagrams)
    assert may_hold_stun(joined, len(joined), 20)
    assert may_hold_stun(bytearray(joined) + b"left over", len(joined), 20)


def test_what_only_resembles_it_in_a_byte_or_two_is_data() -> None:
    joined = b"".join(NEARLY) * 20
    assert not may_hold_stun(joined, len(joined), 20)


def test_what_lies_behind_the_end_is_not_looked_at() -> None:
    joined = bytearray(b"x" * 60 + STUN)
    assert not may_hold_stun(joined, 60, 20)
    assert may_hold_stun(joined, 80, 20)


@given(st.integers(0, 2**32), st.integers(1, 24), st.integers(1, 200))
@settings(max_examples=300, deadline=None)
def test_no_stun_is_missed_in_any_cut(seed: int, size: int, end: int) -> None:
    rng = random.Random(seed)
    pieces = (STUN[:8], COOKIE, b"\x00", rng.randbytes(3))
    buffer = b"".join(rng.choice(pieces) for _ in range(200))
    if any(map(resembles_stun, split(memoryview(buffer), min(end, len(buffer)), size))):
        assert may_hold_stun(buffer, min(end, len(buffer)), size)


def test_a_size_for_all_is_told_of_bytes_objects_of_one_size_only() -> None:
    assert size_of_each([b"ab", b"cd", b"ef"]) == 2
    assert size_of_each((b"ab",)) == 2
    assert size_of_each([b"ab", b"c"]) == 0
    assert size_of_each([b"ab", bytearray(b"cd")]) == 0
    assert size_of_each([memoryview(b"abcd").cast("H"), b"ab"]) == 0
    assert size_of_each([]) == size_of_each([b"", b""]) == 0
