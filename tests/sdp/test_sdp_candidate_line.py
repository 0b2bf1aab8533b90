"""Candidate lines: RFC 8839 section 5.1, RFC 6544 section 4.5, the mDNS draft."""

from __future__ import annotations

import aioice
import pytest

from ice_punch.errors import InvalidDescription
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.sdp import format_candidate, parse_candidate

HOST = "candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host"
SRFLX = "candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998"

CHROMIUM = [
    "candidate:3077952869 1 udp 2122265343 fd00::2 59811 typ host generation 0 network-id 2",
    "candidate:4193659285 1 tcp 1518285567 192.0.2.2 9 typ host tcptype active generation 0 "
    "network-id 2 network-cost 10",
    "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0 "
    "generation 0 ufrag EsAw network-id 1 network-cost 999",
    "candidate:2745634393 1 udp 41885439 198.51.100.4 61000 typ relay raddr 203.0.113.7 "
    "rport 46154 generation 0 ufrag Es+/ network-id 1",
    "candidate:1 1 udp 2113937151 f2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local 58521 typ host "
    "generation 0 ufrag EsAw network-cost 999",
]
FIREFOX = [
    "candidate:0 1 UDP 2122252543 f2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local 58521 typ host",
    "candidate:2 1 TCP 2105524479 f2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local 9 typ host "
    "tcptype active",
    "candidate:1 1 UDP 1686052863 203.0.113.10 58521 typ srflx raddr 0.0.0.0 rport 0",
]
LIBNICE = [
    "candidate:7 1 UDP 2013266429 2001:db8:7c17:cd00:d06b:b269:1ef0:28ac 37735 typ host",
    "candidate:8 1 TCP 1015022335 2001:db8:7c17:cd00:d06b:b269:1ef0:28ac 9 typ host tcptype active",
    "candidate:9 1 TCP 1010828031 2001:db8:7c17:cd00:d06b:b269:1ef0:28ac 49577 typ host "
    "tcptype passive",
    "candidate:20 1 UDP 1677722111 203.0.113.9 40009 typ srflx raddr 192.168.0.8 rport 40009",
]
PION = [
    "candidate:foundation 1 udp 1694498815 203.0.113.5 62779 typ srflx raddr 0.0.0.0 rport 62779 "
    "generation 0",
    "candidate:3768882415 2 udp 2130706431 192.168.1.101 54656 typ host",
    "candidate:1938809241 1 udp 16777215 198.51.100.9 50000 typ relay raddr 192.0.2.4 rport 50000",
]
AIORTC = [
    "candidate:f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 192.0.2.2 39027 typ host",
    "candidate:7dbbd58e1be1ef3abb5b80c8c7c2e8f6 1 udp 1694498815 203.0.113.3 39027 typ srflx "
    "raddr 192.0.2.2 rport 39027",
]
MEDIASOUP = ["candidate:udpcandidate 1 udp 1078862089 2001:db8::9 41333 typ host"]
LIBDATACHANNEL = [
    "candidate:2 1 UDP 1677721855 203.0.113.8 49203 typ srflx raddr 0.0.0.0 rport 0",
]


def parsed(line: str) -> Candidate:
    candidate = parse_candidate(line)
    assert candidate is not None
    return candidate


def host_line(**fields: str) -> str:
    values = {
        "foundation": "1",
        "component": "1",
        "transport": "udp",
        "priority": "2130706431",
        "address": "192.0.2.1",
        "port": "5000",
        "typ": "typ",
        "type": "host",
    } | fields
    return "candidate:" + " ".join(values.values())


def test_rfc8839_5_1_example_is_read() -> None:
    assert parse_candidate("a=" + SRFLX) == Candidate(
        foundation="2",
        component=1,
        transport="udp",
        priority=1694498815,
        host="192.0.2.3",
        port=45664,
        type=CandidateType.SRFLX,
        related_address=("203.0.113.141", 8998),
    )


def test_a_line_is_read_with_and_without_a_equals_and_with_its_line_end() -> None:
    assert parse_candidate(HOST) == parse_candidate(f"a={HOST}") == parse_candidate(f"{HOST}\r\n")


