"""Files on data channels (`icepunch.file.1`): whole or not at all, under names that are safe."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ice_punch import ChannelClosed
from ice_punch.errors import TransferFailed
from ice_punch.webrtc import FileArrived, FileReceiver, FileSent, WebRtcChannel, files, send_file
from ice_punch.webrtc.data_channel import DataChannel
from ice_punch.webrtc.file_names import numbered, safe_name
from support.webrtc import two_pythons

CONTENT = bytes(range(256)) * 4000


def _transfer(
    directory: Path | None,
    story: Callable[[WebRtcChannel], Awaitable[None]],
    **options: Any,
) -> tuple[list[FileArrived], list[tuple[str, str]]]:
    """What arrived and what failed at a receiver, while ``story`` sends to it."""
    arrived: list[FileArrived] = []
    failed: list[tuple[str, str]] = []

    async def run() -> None:
        async with two_pythons() as (sender, receiver):
            if directory is not None:
                taking = FileReceiver(
                    directory,
                    on_arrived=arrived.append,
                    on_failed=lambda name, why: failed.append((name, why)),
                    **options,
                )
                receiver.serve(files.PROTOCOL, taking.receive)
            await asyncio.wait_for(story(sender), 30)

    asyncio.run(run())
    return arrived, failed


async def _spoken(channel: WebRtcChannel, *said: Any, label: str = "x") -> tuple[DataChannel, Any]:
    """A file channel on which ``said`` was said; the last thing that came back."""
    data = await channel.open_channel(label, files.PROTOCOL)
    answer: Any = None
    for message in said:
        await data.send(json.dumps(message) if isinstance(message, dict) else message)
    for _ in range(sum(isinstance(message, dict) for message in said)):
        try:
            answer = json.loads(await data.recv())
        except ChannelClosed:
            break
    return data, answer


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, len(CONTENT)])
def test_a_file_arrives_as_it_was_sent(tmp_path: Path, size: int) -> None:
    source, there = tmp_path / "report.pdf", tmp_path / "there"
    source.write_bytes(CONTENT[:size])
    there.mkdir()
    told: list[tuple[int, int]] = []

    async def story(channel: WebRtcChannel) -> None:
        sent = await send_file(channel, source, progress=lambda *at: told.append(at))
        assert sent == FileSent(size, hashlib.sha256(CONTENT[:size]).hexdigest())

    arrived, failed = _transfer(there, story)
    assert [(a.path, a.size, a.name) for a in arrived] == [
        (there / "report.pdf", size, "report.pdf")
    ]
    assert not failed
    assert (there / "report.pdf").read_bytes() == CONTENT[:size]
    assert [p.name for p in there.iterdir()] == ["report.pdf"]
    assert not size or told[-1] == (size, size)


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    source, there = tmp_path / "a.txt", tmp_path / "there"
    source.write_text("new")
    there.mkdir()
    (there / "a.txt").write_text("old")

    async def story(channel: WebRtcChannel) -> None:
        await asyncio.gather(send_file(channel, source), send_file(channel, source))

    arrived, _ = _transfer(there, story)
    assert sorted(a.path.name for a in arrived) == ["a (1).txt", "a (2).txt"]
    assert (there / "a.txt").read_text() == "old"


def test_a_side_that_takes_no_files_says_so(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(CONTENT)

    async def story(channel: WebRtcChannel) -> None:
        with pytest.raises(TransferFailed, match="refused the file: this side takes no files"):
            await send_file(channel, source)

    _transfer(None, story)


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    source, there = tmp_path / "a.bin", tmp_path / "there"
    source.write_bytes(CONTENT)
    there.mkdir()

    async def story(channel: WebRtcChannel) -> None:
        with pytest.raises(TransferFailed, match="more than the 1000 that are taken"):
            await send_file(channel, source)

    _, failed = _transfer(there, story, max_size=1000)
    assert [name for name, _ in failed] == ["a.bin"]
    assert not list(there.iterdir())


def test_what_can_not_be_read_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    async def story(channel: WebRtcChannel) -> None:
        with pytest.raises(FileNotFoundError):
            await send_file(channel, tmp_path / "missing")
        with pytest.raises(OSError, match="not a file"):
            await send_file(channel, tmp_path)

    _transfer(tmp_path, story)
    with pytest.raises(NotADirectoryError):
        FileReceiver(tmp_path / "missing")


HEADER = {"name": "x.bin", "size": 4}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([{"name": "x.bin"}], "the size of the file is missing"),
        ([{"name": "x.bin", "size": -1}], "the size of the file is missing"),
        ([{"name": "x.bin", "size": True}], "the size of the file is missing"),
        (["[" * 5000], "does not keep to icepunch.file.1"),
        (["no json"], "does not keep to icepunch.file.1"),
        ([b"binary first"], "does not keep to icepunch.file.1"),
        ([{"name": "x.bin", "size": 2**52}], "not enough room"),
        ([HEADER, b"12345"], "more came than was announced"),
        ([HEADER, b"12", {"sha256": "0" * 64}], "2 bytes came of 4"),
        ([HEADER, b"1234", {"sha256": "0" * 64}], "the SHA-256 differs"),
        ([HEADER, b"1234", {"sha256": 7}], "the SHA-256 differs"),
        ([HEADER, b"1234", "nonsense"], "does not keep to icepunch.file.1"),
    ],
)
def test_a_sender_that_breaks_the_rules_leaves_nothing_behind(
    tmp_path: Path, said: list[Any], sentence: str
) -> None:
    async def story(channel: WebRtcChannel) -> None:
        data = await channel.open_channel("x", files.PROTOCOL)
        for message in said:
            await data.send(json.dumps(message) if isinstance(message, dict) else message)
        answers = [json.loads(message) async for message in data]  # until the receiver closes
        assert sentence in answers[-1]["error"]

    arrived, failed = _transfer(tmp_path, story)
    assert not arrived
    assert len(failed) == 1
    assert sentence in failed[0][1]
    assert not list(tmp_path.iterdir())


def test_a_sender_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(channel: WebRtcChannel) -> None:
        data, answer = await _spoken(channel, {"name": "x", "size": 1000})
        assert answer == {"ok": True}
        await data.send(b"the beginning")
        data.close()
        await data.wait_closed()
        _, answer = await _spoken(channel, {"name": "x", "size": 1000})
        assert answer == {"ok": True}
        await channel.close()

    arrived, failed = _transfer(tmp_path, story)
    assert not arrived
    assert failed == [("x", "the peer cancelled it")] * 2
    assert not list(tmp_path.iterdir())


def test_a_receiver_that_goes_away_ends_the_sending(tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(CONTENT * 8)

    async def run(ends: str) -> None:
        async with two_pythons() as (sender, receiver):

            async def cancels(channel: DataChannel) -> None:
                await channel.recv()
                await channel.send('{"ok": true}')
                await channel.recv()
                if ends == "session":
                    await receiver.close()

            receiver.serve(files.PROTOCOL, cancels)
            expected = TransferFailed if ends == "file" else ChannelClosed
            sentence = "the peer cancelled the file" if ends == "file" else "the peer closed"
            with pytest.raises(expected, match=sentence):
                await asyncio.wait_for(send_file(sender, source), 10)

    asyncio.run(run("file"))
    asyncio.run(run("session"))


def test_an_error_in_mid_transfer_reaches_the_sender_as_it_was_said(tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(CONTENT * 8)

    async def run() -> None:
        async with two_pythons() as (sender, receiver):

            async def full(channel: DataChannel) -> None:
                await channel.recv()
                await channel.send('{"ok": true}')
                await channel.recv()
                await files.refuse(channel, "the disk is full")

            receiver.serve(files.PROTOCOL, full)
            with pytest.raises(TransferFailed, match="the disk is full"):
                await asyncio.wait_for(send_file(sender, source), 10)

    asyncio.run(run())


def test_a_few_files_at_once_and_no_more(tmp_path: Path) -> None:
    async def story(channel: WebRtcChannel) -> None:
        for number in range(files.MAX_AT_ONCE):
            _, answer = await _spoken(channel, {"name": str(number), "size": 9})
            assert answer == {"ok": True}
        _, answer = await _spoken(channel, {"name": "one too many", "size": 9})
        assert "on their way already" in answer["error"]

    _transfer(tmp_path, story)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "file"),
        ("..", "file"),
        ("", "file"),
        (".bashrc", "_bashrc"),
        ("a\x00b\n\x1b[31mc.txt", "ab[31mc.txt"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("data.txt:stream", "data.txt_stream"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("name. . ", "name"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("\ud800.txt", "_txt"),
        ("x" * 300 + ".tar.gz", "x" * 244 + ".gz"),
        ("ä" * 300, "ä" * 123),
    ],
)
def test_names_of_peers_are_made_safe(given: str, safe: str) -> None:
    assert safe_name(given) == safe
    assert len(numbered(safe_name(given), 999).encode()) <= 255


def test_a_name_in_the_header_is_made_safe_too(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()

    async def story(channel: WebRtcChannel) -> None:
        sha256 = hashlib.sha256(b"12").hexdigest()
        header = {"name": "../../out", "size": 2, "type": "text/plain"}
        data, answer = await _spoken(channel, header, b"12", {"sha256": sha256})
        assert answer == {"ok": True, "sha256": sha256}
        data.close()

    arrived, _ = _transfer(there, story)
    assert [a.path for a in arrived] == [there / "out"]
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
