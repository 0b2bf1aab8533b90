"""Interfaces and addresses of a real kernel coming and going, in a namespace of their own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Set
from typing import Any

import pytest

from ice_punch.lab.kernel import namespaces
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.monitor import NetworkChanged, NetworkMonitor, NetworkWatch
from ice_punch.net.monitor import watch as watching
from support.netns import NETNS

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

pytestmark = NETNS

OPTIONS = GatheringOptions(interface_filter=lambda address: not address.interface.startswith("lo"))
LOOPS = [
    pytest.param(asyncio.SelectorEventLoop, id="asyncio"),
    pytest.param(
        uvloop.new_event_loop if uvloop else None,
        id="uvloop",
        marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed"),
    ),
]


@pytest.fixture
def namespace() -> Iterator[str]:
    (name,) = namespaces.new_names("monitor")
    namespaces.make(name)
    try:
        yield name
    finally:
        namespaces.remove(name)


def ip(*commands: str) -> None:
    """Of iproute2, in the namespace of whoever calls."""
    for command in commands:
        subprocess.run([namespaces.tool("ip"), *command.split()], check=True, capture_output=True)


def plug_in(name: str, *addresses: str) -> None:
    ip(f"link add {name} type veth peer name x{name}", f"link set x{name} up")
    for address in addresses:
        ip(f"addr add {address} dev {name}" + (" nodad" if ":" in address else ""))
    ip(f"link set {name} up")


class Observer:
    """A monitor, and what it told."""

    def __init__(self, watch: NetworkWatch) -> None:
        self.watch = watch
        self.used: list[str] = [a.ip for a in OPTIONS.snapshot().usable]
        self.told: asyncio.Queue[NetworkChanged] = asyncio.Queue()
        self.monitor = NetworkMonitor(watch, OPTIONS.snapshot, lambda: self.used, self._changed)
        self.monitor.start()

    def _changed(self, change: NetworkChanged) -> None:
        self.used = [ip for ip in self.used if ip not in change.removed]
        self.used += [a.ip for a in change.added]
        self.told.put_nowait(change)

    async def hears(
        self, *, added: Set[str] = frozenset(), removed: Set[str] = frozenset()
    ) -> float:
        """The seconds until exactly this was told, in one change or several."""
        began = time.monotonic()
        came: set[str] = set()
        went: set[str] = set()
        async with asyncio.timeout(5):
            while (came, went) != (added, removed):
                change = await self.told.get()
                came |= {a.ip for a in change.added}
                went |= set(change.removed)
        return time.monotonic() - began


def in_namespace(
    namespace: str,
    factory: Callable[[], asyncio.AbstractEventLoop],
    story: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    def main() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story())

    namespaces.run_in(namespace, main)


@pytest.mark.parametrize("factory", LOOPS)
def test_addresses_and_interfaces_that_come_and_go_are_told_at_once(
    namespace: str, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def story() -> None:
        plug_in("wifi0", "192.0.2.10/24")
        here = Observer(NetworkWatch(OPTIONS.snapshot))
        assert here.watch.told_by_kernel
        assert here.used == ["192.0.2.10"]

        plug_in("cell0", "198.51.100.7/30", "2001:db8:5::7/64")
        took = await here.hears(added={"198.51.100.7", "2001:db8:5::7"})
        assert took < 1.0

        ip("addr add 192.0.2.11/24 dev wifi0", "addr del 192.0.2.10/24 dev wifi0")
        # Without its first address the kernel takes the others of the network away, too.
        await here.hears(removed={"192.0.2.10"})
        ip("addr replace 192.0.2.11/24 dev wifi0")
        await here.hears(added={"192.0.2.11"})

        ip("link del cell0")
        await here.hears(removed={"198.51.100.7", "2001:db8:5::7"})
        assert here.watch.stats.polls == 0
        assert here.watch.stats.malformed == 0
        here.monitor.close()

    in_namespace(namespace, factory, story)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_link_that_goes_down_takes_its_addresses_along_where_another_is_left(
    namespace: str, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def story() -> None:
        plug_in("wifi0", "192.0.2.10/24")
        plug_in("cell0", "198.51.100.7/30")
        here = Observer(NetworkWatch(OPTIONS.snapshot))
        ip("link set xwifi0 down")  # the carrier, not the address
        await here.hears(removed={"192.0.2.10"})
        ip("link set cell0 down")  # the last one is kept
        ip("link set xwifi0 up")
        await here.hears(added={"192.0.2.10"}, removed={"198.51.100.7"})
        here.monitor.close()

    in_namespace(namespace, factory, story)


def test_an_address_is_told_once_it_may_be_used(namespace: str) -> None:
    """A new IPv6 address is tentative for a second (RFC 4862 section 5.4)."""

    async def story() -> None:
        plug_in("wifi0", "192.0.2.10/24")
        here = Observer(NetworkWatch(OPTIONS.snapshot))
        ip("addr add 2001:db8::10/64 dev wifi0")
        await here.hears(added={"2001:db8::10"})
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
            bound.bind(("2001:db8::10", 0))
        here.monitor.close()

    in_namespace(namespace, asyncio.SelectorEventLoop, story)


@pytest.mark.parametrize("factory", LOOPS)
def test_messages_that_were_lost_are_made_up_for_by_a_new_look(
    namespace: str,
    factory: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        plug_in("wifi0", "192.0.2.1/16")
        monkeypatch.setattr(watching, "RECEIVE_BUFFER", 1)
        here = Observer(NetworkWatch(OPTIONS.snapshot))
        await asyncio.sleep(0)
        batch = "".join(f"addr add 192.0.{n}.77/16 dev wifi0\n" for n in range(3, 250))
        subprocess.run(  # without a turn of the loop: nobody reads meanwhile
            [namespaces.tool("ip"), "-batch", "-"], input=batch.encode(), check=True
        )
        await here.hears(added={f"192.0.{n}.77" for n in range(3, 250)})
        assert here.watch.stats.lost >= 1
        ip("addr add 198.51.100.9/24 dev wifi0")  # and it goes on after that
        await here.hears(added={"198.51.100.9"})
        here.monitor.close()

    in_namespace(namespace, factory, story)


def test_where_netlink_is_refused_changes_are_found_by_looking(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        plug_in("wifi0", "192.0.2.10/24")
        original = socket.socket

        def refusing(family: int = -1, *arguments: Any, **options: Any) -> socket.socket:
            if family == socket.AF_NETLINK:
                raise PermissionError(1, "Operation not permitted")
            return original(family, *arguments, **options)

        monkeypatch.setattr(watching.socket, "socket", refusing)
        here = Observer(NetworkWatch(OPTIONS.snapshot, interval=0.2))
        assert not here.watch.told_by_kernel
        await asyncio.sleep(0.15)  # the look at what changed before it began
        plug_in("cell0", "198.51.100.7/30")
        await here.hears(added={"198.51.100.7"})
        assert here.watch.stats.polls >= 1
        here.monitor.close()

    in_namespace(namespace, asyncio.SelectorEventLoop, story)
