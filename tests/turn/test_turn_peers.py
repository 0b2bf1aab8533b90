"""What a client does for its peers: permissions (RFC 8656 section 9), Send and Data (section 11),
channels (section 12). How soon the first datagram gets through, packet by packet."""

from __future__ import annotations

import itertools
import random

import pytest
from scripted import RELAYED, Script
from turn_world import CLIENT, ONE_WAY, OTHER_PEER, PEER, SERVER, World, is_request

from ice_punch.stun import (
    CHANNEL_NUMBER,
    DATA,
    ICMP,
    XOR_PEER_ADDRESS,
    IcmpError,
    Message,
    MessageClass,
    Method,
)
from ice_punch.turn import (
    Allocated,
    AllocationLost,
    PeerRefused,
    PeerUnreachable,
    RelayedData,
    TurnLimits,
    TurnState,
)
from ice_punch.turn.constants import MAX_DATA
from ice_punch.turn.peers import MAX_PEERS, QUEUE_PER_PEER

SAME_HOST = (PEER[0], 7001)
PEER_V6 = ("2001:db8:7::7", 7000)
CHANNEL = b"\x40\x00"


def ready(**options) -> World:
    """A world whose client has its allocation."""
    world = World(**options)
    world.client()
    assert world.run_until(lambda: bool(world.told(Allocated)))
    return world


def allocated(**options) -> Script:
    script = Script(**options)
    script.allocate()
    script.events()
    return script


def indication(peer, *attributes, method=Method.DATA) -> bytes:
    message = Message(method, MessageClass.INDICATION, bytes(range(12)))
    if peer is not None:
        message.add(XOR_PEER_ADDRESS, peer)
    for attribute, value in attributes:
        message.add(attribute, value)
    return message.to_bytes(fingerprint=False)


def data_of(client_events) -> list[bytes]:
    return [event.data for event in client_events if isinstance(event, RelayedData)]


# -- the first datagram -------------------------------------------------------------------------


def test_to_a_new_peer_the_first_datagram_waits_one_round_trip() -> None:
    world = ready()
    peer = world.peer()
    began, before = world.now, len(world.packets)
    assert world.clients[CLIENT].send(b"first", PEER, world.now)
    world.run_until(lambda: bool(peer.received))
    assert world.now - began == pytest.approx(4 * ONE_WAY)  # permission there and back, then data
    assert world.kinds(before) == [
        "CREATE_PERMISSION request",
        "CHANNEL_BIND request",
        "CREATE_PERMISSION success",
        "CHANNEL_BIND success",
        "SEND indication",
        "data",
    ]
    assert peer.received[0][1] == b"first"


def test_with_a_permission_beforehand_it_does_not_wait_at_all() -> None:
    world = ready()
    peer = world.peer()
    world.clients[CLIENT].permit(PEER, world.now)
    world.run(1)
    began, before = world.now, len(world.packets)
    world.clients[CLIENT].send(b"first", PEER, world.now)
    world.run_until(lambda: bool(peer.received))
    assert world.now - began == pytest.approx(2 * ONE_WAY)
    assert world.kinds(before)[:2] == ["CHANNEL_BIND request", "SEND indication"]


def test_a_permission_asked_for_early_is_there_one_round_trip_after_the_allocation() -> None:
    world = World()
    client = world.client()
    client.permit(PEER, world.now)
    client.permit(OTHER_PEER, world.now)
    world.run_until(lambda: bool(world.told(Allocated)))
    before = len(world.packets) - 1
    world.run(2 * ONE_WAY)
    assert world.kinds(before) == ["CREATE_PERMISSION request", "CREATE_PERMISSION success"]


def test_what_a_permitted_peer_sends_first_gets_through() -> None:
    """This is why the permission is asked for as soon as a candidate is known."""
    world = ready()
    world.clients[CLIENT].permit(PEER, world.now)
    world.run(1)
    (relayed,) = world.told(Allocated)[0].relayed
    world.peer()
    world.server.receive_datagram(b"check", PEER, relayed, world.now)
    world.run(1)
    assert world.told(RelayedData) == [RelayedData(b"check", PEER, relayed)]


