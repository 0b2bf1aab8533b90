"""Secrets are in no recording, addresses on request in none either, and the replay holds."""

from __future__ import annotations

import ipaddress
import random
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recording_support import Studio, Tape

from ice_punch.datagram import Address
from ice_punch.diagnosis import diagnose
from ice_punch.errors import NoRoute
from ice_punch.ice import (
    AgentConfig,
    Candidate,
    CandidateType,
    Credentials,
    IceState,
    LocalCandidateFound,
    StateChanged,
)
from ice_punch.lab.behaviour import NatKind
from ice_punch.recording import RecordedAgent, Replay, replay
from ice_punch.recording import lines as told
from ice_punch.report import Report, ServerReport, Told
from ice_punch.stun import (
    ERROR_CODE,
    MAPPED_ADDRESS,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    MessageClass,
    response_to,
)
from support.agents import Meeting
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, Sent, remote_candidate
from support.wire import Weather, Wire

PASSWORDS = (OURS.pwd, PEER.pwd)
IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")


def redacted_meeting(*nats: NatKind, **options: Any) -> tuple[Meeting, Studio]:
    studio = Studio(redact_addresses=True)
    return Meeting(*nats, make_agent=studio.make_agent, **options), studio


def hexadecimal(ips: Iterable[str]) -> list[str]:
    """As they stand in a message, plain and XORed with the magic cookie (RFC 8489 14.2)."""
    found = []
    for ip in ips:
        packed = ipaddress.ip_address(ip).packed
        found.append(packed.hex())
        xored = bytes(a ^ b for a, b in zip(packed[:4], b"\x21\x12\xa4\x42", strict=False))
        found.append(xored.hex() if len(packed) == 4 else "no such text")
    return found


def test_no_password_is_in_a_recording() -> None:
    for redact in (False, True):
        studio = Studio(redact_addresses=redact)
        bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
        bench.answer_all(0.02)
        bench.receive(bench.request(use_candidate=True))
        bench.run(20.0)
        studio.end()
        (tape,) = studio.tapes
        tape.replay()
        for pwd in PASSWORDS:
            assert pwd not in tape.text
            assert pwd.encode().hex() not in tape.text
        # nor can anybody try passwords on what is signed: nothing is signed with the real ones
        for at, transmit in tape.replay().sent:
            assert not any(Sent(at, *transmit).message.verify(p.encode()) for p in PASSWORDS)


def test_no_address_is_in_a_recording_where_none_is_wanted() -> None:
    meeting, studio = redacted_meeting(NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED, loss=0.05)
    meeting.start(0.05)
    meeting.run(60.0)
    studio.end()
    originals = {
        ip
        for packet in meeting.internet.trace
        for ip, _ in (packet.source, packet.destination, packet.wire_source)
    }
    assert originals >= {"192.168.1.2", "203.0.113.1", "203.0.113.2", "198.51.100.1"}
    for tape in studio.tapes:
        again = tape.replay()
        assert again.recording.header.redacted
        for text in (*originals, *hexadecimal(originals)):
            assert text not in tape.text
        told_ips = set(IPV4.findall(tape.text))
        assert told_ips
        assert all(ip.startswith(("10.128.", "240.")) for ip in told_ips)


def test_what_matters_of_addresses_can_still_be_seen() -> None:
    """A symmetric NAT shows two ports of one address, and the report still says so."""
    studio = Studio(redact_addresses=True)
    bench = Bench(meet=False, make_agent=studio.make_agent)
    for port, mapped in ((3478, 4001), (3479, 4002)):
        bench.agent.query_server(f"stun:s:{port}", ("203.0.113.10", port), LOCAL, bench.now)
        bench.run(0.1)
        bench.receive(
            server_answer(bench.take()[-1], ("198.51.100.77", mapped)), ("203.0.113.10", port)
        )
    studio.end()
    again = studio.tapes[0].replay()
    assert again.report.notes == ("this side's NAT gives a new port for every destination",)
    assert again.report.local.mapping_varies is True
    assert again.report.local.public_ip_versions == (4,)
    assert [s.mapped.rpartition(":")[2] for s in again.report.servers] == ["4001", "4002"]
    assert "198.51.100.77" not in studio.tapes[0].text
    found = [e.candidate for _, e in again.events if isinstance(e, LocalCandidateFound)]
    assert [c.type.value for c in found] == ["host", "srflx", "srflx"]
    assert [c.port for c in found] == [LOCAL[1], 4001, 4002]
    assert found[1].host == found[2].host
    assert found[1].server == "stun:name-1.invalid:3478"
    assert found[2].server == "stun:name-1.invalid:3479"


