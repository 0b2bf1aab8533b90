"""Whole descriptions as other stacks write them, their addresses replaced."""

from __future__ import annotations

import pytest

from ice_punch.sdp import Description, Setup

SHA256 = (
    "AB:49:5F:F1:4B:F3:B8:17:FF:24:4B:E5:EC:32:83:1F:"
    "D0:95:9B:70:A9:73:98:A5:9D:71:6D:7D:38:90:B2:CF"
)

CHROMIUM_OFFER = f"""v=0
o=- 6518818384163280406 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 48256 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.2
a=candidate:3077952869 1 udp 2122265343 fd00::2 45995 typ host generation 0 network-id 2
a=candidate:3229573512 1 udp 2122194687 192.0.2.2 48256 typ host generation 0 network-id 1
a=candidate:559267639 1 udp 2122136831 ::1 54510 typ host generation 0 network-id 4
a=candidate:1510613869 1 udp 2122063615 127.0.0.1 55584 typ host generation 0 network-id 3
a=candidate:2398920056 1 tcp 1518214911 192.0.2.2 9 typ host tcptype active generation 0
a=ice-ufrag:eecC
a=ice-pwd:wzICE5TLxO2eV+gjs54oUZV5
a=ice-options:trickle
a=fingerprint:sha-256 {SHA256}
a=setup:actpass
a=mid:0
a=sctp-port:5000
a=max-message-size:262144
"""

CHROMIUM_BEFORE_GATHERING = f"""v=0
o=- 946328523808010285 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:oOQf
a=ice-pwd:VwJUqeNRJymC4q/37dl0xlBC
a=ice-options:trickle
a=fingerprint:sha-256 {SHA256}
a=setup:active
a=mid:0
a=sctp-port:5000
a=max-message-size:262144
"""

