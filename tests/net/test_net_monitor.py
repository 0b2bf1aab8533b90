"""Addresses come and go: what is told, and when. The clock is the event loop's, made to jump."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ice_punch.net import gathering_options, interfaces
from ice_punch.net.gathering_options import GatheringOptions
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.monitor import (
    NetworkChanged,
    NetworkMonitor,
    NetworkWatch,
    Snapshot,
    compare,
    network_watch,
)

WIFI = InterfaceAddress("wlan0", "192.0.2.10", 24)
WIFI_V6 = InterfaceAddress("wlan0", "2001:db8::10", 64)
CELLULAR = InterfaceAddress("wwan0", "198.51.100.7", 30)


def seen(*usable: InterfaceAddress, idle=(), passed_over=()) -> Snapshot:
    """A host with these addresses; ``idle`` ones are on links without a carrier."""
    there = [*usable, *passed_over]
    return Snapshot(
        usable=tuple(usable),
        present=frozenset(a.ip for a in there),
        running=frozenset(a.ip for a in there if a not in idle),
    )


def test_what_came_is_added_and_what_went_is_removed() -> None:
    assert compare([WIFI.ip], seen(WIFI)) == NetworkChanged((), ())
    assert not compare([WIFI.ip], seen(WIFI))
    assert compare([WIFI.ip], seen(WIFI, CELLULAR)) == NetworkChanged((CELLULAR,), ())
    assert compare([WIFI.ip, CELLULAR.ip], seen(CELLULAR)) == NetworkChanged((), (WIFI.ip,))
    assert compare([WIFI.ip], seen(CELLULAR)) == NetworkChanged((CELLULAR,), (WIFI.ip,))
    assert compare([WIFI.ip], seen()) == NetworkChanged((), (WIFI.ip,))


def test_an_address_in_use_that_gathering_would_pass_over_by_now_stays() -> None:
    """A temporary IPv6 address that is deprecated still carries what it carried."""
    assert not compare([WIFI_V6.ip], seen(WIFI, passed_over=[WIFI_V6])).removed


def test_without_a_carrier_an_address_goes_where_another_one_is_left() -> None:
    assert compare([WIFI.ip, CELLULAR.ip], seen(WIFI, CELLULAR, idle=[WIFI])).removed == (WIFI.ip,)
    assert compare([WIFI.ip], seen(WIFI, CELLULAR, idle=[WIFI])) == NetworkChanged(
        (CELLULAR,), (WIFI.ip,)
    )


def test_the_last_address_is_kept_while_its_carrier_may_come_back() -> None:
    assert not compare([WIFI.ip], seen(WIFI, idle=[WIFI]))
    assert not compare([WIFI.ip], seen(WIFI, CELLULAR, idle=[WIFI, CELLULAR]))


def test_an_address_without_a_carrier_is_not_begun_with() -> None:
    assert not compare([WIFI.ip], seen(WIFI, CELLULAR, idle=[CELLULAR])).added


class Host:
    """A host whose addresses the test sets, and the monitor of somebody on it."""

    def __init__(self, *addresses: InterfaceAddress) -> None:
        self.now = seen(*addresses)
        self.used = [a.ip for a in addresses]
        self.changes: list[NetworkChanged] = []
        self.looks = 0

    def look(self) -> Snapshot:
        self.looks += 1
        return self.now

    def changed(self, change: NetworkChanged) -> None:
        self.changes.append(change)
        self.used = [ip for ip in self.used if ip not in change.removed]
        self.used += [a.ip for a in change.added]


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time passes only in ``jump``."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1000.0

    def time(self) -> float:
        return self.at

    async def jump(self, seconds: float) -> None:
        end = self.at + seconds
        while self.at < end:
            self.at = min(end, self.at + 0.05)
            for _ in range(3):
                await asyncio.sleep(0)


def in_virtual_time(story) -> None:
    async def main() -> None:
        await story(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def monitor_of(host: Host, watch: NetworkWatch) -> NetworkMonitor:
    return NetworkMonitor(watch, host.look, lambda: host.used, host.changed)


def test_where_the_kernel_does_not_tell_changes_are_found_within_two_seconds() -> None:
    async def story(loop: JumpingLoop) -> None:
        host = Host(WIFI)
        watch = NetworkWatch(lambda: host.now, netlink=False)
        monitor = monitor_of(host, watch)
        monitor.start()
        assert not watch.told_by_kernel
        await loop.jump(5.0)
        assert host.changes == []
        host.now = seen(WIFI, CELLULAR)
        await loop.jump(2.2)
        assert host.changes == [NetworkChanged((CELLULAR,), ())]
        host.now = seen(CELLULAR)
        await loop.jump(2.2)
        assert host.changes[1:] == [NetworkChanged((), (WIFI.ip,))]
        monitor.close()
        polls = watch.stats.polls
        await loop.jump(10.0)
        assert watch.stats.polls == polls

    in_virtual_time(story)


def test_a_bundle_of_news_is_looked_at_once() -> None:
    async def story(loop: JumpingLoop) -> None:
        host = Host(WIFI)
        watch = NetworkWatch(lambda: host.now, netlink=False)
        monitor = monitor_of(host, watch)
        monitor.start()
        await loop.jump(0.3)
        looks = host.looks
        host.now = seen(CELLULAR)
        for _ in range(50):
            watch._tell()
        await loop.jump(0.3)
        assert host.looks == looks + 1
        assert host.changes == [NetworkChanged((CELLULAR,), (WIFI.ip,))]
        monitor.close()

    in_virtual_time(story)


def test_what_changed_before_the_monitor_began_is_found() -> None:
    async def story(loop: JumpingLoop) -> None:
        host = Host(WIFI)
        host.now = seen(WIFI, CELLULAR)
        monitor = monitor_of(host, NetworkWatch(lambda: host.now, netlink=False))
        monitor.start()
        await loop.jump(0.2)
        assert host.changes == [NetworkChanged((CELLULAR,), ())]
        monitor.close()

    in_virtual_time(story)


def test_an_interface_that_flaps_is_followed_ever_more_slowly_and_then_at_once_again() -> None:
    async def story(loop: JumpingLoop) -> None:
        host = Host(WIFI)
        watch = NetworkWatch(lambda: host.now, netlink=False)
        monitor = monitor_of(host, watch)
        monitor.start()
        await loop.jump(0.3)
        for number in range(600):  # a minute
            host.now = seen(WIFI, *([CELLULAR] if number % 2 else []))
            watch._tell()
            await loop.jump(0.1)
        assert len(host.changes) < 30
        host.now = seen(WIFI)
        await loop.jump(30.0)
        before = len(host.changes)
        host.now = seen(CELLULAR)
        watch._tell()
        await loop.jump(0.2)
        assert len(host.changes) == before + 1
        monitor.close()

    in_virtual_time(story)


def test_all_of_one_loop_share_a_watch_that_is_open_while_anyone_listens() -> None:
    async def main() -> None:
        host = Host(WIFI)
        watch = network_watch(host.look)
        assert network_watch(host.look) is watch
        told = []
        first = watch.subscribe(lambda: told.append(1))
        second = watch.subscribe(lambda: told.append(2))
        watch._tell()
        assert told == [1, 2]
        first()
        first()
        watch._tell()
        assert told == [1, 2, 2]
        second()
        assert not watch.told_by_kernel

    asyncio.run(main())


def test_a_loop_that_ends_leaves_nothing_behind() -> None:
    from ice_punch.net.monitor.watch import _watches

    async def main() -> None:
        watch = network_watch(Host(WIFI).look)
        watch.subscribe(lambda: None)()

    gc.collect()  # connections of other tests are cycles
    before = len(_watches)
    for _ in range(3):
        asyncio.run(main())
    assert len(_watches) == before


def test_who_closes_while_being_told_hears_no_more() -> None:
    async def story(loop: JumpingLoop) -> None:
        host = Host(WIFI)
        watch = NetworkWatch(lambda: host.now, netlink=False)
        monitor = monitor_of(host, watch)
        monitor.start()
        monitor.start()
        host.now = seen(CELLULAR)
        monitor.look_soon()
        monitor.close()
        monitor.close()
        await loop.jump(3.0)
        assert host.changes == []

    in_virtual_time(story)


@pytest.mark.parametrize("malformed", [b"\0", bytes(16), b"\xff" * 64])
def test_what_is_no_message_counts_and_is_looked_into(malformed) -> None:
    async def main() -> None:
        watch = NetworkWatch(lambda: None, netlink=False)
        assert watch._is_news(malformed)
        assert watch.stats.malformed == 1

    asyncio.run(main())


def test_an_interface_that_the_user_named_may_go_and_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = [CELLULAR, WIFI]
    monkeypatch.setattr(interfaces, "_enumerate", lambda: list(there))
    monkeypatch.setattr(gathering_options, "is_running", lambda name: True)
    options = GatheringOptions(interface="wwan0")
    assert options.snapshot().usable == (CELLULAR,)
    there.remove(CELLULAR)
    assert compare([CELLULAR.ip], options.snapshot()) == NetworkChanged((), (CELLULAR.ip,))
    there.append(CELLULAR)
    assert compare([], options.snapshot()) == NetworkChanged((CELLULAR,), ())