def test_once_the_channel_is_bound_data_goes_through_it_both_ways() -> None:
    world = ready()
    peer = world.peer(echo=True)
    client = world.clients[CLIENT]
    client.send(b"first", PEER, world.now)
    world.run(1)
    before = len(world.packets)
    client.send(b"second", PEER, world.now)
    world.run(1)
    assert world.kinds(before) == ["channel data", "data", "data", "channel data"]
    assert data_of(world.told(RelayedData)) == [b"first", b"second"]
    assert [data for _, data, _ in peer.received] == [b"first", b"second"]
    assert (client.stats.sent, client.stats.received, client.stats.dropped) == (2, 2, 0)


def test_whichever_of_both_requests_is_answered_first_opens_the_way() -> None:
    for lost in ("CREATE_PERMISSION request", "CHANNEL_BIND request"):
        world = ready()
        peer = world.peer()
        world.lose = lambda number, packet, lost=lost: packet.kind == lost
        began = world.now
        world.clients[CLIENT].send(b"first", PEER, world.now)
        assert world.run_until(lambda peer=peer: bool(peer.received), timeout=5)
        assert world.now - began == pytest.approx(4 * ONE_WAY)


def test_data_keeps_its_order_while_the_way_opens() -> None:
    world = ready()
    peer = world.peer()
    client = world.clients[CLIENT]
    sent = [bytes([number]) for number in range(20)]
    for data in sent:
        client.send(data, PEER, world.now)
        world.run(0.01)
    world.run(1)
    assert [data for _, data, _ in peer.received] == sent


def test_over_a_lossy_path_the_way_opens_later_and_stays_open() -> None:
    for seed in range(10):
        world = ready(seed=seed)
        peer = world.peer(echo=True)
        source = random.Random(seed)
        world.lose = lambda number, packet, source=source: source.random() < 0.25
        client = world.clients[CLIENT]
        for number in range(3000):
            client.send(number.to_bytes(2, "big"), PEER, world.now)
            world.run(0.5)
        assert len(peer.received) > 3000 * 0.75**2 * 0.9
        assert client.stats.dropped == 0
        assert client.stats.unwanted == 0


# -- waiting, bounds ----------------------------------------------------------------------------


def test_what_waits_for_a_permission_is_bounded_and_the_newest_is_kept() -> None:
    world = ready()
    peer = world.peer()
    client = world.clients[CLIENT]
    for number in range(QUEUE_PER_PEER + 10):
        assert client.send(bytes([number]), PEER, world.now)
    world.run(1)
    assert [data[0] for _, data, _ in peer.received] == list(range(10, QUEUE_PER_PEER + 10))
    assert client.stats.dropped == 10


def test_the_number_of_peers_is_bounded() -> None:
    script = allocated()
    peers = [(f"192.0.2.{number % 250}", 1000 + number) for number in range(MAX_PEERS + 5)]
    taken = [script.client.send(b"x", peer, script.now) for peer in peers]
    assert taken == [True] * MAX_PEERS + [False] * 5
    assert script.client.permit(("192.0.2.251", 1), script.now) is False
    assert script.client.send(b"x", peers[0], script.now)
    assert script.client.stats.dropped == 5


def test_no_more_than_10_requests_are_out_at_a_time() -> None:
    script = allocated()
    for number in range(40):
        script.client.send(b"x", ("192.0.2.7", 1000 + number), script.now)
    requests = script.sent()
    assert len(requests) == 10
    assert requests[0].method == Method.CREATE_PERMISSION
    script.answer(requests[0])
    script.answer(requests[1])
    assert len([m for m in script.sent() if m.message_class is MessageClass.REQUEST]) == 2


def test_a_permission_does_not_queue_behind_channels() -> None:
    script = allocated()
    for number in range(40):
        script.client.send(b"x", ("192.0.2.7", 1000 + number), script.now)
    out = script.sent()
    script.client.permit(OTHER_PEER, script.now)
    assert script.sent() == []
    script.answer(out[3])
    (request,) = (m for m in script.sent() if m.message_class is MessageClass.REQUEST)
    assert request.method == Method.CREATE_PERMISSION


