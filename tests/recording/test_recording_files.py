"""Where sessions over real sockets are recorded: files, their names, and what can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ice_punch import (
    Cause,
    GatheringFailed,
    IceConnection,
    IceServer,
    InvalidConfiguration,
    NoRoute,
    Recording,
    RecordingFiles,
    Replay,
    connect,
    listen,
)
from ice_punch import replay as replayed
from ice_punch.ice import AgentConfig, IceState
from ice_punch.recording import lines as told
from support.coturn import Coturn
from support.loopback import GATHERING, OPTIONS, signaling


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def replay(path: Path) -> Replay:
    with path.open() as file:
        return replayed(Recording.load(file))


@contextlib.asynccontextmanager
async def connections(
    record: RecordingFiles, *, servers: tuple[IceServer, ...] = ()
) -> AsyncIterator[tuple[IceConnection, IceConnection]]:
    """Two sides that record, connected, which have sent each other something."""
    options = replace(GATHERING, ice_servers=servers)
    async with (
        IceConnection(controlling=True, options=options, record=record) as a,
        IceConnection(controlling=False, options=options, record=record) as b,
    ):
        for connection in (a, b):
            async for _ in connection.gather():
                pass
        a.set_remote_description(b.local_description)
        b.set_remote_description(a.local_description)
        await asyncio.gather(a.connect(5), b.connect(5))
        await a.send(b"never to be written down")
        assert await b.recv() == b"never to be written down"
        yield a, b


@asynchronous
async def test_a_session_over_sockets_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    with RecordingFiles(path) as record:
        async with connections(record) as (a, b):
            sides = (a, b)
    for connection, file in zip(sides, (path, tmp_path / "call.jsonl.2"), strict=True):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        again = replay(file)
        assert again.complete
        assert again.state is IceState.CLOSED
        assert again.report == replace(connection.report(), servers=())
        text = file.read_text()
        assert "never to be" not in text
        assert b"never to be".hex() not in text
        assert text.count('"what":"interface"') == 1
    assert {f.name for f in tmp_path.iterdir()} == {"call.jsonl", "call.jsonl.2"}


@asynchronous
async def test_what_relays_do_is_replayed_and_their_credentials_are_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "call"
    with Coturn() as coturn, RecordingFiles(path) as record:
        ((username, password),) = coturn.users.items()
        servers = (
            IceServer.parse(coturn.uri(), username, password),
            IceServer.parse("turn:127.0.0.1:9?transport=tcp", "some-body", "some-secret"),
        )
        async with connections(record, servers=servers):
            pass
    for file in (path, tmp_path / "call.2"):
        again = replay(file)
        body = again.recording.body
        assert any(isinstance(line, told.AddRelayedCandidate) for line in body)
        assert sum(isinstance(line, told.Reserve) for line in body) == 2
        notes = [line.report for line in body if isinstance(line, told.ServerNote)]
        assert {note.outcome for note in notes} == {"ok", "unreachable"}
        for secret in (username, password, "some-body", "some-secret"):
            assert secret not in file.read_text()


@asynchronous
async def test_addresses_are_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "call"
    server = IceServer.parse("stun:localhost:9")
    with RecordingFiles(path, redact_addresses=True) as record:
        async with connections(record, servers=(server,)):
            pass
    text = path.read_text()
    assert "localhost" not in text
    assert '"lo"' not in text
    assert replay(path).recording.header.redacted


@asynchronous
async def test_why_it_failed_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "call"
    with RecordingFiles(path) as record:
        connection = IceConnection(
            options=GATHERING, record=record, agent_config=AgentConfig(give_up_after=0.2)
        )
        async with connection:
            other = IceConnection(controlling=False, options=GATHERING)
            connection.set_remote_description(other.describe(candidates=False))
            connection.add_remote_candidate(None)
            with pytest.raises(NoRoute):
                await connection.connect(5)
            await other.close()
    again = replay(path)
    (failure,) = [x for x in again.recording.body if isinstance(x, told.FailureNote)]
    assert failure.error == "NoRoute"
    assert failure.message == (
        "the peer told no address that this side could reach; see what the other side says"
    )
    assert again.reason.startswith("none of 0 candidate pairs works after 0.2 s")
    assert again.state is IceState.FAILED


@asynchronous
async def test_why_it_failed_names_no_server_where_no_name_is_wanted(tmp_path: Path) -> None:
    """The name of a host without a dot is known for one only by the server's report."""
    path = tmp_path / "call"
    server = IceServer.parse("turn:127.0.0.1:9?transport=tcp", "some-body", "some-secret")
    named = replace(server, host="localhost")
    with RecordingFiles(path, redact_addresses=True) as record:
        options = replace(GATHERING, relay_only=True, ice_servers=(named,))
        async with IceConnection(options=options, record=record) as connection:
            with pytest.raises(GatheringFailed, match="localhost") as caught:
                await connection.connect(5)
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.cause is Cause.SERVER_UNREACHABLE
    (failure,) = [x for x in replay(path).recording.body if isinstance(x, told.FailureNote)]
    assert "can not be reached" in failure.message
    assert "localhost" not in path.read_text()


