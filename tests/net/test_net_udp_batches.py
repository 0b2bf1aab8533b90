"""Many datagrams as one packet of the kernel's: nothing lost, mixed up or cut, whatever the sizes,
with segmentation and receive offload, without, and where it fails midway."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from ice_punch.net.udp import UdpSocket, bind, offload, split
from ice_punch.net.udp.offload import MAX_BYTES, MAX_SEGMENTS, runs

try:
    import uvloop
except ImportError:
    uvloop = None

MILLION = 1_000_000
"""Datagrams of the longest checksum stream."""
FEWER = MILLION // (20 if os.environ.get("ICE_PUNCH_SOAK") == "soak" else 80)
LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(
        uvloop.new_event_loop if uvloop else None,
        id="uvloop",
        marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
    ),
]
UNDER_WAY = 200
"""Datagrams that the other side has yet to read, at most: fewer than any receive buffer holds."""


def why_not() -> str | None:
    """Why the offload can not be tested here."""
    with bind("127.0.0.1") as sock:
        works = offload.can_segment(sock) and offload.enable_receive(sock)
        return None if works else "this kernel has no UDP_SEGMENT or no UDP_GRO"


with_offload = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def run(coroutine, factory=None):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


async def until(condition, timeout=10.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0)


def ignore(*_):
    return None


class Spy(socket.socket):
    """A socket that counts its calls, and fails on demand."""

    calls = 0
    failures: Iterator[int] = iter(())
    """The errors of the next calls; 0 for none."""
    packets_only = False
    """Whether only calls with several datagrams fail."""

    def sendto(self, *arguments):
        self._call(not self.packets_only)
        return super().sendto(*arguments)

    def sendmsg(self, *arguments):
        self._call(True)
        return super().sendmsg(*arguments)

    def _call(self, may_fail):
        self.calls += 1
        number = next(self.failures, 0) if may_fail else 0
        if number:
            raise OSError(number, "injected")


def spy(ip="127.0.0.1"):
    sock = Spy(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((ip, 0))
    return sock


class Received:
    """What a socket receives, as datagrams in their order."""

    def __init__(self):
        self.datagrams = []
        self.packets = 0

    def __call__(self, buffer, size, segment, source, local):
        self.packets += 1
        self.datagrams += split(buffer, size, segment)


def sizes_of(rng: random.Random, count: int) -> list[int]:
    """Streams of one size, small last ones, single ones, empty ones, any order."""
    sizes: list[int] = []
    while len(sizes) < count:
        size = rng.choice((0, 1, 20, 200, 548, 1200, 1252, rng.randrange(1, 1400)))
        sizes += [size] * rng.choice((1, 1, 2, 3, 20, 54, 64, 65, 130))
        if rng.random() < 0.3:
            sizes.append(rng.randrange(1, max(2, size)))
    return sizes[:count]


async def checksum_stream(sender, receiver, count, seed):
    """Send a stream of every mix of sizes; both sides' digests over lengths and bytes."""
    rng = random.Random(seed)
    filler = rng.randbytes(4096)
    sent, received = hashlib.sha256(), hashlib.sha256()
    got = sent_count = 0

    def on_segments(buffer, size, segment, source, local):
        nonlocal got
        for data in split(buffer, size, segment):
            got += 1
            received.update(len(data).to_bytes(4))
            received.update(data)

    receiver._on_segments = on_segments
    stream = sizes_of(rng, count)
    while sent_count < count:
        burst = []
        for size in stream[sent_count : sent_count + rng.randrange(1, UNDER_WAY)]:
            start = rng.randrange(0, 2048)
            burst.append(filler[start : start + size])
        for data in burst:
            sent.update(len(data).to_bytes(4))
            sent.update(data)
        sent_count += len(burst)
        while burst:
            done = sender.send_many(burst, receiver.local)
            burst = burst[done:]
            if burst:
                await asyncio.sleep(0)
        await until(lambda expected=sent_count: got == expected)
    return sent.hexdigest(), received.hexdigest()


