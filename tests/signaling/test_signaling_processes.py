"""Server processes that are killed, cut off by a firewall, drained, and run as workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_support import RedisServer, needs_redis
from shared_world import Talker, all_heard, until

from ice_punch.lab.kernel import available
from support.commands import Command, runs

pytestmark = needs_redis
SERVE = ("serve", "--host", "127.0.0.1", "--no-stun", "--json", "--verbose")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@contextlib.contextmanager
def serving(redis: RedisServer, *switches: str) -> Iterator[tuple[Command, int]]:
    with Command(*SERVE, "--port", "0", "--redis", redis.url, *switches) as command:
        yield command, int(command.event("serving")["url"].rpartition(":")[2])


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def text_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=3) as answer:
        return str(answer.read().decode())


def test_a_killed_process_takes_no_signal_with_it(redis: RedisServer) -> None:
    with serving(redis) as (doomed, first), serving(redis) as (_, second):

        async def run() -> None:
            async with Talker(first) as a, Talker(second) as b, Talker(first) as c:
                talking = asyncio.gather(a.say(b, 60), b.say(c, 60), c.say(a, 60), b.say(a, 60))
                await asyncio.sleep(0.4)
                doomed.process.kill()
                for one in (a, c):
                    one.move(second)
                await talking
                await all_heard([a, b, c])
                assert a.resumes >= 1
                assert b.disconnections == 0

        asyncio.run(run())


def test_whoever_does_not_come_back_from_a_killed_process_is_announced(redis: RedisServer) -> None:
    with serving(redis) as (doomed, first), serving(redis) as (_, second):

        async def run() -> None:
            async with Talker(second) as watcher, Talker(first) as lost:
                await until(lambda: watcher.notices_of(lost) == ["join"], "join")
                await watcher.say(lost)
                await all_heard([watcher, lost])
                # A second after somebody came, the watcher's process knows from where.
                await asyncio.sleep(2)
                lost.wire.shut = True
                doomed.process.kill()
                began = time.monotonic()
                await until(lambda: watcher.notices_of(lost) == ["join", "away"], "away", 12)
                assert time.monotonic() - began < 12
                lost.wire.shut = False
                lost.move(second)
                await until(lambda: lost.resumes == 1, "back", 35)
                await watcher.say(lost)
                await all_heard([watcher, lost])

        asyncio.run(run())


def test_redis_dies_between_two_processes_and_has_forgotten_everything(
    redis: RedisServer,
) -> None:
    with serving(redis) as (_, first), serving(redis) as (_, second):

        async def run() -> None:
            async with Talker(first) as a, Talker(second) as b, Talker(second) as c:
                # Few enough for what may wait while there is no bus.
                talking = asyncio.gather(
                    *(one.say(to, 50, pause=0.1) for one, to in ((a, b), (b, a), (b, c)))
                )
                await asyncio.sleep(0.5)
                await asyncio.to_thread(redis.kill)
                await until(lambda: len(c.heard.get(b.id, [])) > 10, "local pairs")
                await asyncio.to_thread(redis.start)
                await talking
                await all_heard([a, b, c])
                assert [one.disconnections for one in (a, b, c)] == [0, 0, 0]

        asyncio.run(run())


def test_readiness_and_the_log_say_that_the_bus_is_gone(tmp_path: Path) -> None:
    password = "a-password-for-the-bus"
    with (
        RedisServer(tmp_path, password=password) as redis,
        serving(redis, "--metrics-port", "0") as (command, port),
    ):
        [metrics] = command.event("serving")["metrics"]
        ready = f"http://127.0.0.1:{port}/readyz"
        assert status(ready) == 200
        assert "icepunch_bus_up 1.0" in text_of(metrics)
        redis.kill()
        command.until(lambda: status(ready) == 503, 10, "not ready")
        assert status(f"http://127.0.0.1:{port}/healthz") == 200
        assert "icepunch_bus_up 0.0" in text_of(metrics)
        redis.start()
        command.until(lambda: status(ready) == 200, 10, "ready again")
        logged = [e["message"] for e in command.events if e["event"] == "log"]
        assert any(message.startswith("bus lost") for message in logged)
        assert logged[-1] == "bus up forgotten=True"
        assert password not in json.dumps(command.events) + "".join(command.errors)


def test_a_wrong_password_for_the_bus(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="right-password") as redis:
        url = redis.url.replace("right", "wrong")
        with Command(*SERVE, "--port", "0", "--redis", url) as command:
            assert command.exit_code() == 1
            [error] = [e for e in command.events if e["event"] == "error"]
            assert "Redis" in error["message"]
            assert "wrong-password" not in json.dumps(command.events) + "".join(command.errors)


def test_a_drained_process_hands_everybody_over(redis: RedisServer) -> None:
    with serving(redis, "--drain", "3") as (leaving, first), serving(redis) as (_, second):

        async def run() -> None:
            async with Talker(first) as a, Talker(first) as b, Talker(second) as c:
                talking = asyncio.gather(a.say(c, 60), c.say(b, 60), b.say(a, 60))
                await asyncio.sleep(0.3)
                leaving.process.send_signal(signal.SIGTERM)
                for one in (a, b):
                    one.wire.target = second
                await talking
                await all_heard([a, b, c])
                assert a.resumes >= 1
                assert b.resumes >= 1
                assert c.notices_of(a).count("leave") == 0

        asyncio.run(run())
        assert leaving.exit_code(10) == 0


def test_workers_share_a_port_and_replace_each_other(redis: RedisServer) -> None:
    switches = ("--workers", "2", "--metrics-port", "0")
    with serving(redis, *switches) as (command, port):
        metrics = command.event("serving")["metrics"]
        assert len(metrics) == 2
        children = _children(command.process.pid)
        assert len(children) == 2
        assert status(f"http://127.0.0.1:{port}/readyz") == 200

        async def run() -> None:
            async with contextlib.AsyncExitStack() as stack:
                talkers = [await stack.enter_async_context(Talker(port)) for _ in range(6)]
                # The kernel chose; that all six are at one of the two is one case in 32.
                talking = [one.say(to, 20) for one, to in itertools.pairwise(talkers)]
                both = asyncio.gather(*talking)
                await asyncio.sleep(0.2)
                os.kill(children[0], signal.SIGKILL)
                await both
                await all_heard(talkers)

        asyncio.run(run())
        deadline = time.monotonic() + 15
        while len(_children(command.process.pid)) < 2 or children[0] in _children(
            command.process.pid
        ):
            assert time.monotonic() < deadline, "the worker was not replaced"
            time.sleep(0.1)
        command.interrupt()
        assert command.exit_code(15) == 0
        assert not any(runs(child) for child in children)
        logged = [event for event in command.events if event["event"] == "log"]
        assert {event.get("worker") for event in logged} == {0, 1, None}
        [ended] = [e["fields"] for e in logged if e["message"].startswith("worker ended")]
        assert ended["exit"] == -signal.SIGKILL


def test_workers_do_not_outlive_the_one_who_started_them(redis: RedisServer) -> None:
    with serving(redis, "--workers", "2") as (command, _):
        children = _children(command.process.pid)
        assert len(children) == 2
        command.process.kill()
        deadline = time.monotonic() + 10
        while any(runs(child) for child in children):
            assert time.monotonic() < deadline, "orphans"
            time.sleep(0.05)


def _children(pid: int) -> list[int]:
    """The workers: not the helper that multiprocessing runs beside them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
            if int(fields[1]) == pid and fields[0] != "Z" and b"resource_tracker" not in command:
                found.append(int(entry.name))
    return sorted(found)


# -- a firewall -------------------------------------------------------------------------------

_WORLD = Path(__file__).with_name("partition.py")


@pytest.mark.netns
@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_a_firewall_between_a_process_and_the_bus(tmp_path: Path) -> None:
    """In a network namespace of its own, where nobody else's packets are."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(_WORLD), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ready_during"] == [False, True]
    assert told["local_during"] > 10
    assert told["disconnections"] == [0, 0, 0]