@asynchronous
async def test_listen_and_connect_record_each_attempt(tmp_path: Path) -> None:
    with (
        RecordingFiles(tmp_path / "l") as of_listener,
        RecordingFiles(tmp_path / "c") as of_connector,
    ):
        options = replace(OPTIONS, record=of_listener)
        async with signaling() as url, listen(url, options) as listener:
            for _ in range(2):
                connecting = connect(listener.link, replace(OPTIONS, record=of_connector))
                accepting = asyncio.ensure_future(listener.accept().__aenter__())
                async with connecting as channel, await accepting as other:
                    await channel.send(b"hello")
                    assert await other.recv() == b"hello"
    names = {f.name for f in tmp_path.iterdir()}
    assert names == {"l", "l.2", "c", "c.2"}
    for name in names:
        again = replay(tmp_path / name)
        assert IceState.CONNECTED in [event.state for _, event in again.states]
        assert again.recording.header.controlling is name.startswith("c")


# -- what can not be written -------------------------------------------------------------------


def test_a_file_that_is_there_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("mine")
    with pytest.raises(
        InvalidConfiguration, match="precious exists already: a recording overwrites no file"
    ):
        RecordingFiles(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("where", ["no/such/directory/call", "", "nul\0byte"])
def test_what_can_not_be_written_is_told_at_once(tmp_path: Path, where: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"can not be written|exists already"):
        RecordingFiles(f"{tmp_path}/{where}")


def test_no_session_leaves_no_file(tmp_path: Path) -> None:
    with RecordingFiles(tmp_path / "call") as record:
        assert (tmp_path / "call").exists()
    assert not (tmp_path / "call").exists()
    record.close()


@asynchronous
async def test_a_later_session_whose_file_can_not_be_had_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "call.2").write_text("mine")
    told_: list[str] = []
    with RecordingFiles(tmp_path / "call", on_stopped=told_.append) as record:
        async with connections(record):
            pass
    (why,) = told_
    assert why.startswith("this session is not recorded: ")
    assert "call.2 exists already" in why
    assert (tmp_path / "call.2").read_text() == "mine"
    assert replay(tmp_path / "call").complete


@pytest.mark.parametrize("room", [0, 700, 2000])
@asynchronous
async def test_a_full_disk_ends_the_recording_and_not_the_session(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [room]
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, bytes(data)[: left[0]])
        left[0] -= written
        return written

    told_: list[str] = []
    with RecordingFiles(tmp_path / "call", on_stopped=told_.append) as record:
        monkeypatch.setattr("ice_punch.net.recording_file.os.write", full)
        async with connections(record):
            pass
    monkeypatch.undo()
    assert set(told_) == {
        f"the recording {tmp_path}/{name} ended before its session: No space left on device"
        for name in ("call", "call.2")
    }
    assert len(told_) == 2
    assert (tmp_path / "call").stat().st_size <= room


@asynchronous
async def test_a_file_closed_by_somebody_else_is_told_once(tmp_path: Path) -> None:
    told_: list[str] = []
    record = RecordingFiles(tmp_path / "call", on_stopped=told_.append)
    async with connections(record) as (a, b):
        for connection in (a, b):
            assert connection._recording is not None
            descriptor = connection._recording._descriptor
            assert descriptor is not None
            os.close(descriptor)
        await a.send(b"still here")
        assert await b.recv() == b"still here"
    assert len(told_) == 2
    assert "Bad file descriptor" in told_[0]


@asynchronous
async def test_without_anybody_to_tell_it_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RecordingFiles(tmp_path / "call", max_bytes=1500) as record:
        async with connections(record):
            pass
    assert [r.message.partition(": ")[2] for r in caplog.records] == [
        "the limit of 1500 bytes was reached"
    ] * 2
    again = replay(tmp_path / "call")
    assert not again.complete
    assert (tmp_path / "call").stat().st_size < 1800
