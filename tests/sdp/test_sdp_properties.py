"""What holds for every description: it survives a round trip, and every text is read or refused."""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Callable

import aioice
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate, CandidateType, is_usable_address
from ice_punch.sdp import (
    Description,
    Fingerprint,
    Fragment,
    Setup,
    format_candidate,
    parse_candidate,
)
from ice_punch.sdp.attributes import RemoteCandidate

ICE_CHARS = string.ascii_letters + string.digits + "+/"
TOKEN_CHARS = string.ascii_letters + string.digits + "-.!%*_+`'~"
SDP_TOKEN_CHARS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`{|}~"
VCHARS = "".join(map(chr, range(0x21, 0x7F)))

without_deadline = settings(deadline=None)

tokens = st.text(SDP_TOKEN_CHARS, min_size=1, max_size=12)
ports = st.integers(1, 65535)
ips = st.ip_addresses().map(str)
usable_ips = ips.filter(lambda ip: is_usable_address(ip, loopback=True, link_local=True))
names = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=63).map(
    lambda label: f"{label}.local"
)
extensions = st.lists(
    st.tuples(
        st.text(TOKEN_CHARS, min_size=1, max_size=12).filter(
            lambda name: name.lower() not in ("raddr", "rport", "tcptype")
        ),
        st.text(VCHARS, max_size=12),
    ),
    max_size=4,
).map(tuple)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    type_ = draw(st.sampled_from(CandidateType))
    tcptype = draw(st.sampled_from([None, "active", "passive", "so"]))
    related = st.tuples(ips, st.integers(0, 65535))
    return Candidate(
        foundation=draw(st.text(ICE_CHARS, min_size=1, max_size=32)),
        component=draw(st.integers(1, 256)),
        transport="udp" if tcptype is None else "tcp",
        priority=draw(st.integers(1, 2**31 - 1)),
        host=draw(usable_ips | names),
        port=9 if tcptype == "active" else draw(ports),
        type=type_,
        related_address=None if type_ is CandidateType.HOST else draw(related),
        tcptype=tcptype,
        extensions=draw(extensions),
    )


fingerprints = st.tuples(
    st.sampled_from(["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"]), st.binary(max_size=8)
).map(lambda pair: Fingerprint.of(pair[1], pair[0]))
ufrags = st.text(ICE_CHARS, min_size=4, max_size=32)
pwds = st.text(ICE_CHARS, min_size=22, max_size=256)
descriptions = st.builds(
    Description,
    ufrag=ufrags,
    pwd=pwds,
    options=st.lists(
        st.text(ICE_CHARS, min_size=1, max_size=8), max_size=3, unique=True
    ).map(tuple),
    pacing=st.none() | st.integers(0, 10**10 - 1),
    setup=st.none() | st.sampled_from([Setup.ACTPASS, Setup.ACTIVE, Setup.PASSIVE]),
    fingerprints=st.lists(fingerprints, max_size=3, unique=True).map(tuple),
    tls_id=st.none() | st.text(ICE_CHARS + "-_", min_size=20, max_size=255),
    mid=tokens,
    candidates=st.lists(candidates(), max_size=5).map(tuple),
    end_of_candidates=st.booleans(),
    protocol=st.sampled_from(["UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "UDP", "UDP/TLS/RTP/SAVPF"]),
    formats=st.lists(tokens, min_size=1, max_size=3).map(tuple),
    media=tokens,
    remote_candidates=st.lists(
        st.builds(RemoteCandidate, st.integers(1, 256), ips, st.integers(0, 65535)), max_size=2
    ).map(tuple),
    sctp_port=st.none() | st.integers(0, 65535),
    max_message_size=st.none() | st.integers(0, 10**18 - 1),
    session_id=st.integers(0, 2**64 - 1),
    session_version=st.integers(0, 2**64 - 1),
)  # fmt: skip
fragments = st.builds(
    Fragment,
    ufrag=ufrags,
    pwd=pwds,
    mid=tokens,
    candidates=st.lists(candidates(), max_size=5).map(tuple),
    end_of_candidates=st.booleans(),
)


def read_or_refused(parse: Callable[[str], object], text: str) -> None:
    message = ""
    try:
        parse(text)
    except InvalidDescription as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 150


@without_deadline
@given(candidates())
def test_a_candidate_survives_a_round_trip(candidate: Candidate) -> None:
    assert parse_candidate(format_candidate(candidate)) == candidate


@without_deadline
@given(candidates())
def test_rfc8839_5_1_the_written_line_is_the_only_form_of_the_candidate(
    candidate: Candidate,
) -> None:
    line = format_candidate(candidate)
    again = parse_candidate(f"a={line}")
    assert again is not None
    assert format_candidate(again) == line


@without_deadline
@given(candidates().filter(lambda c: not any(value == "" for _, value in c.extensions)))
def test_aioice_reads_every_candidate_we_write(candidate: Candidate) -> None:
    line = format_candidate(candidate)
    if not any(name == "generation" for name, _ in candidate.extensions):
        theirs = aioice.Candidate.from_sdp(line.removeprefix("candidate:"))
        assert (theirs.host, theirs.port, theirs.priority) == (
            candidate.host,
            candidate.port,
            candidate.priority,
        )


@without_deadline
@given(descriptions)
def test_a_description_survives_a_round_trip(description: Description) -> None:
    text = description.to_sdp()
    assert Description.parse(text) == description
    assert Description.parse(text.replace("\r\n", "\n")) == description


@without_deadline
@given(descriptions)
def test_rfc8839_4_2_5_what_we_write_is_never_a_mismatch(description: Description) -> None:
    assert not Description.parse(description.to_sdp()).is_mismatched


@without_deadline
@given(fragments)
def test_a_fragment_survives_a_round_trip(fragment: Fragment) -> None:
    assert Fragment.parse(fragment.to_sdp()) == fragment


@without_deadline
@given(st.text())
@example("candidate:" + " " * 2000)
@example("a=candidate:1 1 udp 1 192.0.2.1 " + "9" * 1990 + " typ host")
def test_any_text_is_a_candidate_or_refused(text: str) -> None:
    for line in (text, f"candidate:{text}", f"candidate:1 1 udp 1 {text} 5 typ host"):
        read_or_refused(parse_candidate, line)
    read_or_refused(parse_candidate, f"candidate:1 1 udp 1 192.0.2.1 5 typ srflx {text}")


@without_deadline
@given(st.text())
@example("v=0\r\n\r\n\r\n")
@example("v=0\no=- " + "9" * 60000 + " 1 IN IP4 x\nm=a " + "9" * 5000 + " b c")
@example("v=0\nm=a 1/" + "9" * 60000 + " b c")
@example("v=0\nm=" + "a/" * 30000)
@example("v=0\nm=a 9 " + "a/" * 30000 + " b")
@example("v=0\nm=a 9 b" + " c" * 30000)
def test_any_text_is_a_description_or_refused(text: str) -> None:
    for document in (text, f"v=0\nm=a 9 UDP b\n{text}", f"v=0\nm=a 9 UDP b\na={text}"):
        read_or_refused(Description.parse, document)
        read_or_refused(Fragment.parse, document)
    read_or_refused(Fingerprint.parse, text)


NAMES = [
    "candidate", "remote-candidates", "ice-ufrag", "ice-pwd", "ice-options", "ice-pacing",
    "ice-lite", "ice-mismatch", "end-of-candidates", "setup", "fingerprint", "tls-id", "mid",
    "sctp-port", "max-message-size", "group",
]  # fmt: skip


@without_deadline
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=30)), max_size=4))
def test_any_value_of_a_known_attribute_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    lines = "".join(f"a={name}:{value}\n" for name, value in pairs)
    credentials = f"a=ice-ufrag:8hhY\na=ice-pwd:{'x' * 22}\n"
    read_or_refused(Description.parse, f"v=0\nm=a 9 UDP b\n{credentials}{lines}")
    read_or_refused(Fragment.parse, f"{credentials}m=a 9 UDP b\n{lines}")


@without_deadline
@given(descriptions, st.data())
def test_a_mutated_description_is_read_or_refused(
    description: Description, data: st.DataObject
) -> None:
    text = description.to_sdp()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    read_or_refused(Description.parse, text)
    read_or_refused(Fragment.parse, text)


@without_deadline
@given(ips)
def test_addresses_of_parsed_candidates_are_canonical(ip: str) -> None:
    exploded = ipaddress.ip_address(ip).exploded
    candidate = parse_candidate(f"candidate:1 1 udp 1 {exploded.upper()} 5 typ host")
    if candidate is not None:
        assert candidate.host == str(ipaddress.ip_address(candidate.host)) == ip
    else:
        assert not is_usable_address(ip, loopback=True, link_local=True)
