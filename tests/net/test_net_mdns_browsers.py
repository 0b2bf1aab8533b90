"""What browsers say in Multicast DNS, as it was on the wire."""

from __future__ import annotations

from ice_punch.net.mdns import messages

CHROMIUM = bytes.fromhex(
    "0000840000000001000000012431623339353733642d663162332d343165372d623530632d666565323763336339"
    "623034056c6f63616c0000018001000000780004c00002062431623339353733642d663162332d343165372d6235"
    "30632d666565323763336339623034056c6f63616c00002f8001000000780005c046000140"
)
"""Chromium 156 for 192.0.2.6; its NSEC record (RFC 6762 section 6.1) has a compressed name."""


def test_an_answer_with_a_compressed_nsec_record_is_read() -> None:
    packet = messages.parse(CHROMIUM)
    assert packet is not None
    assert packet.addresses == (("1b39573d-f1b3-41e7-b50c-fee27c3c9b04.local", "192.0.2.6"),)


def test_one_that_is_cut_off_is_none() -> None:
    for length in range(len(CHROMIUM)):
        assert messages.parse(CHROMIUM[:length]) is None