@pytest.mark.parametrize("size", [0, 1, 3, 1200, MAX_DATA])
def test_datagrams_of_every_size_cross_as_indications_and_on_channels(size: int) -> None:
    world = ready()
    peer = world.peer(echo=True)
    for _ in range(2):
        assert world.clients[CLIENT].send(bytes(size), PEER, world.now)
        world.run(1)
    assert [data for _, data, _ in peer.received] == [bytes(size)] * 2
    assert data_of(world.told(RelayedData)) == [bytes(size)] * 2


@pytest.mark.parametrize(
    ("data", "peer"),
    [
        (bytes(MAX_DATA + 1), PEER),
        (b"x", PEER_V6),
        (b"x", (PEER[0], 0)),
        (b"x", (PEER[0], 65536)),
    ],
)
def test_what_can_not_be_relayed_is_dropped_and_asks_for_nothing(data, peer) -> None:
    script = allocated()
    assert script.client.send(data, peer, script.now) is False
    assert script.client.stats.dropped == 1
    assert script.wait(300) == []


def test_a_name_is_no_peer() -> None:
    script = allocated()
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        script.client.send(b"x", ("peer.example.org", 5000), script.now)


def test_nothing_is_sent_before_there_is_an_allocation() -> None:
    script = Script()
    assert script.client.send(b"x", PEER, script.now) is False
    assert script.client.stats.dropped == 1


def test_each_family_of_a_dual_allocation_has_its_peers() -> None:
    world = World()
    world.client(family="dual")
    world.run(1)
    client = world.clients[CLIENT]
    peers = [world.peer(PEER, echo=True), world.peer(PEER_V6, echo=True)]
    for peer in peers:
        client.send(b"hello", peer.address, world.now)
    world.run(1)
    relayed = {":" in ip: (ip, port) for ip, port in world.told(Allocated)[0].relayed}
    for peer in peers:
        assert [source for *_, source in peer.received] == [relayed[":" in peer.address[0]]]
    assert {(e.peer, e.relayed) for e in world.told(RelayedData)} == {
        (PEER, relayed[False]),
        (PEER_V6, relayed[True]),
    }


# -- CreatePermission ---------------------------------------------------------------------------


def test_rfc8656_10_1_1_several_peers_are_permitted_in_one_request() -> None:
    script = allocated()
    peers = [(f"192.0.2.{number}", 5000 + number) for number in range(1, 11)]
    for peer in peers:
        script.client.permit(peer, script.now)
    request = script.request(Method.CREATE_PERMISSION)
    assert request.get_all(XOR_PEER_ADDRESS) == tuple(peers)
    for peer in peers:
        script.client.permit(peer, script.now)
    assert script.sent() == []
    script.answer(request)
    for peer in peers:
        script.client.permit(peer, script.now)
    assert script.sent() == []


def test_a_permission_is_for_an_ip_address_whatever_the_port() -> None:
    script = allocated()
    script.client.permit(PEER, script.now)
    script.client.permit(SAME_HOST, script.now)
    request = script.request(Method.CREATE_PERMISSION)
    assert len(request.get_all(XOR_PEER_ADDRESS)) == 1
    script.answer(request)
    script.client.send(b"x", SAME_HOST, script.now)
    kinds = [(m.method, m.message_class) for m in script.sent()]
    assert (Method.SEND, MessageClass.INDICATION) in kinds
    assert (Method.CREATE_PERMISSION, MessageClass.REQUEST) not in kinds


@pytest.mark.parametrize("family", [4, 6])
def test_rfc8489_6_1_5_many_peers_are_spread_over_requests_of_a_safe_size(family: int) -> None:
    world = World()
    client = world.client(family=family)
    for number in range(1, 101):
        ip = f"192.0.2.{number}" if family == 4 else f"2001:db8:7::{number:x}"
        client.permit((ip, 5000), world.now)
    world.run(1)
    requests = [p for p in world.packets if is_request(p, Method.CREATE_PERMISSION)]
    assert len(requests) == (4 if family == 4 else 9)
    assert max(len(p.data) for p in requests) <= 576 - 28


def test_rfc8656_10_1_1_peers_of_another_family_are_not_asked_for() -> None:
    script = Script()
    script.client.permit(PEER_V6, script.now)
    script.client.permit(PEER, script.now)
    script.allocate()
    (address,) = script.request(Method.CREATE_PERMISSION).get_all(XOR_PEER_ADDRESS)
    assert address == PEER
    script.client.permit(PEER_V6, script.now)
    assert script.sent() == []


