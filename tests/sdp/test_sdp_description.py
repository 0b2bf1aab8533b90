"""Session descriptions: RFC 8839, RFC 8842, RFC 8841, RFC 8840 section 4.1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ice_punch.errors import IcePunchError, InvalidDescription
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.sdp import Description, Fingerprint, Setup
from ice_punch.sdp.attributes import RemoteCandidate

UFRAG, PWD = "8hhY", "asd88fgpdd777uzjYhagZg"
TLS_ID = "abc3de65cddef001be82"
FINGERPRINT = Fingerprint.of(b"certificate")
MEDIA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
HOST = Candidate("1", 1, "udp", 2130706431, "192.0.2.1", 5000, CandidateType.HOST)
SRFLX = Candidate(
    "2", 1, "udp", 1694498815, "203.0.113.3", 45664, CandidateType.SRFLX, ("192.0.2.1", 5000)
)
RELAY = Candidate(
    "3", 1, "udp", 16777215, "198.51.100.9", 50000, CandidateType.RELAY, ("203.0.113.3", 45664)
)

# RFC 8839 section 4.2.6
EXAMPLE = f"""v=0
o=jdoe 2890844526 2890842807 IN IP4 203.0.113.141
s=
c=IN IP4 192.0.2.3
t=0 0
a=ice-options:ice2
a=ice-pacing:50
a=ice-pwd:{PWD}
a=ice-ufrag:{UFRAG}
m=audio 45664 RTP/AVP 0
b=RS:0
b=RR:0
a=rtpmap:0 PCMU/8000
a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host
a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998
"""


def text_of(*media: str, session: tuple[str, ...] = (), m: str = MEDIA) -> str:
    """A description, line by line: v=0, the session level, the m= line, and the media level."""
    return "\n".join(["v=0", *session, m, f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", *media, ""])


def lines_of(description: Description) -> list[str]:
    text = description.to_sdp()
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    return text.removesuffix("\r\n").split("\r\n")


def levels_of(description: Description) -> tuple[list[str], list[str]]:
    lines = lines_of(description)
    start = next(i for i, line in enumerate(lines) if line.startswith("m="))
    return lines[:start], lines[start:]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rfc8839_4_2_6_the_example_is_read_with_either_line_end(line_end: str) -> None:
    description = Description.parse(EXAMPLE.replace("\n", line_end))
    assert (description.ufrag, description.pwd) == (UFRAG, PWD)
    assert (description.options, description.pacing) == (("ice2",), 50)
    assert (description.media, description.protocol, description.formats) == (
        "audio",
        "RTP/AVP",
        ("0",),
    )
    assert [c.port for c in description.candidates] == [8998, 45664]
    assert description.default_destination == ("192.0.2.3", 45664)
    assert (description.session_id, description.session_version) == (2890844526, 2890842807)
    assert not description.is_mismatched


def test_everything_survives_a_round_trip() -> None:
    description = Description(
        UFRAG,
        PWD,
        options=("ice2", "rtp+ecn"),
        pacing=20,
        setup=Setup.ACTIVE,
        fingerprints=(FINGERPRINT, Fingerprint.of(b"certificate", "sha-512")),
        tls_id=TLS_ID,
        mid="data",
        candidates=(HOST, SRFLX, RELAY),
        end_of_candidates=True,
        remote_candidates=(RemoteCandidate(1, "192.0.2.3", 45664),),
        sctp_port=6000,
        max_message_size=0,
        session_id=2**63,
        session_version=2,
    )
    assert Description.parse(description.to_sdp()) == description
    assert Description.parse(Description(UFRAG, PWD).to_sdp()) == Description(UFRAG, PWD)


def test_rfc8829_5_2_1_the_whole_text_is_what_a_browser_expects() -> None:
    description = Description(
        UFRAG,
        PWD,
        pacing=20,
        setup=Setup.ACTPASS,
        fingerprints=(FINGERPRINT,),
        tls_id=TLS_ID,
        candidates=(HOST, SRFLX),
        end_of_candidates=True,
        max_message_size=65536,
    )
    assert lines_of(description) == [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=ice-options:trickle ice2",
        "a=ice-pacing:20",
        "m=application 45664 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 203.0.113.3",
        "a=mid:0",
        f"a=ice-ufrag:{UFRAG}",
        f"a=ice-pwd:{PWD}",
        f"a=fingerprint:{FINGERPRINT}",
        "a=setup:actpass",
        f"a=tls-id:{TLS_ID}",
        "a=sctp-port:5000",
        "a=max-message-size:65536",
        "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
        "a=candidate:2 1 udp 1694498815 203.0.113.3 45664 typ srflx raddr 192.0.2.1 rport 5000",
        "a=end-of-candidates",
    ]


def test_rfc8839_4_2_1_2_the_default_candidate_is_relay_then_srflx_then_host() -> None:
    for candidates, expected in [
        ((HOST, SRFLX, RELAY), RELAY),
        ((SRFLX, HOST), SRFLX),
        ((HOST,), HOST),
        ((HOST, replace(SRFLX, type=CandidateType.PRFLX)), SRFLX),
        ((HOST, replace(HOST, priority=HOST.priority - 1, port=5001)), HOST),
        ((replace(HOST, priority=1, port=5001), HOST), HOST),
    ]:
        _, media = levels_of(Description(UFRAG, PWD, candidates=candidates))
        assert media[0] == f"m=application {expected.port} UDP/DTLS/SCTP webrtc-datachannel"
        assert media[1] == f"c=IN IP4 {expected.host}"


def test_rfc8839_4_2_1_2_an_ipv6_default_is_marked_as_such() -> None:
    description = Description(UFRAG, PWD, candidates=(replace(HOST, host="2001:db8::1"),))
    assert "c=IN IP6 2001:db8::1" in lines_of(description)
    assert not Description.parse(description.to_sdp()).is_mismatched


@pytest.mark.parametrize(
    "candidates",
    [
        pytest.param((), id="none yet"),
        pytest.param((replace(HOST, host="f2de9f8c.local"),), id="a name only"),
        pytest.param((replace(HOST, transport="tcp", tcptype="passive"),), id="TCP only"),
        pytest.param((replace(HOST, component=2),), id="another component only"),
        pytest.param((replace(HOST, port=0),), id="no port"),
    ],
)
def test_rfc8840_4_1_1_without_default_candidate_port_9_and_0_0_0_0(
    candidates: tuple[Candidate, ...],
) -> None:
    description = Description(UFRAG, PWD, candidates=candidates)
    _, media = levels_of(description)
    assert media[:2] == [MEDIA, "c=IN IP4 0.0.0.0"]
    assert not Description.parse(description.to_sdp()).is_mismatched


def test_rfc8840_4_1_1_no_rtcp_and_always_trickle_and_mid() -> None:
    for lines in (
        lines_of(Description(UFRAG, PWD)),
        lines_of(Description(UFRAG, PWD, candidates=(HOST,))),
    ):
        assert not [line for line in lines if line.startswith("a=rtcp")]
        assert "a=ice-options:trickle ice2" in lines
        assert "a=mid:0" in lines


def test_rfc8839_4_2_1_5_options_contain_ice2_unless_told_otherwise() -> None:
    assert "ice2" in Description(UFRAG, PWD).options
    assert not [
        line
        for line in lines_of(Description(UFRAG, PWD, options=()))
        if line.startswith("a=ice-options")
    ]


def test_rfc8839_4_3_1_every_candidate_is_listed_in_order() -> None:
    candidates = tuple(replace(HOST, port=5000 + i) for i in range(128))
    lines = lines_of(Description(UFRAG, PWD, candidates=candidates))
    ports = [int(line.split()[5]) for line in lines if line.startswith("a=candidate:")]
    assert ports == [c.port for c in candidates]


def test_rfc8839_4_2_1_4_a_lite_agent_says_so_and_never_a_full_one() -> None:
    assert "a=ice-lite" in levels_of(Description(UFRAG, PWD, lite=True))[0]
    assert "a=ice-lite" not in lines_of(Description(UFRAG, PWD))
    assert Description.parse(text_of(session=("a=ice-lite",))).lite


def test_rfc8839_4_3_1_full_agents_send_pacing_and_lite_agents_do_not() -> None:
    assert "a=ice-pacing:20" in levels_of(Description(UFRAG, PWD, pacing=20))[0]
    lite = lines_of(Description(UFRAG, PWD, lite=True, pacing=20))
    assert not [line for line in lite if line.startswith("a=ice-pacing")]


def test_rfc8839_5_5_pacing_is_50_ms_where_absent() -> None:
    assert Description(UFRAG, PWD).effective_pacing == 50
    assert Description(UFRAG, PWD, pacing=20).effective_pacing == 20
    assert Description.parse(text_of(session=("a=ice-pacing:0000000020",))).pacing == 20
    assert Description.parse(text_of(session=("a=ice-pacing:9999999999",))).pacing == 9999999999


def test_rfc8839_4_3_2_an_answer_can_keep_the_transport_of_the_offer() -> None:
    for m in (
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "m=application 9 TCP/DTLS/SCTP webrtc-datachannel",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
    ):
        offer = Description.parse(text_of(m=m))
        answer = Description(
            UFRAG, PWD, protocol=offer.protocol, formats=offer.formats, media=offer.media
        )
        assert m in lines_of(answer)


def test_rfc8839_4_3_2_without_candidate_of_the_m_lines_transport_the_default_is_0_0_0_0() -> None:
    tcp = replace(HOST, transport="tcp", tcptype="passive")
    over_tcp = Description(UFRAG, PWD, protocol="TCP/DTLS/SCTP", candidates=(HOST, SRFLX))
    assert lines_of(over_tcp)[6:8] == [MEDIA.replace("UDP", "TCP"), "c=IN IP4 0.0.0.0"]
    over_tcp = replace(over_tcp, candidates=(HOST, tcp))
    assert "c=IN IP4 192.0.2.1" in lines_of(over_tcp)


@pytest.mark.parametrize(
    ("connection", "port", "mismatched"),
    [
        ("IP4 192.0.2.1", 5000, False),
        ("IP4 192.0.2.1", 5001, True),
        ("IP4 192.0.2.2", 5000, True),
        ("IP4 0.0.0.0", 9, False),
        ("IP6 ::", 9, False),
        ("IP4 0.0.0.0", 10, True),
        ("IP4 peer.example.com", 5001, False),
        ("IP4 f2de9f8c.local", 5001, False),
    ],
)
def test_rfc8839_4_2_5_a_mismatch_is_a_default_that_no_candidate_has(
    connection: str, port: int, mismatched: bool
) -> None:
    text = text_of(
        f"c=IN {connection}",
        "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host",
        m=MEDIA.replace("9", str(port), 1),
        session=("c=IN IP4 198.51.100.99",),
    )
    assert Description.parse(text).is_mismatched is mismatched


def test_rfc8839_4_2_5_a_mismatch_looks_at_transport_and_component_too() -> None:
    candidates = (replace(HOST, transport="tcp", tcptype="so"), replace(HOST, component=2))
    description = Description(
        UFRAG, PWD, candidates=candidates, default_destination=("192.0.2.1", 5000)
    )
    assert description.is_mismatched
    assert not Description(UFRAG, PWD).is_mismatched


def test_rfc8839_4_2_5_an_ice_mismatch_answer_has_no_candidates() -> None:
    answer = Description(UFRAG, PWD, ice_mismatch=True)
    assert "a=ice-mismatch" in levels_of(answer)[1]
    assert Description.parse(answer.to_sdp()).ice_mismatch
    with pytest.raises(InvalidDescription):
        Description(UFRAG, PWD, ice_mismatch=True, candidates=(HOST,)).to_sdp()


def test_rfc8839_5_3_ice_mismatch_is_a_media_level_attribute_and_may_stand_alone() -> None:
    assert not Description.parse(text_of(session=("a=ice-mismatch",))).ice_mismatch
    bare = Description.parse(f"v=0\n{MEDIA}\na=ice-mismatch\n")
    assert (bare.ice_mismatch, bare.ufrag, bare.pwd) == (True, "", "")
    assert Description.parse(bare.to_sdp()) == bare


def test_rfc8839_4_4_1_2_2_after_nomination_the_default_is_the_one_candidate_listed() -> None:
    remote = (RemoteCandidate(1, "192.0.2.3", 45664),)
    description = Description(UFRAG, PWD, candidates=(HOST,), remote_candidates=remote)
    _, media = levels_of(description)
    assert media[0].split()[1] == "5000"
    assert "a=remote-candidates:1 192.0.2.3 45664" in media
    assert sum(line.startswith("a=candidate:") for line in media) == 1


def test_rfc8839_5_2_remote_candidates_are_read_at_the_media_level() -> None:
    line = "a=remote-candidates:1 192.0.2.3 45664 2 2001:DB8::1 45665 3 peer.example.com 1"
    description = Description.parse(text_of(line, "a=remote-candidates:4 192.0.2.3 45666"))
    assert description.remote_candidates == (
        RemoteCandidate(1, "192.0.2.3", 45664),
        RemoteCandidate(2, "2001:db8::1", 45665),
        RemoteCandidate(4, "192.0.2.3", 45666),
    )
    assert Description.parse(text_of(session=(line,))).remote_candidates == ()


@pytest.mark.parametrize(
    "value", ["", ":", ":1 192.0.2.3", ":0 192.0.2.3 1", ":1 192.0.2.3 65536", ":1  192.0.2.3 1"]
)
def test_rfc8839_5_2_remote_candidates_follow_the_grammar(value: str) -> None:
    with pytest.raises(InvalidDescription, match="line 5"):
        Description.parse(text_of(f"a=remote-candidates{value}"))


def test_rfc8839_4_4_1_1_1_a_restart_changes_both_ufrag_and_password() -> None:
    before = Description(UFRAG, PWD)
    assert Description("8hhZ", PWD[::-1]).is_ice_restart(before)
    assert not Description("8hhZ", PWD).is_ice_restart(before)
    assert not Description(UFRAG, PWD[::-1]).is_ice_restart(before)


def test_rfc8839_4_4_1_1_1_moving_credentials_to_the_other_level_is_no_restart() -> None:
    session = ("v=0", f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", MEDIA, "")
    moved = Description.parse("\n".join(session))
    assert not moved.is_ice_restart(Description.parse(text_of()))


@pytest.mark.parametrize("missing", ["ice-ufrag", "ice-pwd"])
def test_rfc8839_5_4_ufrag_and_password_are_required(missing: str) -> None:
    text = "\n".join(line for line in text_of().split("\n") if missing not in line)
    with pytest.raises(InvalidDescription, match=missing):
        Description.parse(text)


def test_rfc8839_5_4_the_media_level_takes_precedence() -> None:
    session = ("a=ice-ufrag:session", f"a=ice-pwd:{'s' * 22}")
    assert Description.parse(text_of(session=session)).ufrag == UFRAG
    text = "\n".join(["v=0", *session, MEDIA, f"a=ice-ufrag:{UFRAG}", ""])
    description = Description.parse(text)
    assert (description.ufrag, description.pwd) == (UFRAG, "s" * 22)


@pytest.mark.parametrize("ufrag", ["", "abc", "a" * 257, "ab-c", "ab c", "abcd ", "abc\u00e9"])
def test_rfc8839_5_4_a_ufrag_has_4_to_256_ice_chars(ufrag: str) -> None:
    with pytest.raises(InvalidDescription, match="line 3: the value of ice-ufrag"):
        Description.parse(f"v=0\n{MEDIA}\na=ice-ufrag:{ufrag}\na=ice-pwd:{PWD}\n")
    with pytest.raises(InvalidDescription):
        Description(ufrag, PWD)


@pytest.mark.parametrize("pwd", ["", "a" * 21, "a" * 257, "a" * 21 + "=", "a" * 22 + "\n"])
def test_rfc8839_5_4_a_password_has_22_to_256_ice_chars(pwd: str) -> None:
    with pytest.raises(InvalidDescription):
        Description(UFRAG, pwd)
    if "\n" not in pwd:
        with pytest.raises(InvalidDescription, match="line 4: the value of ice-pwd"):
            Description.parse(f"v=0\n{MEDIA}\na=ice-ufrag:{UFRAG}\na=ice-pwd:{pwd}\n")


def test_rfc8839_5_4_ufrags_up_to_256_are_accepted_and_beyond_32_not_sent() -> None:
    text = text_of().replace(UFRAG, "+/" * 128).replace(PWD, "+/" * 128)
    received = Description.parse(text)
    assert (len(received.ufrag), len(received.pwd)) == (256, 256)
    with pytest.raises(InvalidDescription, match="32"):
        received.to_sdp()
    assert Description.parse(Description("a" * 32, PWD).to_sdp()).ufrag == "a" * 32


def test_rfc8839_5_6_options_of_both_levels_hold_and_unknown_ones_do_no_harm() -> None:
    text = text_of("a=ice-options:ice2 renomination", session=("a=ice-options:trickle ice2",))
    assert Description.parse(text).options == ("trickle", "ice2", "renomination")


@pytest.mark.parametrize("value", ["", ":", ": ice2", ":ice2 ", ":ice2  trickle", ":google-ice"])
def test_rfc8839_5_6_options_are_ice_chars(value: str) -> None:
    with pytest.raises(InvalidDescription):
        Description.parse(text_of(f"a=ice-options{value}"))


@pytest.mark.parametrize(
    "line",
    [
        "a=ice-pacing",
        "a=ice-pacing:",
        "a=ice-pacing:-1",
        "a=ice-pacing:12345678901",
        "a=ice-pacing:20.5",
        "a=ice-lite:yes",
        "a=ice-mismatch:",
        "a=end-of-candidates:now",
        "a=setup",
        "a=setup:both",
        "a=setup: active",
        "a=tls-id:short",
        f"a=tls-id:{'x' * 256}",
        f"a=tls-id:{TLS_ID}!",
        "a=mid:",
        "a=mid:a b",
        "a=sctp-port:",
        "a=sctp-port:05000",
        "a=max-message-size:big",
        "a=candidate:1 0 udp 1 192.0.2.1 5000 typ host",
        "a=candidate",
        "a=fingerprint:sha-256 00",
        "a=fingerprint",
        "c=IN IP4",
        "c=IN IP4 192.0.2.256",
        "nonsense",
        "A=mid:0",
        "a =mid:0",
        " a=mid:0",
        "a=x\x00y",
        "a=x\ry",
    ],
)
def test_a_line_that_breaks_the_grammar_is_named_by_its_number(line: str) -> None:
    with pytest.raises(InvalidDescription, match="line 5: "):
        Description.parse(text_of(line))


def test_the_message_says_what_is_wrong_with_a_candidate() -> None:
    line = "a=candidate:1 1 udp 1 50.0.0.^^1 5000 typ host"
    with pytest.raises(InvalidDescription, match=r"line 5: '50\.0\.0\.\^\^1' is neither"):
        Description.parse(text_of(line))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "v=1\n",
        "v=0\n",
        f"{MEDIA}\nv=0\n",
        text_of().removeprefix("v=0\n"),
        "\ufeff" + text_of(),
        text_of(m="m=application"),
        text_of(m="m=application 9 UDP"),
        text_of(m="m=application 65536 UDP webrtc-datachannel"),
        text_of(m="m=application -9 UDP webrtc-datachannel"),
        text_of(m="m=application 9 UDP/ webrtc-datachannel"),
        text_of(m="m=application 9 UDP  webrtc-datachannel"),
        text_of(m="m=application 0 UDP/DTLS/SCTP webrtc-datachannel"),
        text_of("a=sctp-port:65536"),
    ],
)
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(InvalidDescription) as caught:
        Description.parse(text)
    assert isinstance(caught.value, IcePunchError)
    assert str(caught.value)


def test_rfc8839_4_2_1_6_an_inactive_stream_keeps_its_ice_attributes() -> None:
    description = Description.parse(text_of("a=inactive", "b=AS:0"))
    assert (description.ufrag, description.pwd) == (UFRAG, PWD)


def test_rfc3264_6_a_rejected_section_is_passed_over() -> None:
    rejected = ("m=audio 0 UDP/TLS/RTP/SAVPF 0", "a=ice-ufrag:dead", f"a=ice-pwd:{'d' * 22}")
    description = Description.parse(text_of(session=rejected))
    assert (description.ufrag, description.media) == (UFRAG, "application")


def test_only_the_first_usable_section_is_read() -> None:
    second = ("m=audio 9 RTP/AVP 0", "a=ice-ufrag:second", "a=mid:1", "a=candidate:broken")
    description = Description.parse(text_of("a=mid:data", *second))
    assert (description.ufrag, description.mid) == (UFRAG, "data")


AUDIO = ("m=audio 9 UDP/TLS/RTP/SAVPF 111 0", "a=mid:a", "a=ice-ufrag:sound")
VIDEO = ("m=video 0 UDP/TLS/RTP/SAVPF 96", "a=mid:v", "a=bundle-only")


def test_rfc8841_a_data_channel_behind_other_media_is_the_one_to_take() -> None:
    text = text_of("a=mid:data", *VIDEO, session=("a=group:BUNDLE a data v", *AUDIO))
    offer = Description.parse(text)
    assert (offer.ufrag, offer.media, offer.mid, offer.bundle) == (
        UFRAG,
        "application",
        "data",
        True,
    )
    assert [other.media for other in (*offer.before, *offer.after)] == ["audio", "video"]


def test_rfc3264_6_an_answer_has_every_section_of_its_offer_and_rejects_the_others() -> None:
    text = text_of("a=mid:data", *VIDEO, session=("a=group:BUNDLE a data v", *AUDIO))
    ours = Description(ufrag="four", pwd="p" * 22)
    answer = ours.in_place_of(Description.parse(text)).to_sdp()
    lines = answer.split("\r\n")
    assert [line for line in lines if line.startswith("m=")] == [
        "m=audio 0 UDP/TLS/RTP/SAVPF 111 0",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
    ]
    assert [line for line in lines if line.startswith("a=mid")] == [
        "a=mid:a",
        "a=mid:data",
        "a=mid:v",
    ]
    assert [line for line in lines if line.startswith("a=group")] == ["a=group:BUNDLE data"]
    again = Description.parse(answer)
    assert (again, again.ufrag) == (replace(ours, mid="data"), "four")


def test_rfc8843_7_3_an_offer_that_is_not_bundled_has_no_bundle_in_its_answer() -> None:
    offer = Description.parse(text_of("a=mid:data"))
    assert not offer.bundle
    assert "BUNDLE" not in Description(ufrag="four", pwd="p" * 22).in_place_of(offer).to_sdp()


def test_rfc8843_6_port_0_of_a_section_that_is_bundle_only_rejects_nothing() -> None:
    text = text_of("a=mid:data", "a=bundle-only", session=AUDIO).replace(
        "m=application 9", "m=application 0"
    )
    offer = Description.parse(text)
    assert (offer.media, offer.mid, offer.is_mismatched) == ("application", "data", False)


def test_media_sections_are_bounded() -> None:
    with pytest.raises(InvalidDescription, match="64 media sections"):
        Description.parse(text_of(*["m=audio 9 RTP/AVP 0"] * 64))


def test_rfc8839_5_1_useless_candidates_are_counted_and_do_not_fail_the_session() -> None:
    description = Description.parse(
        text_of(
            "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host",
            "a=candidate:1 1 sctp 1 192.0.2.1 5000 typ host",
            "a=candidate:1 1 udp 1 192.0.2.1 5000 typ future",
            "a=candidate:1 1 udp 1 peer.example.com 5000 typ host",
            session=("a=candidate:1 1 udp 1 192.0.2.2 5000 typ host",),
        )
    )
    assert [c.host for c in description.candidates] == ["192.0.2.1"]
    assert description.ignored == 4


def test_a_hostile_description_costs_bounded_memory() -> None:
    line = "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host"
    description = Description.parse(text_of(*[line] * 1000))
    assert (len(description.candidates), description.ignored) == (128, 872)
    with pytest.raises(InvalidDescription, match="65536"):
        Description.parse(text_of(*[line] * 2000))
    with pytest.raises(InvalidDescription):
        Description.parse("v=0\n" + "a=" + "x" * 65536)
    assert Description.parse(text_of(*["a=x"] * 10000)) == Description.parse(text_of())


def test_more_candidates_than_the_other_side_keeps_are_not_sent() -> None:
    with pytest.raises(InvalidDescription):
        Description(
            UFRAG, PWD, candidates=tuple(replace(HOST, port=p) for p in range(1, 130))
        ).to_sdp()


def test_a_candidate_without_a_text_form_is_not_sent() -> None:
    with pytest.raises(InvalidDescription):
        Description(UFRAG, PWD, candidates=(replace(HOST, foundation="a b"),)).to_sdp()


def test_rfc8840_9_2_attribute_names_are_case_insensitive_on_receipt() -> None:
    text = Description(UFRAG, PWD, tls_id=TLS_ID, setup=Setup.ACTIVE, candidates=(HOST,)).to_sdp()
    for name in ("ice-ufrag", "ice-pwd", "candidate", "tls-id", "setup", "mid", "sctp-port"):
        text = text.replace(f"a={name}", f"a={name.title()}")
    assert Description.parse(text).candidates == (HOST,)
    assert Description.parse(text).tls_id == TLS_ID


def test_unknown_attributes_and_lines_are_ignored() -> None:
    text = text_of("a=x-new:1", "a=flag", "b=AS:30", "k=clear:x", "a=sctpmap:5000 x 1024", "a=:")
    assert Description.parse(text) == Description.parse(text_of())


def test_an_attribute_that_contradicts_itself_is_refused_and_a_repeated_one_is_not() -> None:
    assert Description.parse(text_of("a=setup:active", "a=setup:active")).setup is Setup.ACTIVE
    for line in ("a=setup:passive", "a=mid:1", f"a=tls-id:{TLS_ID}x", "a=ice-ufrag:other"):
        text = text_of("a=setup:active", "a=mid:0", f"a=tls-id:{TLS_ID}", line)
        with pytest.raises(InvalidDescription, match=r"line 8: .* twice"):
            Description.parse(text)


@pytest.mark.parametrize("setup", list(Setup))
def test_rfc8842_5_3_every_setup_value_is_understood(setup: Setup) -> None:
    assert Description.parse(text_of(f"a=setup:{setup}")).setup is setup
    assert Description.parse(text_of(f"a=setup:{setup.upper()}")).setup is setup
    assert Description.parse(text_of(session=(f"a=setup:{setup}",))).setup is setup
    assert Description.parse(text_of()).setup is None


def test_rfc8842_5_1_holdconn_is_not_sent() -> None:
    with pytest.raises(InvalidDescription):
        Description(UFRAG, PWD, setup=Setup.HOLDCONN).to_sdp()


def test_rfc8842_5_2_an_offer_carries_actpass_fingerprints_and_tls_id() -> None:
    offer = Description(UFRAG, PWD, setup=Setup.ACTPASS, fingerprints=(FINGERPRINT,), tls_id=TLS_ID)
    _, media = levels_of(offer)
    assert {"a=setup:actpass", f"a=fingerprint:{FINGERPRINT}", f"a=tls-id:{TLS_ID}"} <= set(media)


def test_rfc8842_4_tls_id_is_a_media_level_attribute_of_20_to_255_characters() -> None:
    for tls_id in ("x" * 20, "x" * 255, "abc+/-_" * 3):
        assert Description.parse(text_of(f"a=tls-id:{tls_id}")).tls_id == tls_id
    assert Description.parse(text_of(session=(f"a=tls-id:{TLS_ID}",))).tls_id is None
    for tls_id in ("x" * 19, "x" * 256, "x" * 19 + "="):
        with pytest.raises(InvalidDescription):
            Description(UFRAG, PWD, tls_id=tls_id)


def test_rfc8842_5_3_an_answer_without_tls_id_has_no_such_line() -> None:
    assert "tls-id" not in Description(UFRAG, PWD, setup=Setup.ACTIVE).to_sdp()


def test_rfc8842_4_a_new_tls_id_or_fingerprint_set_asks_for_a_new_association() -> None:
    before = Description(
        UFRAG, PWD, setup=Setup.ACTPASS, fingerprints=(FINGERPRINT,), tls_id=TLS_ID
    )
    other = Fingerprint.of(b"another")
    restart = replace(before, ufrag="8hhZ", pwd=PWD[::-1], setup=Setup.PASSIVE)
    assert not restart.changes_dtls_association(before)
    assert replace(before, tls_id=TLS_ID + "x").changes_dtls_association(before)
    assert replace(before, fingerprints=(other,)).changes_dtls_association(before)
    two = replace(before, fingerprints=(FINGERPRINT, other))
    assert not replace(two, fingerprints=(other, FINGERPRINT)).changes_dtls_association(two)


def test_rfc8842_4_without_tls_id_a_new_role_or_fingerprint_set_asks_for_it() -> None:
    before = Description(UFRAG, PWD, setup=Setup.ACTIVE, fingerprints=(FINGERPRINT,))
    assert replace(before, setup=Setup.PASSIVE).changes_dtls_association(before)
    assert not replace(before, setup=Setup.ACTPASS).changes_dtls_association(before)
    assert not replace(before, ufrag="8hhZ").changes_dtls_association(before)
    assert replace(before, fingerprints=()).changes_dtls_association(before)


def test_rfc8841_5_1_an_sctp_protocol_has_sctp_port_and_no_other_has() -> None:
    assert "a=sctp-port:5000" in lines_of(Description(UFRAG, PWD))
    plain = Description(UFRAG, PWD, protocol="UDP", formats=("ice-punch",))
    assert plain.sctp_port is None
    assert "sctp-port" not in plain.to_sdp()
    assert Description.parse(plain.to_sdp()) == plain
    assert Description.parse(text_of("a=sctp-port:0")).sctp_port == 0
    assert Description.parse(text_of()).sctp_port is None


def test_rfc8841_6_max_message_size_passes_through() -> None:
    description = Description(UFRAG, PWD, max_message_size=262144)
    assert "a=max-message-size:262144" in lines_of(description)
    assert Description.parse(description.to_sdp()).max_message_size == 262144


@pytest.mark.parametrize(
    "broken",
    [
        {"options": ("ice 2",)},
        {"options": ("",)},
        {"pacing": -1},
        {"pacing": 10**10},
        {"mid": "a\r\nb"},
        {"mid": ""},
        {"protocol": "UDP DTLS"},
        {"protocol": ""},
        {"formats": ()},
        {"formats": ("a b",)},
        {"media": "a\nb"},
        {"sctp_port": 65536},
        {"max_message_size": -1},
        {"session_id": -1},
        {"session_version": 10**20},
        {"ufrag": "", "pwd": ""},
    ],
)
def test_a_description_that_has_no_text_can_not_be_made(broken: dict[str, object]) -> None:
    fields: dict[str, object] = {"ufrag": UFRAG, "pwd": PWD}
    with pytest.raises(InvalidDescription):
        Description(**(fields | broken))  # type: ignore[arg-type]


def test_a_remote_candidate_that_has_no_text_is_not_sent() -> None:
    for entry in (
        RemoteCandidate(0, "192.0.2.1", 1),
        RemoteCandidate(1, "192.0.2.1 1", 1),
        RemoteCandidate(1, "192.0.2.1", 65536),
    ):
        with pytest.raises(InvalidDescription):
            Description(UFRAG, PWD, remote_candidates=(entry,)).to_sdp()


def test_the_password_is_not_shown() -> None:
    assert PWD not in repr(Description(UFRAG, PWD))
    for text in (
        text_of().replace(PWD, PWD + "!"),
        text_of(f"a=ice-pwd:{PWD}x"),
        text_of(f"ice-pwd:{PWD}"),
    ):
        with pytest.raises(InvalidDescription) as caught:
            Description.parse(text)
        assert PWD not in str(caught.value)


def test_end_of_candidates_is_read_at_either_level() -> None:
    assert Description.parse(text_of("a=end-of-candidates")).end_of_candidates
    assert Description.parse(text_of(session=("a=end-of-candidates",))).end_of_candidates
    assert not Description.parse(text_of()).end_of_candidates