@pytest.mark.parametrize(
    "line", CHROMIUM + FIREFOX + LIBNICE + PION + AIORTC + MEDIASOUP + LIBDATACHANNEL
)
def test_lines_of_other_stacks_survive_a_round_trip(line: str) -> None:
    candidate = parsed(line)
    assert parse_candidate(format_candidate(candidate)) == candidate
    assert format_candidate(candidate).lower() == line.lower()


def test_rfc8839_5_1_extensions_that_are_not_understood_are_kept() -> None:
    candidate = parsed(CHROMIUM[2])
    assert candidate.extensions == (
        ("generation", "0"),
        ("ufrag", "EsAw"),
        ("network-id", "1"),
        ("network-cost", "999"),
    )


def test_rfc8839_5_1_an_extension_value_may_be_empty() -> None:
    assert parsed(HOST + " name ").extensions == (("name", ""),)
    assert format_candidate(parsed(HOST + " name  other x")).endswith(" name  other x")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param("candidate:", id="nothing after the colon"),
        pytest.param("candidate", id="no colon"),
        pytest.param("end-of-candidates", id="another attribute"),
        pytest.param("a=a=" + HOST, id="a= twice"),
        pytest.param(" " + HOST, id="leading space"),
        pytest.param(HOST + " ", id="trailing space"),
        pytest.param(HOST + "\n\n", id="two line ends"),
        pytest.param(HOST.replace(" 1 ", "  1 "), id="double space"),
        pytest.param(HOST.replace(" ", "\t"), id="tabs"),
        pytest.param(HOST.removesuffix(" typ host"), id="no type"),
        pytest.param(HOST.removesuffix(" host"), id="typ without value"),
        pytest.param(host_line(foundation=""), id="empty foundation"),
        pytest.param(host_line(foundation="a" * 33), id="foundation of 33"),
        pytest.param(host_line(foundation="a-b"), id="foundation with hyphen"),
        pytest.param(host_line(foundation="\u0661"), id="foundation not ASCII"),
        pytest.param(host_line(component="0"), id="component 0"),
        pytest.param(host_line(component="257"), id="component 257"),
        pytest.param(host_line(component="0001"), id="component of four digits"),
        pytest.param(host_line(component="99999999"), id="component huge"),
        pytest.param(host_line(component="-1"), id="component negative"),
        pytest.param(host_line(component="+1"), id="component with plus"),
        pytest.param(host_line(component="1_0"), id="component with underscore"),
        pytest.param(host_line(component="\u0661"), id="component not ASCII"),
        pytest.param(host_line(transport=""), id="empty transport"),
        pytest.param(host_line(transport="u/dp"), id="transport no token"),
        pytest.param(host_line(priority="0"), id="priority 0"),
        pytest.param(host_line(priority="2147483648"), id="priority 2^31"),
        pytest.param(host_line(priority="00000000001"), id="priority of eleven digits"),
        pytest.param(host_line(priority="1e3"), id="priority float"),
        pytest.param(host_line(port="65536"), id="port 65536"),
        pytest.param(host_line(port="99999999"), id="port huge"),
        pytest.param(host_line(port="9" * 1500), id="port of 1500 digits"),
        pytest.param(host_line(port=""), id="empty port"),
        pytest.param(host_line(port="0x50"), id="port hexadecimal"),
        pytest.param(host_line(typ="type"), id="typ misspelt"),
        pytest.param(host_line(type=""), id="empty type"),
        pytest.param(host_line(type="h@st"), id="type no token"),
        pytest.param(host_line(address=""), id="empty address"),
        pytest.param(host_line(address="50.0.0.^^1"), id="address nonsense"),
        pytest.param(host_line(address="192.0.2"), id="IPv4 of three"),
        pytest.param(host_line(address="192.0.2.1.1"), id="IPv4 of five"),
        pytest.param(host_line(address="192.0.2.256"), id="IPv4 out of range"),
        pytest.param(host_line(address="192.0.2.01"), id="IPv4 with leading zero"),
        pytest.param(host_line(address="192.0.2.1."), id="IPv4 with trailing dot"),
        pytest.param(host_line(address="3221225985"), id="IPv4 as one number"),
        pytest.param(host_line(address="fe80::1%eth0"), id="IPv6 zone"),
        pytest.param(host_line(address="2001:db8::1::2"), id="IPv6 two gaps"),
        pytest.param(host_line(address="200a0b:12f0::1"), id="IPv6 group too long"),
        pytest.param(host_line(address="[2001:db8::1]"), id="IPv6 in brackets"),
        pytest.param(host_line(address="abc"), id="name too short"),
        pytest.param(host_line(address="b\u00fccher.example"), id="name not ASCII"),
        pytest.param(host_line(address="a_b.example"), id="name with underscore"),
        pytest.param(host_line(address="a" * 256), id="name too long"),
        pytest.param(HOST + " generation", id="extension without value"),
        pytest.param(HOST + " gen@ration 0", id="extension name no token"),
        pytest.param(HOST + "  0", id="extension name empty"),
        pytest.param(HOST + " name va\u00fclue", id="extension value not ASCII"),
        pytest.param(HOST + " name \x7f", id="extension value DEL"),
        pytest.param(HOST + " name " + "x" * 2048, id="line too long"),
    ],
)
def test_rfc8839_5_1_lines_that_break_the_grammar_are_refused(line: str) -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(line)