def test_rfc8656_9_1_permissions_are_renewed_together_before_they_lapse() -> None:
    world = ready()
    client = world.clients[CLIENT]
    for number in range(5):
        client.permit((f"192.0.2.{number + 1}", 5000), world.now)
        world.run(5)
    world.run(3600)
    requests = [p for p in world.packets if is_request(p, Method.CREATE_PERMISSION)]
    # five at first, then one every 240 s for all of them
    assert len(requests) == pytest.approx(5 + 3600 / 240, abs=1)
    sizes = {len(p.data) for p in requests[5:]}
    assert len(sizes) == 1
    assert len(requests[-1].data) > len(requests[0].data)
    renewals = [p.sent_at for p in requests[4:]]
    assert max(b - a for a, b in itertools.pairwise(renewals)) < 300 - 39.5


def test_a_renewal_that_is_not_answered_is_asked_for_again_while_there_is_time() -> None:
    script = allocated()
    script.client.permit(PEER, script.now)
    script.answer(script.request(Method.CREATE_PERMISSION))
    requests = {m.transaction_id for m in script.wait(300) if m.method == Method.CREATE_PERMISSION}
    assert len(requests) == 2
    # After that it is asked for when it is needed, not for ever.
    later = [m.method for m in script.wait(200) if m.method == Method.CREATE_PERMISSION]
    assert len(later) <= 7


# -- channels -----------------------------------------------------------------------------------


def test_rfc8656_12_0_1_a_channel_in_use_is_bound_again_within_10_minutes() -> None:
    world = ready()
    world.peer(echo=True)
    client = world.clients[CLIENT]
    for _ in range(360):
        client.send(b"tick", PEER, world.now)
        world.run(10)
    binds = [p.sent_at for p in world.packets if is_request(p, Method.CHANNEL_BIND)]
    assert len(binds) == 1 + 3600 // 540
    gaps = [b - a for a, b in itertools.pairwise(binds)]
    assert max(gaps) < 600 - 39.5
    indications = [p for p in world.packets if p.kind in ("SEND indication", "DATA indication")]
    assert len(indications) == 1
    numbers = {p.data[:2] for p in world.packets if p.kind == "channel data"}
    assert len(numbers) == 1


def test_a_channel_nobody_uses_lapses_and_comes_back_when_it_is_needed() -> None:
    world = ready()
    peer = world.peer()
    client = world.clients[CLIENT]
    client.send(b"one", PEER, world.now)
    world.run(700)
    before = len(world.packets)
    client.send(b"two", PEER, world.now)
    client.send(b"three", PEER, world.now)
    world.run(1)
    assert world.kinds(before)[:3] == ["CHANNEL_BIND request", "SEND indication", "SEND indication"]
    client.send(b"four", PEER, world.now)
    world.run(1)
    assert world.packets[-2].kind == "channel data"
    assert [data for _, data, _ in peer.received] == [b"one", b"two", b"three", b"four"]


def test_rfc8656_12_3_a_channel_number_is_never_another_peers() -> None:
    script = allocated()
    numbers = {}
    for number in range(8):
        peer = (f"192.0.2.{number}", 5000)
        script.client.send(b"x", peer, script.now)
        for message in script.sent():
            if message.method == Method.CHANNEL_BIND:
                numbers[message.get(XOR_PEER_ADDRESS)] = message.get(CHANNEL_NUMBER)
                script.answer(message, error=508)
            else:
                script.answer(message)
        script.sent()
        script.now += 700
    assert sorted(numbers.values()) == list(range(0x4000, 0x4008))


def test_rfc8656_12_4_channel_data_counts_from_the_bind_request_on() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    script.sent()
    script.feed(CHANNEL + b"\x00\x05early")
    assert script.events() == [RelayedData(b"early", PEER, RELAYED)]


