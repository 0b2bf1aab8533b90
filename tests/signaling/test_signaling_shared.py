"""Rooms shared by several servers through a real Redis: the same rooms, wherever one connects."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis_support import RedisServer, needs_redis
from shared_world import LIMITS, Talker, all_heard, servers, until
from signaling_net import hear, join, raw_client, say
from signaling_support import OTHER_ROOM, ROOM

from signaling.backends.calls import frame_of, room_key
from signaling.messages import PeerNotice, encode

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(redis: RedisServer) -> None:
    redis.ask("FLUSHALL")


def test_peers_on_two_servers_meet_and_part(redis: RedisServer, engine: str) -> None:
    async def run() -> None:
        async with servers(redis) as (left, right), Talker(left.port) as a:
            async with Talker(right.port) as b:
                await until(lambda: a.notices_of(b) == ["join"], "join")
                await asyncio.gather(a.say(b, 50, pause=0), b.say(a, 50, pause=0))
                await all_heard([a, b])
                b_id = b.id
            await until(lambda: a.notices_of(b) == ["join", "leave"], "leave")
            await a.client.send(b_id, "link-1", 0, "offer", "x")
            await until(lambda: a.unavailable, "unavailable")
            assert a.unavailable[0].code == "peer_unavailable"

    asyncio.run(run())
    assert b"icepunch:{" not in redis.ask("KEYS", "*")  # the last one out puts the light out


def test_a_room_that_was_closed_stays_closed_at_every_server(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis, limits=replace(LIMITS, closed_for=1.0)) as (left, right),
            raw_client(left) as one,
            raw_client(right) as two,
        ):
            await join(one)
            await join(two)
            await say(one, "leave", close=True)
            assert (await hear(two))["reason"] == "closed"
            await say(two, "leave")
            await asyncio.sleep(0.1)
            for server in (left, right):
                async with raw_client(server) as late:
                    await say(late, "hello", v=1, room=ROOM)
                    assert (await hear(late))["code"] == "room_closed"
            await asyncio.sleep(1.1)
            async with raw_client(right) as later:
                assert (await join(later))["order"] == 1

    asyncio.run(run())


def test_orders_and_seats_are_the_rooms_not_the_servers(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            raw_client(left) as one,
            raw_client(right) as two,
            raw_client(left) as three,
        ):
            await say(one, "hello", v=1, room=ROOM, max_peers=2, meta='a "note"')
            first = await hear(one)
            second = await join(two)
            assert (first["order"], second["order"]) == (1, 2)
            assert first["limits"]["peers"] == second["limits"]["peers"] == 2
            assert second["peers"] == [{"id": first["self"], "order": 1, "meta": 'a "note"'}]
            assert (await hear(one))["event"] == "join"
            await say(three, "hello", v=1, room=ROOM)
            refusal = await hear(three)
            assert (refusal["code"], refusal["fatal"]) == ("room_full", True)
            await say(two, "leave")
            assert (await hear(one))["event"] == "leave"
            async with raw_client(right) as four:
                assert (await join(four))["order"] == 3
            async with raw_client(right) as five:
                assert (await join(five, OTHER_ROOM))["order"] == 1

    asyncio.run(run())


def test_the_seat_of_an_absent_peer_is_kept_for_a_while(redis: RedisServer) -> None:
    async def run() -> None:
        limits = replace(LIMITS, seat_grace=0.3, peers_per_room=2)
        async with servers(redis, limits=limits) as (left, right), raw_client(left) as one:
            await join(one)
            async with raw_client(right) as two:
                await join(two)
            await hear(one)
            assert (await hear(one))["event"] == "away"
            async with raw_client(left) as three:
                await say(three, "hello", v=1, room=ROOM)
                refusal = await hear(three)
                assert refusal["code"] == "room_full"
                assert 0 < refusal["retry_after"] <= 0.3
            await asyncio.sleep(0.3)
            async with raw_client(left) as four:
                await join(four)
                assert [(await hear(one))["event"] for _ in range(2)] == ["leave", "join"]

    asyncio.run(run())


def test_a_session_goes_on_at_another_server_with_everything_that_waited(
    redis: RedisServer,
) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(right.port) as b,
        ):
            for turn in range(6):
                b.wire.shut = True
                talking = asyncio.create_task(a.say(b, 20))
                await b.say(a, 3)
                b.move((left, right)[turn % 2].port)
                await asyncio.sleep(0.2)
                b.wire.shut = False
                await b.say(a, 5)
                await talking
                await all_heard([a, b])
            assert b.resumes >= 6
            assert b.notices_of(a) == []
            assert set(a.notices_of(b)) <= {"join", "away", "back"}
            assert left.sizes["sessions"] + right.sizes["sessions"] == 2

    asyncio.run(run())


def test_a_takeover_closes_the_connection_at_the_other_server(redis: RedisServer) -> None:
    async def run() -> None:
        async with servers(redis) as (left, right), raw_client(left) as old:
            welcome = await join(old)
            claim = {"sid": welcome["sid"], "key": welcome["key"], "seq": 0}
            async with raw_client(right) as thief:
                wrong = claim | {"key": "A" * 22}
                await say(thief, "hello", v=1, room=ROOM, resume=wrong)
                assert (await hear(thief))["type"] == "welcome"
                assert (await hear(old))["event"] == "join"
                async with raw_client(right) as new:
                    await say(new, "hello", v=1, room=ROOM, resume=claim | {"seq": 1})
                    resumed = await hear(new)
                    assert (resumed["type"], resumed["rx"]) == ("resumed", 0)
                    await old.wait_closed()
                    assert old.close_code == 4503
                    # And back again, at once.
                    async with raw_client(left) as third:
                        await say(third, "hello", v=1, room=ROOM, resume=claim | {"seq": 1})
                        assert (await hear(third))["type"] == "resumed"
                        await asyncio.sleep(0.1)
                        await say(third, "ping", n=7)
                        while (answer := await hear(third))["type"] == "ice":
                            pass  # another server has credentials of its own
                        assert answer == {"type": "pong", "n": 7}

    asyncio.run(run())


def test_an_absent_peer_has_a_queue_and_then_no_seat(redis: RedisServer) -> None:
    async def run() -> None:
        limits = replace(LIMITS, resume_window=1.0)
        async with (
            servers(redis, limits=limits) as (left, right),
            Talker(left.port) as a,
            Talker(right.port) as b,
        ):
            await a.say(b)
            await all_heard([a, b])
            b.wire.shut = True
            b.wire.cut()
            await until(lambda: a.notices_of(b) == ["join", "away"], "away")
            await a.say(b, 64, pause=0)
            await a.client.send(b.id, "link-1", 0, "offer", "one too many")
            await until(lambda: a.unavailable, "refusal")
            assert [u.code for u in a.unavailable] == ["queue_full"]
            await until(lambda: a.notices_of(b) == ["join", "away", "leave"], "leave")
            b.wire.shut = False
            await until(lambda: b.welcomes == 2, "a fresh welcome")

    asyncio.run(run())


def test_what_redis_holds_lets_nobody_in(redis: RedisServer) -> None:
    async def run() -> dict[str, str]:
        async with servers(redis) as (left, _), raw_client(left) as one:
            welcome = await join(one)
            dump = redis.ask("KEYS", "*") + redis.ask("HGETALL", room_key("icepunch", ROOM))
            assert welcome["self"].encode() in dump
            for secret in (ROOM, welcome["key"]):
                assert secret.encode() not in dump
        return {}

    asyncio.run(run())


def test_notices_of_the_script_read_as_those_of_the_server() -> None:
    lua = '{"type":"peer","seq":7,"event":"leave","id":"abc","order":3,"reason":"expired"}'
    assert encode(PeerNotice(7, "leave", "abc", 3, reason="expired")) == lua
    meta = 'x"}\\u1'
    frame = frame_of(PeerNotice(0, "join", "abc", 3, meta=meta))
    assert json.loads(frame.text(12)) == {
        "type": "peer",
        "seq": 12,
        "event": "join",
        "id": "abc",
        "order": 3,
        "meta": meta,
    }


# -- the bus breaks ---------------------------------------------------------------------------


def test_a_lost_subscription_is_noticed_and_made_up_for(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(right.port) as b,
        ):
            talking = asyncio.gather(a.say(b, 150), b.say(a, 150))
            for _ in range(5):
                await asyncio.sleep(0.5)
                redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await talking
            await all_heard([a, b])
            assert a.disconnections == b.disconnections == 0

    asyncio.run(run())


def test_a_gap_in_what_is_published_is_read_up(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(right.port) as b,
        ):
            deaf = right._backend
            real, missed = deaf.on_push, []

            def on_push(push: list[object]) -> None:
                if random.random() < 0.3:
                    missed.append(push)
                else:
                    real(push)

            deaf.on_push = on_push
            await a.say(b, 100, pause=0.002)
            deaf.on_push = real
            await a.say(b, 1)
            await all_heard([a, b])
            assert missed
            assert right.counters["bus_gaps"] > 0

    asyncio.run(run())


def test_redis_dies_forgets_everything_and_comes_back(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(left.port) as local,
            Talker(right.port) as b,
        ):
            everybody = [a, local, b]
            for _ in range(2):
                talking = asyncio.gather(
                    a.say(b, 60), b.say(a, 60), a.say(local, 60), local.say(b, 60)
                )
                await asyncio.sleep(0.2)
                redis.kill()
                await until(lambda: not left.ready and not right.ready, "not ready")
                # Peers of one server go on, at once.
                before = len(local.heard.get(a.id, []))
                await until(lambda: len(local.heard[a.id]) > before + 5, "local pairs", 2)  # noqa: B023
                await asyncio.sleep(0.3)
                redis.start()
                await until(lambda: left.ready and right.ready, "ready")
                await talking
                await all_heard(everybody)
            assert all(one.disconnections == 0 for one in everybody)
            assert redis.ask("HGET", room_key("icepunch", ROOM), "order").strip() == b"3"

    asyncio.run(run())


def test_redis_hangs(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(left.port) as local,
            Talker(right.port) as b,
        ):
            talking = asyncio.gather(a.say(b, 50), b.say(a, 50), a.say(local, 50))
            await asyncio.sleep(0.2)
            redis.freeze()
            try:
                await until(lambda: not left.ready and not right.ready, "not ready")
                await talking
                await until(lambda: local.heard[a.id] == list(range(1, 51)), "local pairs")
            finally:
                redis.thaw()
            await until(lambda: left.ready and right.ready, "ready")
            await all_heard([a, local, b])

    asyncio.run(run())


def test_without_the_bus_newcomers_wait_and_sessions_resume_where_they_were(
    redis: RedisServer,
) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(left.port) as b,
            Talker(right.port) as far,
        ):
            await until(lambda: len(a.notices_of(far)) == 1, "joined")
            redis.freeze()
            try:
                await until(lambda: not left.ready, "not ready")
                a.wire.cut()
                await b.say(a, 5)
                await until(lambda: a.resumes == 1, "resumed")
                await a.say(b, 5)
                await all_heard([a, b])
                assert b.notices_of(a) in ([], ["away", "back"])
                async with raw_client(left) as newcomer:
                    await say(newcomer, "hello", v=1, room=ROOM)
                    refusal = await hear(newcomer)
                    assert (refusal["code"], refusal["fatal"]) == ("busy", True)
                    await newcomer.wait_closed()
                    assert newcomer.close_code == 4004
                # Nothing is known of a session that was elsewhere, so it is told to come again.
                far.move(left.port)
                await asyncio.sleep(0.5)
                assert (far.welcomes, far.resumes) == (1, 0)
            finally:
                redis.thaw()
            await until(lambda: far.resumes == 1, "resumed at the other server")
            await asyncio.gather(a.say(far, 3), far.say(b, 3))
            await all_heard([a, b, far])

    asyncio.run(run())


def test_signals_for_others_wait_within_bounds(redis: RedisServer) -> None:
    async def run() -> None:
        async with (
            servers(redis) as (left, right),
            Talker(left.port) as a,
            Talker(right.port) as b,
        ):
            await a.say(b)
            redis.freeze()
            try:
                await until(lambda: not left.ready, "not ready")
                await a.say(b, 64, pause=0)
                await a.client.send(b.id, "link-1", 0, "offer", "one too many")
                await until(lambda: a.unavailable, "refusal")
                assert [u.code for u in a.unavailable] == ["queue_full"]
                a.unavailable.clear()
            finally:
                redis.thaw()
            await until(lambda: left.ready, "ready")
            await a.say(b, 5)
            await all_heard([a, b])

    asyncio.run(run())


def test_after_too_long_without_the_bus_those_with_peers_elsewhere_are_sent_away(
    redis: RedisServer,
) -> None:
    async def run() -> None:
        limits = replace(LIMITS, resume_window=3.0)
        async with (
            servers(redis, limits=limits) as (left, right),
            raw_client(left) as mixed,
            raw_client(right) as far,
            raw_client(left) as alone,
        ):
            await join(mixed)
            await join(far)
            await hear(mixed)
            await join(alone, OTHER_ROOM)
            # Whoever joined first learns at the next look at the room that somebody is elsewhere.
            await until(lambda: left._backend._rooms.elsewhere.get(ROOM), "known", 15)
            redis.freeze()
            try:
                await asyncio.wait_for(mixed.wait_closed(), 10)
                assert mixed.close_code == 4003
                await say(alone, "ping", n=1)
                assert (await hear(alone))["type"] == "pong"
            finally:
                redis.thaw()

    asyncio.run(run())


def test_a_server_too_busy_to_read_the_replies_does_not_give_the_bus_up(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when thousands come back: the replies are there, only nobody has read them."""
    monkeypatch.setattr("signaling.backends.bus.REPLY_TIMEOUT", 0.5)

    async def run() -> None:
        async with servers(redis) as (left, _):
            bus = left._backend._bus  # type: ignore[attr-defined]
            for _ in range(3):
                asked = asyncio.create_task(bus._command("PING"))
                await asyncio.sleep(0)
                time.sleep(0.9)
                assert await asked == b"PONG"
            assert left.counters["bus_connections"] == 1

    asyncio.run(run())


