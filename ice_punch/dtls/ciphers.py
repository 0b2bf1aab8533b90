"""Which cipher suites, and which of them first."""

from __future__ import annotations

import re

_AES_128, _AES_256, _CHACHA = b"AES128-GCM-SHA256", b"AES256-GCM-SHA384", b"CHACHA20-POLY1305"
_NAMES_1_3 = {
    _AES_128: b"TLS_AES_128_GCM_SHA256",
    _AES_256: b"TLS_AES_256_GCM_SHA384",
    _CHACHA: b"TLS_CHACHA20_POLY1305_SHA256",
}

# By the words that OpenSSL has for a processor: bits of which all must be set.
_X86_AES = 1 << 57 | 1 << 33
"""AES-NI and PCLMULQDQ, bits 25 and 1 of ECX in CPUID leaf 1, which is the upper half."""
_ARM_AES = 1 << 2 | 1 << 5
"""ARMV8_AES and ARMV8_PMULL."""
_POWER_AES = 1 << 2
"""PPC_CRYPTO207."""


def has_aes(cpu_info: str) -> bool:
    """Whether OpenSSL has AES-GCM in hardware, from its own ``CPUINFO`` line.

    Of a processor that it says nothing of, no.
    """
    for word, bits in (("ia32", _X86_AES), ("arm", _ARM_AES), ("ppc", _POWER_AES)):
        if found := re.search(rf"OPENSSL_{word}cap=0x([0-9a-fA-F]+)", cpu_info):
            return int(found[1], 16) & bits == bits
    if "OPENSSL_s390xcap=" in cpu_info:
        return True
    # RISC-V names its extensions: AES in the scalar or the vector unit.
    return "OPENSSL_riscvcap=" in cpu_info and bool(re.search(r"ZKNE|ZVKNED", cpu_info, re.I))


def _in_order(aes: bool) -> tuple[bytes, ...]:
    # AES in software is slow, and its tables leak through the cache.
    return (_AES_128, _AES_256, _CHACHA) if aes else (_CHACHA, _AES_128, _AES_256)


def suites(aes: bool) -> bytes:
    """OpenSSL's names for DTLS 1.2, the preferred first; ``aes`` is whether AES is in hardware.

    RFC 8122 section 7: no NULL ciphers; forward secrecy and AEAD only. RSA certificates are taken
    too: several DTLS servers have nothing else.
    """
    return b":".join(
        b"ECDHE-%s-%s" % (certificate, cipher)
        for cipher in _in_order(aes)
        for certificate in (b"ECDSA", b"RSA")
    )


def suites_1_3(aes: bool) -> bytes:
    """The same for DTLS 1.3 (RFC 9147)."""
    return b":".join(_NAMES_1_3[cipher] for cipher in _in_order(aes))