@pytest.mark.parametrize("code", [400, 500, 508])
def test_without_a_channel_data_still_flows_as_indications(code: int) -> None:
    script = allocated()
    script.client.send(b"one", PEER, script.now)
    permission, channel = script.sent()
    script.answer(channel, error=code)
    script.answer(permission)
    assert [m.get(DATA) for m in script.sent()] == [b"one"]
    for _ in range(5):
        script.now += 5
        script.client.send(b"more", PEER, script.now)
        (message,) = script.sent()
        assert message.method == Method.SEND
    assert script.events() == []
    script.now += 60
    script.client.send(b"again", PEER, script.now)
    assert Method.CHANNEL_BIND in [m.method for m in script.sent()]


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 443, 446])
def test_a_refused_peer_disturbs_no_other(code: int) -> None:
    script = allocated()
    script.client.send(b"lost", PEER, script.now)
    script.client.send(b"fine", OTHER_PEER, script.now)
    batch, *channels = script.sent()
    assert len(batch.get_all(XOR_PEER_ADDRESS)) == 2
    script.answer(batch, error=code)
    singles = {m.get(XOR_PEER_ADDRESS): m for m in script.sent()}
    script.answer(singles[PEER], error=code, reason="No")
    script.answer(singles[OTHER_PEER])
    for channel in channels:
        refused = channel.get(XOR_PEER_ADDRESS) == PEER
        script.answer(channel, error=code if refused else None)
    assert script.events() == [PeerRefused(PEER, code, "No")]
    assert [m.get(DATA) for m in script.sent()] == [b"fine"]
    assert script.client.send(b"x", PEER, script.now) is False
    assert script.client.refusal(PEER, script.now) == (code, "No")
    assert script.client.refusal((PEER[0], 7777), script.now) is None
    assert script.client.send(b"x", (PEER[0], 7777), script.now) is False
    assert script.client.send(b"x", OTHER_PEER, script.now)
    assert script.client.stats.refused == 1
    assert script.client.state is TurnState.ALLOCATED


def test_a_refused_peer_is_asked_for_again_only_after_a_minute() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request, error=403)
    script.now += 59
    script.client.permit(PEER, script.now)
    assert script.client.send(b"x", PEER, script.now) is False
    assert script.sent() == []
    script.now += 2
    assert script.client.refusal(PEER, script.now) is None
    assert script.client.send(b"x", PEER, script.now)
    assert len(script.sent()) == 2


def test_a_port_that_is_refused_leaves_the_hosts_other_ports() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    script.client.send(b"y", SAME_HOST, script.now)
    permission, *channels = script.sent()
    for channel in channels:
        refused = channel.get(XOR_PEER_ADDRESS) == PEER
        script.answer(channel, error=403 if refused else None, reason="No port")
    assert script.events() == [PeerRefused(PEER, 403, "No port")]
    script.answer(permission)
    assert script.client.send(b"x", PEER, script.now) is False
    assert script.client.send(b"y", SAME_HOST, script.now)


def test_a_permission_that_is_not_renewed_closes_the_way() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    script.sent()
    (renewal,) = script.wait(240.2)
    script.answer(renewal, error=403)
    assert script.events() == [PeerRefused(PEER, 403, "")]
    assert script.client.send(b"x", PEER, script.now) is False


def test_rfc8656_5_6_a_437_for_a_peer_has_the_allocation_itself_asked_after() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    permission, channel = script.sent()
    script.answer(permission, error=437)
    refresh = script.request(Method.REFRESH)
    assert script.client.state is TurnState.ALLOCATED
    script.answer(channel, error=437)
    assert script.sent() == []
    script.answer(refresh, error=437)
    refused, lost = script.events()
    assert isinstance(refused, PeerRefused)
    assert isinstance(lost, AllocationLost)


def test_a_437_for_a_peer_where_the_allocation_stands_is_that_peers_alone() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    permission, _ = script.sent()
    script.answer(permission, error=437)
    script.answer(script.request(Method.REFRESH))
    assert script.client.state is TurnState.ALLOCATED
    assert script.client.send(b"x", OTHER_PEER, script.now)


def test_a_server_that_refuses_private_peers_serves_the_others_one_round_trip_later() -> None:
    """So are public servers set up, while candidates in private networks are usual."""
    world = ready(peer_filter=lambda ip: not ip.startswith("10."))
    client = world.clients[CLIENT]
    private = [(f"10.0.0.{number}", 5000) for number in range(1, 9)]
    for peer in [*private, PEER]:
        client.permit(peer, world.now)
    began = world.now
    world.peer()
    world.run(4 * ONE_WAY)
    assert {event.peer for event in world.told(PeerRefused)} == set(private)
    assert world.now - began == pytest.approx(4 * ONE_WAY)
    client.send(b"x", PEER, world.now)
    world.run(2 * ONE_WAY)
    assert [data for _, data, _ in world.peers[PEER].received] == [b"x"]