def server_answer(sent: Sent, mapped: Address, software: str = "server") -> bytes:
    response = response_to(sent.message, MessageClass.SUCCESS)
    response.add(XOR_MAPPED_ADDRESS, mapped)
    response.add(MAPPED_ADDRESS, mapped)
    response.add(SOFTWARE, software)
    return response.to_bytes()


def test_server_credentials_are_in_no_note() -> None:
    tape = Tape(secrets=("robot", "correct horse"))
    recorder = tape.recorder
    recorder.write(
        told.ServerNote(
            ServerReport("turn:robot:correct horse@relay.example.org", "rejected", "no robot here")
        )
    )
    recorder.write(told.FailureNote(NoRoute.__name__, "it rejects robot, and robots too"))
    assert "correct horse" not in tape.text
    assert "no *** here" in tape.text
    assert "rejects ***, and robots too" in tape.text
    assert '"turn:relay.example.org"' in tape.text


def test_notes_name_no_host_where_none_is_wanted() -> None:
    tape = Tape(redact_addresses=True)
    tape.recorder.write(
        told.ServerNote(
            ServerReport(
                "turns:relay.example.org",
                "unreachable",
                "relay.example.org (93.184.216.34): certificate of other.example.net",
            )
        )
    )
    tape.recorder.write(told.InterfaceNote(("93.184.216.35", 1), "enx00aabbccddee"))
    tape.recorder.write(told.FailureNote("NoRoute", "laptop.local has no way"))
    for text in ("example", "93.184", "enx", "00aabb", "laptop"):
        assert text not in tape.text
    assert "certificate of name-2.invalid" in tape.text
    assert "name-3.local has no way" in tape.text
    assert '"name":"interface-1"' in tape.text


@pytest.mark.parametrize("nats", [(NatKind.SYMMETRIC, NatKind.SYMMETRIC), (NatKind.SYMMETRIC,)])
def test_other_addresses_lead_to_the_same_diagnosis(nats: tuple[NatKind, ...]) -> None:
    meeting, studio = redacted_meeting(*nats)
    meeting.start(0.05)
    meeting.run(60.0)
    studio.end()
    for tape, agent in zip(studio.tapes, studio.agents, strict=True):
        again, live = tape.replay().report, agent.report()
        assert again.local == live.local
        assert again.remote == live.remote
        assert again.same_nat is live.same_nat
        assert again.udp_works is live.udp_works
        assert diagnose(again).cause is diagnose(live).cause


def test_whatever_a_report_says_is_redacted() -> None:
    tape = Tape(redact_addresses=True, secrets=("robot",))
    server = ServerReport(
        "turn:relay.example.org",
        "ok",
        "by 93.184.216.34",
        "address",
        "93.184.216.35:5000",
        "[2001:db8::36]:7",
    )
    report = Report(
        servers=(server,),
        tcp_hosts=("relay.example.org", "93.184.216.37", "2001:db8::38"),
        nothing_gathered="nothing at 93.184.216.39",
        told=Told("relay-refused", "there", "turn:other.example.net refused robot"),
    )
    tape.recorder.end(IceState.FAILED, report, Counter())
    for text in ("example", "93.184", "2001:db8", "robot"):
        assert text not in tape.text
    assert '"cause":"relay-refused"' in tape.text


def test_what_a_peer_may_hide_in_a_candidate_is_left_out() -> None:
    """aioice and libwebrtc make foundations from addresses; extensions may say anything."""
    studio = Studio(redact_addresses=True)
    bench = Bench(make_agent=studio.make_agent)
    bench.signal(
        Candidate(
            foundation="5e26dd7b",
            component=1,
            transport="udp",
            priority=1,
            host="93.184.216.34",
            port=7,
            type=CandidateType.SRFLX,
            related_address=("192.168.7.7", 8),
            extensions=(("network-id", "home 93.184.216.34"),),
        )
    )
    studio.end()
    text = studio.tapes[0].text
    assert "5e26dd7b" not in text
    assert "network-id" not in text
    assert "192.168.7.7" not in text
    studio.tapes[0].replay()