def injected(number: int) -> Callable[[Spy], None]:
    def inject(sock: Spy) -> None:
        sock.packets_only = True
        sock.failures = iter([0] * 40 + [number] + [0] * 10**7)

    return inject


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("segment", "inject"),
    [
        pytest.param(True, None, id="offload", marks=with_offload),
        pytest.param(False, None, id="without"),
        pytest.param(True, injected(errno.EIO), id="EIO midway", marks=with_offload),
        pytest.param(True, injected(errno.EINVAL), id="EINVAL midway", marks=with_offload),
        pytest.param(True, injected(errno.EAGAIN), id="EAGAIN midway", marks=with_offload),
    ],
)
def test_every_mix_of_sizes_arrives_whole_and_in_order(factory, ip, segment, inject):
    async def main():
        sock = spy(ip)
        if inject is not None:
            inject(sock)
        loop = asyncio.get_running_loop()
        sender = UdpSocket(sock, ignore, None, loop, segment=segment)
        receiver = UdpSocket.open(ip, ignore, on_segments=ignore, segment=segment)
        longest = segment and inject is None and ip == "127.0.0.1"
        count = MILLION if longest and factory is asyncio.new_event_loop else FEWER
        sent, received = await checksum_stream(sender, receiver, count, 1)
        assert sent == received
        assert sender.stats.sent == receiver.stats.received == count
        assert sender.stats.sent_bytes == receiver.stats.received_bytes
        survives = inject is None or sender.segments
        assert sender.segments is (segment and survives)
        sender.close()
        receiver.close()

    run(main(), factory)


@with_offload
@pytest.mark.parametrize("factory", LOOPS)
def test_datagrams_of_one_size_leave_and_come_as_one_packet(factory):
    async def main():
        received, sock = Received(), spy()
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * 1000 for n in range(MAX_SEGMENTS - 1)] + [b"last"]
        assert sender.send_many(datagrams, receiver.local) == len(datagrams)
        await until(lambda: len(received.datagrams) == len(datagrams))
        assert received.datagrams == datagrams
        assert (sock.calls, received.packets) == (1, 1)
        assert sender.send_segments(b"".join(datagrams), 1000, receiver.local) == 63 * 1000 + 4
        await until(lambda: len(received.datagrams) == 2 * len(datagrams))
        assert received.datagrams == 2 * datagrams
        assert (sock.calls, received.packets) == (2, 2)
        sender.close()
        receiver.close()

    run(main(), factory)


@with_offload
def test_a_buffer_larger_than_one_packet_is_sent_in_parts():
    async def main():
        received = Received()
        sender = UdpSocket.open("127.0.0.1", ignore)
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        data = random.Random(1).randbytes(300 * 1200 + 7)
        done = 0
        while done < len(data):
            part = memoryview(data)[done : done + 150 * 1200]
            assert sender.send_segments(part, 1200, receiver.local) == len(part)
            done += len(part)
            await until(lambda: sum(map(len, received.datagrams)) == done)  # noqa: B023
        assert b"".join(received.datagrams) == data
        assert {*map(len, received.datagrams)} == {1200, 7}
        sender.close()
        receiver.close()

    run(main())


@with_offload
def test_a_device_that_refuses_offload_is_believed_for_good_and_nothing_is_lost(caplog):
    async def main():
        received, sock = Received(), spy()
        sock.packets_only, sock.failures = True, iter([errno.EIO])
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * 100 for n in range(20)]
        for _ in range(2):
            assert sender.send_many(datagrams, receiver.local) == 20
        await until(lambda: len(received.datagrams) == 40)
        assert received.datagrams == 2 * datagrams
        assert sender.segments is False
        assert sock.calls == 1 + 40
        sender.close()
        receiver.close()

    offload._told.clear()
    with caplog.at_level(logging.INFO, "ice_punch.net.udp"):
        run(main())
    assert caplog.messages == ["UDP segmentation offload was refused: EIO"]


