"""``icepunch.file.1``: a file on a data channel of its own, with its SHA-256 at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ice_punch.errors import ChannelClosed, IcePunchError, TransferFailed
from ice_punch.webrtc.data_channel import DataChannel
from ice_punch.webrtc.file_names import numbered, safe_name

if TYPE_CHECKING:
    from ice_punch.webrtc.channel import WebRtcChannel

PROTOCOL = "icepunch.file.1"
PIECE = 16384
"""Bytes of a message with a part of the file."""
PATIENCE = 60.0
"""Seconds that the other side may be silent."""
DECISION = 300.0
"""Seconds that a person on the other side has to say whether the file is welcome."""
LAST_WORD = 0.1
"""Seconds."""
MAX_AT_ONCE = 4
"""Files that are received at once."""
MAX_HEADER = 8192
"""Characters of a message of JSON."""
MAX_SIZE = 1 << 53
"""Bytes; JSON has no larger numbers."""
MAX_SAME_NAME = 1000

Progress = Callable[[int, int], None]
"""Told of bytes that are done, and of how many there are."""


@dataclass(frozen=True, slots=True)
class FileArrived:
    """A file that was received whole."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    name: str
    """What the peer called it: for people, made fit to be shown."""


@dataclass(frozen=True, slots=True)
class FileSent:
    """A file that the peer has confirmed."""

    size: int
    """Bytes."""
    sha256: str


