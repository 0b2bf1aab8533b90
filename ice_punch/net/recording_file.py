"""The files that recordings are written to."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from ice_punch.datagram import Address, RandomSource
from ice_punch.errors import IcePunchError, InvalidConfiguration
from ice_punch.ice import AgentConfig, CandidateType, Credentials, Event, LocalCandidateFound, Pacer
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import local_addresses
from ice_punch.recording import MAX_BYTES, RecordedAgent, Recorder
from ice_punch.recording.lines import FailureNote, InterfaceNote, ServerNote
from ice_punch.report import ServerReport

MODE = 0o600
"""Who may read it: a recording tells whom somebody called, and when."""

_log = logging.getLogger(__name__)


class RecordingFiles:
    """Where sessions are recorded: the first in ``path``, the others in ``path.2``, ``path.3``...

    A file that is there is never touched. Passwords are never written, ``redact_addresses``
    replaces addresses and names as well. Once a file is full (``max_bytes``) or can not be written,
    its recording ends and ``on_stopped`` is told why, once; the session goes on. Without
    ``on_stopped`` it is logged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        redact_addresses: bool = False,
        max_bytes: int = MAX_BYTES,
        on_stopped: Callable[[str], object] | None = None,
    ) -> None:
        """Creates the first file. Raises InvalidConfiguration when that can not be done."""
        self._path = Path(path)
        self._redact_addresses = redact_addresses
        self._max_bytes = max_bytes
        self._on_stopped = on_stopped or _log.warning
        self._begun = 0
        self._first: int | None = _create(self._path)

    def begin(self, servers: Iterable[IceServer] = ()) -> RecordingFile | None:
        """The next file. None, and ``on_stopped`` is told, if it can not be had.

        What the ``servers`` are told as user name and password is kept out of it.
        """
        self._begun += 1
        path = self._path
        if self._begun > 1:
            path = path.with_name(f"{path.name}.{self._begun}")
        try:
            descriptor = _create(path) if self._first is None else self._first
        except InvalidConfiguration as error:
            self._on_stopped(f"this session is not recorded: {error}")
            return None
        self._first = None
        hidden = [text for s in servers for text in (s.username, s.password) if text]
        return RecordingFile(
            descriptor,
            lambda why: self._on_stopped(f"the recording {path} ended before its session: {why}"),
            redact_addresses=self._redact_addresses,
            max_bytes=self._max_bytes,
            hidden=tuple(hidden),
        )

    def close(self) -> None:
        """Remove the first file if there was no session. Those that are begun end by
        themselves."""
        if self._first is not None:
            os.close(self._first)
            self._first = None
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> RecordingFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordingFile:
    """The recording of one session."""

    def __init__(
        self,
        descriptor: int,
        on_stopped: Callable[[str], object],
        *,
        redact_addresses: bool,
        max_bytes: int,
        hidden: tuple[str, ...],
    ) -> None:
        self._descriptor: int | None = descriptor
        self._on_stopped = on_stopped
        self._recorder = Recorder(
            self._write,
            salt=secrets.token_bytes(32),
            redact_addresses=redact_addresses,
            secrets=hidden,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            max_bytes=max_bytes,
            on_stopped=self._stopped,
        )
        self._agent: RecordedAgent | None = None
        self._servers_noted = 0
        self._failure: IcePunchError | None = None

    def agent(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        config: AgentConfig,
        common: Pacer,
    ) -> RecordedAgent:
        """The agent that is recorded. ``common`` is the pacer it shares with others."""
        self._agent = RecordedAgent(
            controlling=controlling,
            credentials=credentials,
            random=random,
            recorder=self._recorder,
            config=config,
            common=common,
        )
        return self._agent

    def note(self, event: Event, servers: list[ServerReport]) -> None:
        """An event of the agent, and what is known of servers by now, for readers."""
        if not self._recorder.open:
            return
        if isinstance(event, LocalCandidateFound) and event.candidate.type is CandidateType.HOST:
            self._note_interface(event.candidate.address)
        self._note_servers(servers)

    def note_failure(self, error: IcePunchError, servers: list[ServerReport]) -> None:
        """What the user is told, once. It may name servers, which are noted before."""
        if self._failure is None:
            self._failure = error
            self._note_servers(servers)
            self._recorder.write(FailureNote(type(error).__name__, str(error)))

    def end(self, servers: list[ServerReport]) -> None:
        """The session is over. May be called again."""
        self._note_servers(servers)
        if self._agent is not None:
            self._agent.end_recording()
        self._close()

    # -- inside -------------------------------------------------------------------------------

    def _note_interface(self, base: Address) -> None:
        with contextlib.suppress(OSError):
            for address in local_addresses(lambda address: address.ip == base[0]):
                self._recorder.write(InterfaceNote(base, address.interface))

    def _note_servers(self, servers: list[ServerReport]) -> None:
        for report in servers[self._servers_noted :]:
            self._recorder.write(ServerNote(report))
        self._servers_noted = len(servers)

    def _write(self, text: str) -> None:
        """Each line at once: it must be there if the program is killed."""
        assert self._descriptor is not None
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _stopped(self, why: str) -> None:
        self._close()
        self._on_stopped(why)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):  # what was written is written
                os.close(descriptor)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, MODE)
    except FileExistsError:
        raise InvalidConfiguration(
            f"{path} exists already: a recording overwrites no file"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidConfiguration(f"{path} can not be written: {why}") from None
