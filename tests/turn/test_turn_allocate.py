"""How a client gets an allocation (RFC 8656 section 7), keeps it and gives it back (section 8)."""

from __future__ import annotations

import random

import pytest
from scripted import MAPPED, RELAYED, Script
from turn_world import CLIENT, ONE_WAY, PEER, SERVER, World, is_request

from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ALTERNATE_DOMAIN,
    ALTERNATE_SERVER,
    LIFETIME,
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    SOFTWARE,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_RELAYED_ADDRESS,
    Method,
)
from ice_punch.turn import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    Redirected,
    TurnState,
)

RELAYED_V6 = ("2001:db8::10", 50001)
OTHER_SERVER = ("203.0.113.99", 3478)


def test_an_allocation_takes_two_round_trips_and_four_packets() -> None:
    world = World()
    client = world.client()
    assert world.run_until(lambda: bool(world.told(Allocated)))
    assert world.now == pytest.approx(1000 + 4 * ONE_WAY)
    assert world.kinds() == [
        "ALLOCATE request",
        "ALLOCATE error",
        "ALLOCATE request",
        "ALLOCATE success",
    ]
    (allocated,) = world.told(Allocated)
    assert allocated.mapped == CLIENT
    assert allocated.lifetime == 600
    assert world.server.is_relayed(allocated.relayed[0])
    assert client.state is TurnState.ALLOCATED


@pytest.mark.parametrize("lost", [{0}, {1}, {2}, {3}, {0, 1}, {2, 4}])
def test_any_lost_packet_costs_a_retransmission_and_no_second_allocation(lost: set[int]) -> None:
    world = World(lose=lambda number, packet: number in lost)
    world.client()
    assert world.run_until(lambda: bool(world.told(Allocated)), timeout=5)
    assert world.server.allocations == 1
    assert world.now - 1000 < 4 * ONE_WAY + 0.5 * 3 + 0.01


def test_heavy_loss_only_makes_it_slower() -> None:
    for seed in range(20):
        source = random.Random(seed)
        world = World(seed=seed, lose=lambda n, p, source=source: source.random() < 0.2)
        world.client()
        assert world.run_until(lambda world=world: bool(world.told(Allocated)), timeout=60)
        assert world.server.allocations == 1


def test_rfc8656_7_1_4_the_first_request_asks_for_udp_and_proves_nothing() -> None:
    script = Script(software="test 1.0")
    request = script.request()
    assert request.get(REQUESTED_TRANSPORT) == 17
    assert request.get(SOFTWARE) == "test 1.0"  # RFC 8656 section 5
    assert not request.integrity
    # RFC 8489 section 9.2.3.1
    for attribute in (USERNAME, USERHASH, REALM, NONCE, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS):
        assert request.get(attribute) is None


def test_rfc8656_7_1_5_and_7_the_family_is_asked_for_in_one_way_only() -> None:
    asked = {}
    for family in (4, 6, "dual"):
        request = Script(family=family).request()
        asked[family] = (
            request.get(REQUESTED_ADDRESS_FAMILY),
            request.get(ADDITIONAL_ADDRESS_FAMILY),
        )
    assert asked == {4: (None, None), 6: (2, None), "dual": (None, 2)}


def test_a_longer_lifetime_is_asked_for_and_the_granted_one_counts() -> None:
    script = Script(lifetime=1200)
    script.challenge(script.request())
    request = script.request()
    assert request.get(LIFETIME) == 1200
    script.grant(request, lifetime=900)
    assert script.events() == [Allocated((RELAYED,), MAPPED, 900)]
    assert [m.method for m in script.wait(839.9)] == []
    assert [m.method for m in script.wait(0.2)] == [Method.REFRESH]


@pytest.mark.parametrize(("family", "count"), [(4, 1), (6, 1), ("dual", 2)])
def test_relayed_addresses_are_of_the_family_that_was_asked_for(family, count) -> None:
    world = World()
    world.client(family=family)
    world.run(1)
    (allocated,) = world.told(Allocated)
    assert len(allocated.relayed) == count
    families = {6 if ":" in ip else 4 for ip, _ in allocated.relayed}
    assert families == ({4, 6} if family == "dual" else {family})