def test_rfc8839_5_1_the_bounds_themselves_are_accepted() -> None:
    candidate = parsed(
        host_line(foundation="+/" * 16, component="256", priority="2147483647", port="65535")
    )
    assert (candidate.component, candidate.priority, candidate.port) == (256, 2**31 - 1, 65535)
    candidate = parsed(host_line(foundation="A", component="001", priority="0000000001"))
    assert (candidate.component, candidate.priority) == (1, 1)


@pytest.mark.parametrize("type_", ["srflx", "prflx", "relay"])
@pytest.mark.parametrize(
    "related", ["", " raddr 192.0.2.9", " rport 9", " rport 9 raddr 192.0.2.9", " generation 0"]
)
def test_rfc8839_5_1_raddr_and_rport_must_be_there_unless_host(type_: str, related: str) -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(host_line(type=type_) + related)
    parsed(host_line(type=type_) + " raddr 192.0.2.9 rport 9")


@pytest.mark.parametrize(
    "related", [" raddr 192.0.2.9 rport 9", " raddr 192.0.2.9", " rport 9", " a b raddr 192.0.2.9"]
)
def test_rfc8839_5_1_raddr_and_rport_must_not_be_there_for_host(related: str) -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(HOST + related)


@pytest.mark.parametrize(
    "related",
    [
        "raddr 192.0.2.09 rport 9",
        "raddr fe80::1%1 rport 9",
        "raddr 192.0.2.9 rport 65536",
        "raddr 192.0.2.9 rport x",
        "raddr 192.0.2.9 rport 9 raddr 192.0.2.9",
        "raddr 192.0.2.9 rport 9 rport 9",
    ],
)
def test_rfc8839_5_1_related_addresses_follow_the_grammar(related: str) -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(host_line(type="srflx") + " " + related)


@pytest.mark.parametrize(
    ("related", "expected"),
    [
        ("raddr 0.0.0.0 rport 9", ("0.0.0.0", 9)),
        ("raddr :: rport 9", ("::", 9)),
        ("raddr 0.0.0.0 rport 0", ("0.0.0.0", 0)),
        ("RADDR 192.0.2.9 RPORT 1", ("192.0.2.9", 1)),
    ],
)
def test_rfc8839_5_1_hidden_related_addresses_are_accepted(
    related: str, expected: tuple[str, int]
) -> None:
    assert parsed(host_line(type="srflx") + " " + related).related_address == expected


@pytest.mark.parametrize(
    ("ip", "hidden"), [("192.0.2.1", "raddr 0.0.0.0 rport 9"), ("2001:db8::1", "raddr :: rport 9")]
)
def test_rfc8839_5_1_an_unknown_related_address_is_sent_as_the_hidden_one(
    ip: str, hidden: str
) -> None:
    candidate = Candidate("1", 1, "udp", 1, ip, 5000, CandidateType.SRFLX)
    assert format_candidate(candidate).endswith(f"typ srflx {hidden}")


