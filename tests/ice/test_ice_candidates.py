"""Local candidates: priorities, preferences, foundations, redundancy, what may be a candidate.

RFC 8445 sections 5.1.1 to 5.1.3, RFC 8421.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import (
    AgentConfig,
    Candidate,
    CandidateType,
    LocalCandidateFound,
    ServerQueryEnded,
)
from ice_punch.ice.candidate import (
    MAX_PRIORITY,
    TYPE_PREFERENCE,
    candidate_priority,
    interleaved_local_preferences,
    is_mapping_of,
    is_usable_address,
    peer_reflexive_priority,
)
from ice_punch.stun import (
    PRIORITY,
    XOR_MAPPED_ADDRESS,
    MessageClass,
    parse_message,
    response_to,
)
from support.bench import LOCAL, Bench, Sent

SECOND = ("192.0.2.2", 5000)
SERVER = ("203.0.113.1", 3478)
OTHER_SERVER = ("203.0.113.2", 3478)
RELAYED = ("203.0.113.9", 49152)


def server_answers(bench: Bench, sent: Sent, mapped: Address) -> None:
    response = response_to(sent.message, MessageClass.SUCCESS)
    response.add(XOR_MAPPED_ADDRESS, mapped)
    bench.receive(response.to_bytes(), sent.destination, sent.local)


def queried(bench: Bench, mapped: Address, server: Address = SERVER, base: Address = LOCAL) -> None:
    bench.agent.query_server(f"stun:{server[0]}", server, base, bench.now)
    bench.run(0.02)
    server_answers(bench, bench.sent[-1], mapped)


def of_type(bench: Bench, type_: CandidateType) -> list[Candidate]:
    return [c for c in bench.agent.local_candidates if c.type is type_]


def test_type_preferences_are_in_range_and_peer_reflexive_precedes_server_reflexive() -> None:
    assert all(0 <= p <= 126 for p in TYPE_PREFERENCE.values())
    assert len(set(TYPE_PREFERENCE.values())) == len(TYPE_PREFERENCE)
    assert TYPE_PREFERENCE[CandidateType.PRFLX] > TYPE_PREFERENCE[CandidateType.SRFLX]


def test_the_priority_formula() -> None:
    assert candidate_priority(CandidateType.HOST, 65535, 1) == (126 << 24) + (65535 << 8) + 255
    assert candidate_priority(CandidateType.RELAY, 0, 256) == 0
    assert candidate_priority(CandidateType.HOST, 65535, 1) <= MAX_PRIORITY
    assert peer_reflexive_priority(candidate_priority(CandidateType.RELAY, 7, 2)) == (
        candidate_priority(CandidateType.PRFLX, 7, 2)
    )


@pytest.mark.parametrize(("preference", "component"), [(-1, 1), (65536, 1), (1, 0), (1, 257)])
def test_a_preference_or_component_out_of_range_is_an_error(
    preference: int, component: int
) -> None:
    with pytest.raises(ValueError, match="is"):
        candidate_priority(CandidateType.HOST, preference, component)


def test_the_single_address_has_the_highest_preference() -> None:
    bench = Bench(meet=False)
    (host,) = bench.agent.local_candidates
    assert (host.priority >> 8) & 0xFFFF == 65535
    assert (host.component, host.base) == (1, LOCAL)


def test_priorities_are_unique_although_the_caller_never_says_a_preference() -> None:
    bench = Bench(meet=False, bases=[LOCAL, SECOND, ("2001:db8::1", 5000)])
    queried(bench, ("203.0.113.7", 1), SERVER)
    queried(bench, ("203.0.113.7", 2), OTHER_SERVER)
    queried(bench, ("203.0.113.7", 3), SERVER, SECOND)
    bench.agent.add_relayed_candidate(RELAYED, bench.now, server="turn:a")
    bench.agent.add_relayed_candidate(("203.0.113.9", 49153), bench.now, server="turn:b")
    priorities = [c.priority for c in bench.agent.local_candidates]
    assert len(priorities) == 8
    assert len(set(priorities)) == 8
    assert all(0 < p <= MAX_PRIORITY for p in priorities)


def test_the_priority_in_checks_is_peer_reflexive_and_unique_even_for_a_relay() -> None:
    bench = Bench(meet=False)
    bench.agent.add_relayed_candidate(RELAYED, bench.now, server="turn:a")
    bench.meet()
    bench.signal(("198.51.100.1", 6000))
    bench.run(0.1)
    told = {s.local: s.message.get(PRIORITY) for s in bench.requests}
    assert told.keys() == {LOCAL, RELAYED}
    assert all(p is not None and p >> 24 == 110 for p in told.values())
    assert len(set(told.values())) == 2
    assert told[LOCAL] == peer_reflexive_priority(bench.agent.local_candidates[0].priority)


@pytest.mark.parametrize(
    ("v4", "v6", "families"),
    [
        (2, 6, "66664664"),  # the example of RFC 8421 section 4
        (1, 1, "64"),
        (1, 3, "6664"),
        (3, 0, "444"),
        (0, 3, "666"),
        (3, 3, "664644"),
    ],
)
def test_families_are_intermingled(v4: int, v6: int, families: str) -> None:
    addresses = [f"192.0.2.{n}" for n in range(v4)] + [f"2001:db8::{n}" for n in range(v6)]
    preferences = interleaved_local_preferences(addresses)
    ordered = sorted(preferences, key=lambda a: -preferences[a])
    assert "".join("6" if ":" in a else "4" for a in ordered) == families
    assert max(preferences.values()) == 65535


@given(
    st.lists(
        st.sampled_from([f"192.0.2.{n}" for n in range(20)] + [f"fd00::{n}" for n in range(20)])
    )
)
def test_preferences_are_unique_and_keep_the_order_within_a_family(addresses: list[str]) -> None:
    preferences = interleaved_local_preferences(addresses)
    assert preferences.keys() == set(addresses)
    assert len(set(preferences.values())) == len(preferences)
    for family in (":", "."):
        mine = [a for a in dict.fromkeys(addresses) if family in a]
        assert mine == sorted(mine, key=lambda a: -preferences[a])


@pytest.mark.parametrize(
    "ip",
    [
        *("127.0.0.1", "127.5.6.7", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"),
        *("::192.0.2.1", "::ffff:192.0.2.1", "fec0::1", "fe80::1", "169.254.3.4"),
    ],
)
def test_what_the_rfc_forbids_is_no_host_candidate(ip: str) -> None:
    assert not is_usable_address(ip)


@pytest.mark.parametrize("ip", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "100.64.0.1"])
def test_ordinary_addresses_are_host_candidates(ip: str) -> None:
    assert is_usable_address(ip)


def test_loopback_and_link_local_only_when_asked_for() -> None:
    assert is_usable_address("127.0.0.1", loopback=True)
    assert is_usable_address("fe80::1", link_local=True)
    assert not is_usable_address("224.0.0.1", loopback=True, link_local=True)


def test_foundations_are_equal_exactly_for_equal_type_base_ip_and_server() -> None:
    same_host = ("192.0.2.1", 5001)
    bench = Bench(meet=False, bases=[LOCAL, same_host, SECOND])
    queried(bench, ("203.0.113.7", 1), SERVER, LOCAL)
    queried(bench, ("203.0.113.7", 2), SERVER, same_host)
    queried(bench, ("203.0.113.7", 3), OTHER_SERVER, LOCAL)
    queried(bench, ("203.0.113.7", 4), SERVER, SECOND)
    bench.agent.add_relayed_candidate(RELAYED, bench.now, server="turn:a")
    bench.agent.add_relayed_candidate(("203.0.113.9", 49153), bench.now, server="turn:b")
    f = [c.foundation for c in bench.agent.local_candidates]
    assert f[0] == f[1] != f[2]  # hosts
    assert f[3] == f[4]  # one server, one base IP address, two ports
    assert len({f[0], f[2], f[3], f[5], f[6], f[7], f[8]}) == 7


def test_two_names_of_one_server_are_one_server() -> None:
    bench = Bench(meet=False, bases=[LOCAL])
    for name, mapped in (("stun:a", ("203.0.113.7", 1)), ("stun:b", ("203.0.113.7", 2))):
        bench.agent.query_server(name, SERVER, LOCAL, bench.now)
        bench.run(0.02)
        server_answers(bench, bench.sent[-1], mapped)
    first, second = of_type(bench, CandidateType.SRFLX)
    assert first.foundation == second.foundation
    assert (first.server, second.server) == ("stun:a", "stun:b")


def test_a_reflexive_address_that_equals_its_base_is_redundant() -> None:
    bench = Bench(meet=False)
    queried(bench, LOCAL)
    assert of_type(bench, CandidateType.SRFLX) == []
    assert any(
        isinstance(e, ServerQueryEnded) and e.report.outcome == "ok" for _, e in bench.events
    )


def test_two_servers_that_see_the_same_address_make_one_candidate() -> None:
    bench = Bench(meet=False)
    queried(bench, ("203.0.113.7", 1), SERVER)
    queried(bench, ("203.0.113.7", 1), OTHER_SERVER)
    (candidate,) = of_type(bench, CandidateType.SRFLX)
    assert (candidate.base, candidate.related_address) == (LOCAL, LOCAL)


def test_a_relayed_address_equal_to_a_host_address_is_discarded() -> None:
    bench = Bench(meet=False)
    assert bench.agent.add_relayed_candidate(LOCAL, bench.now, server="turn:a") is None
    assert of_type(bench, CandidateType.RELAY) == []


def test_a_host_address_is_added_once() -> None:
    bench = Bench(meet=False)
    assert bench.agent.add_host_candidate(LOCAL, bench.now) is None
    assert len(bench.agent.local_candidates) == 1


@pytest.mark.parametrize(
    "mapped", [("0.0.0.0", 9), ("224.0.0.1", 9), ("203.0.113.7", 0), ("2001:db8::7", 9)]
)
def test_a_server_that_answers_nonsense_makes_no_candidate(mapped: Address) -> None:
    bench = Bench(meet=False)
    queried(bench, mapped)
    assert of_type(bench, CandidateType.SRFLX) == []
    (ended,) = [e for _, e in bench.events if isinstance(e, ServerQueryEnded)]
    assert ended.report.outcome == "unreachable"
    assert not bench.agent.queries_busy


def test_candidates_are_told_as_soon_as_they_exist() -> None:
    bench = Bench(meet=False)
    queried(bench, ("203.0.113.7", 1))
    told = [e.candidate.type for _, e in bench.events if isinstance(e, LocalCandidateFound)]
    assert told == [CandidateType.HOST, CandidateType.SRFLX]


def test_a_reflexive_address_is_kept_alive_until_ice_is_done() -> None:
    bench = Bench(meet=False)
    queried(bench, ("203.0.113.7", 1))
    bench.take()
    for _ in range(10):
        bench.run(15.0)
        (keepalive,) = bench.take()
        assert keepalive.destination == SERVER
        server_answers(bench, keepalive, ("203.0.113.7", 1))
    assert len(bench.agent.local_candidates) == 2


def test_a_keepalive_without_an_answer_is_not_the_last() -> None:
    bench = Bench(meet=False)
    queried(bench, ("203.0.113.7", 1))
    bench.run(200.0)
    bench.take()
    bench.run(60.0)
    assert bench.take() != []
    assert len([e for _, e in bench.events if isinstance(e, ServerQueryEnded)]) == 1


def test_a_nat_that_changes_its_mapping_for_a_day_does_not_fill_the_memory() -> None:
    bench = Bench(meet=False)
    queried(bench, ("203.0.113.7", 1))
    for port in range(2, 2000):
        bench.take()
        bench.run(15.0)
        server_answers(bench, bench.sent[-1], ("203.0.113.7", port))
    (candidate,) = of_type(bench, CandidateType.SRFLX)
    assert candidate.port == 1999
    assert candidate.priority == candidate_priority(CandidateType.SRFLX, 65535, 1)


def test_queries_are_bounded() -> None:
    bench = Bench(meet=False)
    for n in range(64):
        bench.agent.query_server("stun:x", (f"203.0.113.{n + 1}", 3478), LOCAL, bench.now)
    with pytest.raises(ValueError, match="64"):
        bench.agent.query_server("stun:x", SERVER, LOCAL, bench.now)


def test_a_silent_server_and_an_unreachable_one_are_reported() -> None:
    bench = Bench(meet=False)
    bench.agent.query_server("stun:silent", SERVER, LOCAL, bench.now)
    bench.agent.query_server("stun:gone", OTHER_SERVER, LOCAL, bench.now)
    bench.run(0.1)
    bench.agent.receive_icmp_error(LOCAL, OTHER_SERVER, bench.now)
    bench.run(45.0)
    outcomes = {
        e.report.uri: (e.report.outcome, round(t - bench.begun, 3))
        for t, e in bench.events
        if isinstance(e, ServerQueryEnded)
    }
    assert outcomes == {"stun:silent": ("silent", 39.5), "stun:gone": ("unreachable", 0.1)}
    assert [s.outcome for s in bench.agent.report().servers] == ["unreachable", "silent"]
    assert not bench.agent.queries_busy


def test_transmits_are_what_the_contract_says() -> None:
    bench = Bench(meet=False)
    bench.agent.query_server("stun:x", SERVER, LOCAL, bench.now)
    (transmit,) = bench.agent.datagrams_to_send(bench.now)
    assert isinstance(transmit, Transmit)
    assert parse_message(transmit.data).has_fingerprint
    assert (transmit.local, transmit.destination) == (LOCAL, SERVER)


def test_once_ice_is_done_no_server_is_asked_any_more() -> None:
    bench = Bench(controlling=False)
    queried(bench, ("203.0.113.7", 1))
    bench.signal(("198.51.100.1", 6000))
    bench.run(0.02)
    bench.answer_all(0.05, when=lambda s: s.destination != SERVER)
    bench.receive(bench.request(use_candidate=True))
    bench.run(0.5)
    assert bench.agent.state == "completed"
    bench.take()
    bench.agent.query_server("stun:late", OTHER_SERVER, LOCAL, bench.now)
    bench.run(60.0)
    assert {s.destination for s in bench.requests} == {("198.51.100.1", 6000)}
    assert not bench.agent.queries_busy


def test_the_rto_of_gathering_grows_with_the_number_of_queries() -> None:
    # RFC 8445 section 14.3: MAX(500 ms, Ta * N)
    bench = Bench(meet=False, config=AgentConfig(ta=0.05))
    for number in range(20):
        bench.agent.query_server(f"stun:{number}", ("203.0.113.7", 3000 + number), LOCAL, bench.now)
    bench.run(1.4)
    second = [s.at - bench.begun for s in bench.sent if s.destination[1] == 3001]
    assert second == pytest.approx([0.05, 0.05 + 20 * 0.05])
    last = [s.at - bench.begun for s in bench.sent if s.destination[1] == 3019]
    assert last[0] == pytest.approx(0.95)


def test_rfc8445_5_1_1_2_behind_nat64_an_ipv6_base_is_seen_at_an_ipv4_address() -> None:
    base = ("2001:db8::5", 5000)
    assert is_mapping_of(base, ("198.51.100.1", 6000))
    assert not is_mapping_of(("192.0.2.1", 5000), ("2001:db8::7", 6000)), "nothing does that"
    bench = Bench(meet=False)
    bench.agent.add_host_candidate(base, bench.now)
    queried(bench, ("198.51.100.1", 6000), server=("64:ff9b::c633:6401", 3478), base=base)
    (found,) = of_type(bench, CandidateType.SRFLX)
    assert (found.address, found.base) == (("198.51.100.1", 6000), base)


def test_what_an_allocate_answer_told_is_kept_alive_by_binding_requests() -> None:
    bench = Bench(meet=False)
    bench.agent.add_server_reflexive_candidate(
        ("198.51.100.9", 7000), LOCAL, bench.now, server="turn:t", server_address=SERVER
    )
    (found,) = of_type(bench, CandidateType.SRFLX)
    assert (found.address, found.base, found.server) == (("198.51.100.9", 7000), LOCAL, "turn:t")
    assert not bench.agent.queries_busy
    bench.run(14.0)
    assert not bench.requests
    bench.run(1.2)
    assert [s.destination for s in bench.requests] == [SERVER]
    report = next(s for s in bench.agent.report().servers if s.uri == "turn:t")
    assert (report.outcome, report.purpose) == ("ok", "address")


def test_an_allocate_answer_ends_the_wait_for_the_same_servers_binding_answer() -> None:
    bench = Bench(meet=False)
    bench.agent.query_server("turn:t", SERVER, LOCAL, bench.now)
    bench.run(0.02)
    assert bench.agent.queries_busy
    for _ in range(2):
        bench.agent.add_server_reflexive_candidate(
            ("198.51.100.9", 7000), LOCAL, bench.now, server="turn:t", server_address=SERVER
        )
    assert not bench.agent.queries_busy
    assert [c.address for c in of_type(bench, CandidateType.SRFLX)] == [("198.51.100.9", 7000)]
    server_answers(bench, bench.requests[0], ("198.51.100.9", 7000))
    assert len(of_type(bench, CandidateType.SRFLX)) == 1
    assert [s.outcome for s in bench.agent.report().servers] == ["ok"]
    bench.take()
    bench.run(15.2)
    assert len(bench.requests) == 1, "and is kept alive once"


def test_an_allocate_answer_that_makes_no_sense_makes_no_candidate() -> None:
    bench = Bench(meet=False)
    for nonsense in (
        ("0.0.0.0", 7000),
        ("198.51.100.9", 0),
        ("224.0.0.1", 7000),
        ("2001:db8::1", 1),
    ):
        bench.agent.add_server_reflexive_candidate(
            nonsense, LOCAL, bench.now, server="turn:t", server_address=SERVER
        )
    assert [c.type for c in bench.agent.local_candidates] == [CandidateType.HOST]


def test_once_ice_is_done_an_interface_that_comes_later_asks_all_the_same() -> None:
    bench = Bench(controlling=False)
    queried(bench, ("203.0.113.7", 1))
    bench.signal(("198.51.100.1", 6000))
    bench.run(0.02)
    bench.answer_all(0.05, when=lambda s: s.destination != SERVER)
    bench.receive(bench.request(use_candidate=True))
    bench.run(0.5)
    assert bench.agent.state == "completed"
    later = ("192.0.2.77", 5000)
    bench.agent.add_host_candidate(later, bench.now)
    bench.agent.query_server("stun:late", SERVER, later, bench.now)
    bench.take()
    bench.run(0.1)
    assert [s for s in bench.requests if s.destination == SERVER]
    assert bench.agent.queries_busy
