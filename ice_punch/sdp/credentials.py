"""Random credentials and identifiers of a session."""

from __future__ import annotations

from base64 import b64encode

from ice_punch.datagram import RandomSource


def make_ufrag(random: RandomSource) -> str:
    """A user name fragment: 8 ice-chars, 48 random bits.

    RFC 8839 section 5.4 asks for 24 bits or more and 32 characters or fewer.
    """
    return _ice_chars(random, 6)


def make_pwd(random: RandomSource) -> str:
    """A password: 24 ice-chars, 144 random bits; RFC 8839 section 5.4 asks for 128 or more."""
    return _ice_chars(random, 18)


def make_tls_id(random: RandomSource) -> str:
    """A tls-id: 24 characters, 144 random bits; RFC 8842 section 4 asks for 120 or more."""
    return _ice_chars(random, 18)


def _ice_chars(random: RandomSource, octets: int) -> str:
    # The alphabet of base64 is exactly ice-char; a multiple of three octets needs no padding.
    return b64encode(random.randbytes(octets)).decode("ascii")