def test_rfc8839_5_1_a_host_candidate_is_sent_without_related_address() -> None:
    candidate = Candidate(
        "1", 1, "udp", 1, "192.0.2.1", 5000, CandidateType.HOST, related_address=("192.0.2.1", 1)
    )
    assert "raddr" not in format_candidate(candidate)


def test_base_and_server_of_a_local_candidate_are_never_sent() -> None:
    candidate = Candidate(
        "1", 1, "udp", 1, "192.0.2.1", 5000, CandidateType.SRFLX, base=("10.9.8.7", 5000),
        server="stun:198.51.100.77",
    )  # fmt: skip
    assert "10.9.8.7" not in format_candidate(candidate)
    assert "198.51.100.77" not in format_candidate(candidate)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(host_line(transport="sctp"), id="unknown transport"),
        pytest.param(host_line(transport="ssltcp"), id="Chromium's SSL over TCP"),
        pytest.param(host_line(transport="tcp-act"), id="TCP before RFC 6544"),
        pytest.param(host_line(type="future"), id="unknown type"),
        pytest.param(host_line(type="future") + " raddr 192.0.2.9 rport 9", id="and related"),
        pytest.param(host_line(type="future") + " rport 9", id="unknown type, lone rport"),
        pytest.param(host_line(address="peer.example.com"), id="FQDN"),
        pytest.param(host_line(address="localhost"), id="bare host name"),
        pytest.param(host_line(address="0.0.0.0"), id="unspecified"),
        pytest.param(host_line(address="::"), id="unspecified IPv6"),
        pytest.param(host_line(address="224.0.0.1"), id="multicast"),
        pytest.param(host_line(address="ff02::1"), id="multicast IPv6"),
        pytest.param(host_line(address="::ffff:192.0.2.1"), id="IPv4-mapped"),
        pytest.param(host_line(port="0"), id="port 0"),
    ],
)
def test_rfc8839_5_1_valid_lines_of_no_use_are_ignored(line: str) -> None:
    assert parse_candidate(line) is None


