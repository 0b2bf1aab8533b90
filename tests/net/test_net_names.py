from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest

from ice_punch.errors import ServerUnreachable
from ice_punch.net import dns
from ice_punch.net.dns import resolve
from ice_punch.net.mdns import resolve_mdns

V4 = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 0))]
V6 = [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1", 0, 0, 0))]


class Names:
    """Stands for the system's resolver: an answer, an error or silence per family."""

    def __init__(self, v4, v6):
        self.answers = {socket.AF_INET: v4, socket.AF_INET6: v6}
        self.asked = []
        self.released = threading.Event()

    def __call__(self, host, port, family, kind):
        self.asked.append(family)
        answer = self.answers[family]
        if answer == "silent":
            self.released.wait(20)
            raise socket.gaierror(-3, "too late")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def names(monkeypatch):
    made = []

    def install(v4, v6):
        resolver = Names(v4, v6)
        monkeypatch.setattr(dns.socket, "getaddrinfo", resolver)
        made.append(resolver)
        return resolver

    yield install
    for resolver in made:
        resolver.released.set()


def timed(coroutine):
    started = time.monotonic()
    return asyncio.run(coroutine), time.monotonic() - started


def test_both_families_are_asked_and_told(names):
    resolver = names(V4 * 2, V6)
    assert asyncio.run(resolve("x.example", 1)) == [("2001:db8::1", 1), ("192.0.2.1", 1)]
    assert sorted(resolver.asked) == sorted([socket.AF_INET, socket.AF_INET6])


def test_a_family_that_is_switched_off_is_not_asked(names):
    resolver = names(V4, V6)
    assert asyncio.run(resolve("x.example", 1, ipv6=False)) == [("192.0.2.1", 1)]
    assert resolver.asked == [socket.AF_INET]


@pytest.mark.parametrize("literal", ["192.0.2.9", "2001:DB8::9"])
def test_an_address_is_its_own_answer(names, literal):
    resolver = names(V4, V6)
    assert asyncio.run(resolve(literal, 7)) == [(literal.lower(), 7)]
    assert resolver.asked == []


def test_an_address_of_a_family_switched_off_is_told():
    with pytest.raises(ServerUnreachable, match="IPv4 address, which is switched off") as error:
        asyncio.run(resolve("192.0.2.9", 7, ipv4=False))
    assert error.value.outcome == "unresolved"


def test_one_silent_family_costs_little(names):
    names(V4, "silent")
    result, took = timed(resolve("x.example", 1, timeout=5))
    assert result == [("192.0.2.1", 1)]
    assert took < 1.5


def test_one_failing_family_costs_nothing(names):
    names(socket.gaierror(-5, "No address"), V6)
    result, took = timed(resolve("x.example", 1))
    assert result == [("2001:db8::1", 1)]
    assert took < dns.RESOLUTION_DELAY


def test_a_silent_name_ends_in_time_and_does_not_hold_up_the_loops_end(names):
    names("silent", "silent")
    started = time.monotonic()
    with pytest.raises(ServerUnreachable, match=r"x\.example was not resolved within 0\.1 s"):
        asyncio.run(resolve("x.example", 1, timeout=0.1))
    assert time.monotonic() - started < 1.5


def test_a_silent_name_does_not_hold_up_the_end_of_the_program():
    program = (
        "import asyncio, socket, time\n"
        "socket.getaddrinfo = lambda *a: time.sleep(60)\n"
        "from ice_punch.net.dns import resolve\n"
        "try: asyncio.run(resolve('x.example', 1, timeout=0.1))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "ServerUnreachable\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("v4", "v6", "says"),
    [
        (socket.gaierror(-2, "Name or service not known"), socket.gaierror(-2, "x"), "known"),
        ([], [], "no address"),
        ([], [(0, 0, 0, "", ("fe80::1%eth0", 0, 0, 2))], "no address"),
        (UnicodeError("label too long"), UnicodeError(), "no name that DNS can have"),
    ],
)
def test_a_name_without_an_address_is_one_clear_error(names, v4, v6, says):
    names(v4, v6)
    with pytest.raises(ServerUnreachable, match=rf"x\.example can not be resolved: .*{says}"):
        asyncio.run(resolve("x.example", 1))


def test_cancelling_leaves_nothing_behind(names):
    resolver = names("silent", "silent")

    async def main():
        task = asyncio.create_task(resolve("x.example", 1))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        resolver.released.set()
        await asyncio.sleep(0.05)

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["", "local", "a.b.local", "192.0.2.1", "x" * 64 + ".local", "x.example", "a b.local"]
)
def test_what_is_no_mdns_name_is_not_asked_for(name):
    result, took = timed(resolve_mdns(name))
    assert result is None
    assert took < 1