def test_half_of_a_dual_allocation_is_better_than_none() -> None:
    world = World(relay_ips=["203.0.113.10"])
    world.client(family="dual")
    world.run(1)
    (allocated,) = world.told(Allocated)
    assert len(allocated.relayed) == 1


@pytest.mark.parametrize(
    "relayed",
    [
        [RELAYED_V6],
        [RELAYED, RELAYED_V6],
        [],
        [("203.0.113.10", 0)],
        [RELAYED, ("203.0.113.10", 51235)],
    ],
)
def test_rfc8656_7_3_1_addresses_that_were_not_asked_for_are_given_back(relayed) -> None:
    script = Script()
    script.allocate(relayed=relayed)
    (failed,) = script.events()
    assert isinstance(failed, AllocationFailed)
    assert failed.code is None
    assert failed.reason.startswith("unusable")
    delete = script.request(Method.REFRESH)
    assert delete.get(LIFETIME) == 0
    script.answer(delete, [(LIFETIME, 0)])
    assert script.client.state is TurnState.ENDED
    assert script.wait(600) == []


def test_rfc8656_7_3_5_a_response_without_lifetime_or_mapped_address_will_do() -> None:
    script = Script()
    script.challenge(script.request())
    script.answer(script.request(), [(XOR_RELAYED_ADDRESS, RELAYED)])
    assert script.events() == [Allocated((RELAYED,), None, 600)]
    assert [m.method for m in script.wait(540.2)] == [Method.REFRESH]


def test_a_lifetime_of_zero_is_no_allocation() -> None:
    script = Script()
    script.allocate(lifetime=0)
    (failed,) = script.events()
    assert (failed.code, failed.reason[:8]) == (None, "unusable")


@pytest.mark.parametrize("code", [403, 420, 437, 440, 441, 442, 486, 500, 508])
def test_rfc8656_7_4_a_refusal_is_told_and_not_argued_with(code: int) -> None:
    script = Script()
    script.challenge(script.request())
    script.answer(script.request(), error=code, reason="No\x1b[31m\nway")
    assert script.events() == [AllocationFailed(code, "No[31mway")]
    assert script.client.state is TurnState.ENDED
    assert script.wait(120) == []
    assert script.client.get_timer() is None


def test_a_silent_server_is_given_up_after_39_5_s_and_7_requests() -> None:
    script = Script()
    requests = script.wait(39.4)
    assert len(requests) == 7
    assert len({r.transaction_id for r in requests}) == 1
    assert script.events() == []
    script.wait(0.2)
    assert script.events() == [AllocationFailed(None, "silent: no answer")]


def test_over_a_stream_nothing_is_repeated() -> None:
    script = Script(transport="tcp")
    assert len(script.wait(39.4)) == 1
    script.wait(0.2)
    assert script.events() == [AllocationFailed(None, "silent: no answer")]


def test_rfc8489_6_2_1_14_icmp_ends_the_attempt_and_says_so() -> None:
    script = Script()
    script.client.unreachable("Connection refused", script.now)
    assert script.events() == [AllocationFailed(None, "unreachable: Connection refused")]
    assert script.wait(60) == []


def test_icmp_does_not_end_an_allocation_that_stands_but_a_lost_connection_does() -> None:
    udp, tcp = Script(), Script(transport="tcp")
    for script in (udp, tcp):
        script.allocate()
        script.events()
        script.client.unreachable("went away", script.now)
    assert udp.events() == []
    assert udp.client.state is TurnState.ALLOCATED
    assert tcp.events() == [AllocationLost("went away")]


# -- redirection --------------------------------------------------------------------------------