@with_offload
def test_datagrams_too_large_for_the_path_are_no_reason_to_give_offload_up():
    async def main():
        received = Received()
        sender = UdpSocket.open("127.0.0.1", ignore)
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        large, small = [bytes(65508)] * 2, [bytes(100)] * 3
        assert sender.send_many([*small, *large, *small], receiver.local) == 8
        await until(lambda: len(received.datagrams) == 6)
        assert sender.stats.too_large == 2
        assert sender.segments
        sender.close()
        receiver.close()

    run(main())


@with_offload
def test_word_that_an_earlier_datagram_was_too_large_is_no_reason_to_give_offload_up():
    """ICMP's "too big" shows as EMSGSIZE of whatever is sent next, which may well fit."""

    async def main():
        received, sock = Received(), spy()
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * 100 for n in range(20)]
        packet = b"".join(datagrams)
        for _ in range(3):
            sock.failures = iter([errno.EMSGSIZE])
            assert sender.send_many(datagrams, receiver.local) == 20
            sock.failures = iter([errno.EMSGSIZE])
            assert sender.send_segments(packet, 100, receiver.local) == len(packet)
        await until(lambda: len(received.datagrams) == 120)
        assert received.datagrams == 6 * datagrams
        assert sender.segments
        assert sock.calls == 12
        sender.close()
        receiver.close()

    run(main())


def test_a_datagram_that_stays_too_large_is_counted_as_that_whatever_icmp_says(monkeypatch):
    """Where the answer of the network comes as fast as the attempts do."""

    async def main():
        sock = spy()
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        monkeypatch.setattr(sender._sender, "_drain_errors", lambda: True)
        sock.failures = iter([errno.EMSGSIZE] * 10)
        assert sender.send_many([bytes(2000)], ("127.0.0.1", 9)) == 1
        sock.failures = iter([errno.ECONNREFUSED] * 10)
        assert sender.send_many([bytes(2000)], ("127.0.0.1", 9)) == 1
        stats = sender.stats
        assert (stats.sent, stats.too_large, stats.dropped) == (0, 1, 1)
        sender.close()

    run(main())


@with_offload
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM])
def test_a_packet_lost_in_this_host_counts_as_many(number):
    async def main():
        sock = spy()
        # The first error may be one that an earlier datagram caused, so it is tried again.
        sock.failures = iter([number] * 2)
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        assert sender.send_many([bytes(100)] * 10, ("127.0.0.1", 9)) == 10
        assert (sender.stats.sent, sender.stats.dropped) == (0, 10)
        assert sender.segments
        sender.close()

    run(main())


@with_offload
@pytest.mark.parametrize("factory", LOOPS)
def test_a_full_send_buffer_gives_the_rest_back_and_tells_when_there_is_room(factory):
    async def main():
        received, sock, told = Received(), spy(), []
        sock.failures = iter([0, errno.EAGAIN])
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        sender.set_writable_handler(lambda: told.append(True))
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * (100 if n < 10 else 200) for n in range(20)]
        assert sender.send_many(datagrams, receiver.local) == 10
        assert sender.congested
        await until(lambda: told)
        assert not sender.congested
        assert sender.send_many(datagrams[10:], receiver.local) == 10
        await until(lambda: len(received.datagrams) == 20)
        assert received.datagrams == datagrams
        assert told == [True]
        sender.close()
        receiver.close()

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_an_icmp_error_of_an_earlier_packet_costs_the_next_one_nothing(factory):
    async def main():
        received, errors = Received(), []
        sender = UdpSocket.open("127.0.0.1", ignore, on_error=lambda *e: errors.append(e))
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        with bind("127.0.0.1") as closing:
            dead = closing.getsockname()[:2]
        datagrams = [bytes((n,)) * 50 for n in range(10)]
        for _ in range(3):
            assert sender.send_many(datagrams, dead) == 10
            assert sender.send_many(datagrams, receiver.local) == 10
        await until(lambda: len(received.datagrams) == 30)
        assert received.datagrams == 3 * datagrams
        assert sender.stats.sent == 60
        sender.close()
        receiver.close()

    run(main(), factory)


