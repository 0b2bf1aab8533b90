"""The two connections of a process to Redis or Valkey, watched: one for calls, one to hear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from importlib.resources import files
from typing import Any, Protocol

import msgspec
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from signaling.backends.calls import Call, room_key
from signaling.errors import InvalidRedisUrl
from signaling.limits import Limits
from signaling.randomness import RandomSource
from signaling.telling import tell

_log = logging.getLogger("signaling.bus")

CONNECT_TIMEOUT = 2.0
REPLY_TIMEOUT = 2.0
"""Seconds without any reply, while some are awaited, after which the bus is taken for dead."""
BEAT = 2.0
ALIVE_FOR = 6.0
"""Seconds after its last beat at which a process is taken for dead."""
PUSH_SILENCE = 3 * BEAT
_LOOK = 0.25
SETTLE = 1.5
"""Seconds that processes have to bring their sessions back to a bus that lost its memory."""
_RETRY = (0.05, 0.3)
_REFUSED_RETRY = 2.0
_SCRIPT = files("signaling.backends").joinpath("rooms.lua").read_text("utf-8")


class Listener(Protocol):
    """Whom a bus reports to."""

    def on_reply(self, call: Call, reply: list[Any]) -> None: ...

    def on_push(self, push: list[Any]) -> None: ...

    def on_down(self, lost: list[Call]) -> None: ...

    def on_settling(self) -> None: ...

    def on_up(self, *, forgotten: bool) -> None: ...

    def on_beat(self, dead: set[str]) -> None:
        """The bus has answered; ``dead`` are the processes asked for that are no more."""

    @property
    def others(self) -> set[str]:
        """The processes to look after."""


class Bus:
    """``node`` is this process; ``prefix`` begins every key, so that several share one Redis."""

    def __init__(
        self,
        url: str,
        node: str,
        listener: Listener,
        limits: Limits,
        random: RandomSource,
        *,
        prefix: str = "icepunch",
        settle: float = SETTLE,
    ) -> None:
        """Raises :class:`InvalidRedisUrl`."""
        try:
            self._pool = ConnectionPool.from_url(
                url,
                socket_connect_timeout=CONNECT_TIMEOUT,
                socket_timeout=None,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                protocol=2,
            )
        except (ValueError, TypeError, RedisError):
            text = "it should read redis://HOST[:PORT][/DB], rediss://... or unix://PATH"
            raise InvalidRedisUrl(text) from None
        self.losses = 0
        self.last_error = "not connected yet"
        self._node = node
        self._listener = listener
        self._random = random
        self._prefix = prefix
        self._settle = settle
        self._constants = {
            "node": node,
            "channel": f"{prefix}:node:",
            "messages": limits.resume_messages,
            "bytes": limits.resume_bytes,
            "lifetime": int(limits.session_lifetime * 1000),
            "ttl": int(4 * limits.resume_window * 1000),
            "closed_for": int(limits.closed_for * 1000),
        }
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack = msgspec.msgpack.Decoder().decode
        self._sha = ""
        self._epoch: bytes | None = None
        self._waiting: deque[Call | asyncio.Future[Any]] = deque()
        self._outgoing: list[bytes] = []
        self._wake = asyncio.Event()
        self._commands: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._replies = 0
        self._heard = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell the others that this process is gone, after everything that was asked."""
        if self._commands is not None:
            try:
                async with asyncio.timeout(1.0):
                    await self._command("DEL", self._alive_key(self._node))
            except (TimeoutError, OSError, RedisError):
                pass
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def call(self, call: Call) -> None:
        """Carry a call out, after those before it."""
        key = room_key(self._prefix, call.room)
        arguments = self._pack(self._constants | call.arguments)
        self._submit(call, "EVALSHA", self._sha, 1, key, call.operation, arguments)

    def _submit(self, waiting: Call | asyncio.Future[Any], *command: Any) -> None:
        assert self._commands is not None
        self._waiting.append(waiting)
        self._outgoing += self._commands.pack_command(*command)
        self._wake.set()

    async def _command(self, *command: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._submit(future, *command)
        return await future

    def _alive_key(self, node: str) -> str:
        return f"{self._prefix}:alive:{node}"

    # One life of the bus after another

    async def _run(self) -> None:
        delay = _RETRY[0]
        while True:
            began = time.monotonic()
            up = refused = False
            try:
                up = await self._live()
            except* Exception as errors:
                first: BaseException = errors
                while isinstance(first, BaseExceptionGroup):
                    first = first.exceptions[0]
                if not isinstance(first, RedisError | OSError | EOFError):
                    _log.error("the bus failed", exc_info=first)
                self.last_error = str(first) or type(first).__name__
                up = self._commands is not None
                refused = isinstance(first, ResponseError)
            self._end(up)
            delay = _RETRY[0] if time.monotonic() - began > 5 else min(2 * delay, _RETRY[1])
            if refused:
                delay = _REFUSED_RETRY  # no memory, no permission: it will not pass so soon
            await asyncio.sleep(delay * (0.5 + self._random.random()))

    def _end(self, up: bool) -> None:
        self._commands = None
        lost = []
        for waiting in self._waiting:
            if isinstance(waiting, Call):
                lost.append(waiting)
            elif not waiting.done():
                waiting.set_exception(ConnectionError("the bus is gone"))
        self._waiting.clear()
        self._outgoing.clear()
        if up:
            self.losses += 1
            tell(_log, "bus lost", {"reason": self.last_error}, logging.WARNING)
        self._listener.on_down(lost)

    async def _live(self) -> bool:
        commands, pushes = (self._connection() for _ in range(2))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await _connect(commands)
                await _connect(pushes)
                await pushes.send_command("SUBSCRIBE", f"{self._prefix}:node:{self._node}")
                await pushes.read_response()
                await commands.send_command("SCRIPT", "LOAD", _SCRIPT)
                self._sha = (await commands.read_response(disable_decoding=True)).decode()
            self._commands = commands
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(commands))
                group.create_task(self._read(commands))
                group.create_task(self._hear(pushes))
                group.create_task(self._watch(pushes))
                group.create_task(self._begin())
        finally:
            for connection in (commands, pushes):
                await asyncio.shield(_disconnect(connection))
        return True

    def _connection(self) -> Connection:
        made: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return made

    async def _begin(self) -> None:
        """Find out what the bus remembers, and go on from there."""
        key = f"{self._prefix}:epoch"
        seconds, micros = await self._command("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        mine = f"{self._random.randbytes(8).hex()}:{now}"
        await self._command("SET", key, mine, "NX")
        epoch = await self._command("GET", key)
        await self._beat()
        forgotten = self._epoch is not None and epoch != self._epoch
        self._epoch = epoch
        age = (now - int(epoch.partition(b":")[2])) / 1000
        if forgotten or age < self._settle:
            self._listener.on_settling()
            await asyncio.sleep(self._settle if forgotten else self._settle - age)
        self._listener.on_up(forgotten=forgotten)
        tell(_log, "bus up", {"forgotten": forgotten})
        while True:
            await asyncio.sleep(BEAT)
            if await self._command("GET", key) != epoch:
                raise ConnectionError("the bus lost its memory")
            await self._beat()

    async def _beat(self) -> None:
        await self._command("SET", self._alive_key(self._node), 1, "PX", int(ALIVE_FOR * 1000))
        dead = set()
        for node in sorted(self._listener.others):
            if not await self._command("EXISTS", self._alive_key(node)):
                dead.add(node)
        self._listener.on_beat(dead)

    async def _write(self, commands: Connection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            outgoing, self._outgoing = self._outgoing, []
            await commands.send_packed_command(b"".join(outgoing), check_health=False)

    async def _read(self, commands: Connection) -> None:
        while True:
            reply = await commands.read_response(disable_decoding=True)
            self._replies += 1
            waiting = self._waiting.popleft()
            if isinstance(waiting, Call):
                self._listener.on_reply(waiting, self._unpack(reply))
            elif not waiting.done():
                waiting.set_result(reply)

    async def _hear(self, pushes: Connection) -> None:
        while True:
            message = await pushes.read_response(disable_decoding=True)
            self._heard += 1
            if message[0] == b"message":
                self._listener.on_push(self._unpack(message[2]))

    async def _watch(self, pushes: Connection) -> None:
        """Half-open connections never end by themselves.

        Silence is counted in looks, not by the clock: what a process was too busy to read was no
        silence. Nor is a long queue one: after every reply the wait begins anew.
        """
        replies, heard = self._replies, self._heard
        mute = deaf = pinged = 0
        while True:
            await asyncio.sleep(_LOOK)
            mute = mute + 1 if self._waiting and self._replies == replies else 0
            deaf = deaf + 1 if self._heard == heard else 0
            replies, heard = self._replies, self._heard
            if mute * _LOOK > REPLY_TIMEOUT:
                raise TimeoutError("no reply in time")
            if deaf * _LOOK > PUSH_SILENCE:
                raise TimeoutError("the subscription went silent")
            pinged += 1
            if pinged * _LOOK > BEAT:
                pinged = 0
                await pushes.send_command("PING", check_health=False)


async def _connect(connection: Connection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call]


async def _disconnect(connection: Connection) -> None:
    try:
        async with asyncio.timeout(0.5):
            await connection.disconnect(nowait=True)
    except (RedisError, OSError, TimeoutError):
        pass
