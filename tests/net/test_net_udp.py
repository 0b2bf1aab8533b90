from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys

import pytest

from ice_punch.errors import InterfaceNotFound, InvalidConfiguration, PortRangeExhausted
from ice_punch.net import udp
from ice_punch.net.udp import UdpSocket, bind

try:
    import uvloop
except ImportError:
    uvloop = None

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(
        uvloop.new_event_loop if uvloop else None,
        id="uvloop",
        marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
    ),
]
LOCALHOSTS = ["127.0.0.1", "::1"]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's error queue")


def run(coroutine, factory=None):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


async def until(condition, timeout=5.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


class Inbox(list):
    def __call__(self, data, source, local):
        self.append((data, source, local))


def closed_port(ip):
    with bind(ip) as sock:
        return sock.getsockname()[:2]


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("ip", LOCALHOSTS)
def test_datagrams_cross_with_their_addresses(factory, ip):
    async def main():
        here, there = Inbox(), Inbox()
        a, b = UdpSocket.open(ip, here), UdpSocket.open(ip, there)
        assert a.send(b"ping", b.local)
        await until(lambda: there)
        assert there == [(b"ping", a.local, b.local)]
        assert b.send(b"", a.local)
        await until(lambda: here)
        assert here == [(b"", b.local, a.local)]
        assert (a.stats.sent, a.stats.sent_bytes, a.stats.received) == (1, 4, 1)
        a.close()
        b.close()

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_burst_is_read_whole_and_others_get_their_turn(factory):
    async def main():
        turns = []
        inbox = Inbox()
        receiver = UdpSocket.open("127.0.0.1", inbox)
        with bind("127.0.0.1") as sender:
            for i in range(100):
                sender.sendto(i.to_bytes(2, "big"), receiver.local)

        def tick():
            turns.append(len(inbox))
            if len(inbox) < 100:
                asyncio.get_running_loop().call_soon(tick)

        tick()
        await until(lambda: len(inbox) == 100)
        assert [int.from_bytes(data, "big") for data, *_ in inbox] == list(range(100))
        assert udp.DRAIN_LIMIT in turns
        receiver.close()

    run(main(), factory)


@on_linux
@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("ip", LOCALHOSTS)
def test_an_icmp_error_names_its_destination_and_reception_goes_on(factory, ip):
    async def main():
        errors, inbox = [], Inbox()
        a = UdpSocket.open(ip, inbox, on_error=lambda *error: errors.append(error))
        b = UdpSocket.open(ip, Inbox())
        dead = [closed_port(ip), closed_port(ip)]
        for round_ in range(3):
            for destination in dead:
                assert a.send(b"anyone?", destination)
            b.send(b"still there", a.local)
            await until(lambda n=round_: len(errors) == 2 * (n + 1) and len(inbox) == n + 1)
        assert {destination for destination, _ in errors} == set(dead)
        assert all(error.errno == errno.ECONNREFUSED for _, error in errors)
        assert a.stats.icmp_errors == 6
        assert a.stats.sent == 6
        a.close()
        b.close()

    run(main(), factory)


@on_linux
def test_an_icmp_error_is_not_blamed_on_the_next_destination():
    async def main():
        errors, inbox = [], Inbox()
        a = UdpSocket.open("127.0.0.1", Inbox(), on_error=lambda *error: errors.append(error))
        b = UdpSocket.open("127.0.0.1", inbox)
        dead = closed_port("127.0.0.1")
        # No turn of the event loop in between: the error waits in the socket when b is sent to.
        assert a.send(b"1", dead)
        assert a.send(b"2", b.local)
        assert a.send(b"3", b.local)
        assert errors == []  # not from within send
        await until(lambda: len(inbox) == 2 and errors)
        assert [destination for destination, _ in errors] == [dead]
        a.close()
        b.close()

    run(main())


def test_a_datagram_too_large_is_refused_and_counted_but_no_hard_error():
    async def main():
        errors = []
        a = UdpSocket.open("127.0.0.1", Inbox(), on_error=lambda *error: errors.append(error))
        b = UdpSocket.open("127.0.0.1", Inbox())
        assert a.send(bytes(65508), b.local) is False
        assert a.send(b"fits", b.local) is True
        await until(lambda: b.stats.received == 1)
        await asyncio.sleep(0.01)
        assert a.stats.too_large == 1
        assert errors == []
        a.close()
        b.close()

    run(main())


def test_a_destination_without_a_route_is_a_hard_error():
    async def main():
        errors = []
        a = UdpSocket.open("127.0.0.1", Inbox(), on_error=lambda *error: errors.append(error))
        for destination in (("::1", 9), ("127.0.0.1", 0), ("127.0.0.1", 70000)):
            assert a.send(b"x", destination) is False
        assert a.stats.refused == 3
        await until(lambda: len(errors) == 2)
        assert {destination for destination, _ in errors} == {("::1", 9), ("127.0.0.1", 0)}
        a.close()

    run(main())


class Jammed(socket.socket):
    """A socket whose send buffer is full, or that fails with a number."""

    failure = errno.EAGAIN

    def sendto(self, *arguments):
        if self.failure:
            raise OSError(self.failure, "injected")
        return super().sendto(*arguments)


def jammed():
    sock = Jammed(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize("factory", LOOPS)
def test_a_full_send_buffer_queues_then_drops_and_later_sends_in_order(factory):
    async def main():
        inbox = Inbox()
        sock = jammed()
        sender = UdpSocket(sock, Inbox(), None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", inbox)
        accepted = [sender.send(i.to_bytes(2, "big"), receiver.local) for i in range(300)]
        assert accepted == [True] * udp.SEND_QUEUE + [False] * (300 - udp.SEND_QUEUE)
        assert sender.stats.dropped == 300 - udp.SEND_QUEUE
        await asyncio.sleep(0.01)
        assert inbox == []
        sock.failure = 0
        await until(lambda: len(inbox) == udp.SEND_QUEUE)
        assert [int.from_bytes(data, "big") for data, *_ in inbox] == list(range(udp.SEND_QUEUE))
        assert sender.send(b"direct", receiver.local)
        await until(lambda: inbox[-1][0] == b"direct")
        sender.close()
        receiver.close()

    run(main(), factory)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM])
def test_a_send_lost_in_this_host_is_a_loss_and_no_error(number):
    async def main():
        errors = []
        sock = jammed()
        sock.failure = number
        sender = UdpSocket(
            sock, Inbox(), lambda *error: errors.append(error), asyncio.get_running_loop()
        )
        assert sender.send(b"x", ("127.0.0.1", 9)) is False
        await asyncio.sleep(0)
        assert (sender.stats.dropped, errors) == (1, [])
        sender.close()

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_nothing_happens_after_close_not_even_from_within_a_handler(factory):
    async def main():
        inbox = Inbox()

        def handler(*datagram):
            inbox(*datagram)
            receiver.close()

        receiver = UdpSocket.open("127.0.0.1", handler)
        with bind("127.0.0.1") as sender:
            for _ in range(3):
                sender.sendto(b"x", receiver.local)
            await until(lambda: inbox)
            await asyncio.sleep(0.01)
        assert len(inbox) == 1
        assert receiver.closed
        assert receiver.send(b"x", ("127.0.0.1", 9)) is False
        receiver.close()

    run(main(), factory)


def test_the_port_lies_in_the_range_and_a_taken_range_is_told():
    async def main():
        first = UdpSocket.open("127.0.0.1", Inbox())
        port = first.local[1]
        low, high = (port, port + 1) if port < 65535 else (port - 1, port)
        taken = [first]
        with contextlib.suppress(PortRangeExhausted):
            taken.append(UdpSocket.open("127.0.0.1", Inbox(), port_range=(low, high)))
        assert all(low <= s.local[1] <= high for s in taken)
        with pytest.raises(PortRangeExhausted, match=f"from {low} to {high} is free on 127.0.0.1"):
            UdpSocket.open("127.0.0.1", Inbox(), port_range=(low, high))
        with pytest.raises(PortRangeExhausted, match=f"UDP port {port} of 127.0.0.1 is taken"):
            UdpSocket.open("127.0.0.1", Inbox(), port=port)
        for sock in taken:
            sock.close()

    run(main())


def test_ports_of_a_range_are_tried_in_random_order():
    ports = {tuple(udp.check_port_range((40000, 40100))) for _ in range(3)}
    assert len(ports) == 3
    assert all(sorted(order) == list(range(40000, 40101)) for order in ports)


@pytest.mark.parametrize("port_range", [(2, 1), (0, 10), (1, 65536), (-5, -1)])
def test_a_range_that_is_none_is_refused(port_range):
    with pytest.raises(InvalidConfiguration, match="not a port range"):
        bind("127.0.0.1", port_range)


def test_an_address_of_another_host_is_refused():
    with pytest.raises(InterfaceNotFound, match=r"203\.0\.113\.77 is not an address of this host"):
        bind("203.0.113.77")


@on_linux
def test_datagrams_are_never_fragmented():
    with bind("127.0.0.1") as v4, bind("::1") as v6:
        assert v4.getsockopt(socket.IPPROTO_IP, 10) == 3
        assert v6.getsockopt(socket.IPPROTO_IPV6, 23) == 3
        assert v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


class WithoutReaders(asyncio.SelectorEventLoop):
    """Like Windows' proactor loop: no add_reader for others, but datagram transports."""

    def add_reader(self, *arguments):
        raise NotImplementedError

    def remove_reader(self, *arguments):
        raise NotImplementedError


def test_a_loop_without_readers_is_served_by_its_transport():
    async def main():
        here, there = Inbox(), Inbox()
        a, b = UdpSocket.open("127.0.0.1", here), UdpSocket.open("127.0.0.1", there)
        assert a.send(b"early", b.local)
        await until(lambda: there)
        b.send(b"answer", a.local)
        await until(lambda: here)
        assert here == [(b"answer", b.local, a.local)]
        a.close()
        b.close()
        await asyncio.sleep(0)

    run(main(), WithoutReaders)


def test_a_transport_that_holds_enough_has_the_rest_wait_and_says_when_it_goes_on():
    """Its own buffer has no bound."""

    async def main():
        inbox, told = Inbox(), []
        sock = jammed()
        sender = UdpSocket(sock, Inbox(), None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", inbox)
        await until(lambda: not sender.congested)
        sender.set_writable_handler(lambda: told.append(True))
        expected = [n.to_bytes(2, "big") + bytes(1000) for n in range(1000)]
        done = 0
        while not sender.congested and done < len(expected):
            done += sender.send_many(expected[done : done + 10], receiver.local)
        assert done < 100
        assert sender.send_many(expected[done : done + 10], receiver.local) == 0
        assert sender.send_segments(bytes(2000), 1000, receiver.local) == 0
        for data in expected[done : done + 10]:
            assert sender.send(data, receiver.local)
        assert told == []
        sock.failure = 0
        await until(lambda: told)
        assert told == [True]
        await until(lambda: len(inbox) == done + 10)
        assert [data for data, *_ in inbox] == expected[: done + 10]
        assert not sender.congested
        sender.close()
        receiver.close()
        await asyncio.sleep(0)

    run(main(), WithoutReaders)