def test_a_socket_that_closes_within_its_handler_stops_there():
    async def main():
        sender = UdpSocket.open("127.0.0.1", ignore)
        got = []

        def on_segments(*_):
            got.append(True)
            receiver.close()

        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=on_segments)
        for size in (10, 20, 30):
            sender.send_many([bytes(size)] * 5, receiver.local)
        await until(lambda: got)
        await asyncio.sleep(0.01)
        assert got == [True]
        assert receiver.send_many([b"x"], sender.local) == 1
        sender.close()

    run(main())


@pytest.mark.parametrize("switch", ["off", "0"])
def test_the_switch_does_without_offload_and_the_reason_is_told_once(switch, monkeypatch, caplog):
    async def main():
        for _ in range(3):
            sock = UdpSocket.open("127.0.0.1", ignore, on_segments=ignore)
            assert (sock.segments, sock.receives_segments) == (False, False)
            sock.close()

    offload._told.clear()
    monkeypatch.setenv(offload.SWITCH, switch)
    with caplog.at_level(logging.INFO, "ice_punch.net.udp"):
        run(main())
    assert sorted(caplog.messages) == [
        f"no UDP receive offload: {offload.SWITCH} says so",
        f"no UDP segmentation offload: {offload.SWITCH} says so",
    ]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_take_the_plain_path(platform, monkeypatch):
    monkeypatch.setattr(offload.sys, "platform", platform)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert offload.can_segment(sock) is False
        assert offload.enable_receive(sock) is False


def test_runs_keep_to_what_one_packet_can_be():
    rng = random.Random(7)
    for _ in range(300):
        sizes = sizes_of(rng, rng.randrange(1, 300))
        end = 0
        for first, last, size in runs(sizes):
            part = sizes[first:last]
            assert first == end
            assert 1 <= len(part) <= MAX_SEGMENTS
            assert sum(part) <= MAX_BYTES or len(part) == 1
            assert set(part[:-1]) <= {size}
            assert part[-1] <= size
            assert len(part) == 1 or 0 not in part
            end = last
        assert end == len(sizes)


@pytest.mark.parametrize(("size", "segment"), [(0, 0), (5, 5), (5, 9), (10, 5), (11, 5), (4, 1)])
def test_a_packet_is_cut_where_the_kernel_put_its_datagrams_together(size, segment):
    data = bytes(range(size))
    buffer = bytearray(data + b"left over from an earlier one")
    parts = split(buffer, size, segment)
    assert b"".join(parts) == data
    assert [len(part) for part in parts[:-1]] == [segment] * (len(parts) - 1)
    assert size == 0 or 0 < len(parts[-1]) <= segment