FIREFOX_OFFER = f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 3275619132867348731 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:sha-256 {SHA256}
a=group:BUNDLE 0
a=ice-options:trickle
a=msid-semantic:WMS *
m=application 58521 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 203.0.113.10
a=candidate:0 1 UDP 2122252543 f2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local 58521 typ host
a=candidate:2 1 TCP 2105524479 f2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local 9 typ host tcptype active
a=candidate:1 1 UDP 1686052863 203.0.113.10 58521 typ srflx raddr 0.0.0.0 rport 0
a=sendrecv
a=end-of-candidates
a=ice-pwd:20b98b73deb06c4134af760a9ab07fbc
a=ice-ufrag:aa5be2c1
a=mid:0
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
"""

AIORTC_ANSWER = f"""v=0
o=- 4004374445 4004374445 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic:WMS *
m=application 39027 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.2
a=mid:0
a=sctp-port:5000
a=max-message-size:65536
a=candidate:f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 192.0.2.2 39027 typ host
a=candidate:d0bcf3d9c29a2bc887618212a1623bfa 1 udp 2130706431 fd00::2 56593 typ host
a=end-of-candidates
a=ice-ufrag:jpY6
a=ice-pwd:qDNmRrxJusImXcamXpL0od
a=fingerprint:sha-256 {SHA256}
a=fingerprint:sha-384 {SHA256}:{SHA256[:47]}
a=fingerprint:sha-512 {SHA256}:{SHA256}
a=setup:active
"""

PION_ANSWER = f"""v=0
o=- 7134530461034127829 1614692341 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {SHA256}
a=group:BUNDLE 0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:active
a=mid:0
a=sendrecv
a=sctp-port:5000
a=max-message-size:1073741823
a=ice-ufrag:CsxzEWmoKpJyscFj
a=ice-pwd:mktpbhgREmjEwUFSIJyPINPUhgDqJlSd
a=candidate:3768882415 1 udp 2130706431 192.0.2.7 54656 typ host ufrag CsxzEWmoKpJyscFj
a=candidate:3768882415 2 udp 2130706431 192.0.2.7 54656 typ host ufrag CsxzEWmoKpJyscFj
a=candidate:842163049 1 udp 1694498815 203.0.113.5 62779 typ srflx raddr 0.0.0.0 rport 62779
a=end-of-candidates
"""

MEDIASOUP_ANSWER = f"""v=0
o=mediasoup-client 10000 1 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-lite
a=fingerprint:sha-512 {SHA256}:{SHA256}
a=msid-semantic: WMS *
a=group:BUNDLE datachannel
m=application 7 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 127.0.0.1
a=mid:datachannel
a=ice-ufrag:h3hk1iz6qqlnqlne
a=ice-pwd:yku5ej8nvfaor28lvtrabcx0wkrpkztz
a=candidate:udpcandidate 1 udp 1076302079 192.0.2.50 44444 typ host
a=candidate:tcpcandidate 1 tcp 1076276479 192.0.2.50 44444 typ host tcptype passive
a=end-of-candidates
a=ice-options:renomination
a=setup:passive
a=sctp-port:5000
a=max-message-size:262144
"""

OLD_CHROMIUM_OFFER = f"""v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE data
m=application 9 DTLS/SCTP 5000
c=IN IP4 0.0.0.0
a=ice-ufrag:xpkh
a=ice-pwd:GDvZxUyGmyM/5c0z2gZzZ6rt
a=fingerprint:sha-256 {SHA256}
a=setup:actpass
a=mid:data
a=sctpmap:5000 webrtc-datachannel 1024
"""

ALL = {
    "Chromium": CHROMIUM_OFFER,
    "Chromium before gathering": CHROMIUM_BEFORE_GATHERING,
    "Firefox": FIREFOX_OFFER,
    "aiortc": AIORTC_ANSWER,
    "pion": PION_ANSWER,
    "mediasoup": MEDIASOUP_ANSWER,
    "Chromium of 2017": OLD_CHROMIUM_OFFER,
}


@pytest.mark.parametrize("text", ALL.values(), ids=ALL.keys())
def test_a_description_of_another_stack_is_read_and_survives_a_round_trip(text: str) -> None:
    description = Description.parse(text.replace("\n", "\r\n"))
    assert description == Description.parse(text)
    assert description.ufrag
    assert description.fingerprints
    assert Description.parse(description.to_sdp()) == description


def test_chromium() -> None:
    offer = Description.parse(CHROMIUM_OFFER)
    assert [c.transport for c in offer.candidates] == ["udp"] * 4 + ["tcp"]
    assert (offer.setup, offer.options, offer.max_message_size) == (
        Setup.ACTPASS,
        ("trickle",),
        262144,
    )
    assert offer.session_id == 6518818384163280406
    assert not offer.is_mismatched
    assert not offer.end_of_candidates
    before = Description.parse(CHROMIUM_BEFORE_GATHERING)
    assert (before.candidates, before.is_mismatched) == ((), False)
    assert before.default_destination == ("0.0.0.0", 9)


def test_firefox_has_fingerprint_and_options_at_the_session_level() -> None:
    offer = Description.parse(FIREFOX_OFFER)
    assert offer.fingerprints[0].to_sdp() == f"sha-256 {SHA256}"
    assert offer.options == ("trickle",)
    assert [c.is_mdns for c in offer.candidates] == [True, True, False]
    assert offer.end_of_candidates
    assert not offer.is_mismatched


def test_aiortc_has_a_fingerprint_for_each_hash_function() -> None:
    answer = Description.parse(AIORTC_ANSWER)
    assert [f.algorithm for f in answer.fingerprints] == ["sha-256", "sha-384", "sha-512"]
    assert answer.options == ()


def test_pion() -> None:
    answer = Description.parse(PION_ANSWER)
    assert [c.component for c in answer.candidates] == [1, 2, 1]
    assert answer.setup is Setup.ACTIVE


def test_mediasoup_is_lite() -> None:
    answer = Description.parse(MEDIASOUP_ANSWER)
    assert answer.lite
    assert answer.mid == "datachannel"
    # Its default destination is a placeholder: RFC 8839 section 4.2.5 leaves open what to do.
    assert answer.is_mismatched


def test_an_old_data_channel_has_no_sctp_port() -> None:
    offer = Description.parse(OLD_CHROMIUM_OFFER)
    assert (offer.protocol, offer.formats, offer.sctp_port) == ("DTLS/SCTP", ("5000",), None)


LIBDATACHANNEL_OFFER = f"""v=0
o=rtc 3253182654 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic:WMS *
a=ice-options:ice2,trickle
a=fingerprint:sha-256 {SHA256}
m=application 43916 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 127.0.0.1
a=mid:0
a=sendrecv
a=sctp-port:5000
a=max-message-size:262144
a=setup:actpass
a=ice-ufrag:163a
a=ice-pwd:Yg3D5hU6osehm3dOZbTN91
a=candidate:1 1 UDP 2114977791 192.0.2.7 43916 typ host
a=end-of-candidates
"""


def test_libdatachannel_writes_commas_between_options() -> None:
    remote = Description.parse(LIBDATACHANNEL_OFFER)
    assert remote.options == ("ice2", "trickle")
    assert remote.max_message_size == 262144
    assert remote.end_of_candidates
    assert "a=ice-options:ice2 trickle" in remote.to_sdp()