async def send_file(
    channel: WebRtcChannel,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> FileSent:
    """Send a file to a peer that takes files, and wait until it has confirmed it.

    Raises OSError for a file that can not be read, TransferFailed, or the error that ended the
    session.
    """
    path = Path(path)
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = await _file_channel(channel, path.name)
        try:
            return FileSent(size, await _Sending(data, file, size, progress).run(path.name))
        except ChannelClosed as error:
            if channel.closed:
                raise
            raise TransferFailed("the peer cancelled the file") from error
        finally:
            data.close()


async def _file_channel(channel: WebRtcChannel, label: str) -> DataChannel:
    try:
        async with asyncio.timeout(PATIENCE):
            return await channel.open_channel(label, PROTOCOL)
    except TimeoutError:
        raise TransferFailed(f"the peer did not open a channel in {PATIENCE:g} s") from None
    except ChannelClosed as error:
        if channel.closed:
            raise
        raise TransferFailed("the peer did not take another channel") from error


class _Sending:
    def __init__(
        self, data: DataChannel, file: BinaryIO, size: int, progress: Progress | None
    ) -> None:
        self._data, self._file, self._size = data, file, size
        self._progress = progress or (lambda done, size: None)

    async def run(self, name: str) -> str:
        with contextlib.suppress(ChannelClosed):  # the answer to that says why
            await self._data.send(json.dumps({"name": name, "size": self._size}))
        await _answer(self._data, patience=DECISION)
        answering = asyncio.ensure_future(_answer(self._data, patience=None))
        sending = asyncio.ensure_future(self._send())
        try:
            await asyncio.wait((answering, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() is not None:
                await asyncio.wait((answering,), timeout=LAST_WORD)  # it may say why
                if answering.done():
                    answering.result()
            if not sending.done():  # it answers before it has everything: an error
                answering.result()
                raise TransferFailed("the peer took a file for complete that is not")
            sha256 = sending.result()
            async with asyncio.timeout(PATIENCE):
                told = await answering
        except TimeoutError:
            raise TransferFailed(f"the peer did not confirm the file in {PATIENCE:g} s") from None
        finally:
            for task in (answering, sending):
                task.cancel()
            await asyncio.gather(answering, sending, return_exceptions=True)
        if told.get("sha256") != sha256:
            raise TransferFailed("the peer got something else than what was sent")
        return sha256

    async def _send(self) -> str:
        digest, done = hashlib.sha256(), 0
        while done < self._size:
            piece = self._file.read(min(PIECE, self._size - done))
            if not piece:
                raise TransferFailed("the file became shorter while it was sent")
            digest.update(piece)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._data.send(piece)
            except TimeoutError:
                raise TransferFailed(f"the peer took nothing for {PATIENCE:g} s") from None
            done += len(piece)
            self._progress(done, self._size)
        await self._data.send(json.dumps({"sha256": digest.hexdigest()}))
        await self._drain()
        return digest.hexdigest()

    async def _drain(self) -> None:
        """Wait for a slow peer, but not for one that has stopped."""
        while left := self._data.buffered:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._data.drain()
            except TimeoutError:
                if self._data.buffered >= left:
                    raise TransferFailed(f"the peer took nothing for {PATIENCE:g} s") from None


async def _answer(data: DataChannel, *, patience: float | None = PATIENCE) -> dict[str, Any]:
    """What the receiver says. Raises TransferFailed if that is no."""
    try:
        async with asyncio.timeout(patience):
            told = _parse(await data.recv())
    except TimeoutError:
        raise TransferFailed(f"the peer did not answer for {patience:g} s") from None
    if told.get("ok") is not True:
        raise TransferFailed(f"the peer refused the file: {_shown(told.get('error'))}")
    return told


class FileReceiver:
    """Receives files into a directory, where a channel is told to have it serve them: ::

        channel.serve(files.PROTOCOL, FileReceiver(directory).receive)

    Names are the peer's and not trusted: base name only, and nothing is ever overwritten. A file
    that does not arrive whole leaves nothing behind.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_size: int | None = None,
        on_arrived: Callable[[FileArrived], None] | None = None,
        on_failed: Callable[[str, str], None] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """``max_size`` is in bytes. ``on_failed`` is told the name and why, ``progress`` the name,
        the bytes that came and how many there are. Raises NotADirectoryError."""
        self._directory = Path(directory)
        if not self._directory.is_dir():
            raise NotADirectoryError(f"{directory} is not a directory")
        self._max_size = max_size
        self._on_arrived = on_arrived or (lambda arrived: None)
        self._on_failed = on_failed or (lambda name, why: None)
        self._progress = progress or (lambda name, done, size: None)
        self._under_way = 0

    async def receive(self, channel: DataChannel) -> None:
        """One file, on the channel that the peer has opened for it."""
        self._under_way += 1
        name = safe_name(channel.label)
        try:
            if self._under_way > MAX_AT_ONCE:
                raise TransferFailed(f"{MAX_AT_ONCE} files are on their way already")
            header = _parse(await self._next(channel))
            if isinstance(header.get("name"), str):
                name = safe_name(header["name"])
            arrived = await self._receive(channel, name, self._size(header))
        except TransferFailed as error:
            await self._refuse(channel, name, str(error))
        except ChannelClosed:
            self._on_failed(name, "the peer cancelled it")
        except IcePunchError as error:
            self._on_failed(name, str(error))
        except OSError as error:
            # The peer need not know where our files are.
            await self._refuse(channel, name, error.strerror or "it can not be stored")
        else:
            self._on_arrived(arrived)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await channel.wait_closed()
        finally:
            self._under_way -= 1

    async def _receive(self, channel: DataChannel, name: str, size: int) -> FileArrived:
        part = self._directory / f".{secrets.token_hex(8)}.part"
        with _created(part) as file:
            try:
                await channel.send(json.dumps({"ok": True}))
                sha256 = await self._write(channel, file, name, size)
                file.close()
                path = _keep(part, self._directory, name)
            finally:
                part.unlink(missing_ok=True)
        await channel.send(json.dumps({"ok": True, "sha256": sha256}))
        return FileArrived(path, size, sha256, name)

    async def _write(self, channel: DataChannel, file: BinaryIO, name: str, size: int) -> str:
        digest, done = hashlib.sha256(), 0
        while True:
            piece = await self._next(channel)
            if isinstance(piece, str):
                break
            done += len(piece)
            if done > size:
                raise TransferFailed("more came than was announced")
            digest.update(piece)
            file.write(piece)
            self._progress(name, done, size)
        if done != size:
            raise TransferFailed(f"{done} bytes came of {size}")
        if _parse(piece).get("sha256") != digest.hexdigest():
            raise TransferFailed("what came is not what was sent: the SHA-256 differs")
        return digest.hexdigest()

    async def _next(self, channel: DataChannel) -> str | bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await channel.recv()
        except TimeoutError:
            raise TransferFailed(f"nothing came for {PATIENCE:g} s") from None

    def _size(self, header: dict[str, Any]) -> int:
        size = header.get("size")
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise TransferFailed("the size of the file is missing")
        if self._max_size is not None and size > self._max_size:
            raise TransferFailed(f"{size} bytes are more than the {self._max_size} that are taken")
        if size > shutil.disk_usage(self._directory).free:
            raise TransferFailed("there is not enough room on the disk")
        return size

    async def _refuse(self, channel: DataChannel, name: str, why: str) -> None:
        self._on_failed(name, why)
        await refuse(channel, why)


async def refuse(channel: DataChannel, why: str) -> None:
    """Tell the sender of a file that it is not taken."""
    with contextlib.suppress(IcePunchError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await channel.send(json.dumps({"error": why}))
            await channel.drain()


async def refuse_files(channel: DataChannel) -> None:
    """Serves file channels where nobody receives files."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await channel.recv()
    await refuse(channel, "this side takes no files")


def _parse(message: str | bytes) -> dict[str, Any]:
    """Raises TransferFailed for what is no object of JSON."""
    if isinstance(message, str) and len(message) <= MAX_HEADER:
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(message)
            if isinstance(told, dict):
                return told
    raise TransferFailed("the peer does not keep to icepunch.file.1")


def _shown(text: object) -> str:
    if not isinstance(text, str):
        return "it gave no reason"
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _opened(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.open("rb")


def _created(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _keep(part: Path, directory: Path, name: str) -> Path:
    """Give ``part`` the first name that is free. Nothing is overwritten, whoever else writes."""
    for number in range(MAX_SAME_NAME):
        path = directory / numbered(name, number)
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without links: reserve the name, then put the file there
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.replace(part, path)
        return path
    raise TransferFailed("there are too many files of this name")