def test_rfc8489_10_4_over_udp_the_other_server_is_asked_with_the_same_credentials() -> None:
    script = Script()
    script.answer(script.request(), [(ALTERNATE_SERVER, OTHER_SERVER)], error=300, key=None)
    assert script.client.server == OTHER_SERVER
    first = script.request()
    assert not first.integrity  # what the other server's nonce is nobody knows yet
    script.challenge(first)
    script.grant(script.request())
    assert script.events() == [Allocated((RELAYED,), MAPPED, 600)]
    script.feed(b"\x40\x00\x00\x00", SERVER)
    assert script.client.stats.strangers == 1


def test_a_redirection_after_the_challenge_has_to_be_authenticated() -> None:
    script = Script()
    script.challenge(script.request())
    request = script.request()
    script.answer(request, [(ALTERNATE_SERVER, OTHER_SERVER)], error=300, key=None)
    assert script.client.server == SERVER
    script.answer(request, [(ALTERNATE_SERVER, OTHER_SERVER)], error=300)
    assert script.client.server == OTHER_SERVER


def test_rfc8489_10_8_a_server_that_was_asked_within_5_minutes_is_not_asked_again() -> None:
    script = Script()
    script.answer(script.request(), [(ALTERNATE_SERVER, OTHER_SERVER)], error=300, key=None)
    script.now = 299.0
    script.answer(script.request(), [(ALTERNATE_SERVER, SERVER)], error=300, key=None)
    (failed,) = script.events()
    assert failed.code == 300
    assert "circles" in failed.reason


def test_redirections_come_to_an_end() -> None:
    script = Script()
    for number in range(20):
        alternate = (f"203.0.113.{100 + number}", 3478)
        script.answer(script.request(), [(ALTERNATE_SERVER, alternate)], error=300, key=None)
        if script.client.state is TurnState.ENDED:
            break
    assert number < 10
    assert [event.code for event in script.events()] == [300]


@pytest.mark.parametrize("named", [[], [("2001:db8::99", 3478)], [("203.0.113.99", 0)]])
def test_a_redirection_to_nowhere_is_a_failure(named) -> None:
    script = Script()
    servers = [(ALTERNATE_SERVER, address) for address in named]
    script.answer(script.request(), servers, error=300, key=None)
    assert [event.code for event in script.events()] == [300]


def test_the_alternate_server_of_our_own_family_is_taken() -> None:
    script = Script()
    servers = [(ALTERNATE_SERVER, ("2001:db8::99", 3478)), (ALTERNATE_SERVER, OTHER_SERVER)]
    script.answer(script.request(), servers, error=300, key=None)
    assert script.client.server == OTHER_SERVER


def test_over_a_stream_a_redirection_is_told_for_a_new_connection() -> None:
    script = Script(transport="tls")
    attributes = [(ALTERNATE_SERVER, OTHER_SERVER), (ALTERNATE_DOMAIN, "turn.example.org")]
    script.answer(script.request(), attributes, error=300, key=None)
    assert script.events() == [Redirected(OTHER_SERVER, "turn.example.org")]
    assert script.client.state is TurnState.ENDED
    # The one that goes there knows where it must not be sent back to.
    again = Script(transport="tls", tried=script.client.tried)
    again.answer(again.request(), [(ALTERNATE_SERVER, SERVER)], error=300, key=None)
    assert [event.code for event in again.events()] == [300]


# -- keeping it ---------------------------------------------------------------------------------


def test_an_allocation_is_refreshed_a_minute_before_its_end_for_hours() -> None:
    world = World()
    client = world.client()
    world.run(4 * 3600)
    refreshes = [p for p in world.packets if is_request(p, Method.REFRESH)]
    times = [p.sent_at - 1000 for p in refreshes]
    assert len(times) >= 4 * 3600 // 540
    assert times[0] == pytest.approx(540 + 2 * ONE_WAY)
    assert client.state is TurnState.ALLOCATED
    assert world.server.allocations == 1


