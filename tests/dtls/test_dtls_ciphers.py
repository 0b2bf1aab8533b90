"""AES where the processor has it, ChaCha20 where one of the two has not."""

from __future__ import annotations

import pytest
from dtls_support import ALICE, BOB, Pair

from ice_punch.dtls import DtlsMachine, DtlsRole, HandshakeCompleted, ciphers, openssl

PROCESSORS = {
    "CPUINFO: OPENSSL_ia32cap=0xfffa3203078bffff:0x00405fc6f1bf07ab:0x10:0x0:0x0": True,
    "CPUINFO: OPENSSL_ia32cap=0xfed8320b078bffff:0x21cbfbb env:~0x0": True,
    "CPUINFO: OPENSSL_ia32cap=0x0098220b178bfbff:0x0000000000000000": False,
    # AES without carry-less multiplication makes no fast GCM
    "CPUINFO: OPENSSL_ia32cap=0xfffa3201078bffff:0x0": False,
    "CPUINFO: OPENSSL_armcap=0xbd": True,
    "CPUINFO: OPENSSL_armcap=0x1": False,
    "CPUINFO: OPENSSL_ppccap=0x2e": True,
    "CPUINFO: OPENSSL_s390xcap=stfle:0xfb6af847cf83ffff:kmac:0x0": True,
    "CPUINFO: OPENSSL_riscvcap=RV64GC_ZBA_ZKNE_ZKND vlen:0": True,
    "CPUINFO: OPENSSL_riscvcap=RV64GC_ZBA_ZBB vlen:0": False,
    "CPUINFO: N/A": False,
    "": False,
}


@pytest.mark.parametrize("line", PROCESSORS)
def test_openssl_s_own_words_tell_whether_there_is_aes(line: str) -> None:
    assert ciphers.has_aes(line) is PROCESSORS[line]


def test_the_order_follows_the_processor() -> None:
    """RFC 8122 section 7: forward secrecy and AEAD only, in either order the same ciphers."""
    with_aes, without = ciphers.suites(True).split(b":"), ciphers.suites(False).split(b":")
    assert with_aes[0] == b"ECDHE-ECDSA-AES128-GCM-SHA256"
    assert without[0] == b"ECDHE-ECDSA-CHACHA20-POLY1305"
    assert sorted(with_aes) == sorted(without)
    assert ciphers.suites_1_3(True).startswith(b"TLS_AES_128_GCM_SHA256:")
    assert ciphers.suites_1_3(False).startswith(b"TLS_CHACHA20_POLY1305_SHA256:")


@pytest.mark.parametrize("client_has_aes", [True, False])
@pytest.mark.parametrize("server_has_aes", [True, False])
def test_a_side_without_aes_gets_chacha20_whichever_it_is(
    monkeypatch: pytest.MonkeyPatch, client_has_aes: bool, server_has_aes: bool
) -> None:
    monkeypatch.setattr(openssl, "CIPHERS", ciphers.suites(client_has_aes))
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    monkeypatch.setattr(openssl, "CIPHERS", ciphers.suites(server_has_aes))
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    Pair(client, server).start().run()
    expected = "AES128-GCM-SHA256" if client_has_aes and server_has_aes else "CHACHA20-POLY1305"
    for machine in (client, server):
        event = machine.next_event()
        assert isinstance(event, HandshakeCompleted)
        if event.version == "DTLSv1.2":
            assert event.cipher == f"ECDHE-ECDSA-{expected}"


def test_dtls_1_3_is_used_if_the_library_has_it_and_1_2_else() -> None:
    """DTLS 1.3 comes with OpenSSL 4.1; 4.0 and older speak 1.2."""
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    Pair(client, server).start().run()
    for machine in (client, server):
        event = machine.next_event()
        assert isinstance(event, HandshakeCompleted)
        assert event.version == ("DTLSv1.3" if openssl.HAS_DTLS_1_3 else "DTLSv1.2")