def test_more_addresses_than_can_be_replaced_end_the_recording_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ice_punch.recording.pseudonyms.MAX_PSEUDONYMS", 50)
    studio = Studio(redact_addresses=True)
    bench = Bench(make_agent=studio.make_agent)
    for number in range(100):
        bench.receive(bench.request(key=b"wrong"), (f"198.51.100.{number}", number + 1))
    assert len(bench.take()) == 100
    (tape,) = studio.tapes
    assert tape.stopped == ["there are more addresses than can be replaced"]
    assert not tape.replay().complete


# -- any session -------------------------------------------------------------------------------

IPS = (
    *("192.168.1.5", "192.168.1.6", "10.0.0.1", "100.64.0.9", "93.184.216.34", "93.184.216.35"),
    *("198.18.0.1", "169.254.1.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
    *("fe80::1", "fd00:1::5", "2001:db8:1::7", "2001:db8:1::8", "2606:2800::1", "ff02::1"),
    *("fec0::1", "::1", "::", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "::5"),
)
addresses = st.tuples(st.sampled_from(IPS), st.sampled_from([1, 5000, 5001, 6000]))
hosts = st.one_of(st.sampled_from(IPS), st.sampled_from(["a-b.local", "host.example.org", "x:y"]))
candidates = st.builds(
    Candidate,
    foundation=st.sampled_from(["1", "2", "prflx-1", "5e26dd7b"]),
    component=st.sampled_from([1, 1, 1, 2]),
    transport=st.sampled_from(["udp", "udp", "udp", "tcp"]),
    priority=st.sampled_from([1, 100, 2130706431, 1694498815]),
    host=hosts,
    port=st.sampled_from([0, 1, 5000, 6000]),
    type=st.sampled_from(CandidateType),
    related_address=st.one_of(st.none(), addresses),
)
servers = st.sampled_from(["stun:s.example.org", "stun:93.184.216.34:3478", "turn:x@y", "odd one"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.02, 0.1, 0.6, 2.0, 7.0])),
        st.tuples(st.just("host"), addresses),
        st.tuples(st.just("relay"), addresses, servers, st.one_of(st.none(), addresses)),
        st.tuples(st.just("query"), servers, addresses),
        st.tuples(st.just("meet"), st.booleans()),
        st.tuples(st.just("remote"), candidates),
        st.tuples(st.just("end")),
        st.tuples(
            st.just("check"), addresses, st.booleans(), st.booleans(), st.integers(0, 2**64 - 1)
        ),
        st.tuples(st.just("answer"), st.integers(0, 30), addresses, st.booleans(), st.booleans()),
        st.tuples(st.just("error"), st.integers(0, 30), st.sampled_from([400, 403, 487])),
        st.tuples(st.just("icmp"), st.integers(0, 30)),
        st.tuples(st.just("junk"), st.binary(max_size=60), addresses),
        st.tuples(st.just("restart"), st.booleans()),
        st.tuples(st.just("remove"), addresses),
        st.tuples(st.just("reflexive"), servers, addresses, addresses),
        st.tuples(st.just("data"), st.sampled_from(["sent", "received", "stranger"]), addresses),
    ),
    max_size=60,
)


BEGINNING: tuple[tuple[Any, ...], ...] = (
    ("host", ("192.168.1.5", 5000)),
    ("host", ("fe80::1", 5000)),
    ("host", ("2001:db8:1::7", 5000)),
    ("meet", False),
    *(
        ("remote", remote_candidate((ip, 6000), foundation=f"{number}", priority=1000 + number))
        for number, ip in enumerate(("10.0.0.1", "93.184.216.34", "fe80::2", "2606:2800::1"))
    ),
    ("wait", 0.1),
)
"""A session that has got somewhere already."""


