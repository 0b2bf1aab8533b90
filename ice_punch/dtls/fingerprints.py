"""Choosing and matching certificate fingerprints (RFC 8122 section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable

from ice_punch.sdp import Fingerprint

PREFERENCE = ("sha-512", "sha-384", "sha-256", "sha-224", "sha-1")
"""Textual names of hash functions, the strongest first."""


def preferred(fingerprints: Iterable[Fingerprint]) -> tuple[Fingerprint, ...]:
    """The fingerprints that use our most preferred hash of those offered.

    Empty when the peer offered none.
    """
    offered = tuple(fingerprints)
    for algorithm in PREFERENCE:
        if chosen := tuple(f for f in offered if f.algorithm == algorithm):
            return chosen
    return ()


def match(certificate_der: bytes, fingerprints: Iterable[Fingerprint]) -> Fingerprint | None:
    """The fingerprint of the preferred hash that the certificate matches, if one does.

    RFC 8122 section 5.1: one of that set suffices, since it may describe several certificates.
    """
    for fingerprint in preferred(fingerprints):
        if Fingerprint.of(certificate_der, fingerprint.algorithm) == fingerprint:
            return fingerprint
    return None
