"""Fragments of trickled candidates: RFC 8840 sections 4.4 and 9.2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.sdp import Description, Fragment, parse_candidate
from ice_punch.sdp.fragment import MEDIA_TYPE

UFRAG, PWD = "8hhY", "asd88fgpdd777uzjYhagZg"
CREDENTIALS = f"a=ice-pwd:{PWD}\na=ice-ufrag:{UFRAG}\n"

# RFC 8840 figure 7
FIGURE_7 = f"""{CREDENTIALS}m=audio 9 RTP/AVP 0
a=mid:1
a=candidate:1 1 UDP 2130706432 2001:db8:a0b:12f0::1 5000 typ host
a=candidate:1 2 UDP 2130706432 2001:db8:a0b:12f0::1 5001 typ host
a=candidate:1 1 UDP 2130706431 192.0.2.1 5010 typ host
a=candidate:1 2 UDP 2130706431 192.0.2.1 5011 typ host
a=candidate:2 1 UDP 1694498815 192.0.2.3 5010 typ srflx raddr 192.0.2.1 rport 8998
a=candidate:2 2 UDP 1694498815 192.0.2.3 5011 typ srflx raddr 192.0.2.1 rport 8998
a=end-of-candidates
m=audio 9 RTP/AVP 0
a=mid:2
a=candidate:1 1 UDP 2130706432 2001:db8:a0b:12f0::1 6000 typ host
a=candidate:1 2 UDP 2130706432 2001:db8:a0b:12f0::1 6001 typ host
a=end-of-candidates
"""


def candidate(port: int, **changes: object) -> Candidate:
    made = Candidate("1", 1, "udp", 2130706431, "192.0.2.1", port, CandidateType.HOST)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_rfc8840_4_4_the_media_type_has_its_name() -> None:
    assert MEDIA_TYPE == "application/trickle-ice-sdpfrag"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rfc8840_4_4_figure_7_is_read(line_end: str) -> None:
    text = FIGURE_7.replace("\n", line_end)
    first = Fragment.parse(text)
    assert (first.ufrag, first.pwd, first.mid) == (UFRAG, PWD, "1")
    assert [c.port for c in first.candidates] == [5000, 5001, 5010, 5011, 5010, 5011]
    assert first.end_of_candidates
    second = Fragment.parse(text, mid="2")
    assert [c.port for c in second.candidates] == [6000, 6001]
    assert Fragment.parse(text, mid="3").candidates == ()


def test_rfc8840_4_4_what_is_written_has_the_default_pseudo_m_line_and_the_order_asked_for() -> (
    None
):
    fragment = Fragment(UFRAG, PWD, "data", (candidate(5000), candidate(5001)), True)
    assert fragment.to_sdp().split("\r\n") == [
        "m=audio 9 RTP/AVP 0",
        f"a=ice-ufrag:{UFRAG}",
        f"a=ice-pwd:{PWD}",
        "a=mid:data",
        "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
        "a=candidate:1 1 udp 2130706431 192.0.2.1 5001 typ host",
        "a=end-of-candidates",
        "",
    ]


def test_rfc8840_4_4_credentials_stand_at_the_level_they_have_in_the_description() -> None:
    def is_media_level(text: str) -> bool:
        return text.index("m=") < text.index("a=ice-ufrag") < text.index("a=ice-pwd")

    assert is_media_level(Description(UFRAG, PWD).to_sdp())
    assert is_media_level(Fragment(UFRAG, PWD).to_sdp())


@pytest.mark.parametrize(
    "fragment",
    [
        Fragment(UFRAG, PWD),
        Fragment(UFRAG, PWD, None),
        Fragment(UFRAG, PWD, None, end_of_candidates=True),
        Fragment(UFRAG, PWD, "data", (candidate(5000),)),
        Fragment("a" * 32, "b" * 256, "0", (candidate(5000), candidate(5001)), True),
    ],
)
def test_a_fragment_survives_a_round_trip(fragment: Fragment) -> None:
    assert Fragment.parse(fragment.to_sdp()) == fragment


@pytest.mark.parametrize(
    "text",
    [
        f"{CREDENTIALS}m=audio 9 RTP/AVP 0\na=mid:1\n",
        f"m=audio 9 RTP/AVP 0\n{CREDENTIALS}a=mid:1\n",
        f"a=ice-ufrag:abcd\na=ice-pwd:{'x' * 22}\nm=x\n{CREDENTIALS}a=mid:1\n",
    ],
)
def test_rfc8840_4_4_credentials_are_read_at_either_level_and_media_wins(text: str) -> None:
    fragment = Fragment.parse(text)
    assert (fragment.ufrag, fragment.pwd) == (UFRAG, PWD)


@pytest.mark.parametrize("missing", ["a=ice-ufrag", "a=ice-pwd"])
def test_rfc8840_4_4_every_fragment_must_have_both_credentials(missing: str) -> None:
    text = "\n".join(line for line in FIGURE_7.split("\n") if not line.startswith(missing))
    with pytest.raises(InvalidDescription, match=missing[2:]):
        Fragment.parse(text)


@pytest.mark.parametrize(
    "line", ["m=", "m=anything at all", "m=video 0 X 1 2 3", "m=audio 99999 a b"]
)
def test_rfc8840_4_4_the_content_of_a_pseudo_m_line_is_ignored(line: str) -> None:
    text = f"{CREDENTIALS}{line}\na=mid:7\na=candidate:1 1 UDP 1 192.0.2.1 5 typ host\n"
    fragment = Fragment.parse(text)
    assert (fragment.mid, len(fragment.candidates)) == ("7", 1)


def test_rfc8840_9_2_attribute_names_are_case_insensitive_on_receipt() -> None:
    text = FIGURE_7.replace("a=ice-ufrag", "a=ICE-Ufrag").replace("a=mid", "a=MID")
    text = text.replace("a=candidate", "a=Candidate").replace("a=end-of", "a=End-Of")
    assert Fragment.parse(text) == Fragment.parse(FIGURE_7)


def test_rfc8840_9_2_we_send_attribute_names_in_lower_case() -> None:
    text = Fragment(UFRAG, PWD, "0", (candidate(5000),), True).to_sdp()
    names = [line[2:].split(":")[0] for line in text.split("\r\n") if line.startswith("a=")]
    assert names == [name.lower() for name in names]


def test_rfc8840_9_2_unknown_attributes_and_lines_are_ignored() -> None:
    text = FIGURE_7.replace("a=mid:1\n", "a=mid:1\na=x-new:1 2\na=flag\nb=AS:5\na=rtcp-mux\n")
    assert Fragment.parse(text) == Fragment.parse(FIGURE_7)


def test_rfc8840_4_4_end_of_candidates_at_the_session_level_holds_for_every_section() -> None:
    text = f"{CREDENTIALS}a=end-of-candidates\nm=audio 9 RTP/AVP 0\na=mid:1\nm=x\na=mid:2\n"
    assert Fragment.parse(text, mid="1").end_of_candidates
    assert Fragment.parse(text, mid="2").end_of_candidates
    assert Fragment.parse(f"{CREDENTIALS}a=end-of-candidates\n").mid is None


def test_rfc8840_4_4_end_of_candidates_at_the_media_level_holds_for_its_section() -> None:
    text = f"{CREDENTIALS}m=x\na=mid:1\nm=x\na=mid:2\na=end-of-candidates\n"
    assert not Fragment.parse(text, mid="1").end_of_candidates
    assert Fragment.parse(text, mid="2").end_of_candidates


def test_rfc8840_4_4_a_fragment_of_another_generation_is_told_apart() -> None:
    description = Description(UFRAG, PWD)
    assert Fragment(UFRAG, PWD).belongs_to(description)
    assert not Fragment("8hhZ", PWD).belongs_to(description)
    assert not Fragment(UFRAG, PWD[:-1] + "h").belongs_to(description)


def test_rfc8840_4_4_known_candidates_are_dropped_and_new_ones_keep_their_order() -> None:
    fragment = Fragment(
        UFRAG, PWD, "0", tuple(candidate(p) for p in (5003, 5001, 5002, 5003, 5004))
    )
    known = [candidate(5001, foundation="other", priority=1)]
    assert [c.port for c in fragment.new_candidates(known)] == [5003, 5002, 5004]


@pytest.mark.parametrize(
    "change", [{"host": "192.0.2.2"}, {"port": 1}, {"component": 2}, {"transport": "tcp"}]
)
def test_rfc8840_4_4_candidates_differ_by_address_port_transport_or_component(
    change: dict[str, object],
) -> None:
    fragment = Fragment(UFRAG, PWD, "0", (candidate(5000),))
    known = replace(candidate(5000), **change)  # type: ignore[arg-type]
    assert fragment.new_candidates([known]) == fragment.candidates


def test_an_invalid_candidate_is_refused_and_a_useless_one_is_counted() -> None:
    with pytest.raises(InvalidDescription, match="line 5: component 0"):
        Fragment.parse(f"{CREDENTIALS}m=x\na=mid:1\na=candidate:1 0 UDP 1 192.0.2.1 5 typ host\n")
    useless = "a=candidate:1 1 UDP 1 peer.example.com 5 typ host\n"
    fragment = Fragment.parse(f"{CREDENTIALS}{useless}m=x\na=mid:1\n{useless}")
    assert (fragment.candidates, fragment.ignored) == ((), 2)


def test_a_hostile_fragment_costs_bounded_memory() -> None:
    line = "a=candidate:1 1 UDP 1 192.0.2.1 5 typ host\n"
    fragment = Fragment.parse(f"{CREDENTIALS}m=x\na=mid:1\n" + line * 1000)
    assert (len(fragment.candidates), fragment.ignored) == (128, 872)
    with pytest.raises(InvalidDescription):
        Fragment.parse(f"{CREDENTIALS}m=x\na=mid:1\n" + line * 2000)


@pytest.mark.parametrize(
    "broken",
    [
        {"ufrag": "abc"},
        {"ufrag": "abc\n"},
        {"pwd": "short"},
        {"mid": "a b"},
        {"mid": ""},
        {"mid": None, "candidates": (candidate(5000),)},
    ],
)
def test_a_fragment_that_has_no_text_can_not_be_made(broken: dict[str, object]) -> None:
    fields: dict[str, object] = {"ufrag": UFRAG, "pwd": PWD}
    with pytest.raises(InvalidDescription):
        Fragment(**(fields | broken))  # type: ignore[arg-type]


def test_rfc8839_5_4_a_long_ufrag_is_received_and_not_sent() -> None:
    with pytest.raises(InvalidDescription):
        Fragment("a" * 33, PWD).to_sdp()
    text = Fragment("a" * 32, PWD).to_sdp().replace("a" * 32, "a" * 256)
    assert Fragment.parse(text).ufrag == "a" * 256


def test_more_candidates_than_the_other_side_keeps_are_not_sent() -> None:
    with pytest.raises(InvalidDescription):
        Fragment(UFRAG, PWD, "0", tuple(candidate(p) for p in range(1, 130))).to_sdp()


def test_the_password_is_not_shown() -> None:
    assert PWD not in repr(Fragment(UFRAG, PWD))
    with pytest.raises(InvalidDescription) as caught:
        Fragment.parse(f"a=ice-pwd:{PWD}!\na=ice-ufrag:{UFRAG}\n")
    assert PWD not in str(caught.value)
    with pytest.raises(InvalidDescription) as caught:
        Fragment.parse(f"x a=ice-pwd:{PWD}\n")
    assert PWD not in str(caught.value)


def test_a_browser_candidate_can_be_trickled_on() -> None:
    line = "candidate:1 1 udp 2113937151 f2de9f8c-ebcf.local 58521 typ host generation 0"
    browser = parse_candidate(line)
    assert browser is not None
    assert f"a={line}\r\n" in Fragment(UFRAG, PWD, "0", (browser,)).to_sdp()