class Script:
    """Carries operations out on one agent, the same ones in the same way each time."""

    def __init__(self, studio: Studio, *, controlling: bool) -> None:
        self.bench = Bench(
            controlling=controlling,
            bases=(),
            meet=False,
            config=AgentConfig(max_pairs=8, max_remote_candidates=6, components=(1,)),
            make_agent=studio.make_agent,
        )
        self.bases: list[Address] = []
        self.out: list[Sent] = []
        self.ours, self.peer = OURS, PEER
        self.restarts = 0

    def run(self, operation: tuple[Any, ...]) -> None:
        bench, agent = self.bench, self.bench.agent
        match operation:
            case ("wait", seconds):
                bench.run(seconds)
            case ("host", address):
                self.bases.append(address)
                agent.add_host_candidate(address, bench.now)
            case ("relay", address, server, mapped):
                self.bases.append(address)
                agent.add_relayed_candidate(address, bench.now, server=server, mapped=mapped)
            case ("query", server, address):
                agent.query_server(server, address, self.base(address), bench.now)
            case ("meet", lite):
                agent.set_remote_parameters(
                    self.peer, bench.now, lite=lite, ta=0.02, renomination=not lite
                )
            case ("remote", candidate):
                agent.add_remote_candidate(candidate, bench.now)
            case ("end",):
                agent.end_of_remote_candidates(bench.now)
            case ("check", source, use_candidate, right, tie_breaker):
                data = bench.request(
                    use_candidate=use_candidate,
                    tie_breaker=tie_breaker,
                    username=f"{self.ours.ufrag}:{self.peer.ufrag}",
                    key=self.ours.key if right else b"wrong",
                )
                agent.receive_datagram(data, source, self.base(source), bench.now)
            case ("answer", number, mapped, right, elsewhere):
                self.answer(number, mapped, right, elsewhere)
            case ("error", number, code):
                self.error(number, code)
            case ("icmp", number):
                if self.out:
                    sent = self.out[-1 - number % len(self.out)]
                    agent.receive_icmp_error(sent.local, sent.destination, bench.now)
            case ("junk", data, source):
                stun = b"\0\x01" + data[:2].ljust(2, b"\0") + b"\x21\x12\xa4\x42" + data
                for datagram in (data, stun):
                    agent.receive_datagram(datagram, source, self.base(source), bench.now)
            case ("restart", fresh_sockets):
                self.restart(fresh_sockets=fresh_sockets)
            case ("remove", address):
                agent.remove_local_candidate(self.base(address), bench.now)
            case ("reflexive", server, mapped, address):
                agent.add_server_reflexive_candidate(
                    mapped,
                    self.base(mapped),
                    bench.now,
                    server=server,
                    server_address=address,
                )
            case ("data", "sent", _):
                agent.data_sent(bench.now)
            case ("data", "received", source):
                agent.data_received(source, self.base(source), bench.now)
            case ("data", "stranger", source):
                agent.data_from_stranger(source, self.base(source), bench.now)
        bench.flush()
        self.out += [sent for sent in bench.take() if sent.is_request]

    def restart(self, *, fresh_sockets: bool) -> None:
        """The peer's part of it is the next ("meet", ...), which may never come."""
        number = self.restarts + 1
        ours = Credentials(f"ours{number}", f"password-{number}-of-this-side--")
        try:
            self.bench.agent.restart(ours, self.bench.now, fresh_sockets=fresh_sockets)
        except ValueError:
            return
        self.restarts = number
        self.ours = ours
        self.peer = Credentials(f"peer{number}", f"password-{number}-of-that-side--")

    def base(self, other: Address) -> Address:
        family = [base for base in self.bases if (":" in base[0]) == (":" in other[0])]
        return family[-1] if family else LOCAL

    def answer(self, number: int, mapped: Address, right: bool, elsewhere: bool) -> None:
        if not self.out:
            return
        sent = self.out[-1 - number % len(self.out)]
        response = response_to(sent.message, MessageClass.SUCCESS)
        response.add(XOR_MAPPED_ADDRESS, mapped if elsewhere else sent.local)
        data = response.to_bytes(key=self.peer.key if right else b"wrong")
        source = mapped if elsewhere else sent.destination
        self.bench.agent.receive_datagram(data, source, sent.local, self.bench.now)

    def error(self, number: int, code: int) -> None:
        if not self.out:
            return
        sent = self.out[-1 - number % len(self.out)]
        response = response_to(sent.message, MessageClass.ERROR)
        response.add(ERROR_CODE, ErrorCode(code, "sorry, 93.184.216.34"))
        data = response.to_bytes(key=self.peer.key)
        self.bench.agent.receive_datagram(data, sent.destination, sent.local, self.bench.now)