def test_a_line_of_unknown_type_must_still_follow_the_grammar() -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(host_line(type="future", port="70000"))
    with pytest.raises(InvalidDescription):
        parse_candidate(host_line(transport="sctp", address="50.0.0.^^1"))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("fe80:0::1", "fe80::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_addresses_become_canonical(text: str, canonical: str) -> None:
    assert parsed(host_line(address=text)).host == canonical


@pytest.mark.parametrize("name", ["F2de9f8c-ebcf-4a03-8396-6d93eadb5e43.local", "printer.LOCAL"])
def test_mdns_3_3_a_single_label_before_local_is_kept(name: str) -> None:
    candidate = parsed(host_line(address=name))
    assert candidate.is_mdns
    assert candidate.host == name.lower()
    assert parse_candidate(format_candidate(candidate)) == candidate


@pytest.mark.parametrize(
    "name", ["a.b.local", ".local", "a.local.", "local", f"{'a' * 64}.local", "a.local.example.com"]
)
def test_mdns_3_3_other_names_are_ignored(name: str) -> None:
    assert parse_candidate(host_line(address=name)) is None


def test_rfc8839_5_1_a_local_candidate_is_never_sent_with_an_fqdn() -> None:
    candidate = Candidate("1", 1, "udp", 1, "peer.example.com", 5000, CandidateType.HOST)
    with pytest.raises(InvalidDescription):
        format_candidate(candidate)


@pytest.mark.parametrize(
    "broken",
    [
        {"foundation": "a b"},
        {"foundation": "1\r\na=ice-lite"},
        {"component": 0},
        {"component": -1},
        {"transport": "u p"},
        {"priority": 0},
        {"priority": 2**31},
        {"host": "192.0.2.1\n"},
        {"host": "fe80::1%eth0"},
        {"port": 65536},
        {"port": -1},
        {"extensions": (("a b", "c"),)},
        {"extensions": (("a", "b\r\nc"),)},
        {"extensions": (("raddr", "192.0.2.1"),)},
        {"transport": "tcp"},
        {"transport": "tcp", "tcptype": "sideways"},
        {"type": CandidateType.SRFLX, "related_address": ("peer local", 1)},
        {"type": CandidateType.SRFLX, "related_address": ("192.0.2.1", 65536)},
    ],
)
def test_what_the_grammar_has_no_form_for_is_not_sent(broken: dict[str, object]) -> None:
    fields: dict[str, object] = {
        "foundation": "1",
        "component": 1,
        "transport": "udp",
        "priority": 1,
        "host": "192.0.2.1",
        "port": 5000,
        "type": CandidateType.HOST,
    }
    format_candidate(Candidate(**fields))  # type: ignore[arg-type]
    with pytest.raises(InvalidDescription):
        format_candidate(Candidate(**(fields | broken)))  # type: ignore[arg-type]


def test_rfc6544_4_5_appendix_c_examples_are_read() -> None:
    line = (
        "a=candidate:4 1 TCP 1684796415 192.0.2.3 9 typ srflx raddr 10.0.1.1 rport 9 tcptype active"
    )
    candidate = parsed(line)
    assert (candidate.transport, candidate.tcptype, candidate.port) == ("tcp", "active", 9)
    assert candidate.extensions == ()
    line = "candidate:3 1 TCP 2120220671 10.0.1.1 8999 typ host tcptype so"
    assert format_candidate(parsed(line)) == line.replace("TCP", "tcp")


@pytest.mark.parametrize("tail", [" tcptype", " tcptype other", " tcptype so tcptype so"])
def test_rfc6544_4_5_a_tcp_candidate_has_one_known_tcptype(tail: str) -> None:
    with pytest.raises(InvalidDescription):
        parse_candidate(host_line(transport="TCP") + tail)


@pytest.mark.parametrize("tail", ["", " generation 0"])
def test_a_tcp_candidate_without_tcptype_is_grammatical_and_ignored(tail: str) -> None:
    assert parse_candidate(host_line(transport="TCP") + tail) is None


def test_rfc6544_4_5_an_active_candidate_may_have_any_port_and_is_sent_with_9() -> None:
    candidate = parsed(host_line(transport="tcp", port="0") + " generation 0 tcptype ACTIVE")
    assert (candidate.port, candidate.tcptype) == (0, "active")
    assert " 9 typ host tcptype active generation 0" in format_candidate(candidate)
    assert parse_candidate(host_line(transport="tcp", port="0") + " tcptype passive") is None


def test_a_udp_candidate_keeps_tcptype_as_an_extension_like_any_other() -> None:
    candidate = parsed(HOST + " tcptype active")
    assert candidate.tcptype is None
    assert candidate.extensions == (("tcptype", "active"),)


@pytest.mark.parametrize("line", [HOST, SRFLX, *CHROMIUM, *FIREFOX, *LIBNICE, *PION])
def test_aioice_reads_what_we_write(line: str) -> None:
    ours = parsed(line)
    theirs = aioice.Candidate.from_sdp(format_candidate(ours).removeprefix("candidate:"))
    related = (theirs.related_address, theirs.related_port) if ours.related_address else None
    assert (theirs.foundation, theirs.component, theirs.transport) == (
        ours.foundation,
        ours.component,
        ours.transport,
    )
    assert (theirs.priority, theirs.host, theirs.port, theirs.type) == (
        ours.priority,
        ours.host,
        ours.port,
        ours.type,
    )
    assert (related, theirs.tcptype) == (ours.related_address, ours.tcptype)


def test_we_read_what_aioice_writes() -> None:
    theirs = aioice.Candidate(
        foundation="7dbbd58e1be1ef3abb5b80c8c7c2e8f6",
        component=1,
        transport="udp",
        priority=1694498815,
        host="203.0.113.3",
        port=39027,
        type="srflx",
        related_address="192.0.2.2",
        related_port=39027,
        generation=0,
    )
    assert parsed("candidate:" + theirs.to_sdp()).related_address == ("192.0.2.2", 39027)


def test_an_error_shows_a_bounded_and_printable_part_of_the_line() -> None:
    with pytest.raises(InvalidDescription) as caught:
        parse_candidate(host_line(foundation="\x1b[31m" + "x" * 1000))
    assert len(str(caught.value)) < 120
    assert str(caught.value).isprintable()
