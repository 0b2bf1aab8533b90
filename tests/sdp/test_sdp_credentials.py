"""Random credentials: RFC 8839 section 5.4, RFC 8842 section 4."""

from __future__ import annotations

import random
import re

from ice_punch.sdp import Description, make_pwd, make_tls_id, make_ufrag


class CountingRandom(random.Random):
    bits = 0

    def randbytes(self, n: int) -> bytes:
        self.bits += 8 * n
        return super().randbytes(n)


def test_rfc8839_5_4_the_ufrag_has_24_random_bits_and_at_most_32_characters() -> None:
    source = CountingRandom(1)
    assert re.fullmatch(r"[A-Za-z0-9+/]{8}", make_ufrag(source))
    assert source.bits == 48


def test_rfc8839_5_4_the_password_has_128_random_bits() -> None:
    source = CountingRandom(1)
    assert re.fullmatch(r"[A-Za-z0-9+/]{24}", make_pwd(source))
    assert source.bits == 144


def test_rfc8842_4_the_tls_id_has_120_random_bits_and_its_grammar() -> None:
    source = CountingRandom(1)
    tls_id = make_tls_id(source)
    assert re.fullmatch(r"[A-Za-z0-9+/\-_]{20,255}", tls_id)
    assert source.bits == 144


def test_rfc8839_5_4_credentials_differ_from_call_to_call() -> None:
    source = random.Random(1)
    for make in (make_ufrag, make_pwd, make_tls_id):
        assert len({make(source) for _ in range(100)}) == 100


def test_credentials_are_a_function_of_the_random_source_and_fit_a_description() -> None:
    source, again = random.Random(7), random.Random(7)
    description = Description(make_ufrag(source), make_pwd(source), tls_id=make_tls_id(source))
    assert (description.ufrag, description.pwd) == (make_ufrag(again), make_pwd(again))