def test_refreshes_survive_a_lossy_path() -> None:
    source = random.Random(3)
    world = World(lose=lambda number, packet: source.random() < 0.2)
    world.client()
    world.run(3 * 3600)
    assert world.told(AllocationLost) == []
    assert world.server.allocations == 1


@pytest.mark.parametrize("lifetime", [10, 119, 600, 3600, 10**6, 2**32 - 1])
def test_any_granted_lifetime_is_refreshed_in_time(lifetime: int) -> None:
    script = Script()
    script.allocate(lifetime=lifetime)
    (refresh,) = script.wait(script.client.get_timer() - script.now)
    assert refresh.method == Method.REFRESH
    assert refresh.get(SOFTWARE) == "ice-punch"
    lived = min(lifetime, 3600)
    assert lived / 2 <= script.now < lived


def test_rfc8656_8_3_1_a_server_that_lost_the_allocation_is_believed() -> None:
    script = Script()
    script.allocate()
    script.events()
    (refresh,) = script.wait(540.2)
    script.answer(refresh, error=437)
    (lost,) = script.events()
    assert isinstance(lost, AllocationLost)
    assert "no such allocation" in lost.reason
    assert script.wait(600) == []


def test_another_refusal_to_refresh_leaves_the_time_that_was_granted() -> None:
    script = Script()
    script.allocate()
    script.events()
    (refresh,) = script.wait(540.2)
    script.answer(refresh, error=500, reason="Busy")
    assert script.events() == []
    (second,) = script.wait(10.2)
    script.answer(second, [(LIFETIME, 600)])
    script.wait(60)
    assert script.client.state is TurnState.ALLOCATED


def test_a_server_that_falls_silent_is_given_up_when_the_allocation_must_have_ended() -> None:
    script = Script()
    script.allocate()
    script.events()
    script.wait(599)
    assert script.events() == []
    script.wait(2)
    assert script.events() == [AllocationLost("silent: no answer")]


# -- giving it back -----------------------------------------------------------------------------


def test_closing_gives_the_allocation_back_and_nothing_else_leaves() -> None:
    world = World()
    client = world.client()
    world.run(1)
    client.permit(PEER, world.now)
    client.close(world.now)
    client.close(world.now)
    before = len(world.packets)
    world.run(600)
    assert world.kinds(before) == ["REFRESH request", "REFRESH success"]
    assert client.state is TurnState.ENDED
    assert world.server.allocations == 0
    assert client.send(b"late", PEER, world.now) is False
    assert client.permit(PEER, world.now) is False


def test_closing_is_repeated_until_it_is_answered() -> None:
    world = World(lose=lambda number, packet: number in (4, 5, 6))
    client = world.client()
    world.run(1)
    client.close(world.now)
    assert world.run_until(lambda: client.state is TurnState.ENDED, timeout=10)
    assert world.server.allocations == 0


def test_what_a_request_under_way_may_have_allocated_is_given_back() -> None:
    world = World()
    client = world.client()
    world.run(2.5 * ONE_WAY)
    client.close(world.now)
    world.run(5)
    assert world.server.allocations == 0
    assert world.kinds()[3:] == ["REFRESH request", "ALLOCATE success", "REFRESH success"]
    assert world.events[CLIENT] == []


def test_closing_before_the_challenge_has_nothing_to_give_back() -> None:
    script = Script()
    script.request()
    script.client.close(script.now)
    assert script.wait(60) == []
    assert script.client.state is TurnState.ENDED


def test_a_437_to_the_deletion_is_as_good_as_success() -> None:
    script = Script()
    script.allocate()
    script.client.close(script.now)
    script.answer(script.request(Method.REFRESH), error=437)
    assert script.client.state is TurnState.ENDED
    assert script.events() == []


def test_the_mapped_address_is_told() -> None:
    script = Script()
    script.challenge(script.request())
    script.answer(
        script.request(),
        [(XOR_RELAYED_ADDRESS, RELAYED), (LIFETIME, 600), (XOR_MAPPED_ADDRESS, MAPPED)],
    )
    assert script.events()[0].mapped == MAPPED