@pytest.mark.parametrize("segment", [pytest.param(True, marks=with_offload), False])
def test_what_the_kernel_has_not_put_together_is_put_together_here(segment):
    async def main():
        packets = []

        def on_segments(buffer, size, each, source, local):
            packets.append((split(buffer, size, each), source))

        senders = [UdpSocket.open("127.0.0.1", ignore, segment=False) for _ in range(2)]
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=on_segments, segment=segment)
        expected = [
            (0, [b"a" * 100, b"b" * 100, b"c" * 30]),
            (0, [b"d" * 30, b"e" * 30]),
            (1, [b"f" * 30, b"g" * 10]),
            (1, [b"h" * 20]),
            (0, [b""]),
            (0, [b"i" * 20]),
            (0, [b"j" * 40, b"k" * 40]),
        ]
        # No turn of the event loop in between: they are read in one go.
        for number, datagrams in expected:
            for data in datagrams:
                assert senders[number].send(data, receiver.local)
        await until(lambda: receiver.stats.received == 12)
        assert packets == [
            (tuple(datagrams), senders[number].local) for number, datagrams in expected
        ]
        for sock in (*senders, receiver):
            sock.close()

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("segment", [pytest.param(True, marks=with_offload), False])
def test_a_lone_datagram_goes_to_its_handler_and_a_run_or_a_stranger_does_not(segment, factory):
    async def main():
        received, alone = Received(), []

        def on_alone(buffer, size, source):
            alone.append((bytes(buffer[:size]), source))
            return not alone[-1][0].startswith(b"not mine")

        sender, other = (UdpSocket.open("127.0.0.1", ignore, segment=segment) for _ in range(2))
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received, segment=segment)
        receiver.set_alone_handler(on_alone)
        receiver.keep_from_alone_handler({other.local})
        for number in range(30):
            total = receiver.stats.received
            data = b"%d" % number
            assert sender.send(data, receiver.local)
            await until(lambda total=total: receiver.stats.received == total + 1)
            assert alone[-1] == (data, sender.local)
            assert received.datagrams == []
        run_of = [bytes((n,)) * 700 for n in range(20)]
        assert sender.send_many(run_of, receiver.local) == 20
        await until(lambda: receiver.stats.received == 50)
        # One by one and in haste, a few may be taken for lone ones: none is lost or overtaken.
        assert [data for data, _ in alone[30:]] + received.datagrams == run_of
        assert not segment or len(alone) == 30
        for _ in range(30):
            expected = len(received.datagrams) + 1
            assert other.send(b"other", receiver.local)
            await until(lambda expected=expected: len(received.datagrams) == expected)
        assert all(source == sender.local for _, source in alone)
        assert sender.send(b"not mine", receiver.local)
        await until(lambda: received.datagrams[-1] == b"not mine")
        receiver.set_alone_handler(None)
        assert sender.send(b"any", receiver.local)
        await until(lambda: received.datagrams[-1] == b"any")
        for sock in (sender, other, receiver):
            sock.close()

    run(main(), factory)


@with_offload
def test_a_packet_of_many_datagrams_is_read_alone_and_the_loop_comes_back_for_the_next():
    """By then its reader has run, and nobody had to ask whether there is a next one."""

    async def main():
        received = Received()
        turns = []
        sender = UdpSocket.open("127.0.0.1", ignore)
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * 1000 for n in range(40)]
        for _ in range(3):
            assert sender.send_many(datagrams, receiver.local) == 40
        while len(received.datagrams) < 120:
            await asyncio.sleep(0)
            turns.append(received.packets)
        assert sorted(set(turns) - {0}) == [1, 2, 3]
        assert received.datagrams == 3 * datagrams
        sender.close()
        receiver.close()

    asyncio.run(main())


@with_offload
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.ENOBUFS, errno.ECONNREFUSED])
def test_a_packet_that_is_to_leave_now_leaves_whole_or_nothing_is_done(number):
    async def main():
        received = Received()
        sock = spy()
        sender = UdpSocket(sock, ignore, None, asyncio.get_running_loop())
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        packet = b"".join(bytes((n,)) * 900 for n in range(30)) + b"last"
        sock.failures = iter((number,))
        assert not sender.send_packet_now(packet, 900, receiver.local)
        assert (sender.stats.sent, sender.stats.dropped, sender.segments) == (0, 0, True)
        assert sender.send_packet_now(packet, 900, receiver.local)
        await until(lambda: len(received.datagrams) == 31)
        assert b"".join(received.datagrams) == packet
        assert (sender.stats.sent, sender.stats.sent_bytes) == (31, len(packet))
        assert not sender.send_packet_now(bytes(65 * 900), 900, receiver.local), "too many"
        assert not sender.send_packet_now(bytes(63000 + 3000), 3000, receiver.local), "too long"
        sender.close()
        receiver.close()
        assert not sender.send_packet_now(packet, 900, receiver.local)

    asyncio.run(main())


def test_large_datagrams_in_a_row_fit_the_buffer():
    async def main():
        received = Received()
        sender = UdpSocket.open("127.0.0.1", ignore, segment=False)
        receiver = UdpSocket.open("127.0.0.1", ignore, on_segments=received)
        datagrams = [bytes((n,)) * 40_000 for n in range(6)] + [b"x" * 65_507, b"y"]
        for data in datagrams:
            assert sender.send(data, receiver.local)
        await until(lambda: len(received.datagrams) == len(datagrams))
        assert received.datagrams == datagrams
        sender.close()
        receiver.close()

    run(main())