def outline(again: Replay) -> list[object]:
    """What has to be the same with whatever addresses."""
    events = [
        (at, e.state, e.cause) if isinstance(e, StateChanged) else (at, type(e))
        for at, e in again.events
    ]
    sent = [(at, len(t.data), t.local[1], t.destination[1], t.data[8:20]) for at, t in again.sent]
    return [events, sent, again.agent.counters, len(again.agent.check_list)]


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(operations, st.booleans(), st.booleans())
def test_any_session_replays_with_other_addresses_as_it_does_with_the_real_ones(
    script: list[tuple[Any, ...]], controlling: bool, begun: bool
) -> None:
    again = []
    for redact in (False, True):
        studio = Studio(redact_addresses=redact)
        session = Script(studio, controlling=controlling)
        for operation in (*(BEGINNING if begun else ()), *script):
            session.run(operation)
        studio.end()
        (tape,) = studio.tapes
        assert not tape.stopped
        again.append(tape.replay())
    assert outline(again[0]) == outline(again[1])
    kept = {"127.0.0.1", "0.0.0.0", "::1", "::", "::5"}  # "::5" is found in times of day
    for ip in set(IPS) - kept:
        assert f'"{ip}"' not in tape.text
        assert f"[{ip}]" not in tape.text
        assert f" {ip}:" not in tape.text
    assert "93.184" not in tape.text
    assert "example.org" not in tape.text
    assert "x@y" not in tape.text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.builds(
        Weather,
        delay=st.sampled_from([0.001, 0.05, 0.4]),
        jitter=st.sampled_from([0.0, 0.3]),
        loss=st.sampled_from([0.0, 0.1]),
        duplication=st.sampled_from([0.0, 0.3]),
    ),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_any_two_agents_replay_with_other_addresses(
    seed: int, weather: Weather, counts: tuple[int, int], roles: tuple[bool, bool]
) -> None:
    studio = Studio(redact_addresses=True)
    wire = Wire(seed, weather, bases=counts, roles=roles, make_agent=studio.make_agent)
    wire.meet(wire.a)
    wire.run(0.2)
    wire.meet(wire.b)
    wire.run(40.0)
    studio.end()
    for end, tape in zip(wire.ends, studio.tapes, strict=True):
        again = tape.replay()
        assert again.complete
        assert again.state is end.agent.state
        assert [at for at, _ in again.sent] == [at for at, _ in end.sent]
        assert "192.0.2." not in tape.text


def test_user_name_fragments_stay_however_long_they_are_and_whatever_they_look_like() -> None:
    """RFC 8839 section 5.4: 4 to 256 characters; these could be taken for half of an address."""
    for fragment in ("a1b2" * 64, "fe80", "1234"):
        studio = Studio(redact_addresses=True)
        bench = Bench(meet=False, make_agent=studio.make_agent)
        bench.agent.set_remote_parameters(Credentials(fragment, PEER.pwd), bench.now)
        bench.receive(bench.request(username=f"{OURS.ufrag}:{fragment}"))
        bench.run(1.0)
        assert bench.agent.counters["checks_answered"] == 1
        studio.end()
        assert studio.tapes[0].replay().agent.counters["checks_answered"] == 1


def test_equal_passwords_stay_equal_and_others_different() -> None:
    """Whether a peer has our own password matters: its messages then verify as ours do."""
    texts = {}
    for name, pwd in (("same", OURS.pwd), ("other", PEER.pwd)):
        studio = Studio()
        agent = studio.make_agent(controlling=True, credentials=OURS, random=random.Random(0))
        agent.set_remote_parameters(Credentials("f", pwd), 0.0)
        studio.end()
        recording = studio.tapes[0].load()
        peer = next(x for x in recording.body if isinstance(x, told.SetRemoteParameters))
        texts[name] = (recording.header.credentials.pwd, peer.credentials.pwd)
        replay(recording)
    assert texts["same"][0] == texts["same"][1] == texts["other"][0]
    assert texts["other"][0] != texts["other"][1]


def test_what_is_redacted_can_be_told_from_what_is_not() -> None:
    for redact in (False, True):
        tape = Tape(redact_addresses=redact)
        RecordedAgent(
            controlling=True, credentials=OURS, random=random.Random(0), recorder=tape.recorder
        ).end_recording()
        assert tape.load().header.redacted is redact
    assert remote_candidate().host not in tape.text