def test_a_silent_server_costs_what_waited_and_the_next_datagram_asks_again() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    script.wait(45)
    assert script.client.stats.dropped == 1
    script.client.send(b"y", PEER, script.now)
    assert Method.CREATE_PERMISSION in [m.method for m in script.sent()]


# -- receiving ----------------------------------------------------------------------------------


def test_rfc8656_11_4_1_data_of_peers_without_permission_is_dropped() -> None:
    script = allocated()
    script.client.permit(PEER, script.now)
    script.answer(script.request(Method.CREATE_PERMISSION))
    script.feed(indication(SAME_HOST, (DATA, b"mine")))
    script.feed(indication(OTHER_PEER, (DATA, b"not mine")))
    assert data_of(script.events()) == [b"mine"]
    assert script.client.stats.unwanted == 1
    script.now += 301
    script.feed(indication(PEER, (DATA, b"late")))
    assert script.client.stats.unwanted == 2


@pytest.mark.parametrize("attributes", [(None,), (PEER,), (None, (DATA, b"x"))])
def test_indications_that_lack_something_are_dropped(attributes) -> None:
    script = allocated()
    script.client.permit(PEER, script.now)
    script.answer(script.request(Method.CREATE_PERMISSION))
    script.feed(indication(*attributes))
    assert script.events() == []
    assert script.client.stats.malformed == 1


def test_rfc8656_11_6_1_icmp_is_told_of_peers_with_a_permission() -> None:
    script = allocated()
    script.client.permit(PEER, script.now)
    script.answer(script.request(Method.CREATE_PERMISSION))
    script.feed(indication(PEER, (ICMP, IcmpError(3, 3))))
    script.feed(indication(OTHER_PEER, (ICMP, IcmpError(3, 3))))
    assert script.events() == [PeerUnreachable(PEER, RELAYED, 3, 3)]


def test_data_counts_only_from_the_servers_address() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    message = CHANNEL + b"\x00\x04fake"
    for source in [("203.0.113.10", 3479), ("203.0.113.11", 3478), PEER]:
        script.feed(message, source)
        script.feed(indication(PEER, (DATA, b"fake")), source)
    script.client.receive_datagram(message, SERVER, ("198.51.100.1", 1), script.now)
    assert script.events() == []
    assert script.client.stats.strangers == 7


def test_rfc8656_12_6_channel_data_that_is_cut_or_unbound_is_dropped() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    script.feed(CHANNEL + b"\x00\x05four")
    script.feed(b"\x40\x01\x00\x04four")
    script.feed(b"\x50\x00\x00\x04four")
    script.feed(CHANNEL + b"\x00\x04four" + b"padding")
    assert data_of(script.events()) == [b"four"]
    stats = script.client.stats
    assert (stats.malformed, stats.unwanted, stats.received) == (2, 1, 1)


def test_rfc8656_12_6_1_channel_data_without_a_permission_is_dropped() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    script.sent()
    script.wait(299)
    script.feed(CHANNEL + b"\x00\x04last")
    script.wait(80)  # the server has been silent since
    script.feed(CHANNEL + b"\x00\x04late")
    assert data_of(script.events()) == [b"last"]
    assert script.client.stats.unwanted == 1


def test_events_that_nobody_fetches_are_bounded() -> None:
    script = allocated()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    for _ in range(10_000):
        script.feed(CHANNEL + b"\x00\x04data")
        script.feed(indication(PEER, (DATA, b"data")))
    assert len(script.events()) == 4096


def test_a_server_that_has_no_room_for_channels_still_relays() -> None:
    world = ready(limits=TurnLimits(channels=1))
    first, second = world.peer(PEER, echo=True), world.peer(OTHER_PEER, echo=True)
    client = world.clients[CLIENT]
    for _ in range(3):
        for peer in (first, second):
            client.send(b"x", peer.address, world.now)
        world.run(1)
    assert (len(first.received), len(second.received)) == (3, 3)
    assert len(world.told(RelayedData)) == 6