def test_a_long_queue_of_calls_is_no_silence(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reply is in time, only the last of them comes long after it was asked for."""
    monkeypatch.setattr("signaling.backends.bus.REPLY_TIMEOUT", 0.5)

    async def run() -> None:
        async with servers(redis) as (left, _):
            bus = left._backend._bus  # type: ignore[attr-defined]
            calls = [bus._command("BLPOP", "nothing-ever-comes", 0.2) for _ in range(8)]
            assert await asyncio.gather(*calls) == 8 * [None]
            assert left.counters["bus_connections"] == 1

    asyncio.run(run())


def test_a_session_that_moves_lasts_no_longer_than_one_that_stays(redis: RedisServer) -> None:
    async def run() -> None:
        limits = replace(LIMITS, session_lifetime=2.0, hello_timeout=0.2)
        async with servers(redis, limits=limits) as (left, right), Talker(left.port) as one:
            began = time.monotonic()
            await asyncio.sleep(1.2)
            one.move(right.port)
            await until(lambda: one.resumes == 1, "resumed")
            await until(lambda: one.welcomes == 2, "another session")
            assert 1.9 < time.monotonic() - began < 3.0

    asyncio.run(run())


def test_a_cluster_takes_every_call(tmp_path: Path) -> None:
    """A cluster refuses a script whose keys are in two slots; one node can hold all slots."""
    with RedisServer(tmp_path, "--cluster-enabled", "yes") as cluster:
        assert b"OK" in cluster.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in cluster.ask("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

        async def run() -> None:
            async with (
                servers(cluster) as (left, right),
                Talker(left.port) as a,
                Talker(right.port) as b,
                Talker(right.port, OTHER_ROOM) as c,
            ):
                await asyncio.gather(a.say(b, 20), b.say(a, 20))
                b.move(left.port)
                await asyncio.gather(a.say(b, 20), b.say(a, 20))
                await all_heard([a, b])
                assert c.notices_of(a) == []

        asyncio.run(run())
