"""What goes to standard error: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ice_punch.channel import Channel
    from ice_punch.diagnosis import Diagnosis
    from ice_punch.peer import PeerEvent
    from ice_punch.report import Report


def one_line(text: str) -> str:
    """``text`` fit for a terminal and for one line: parts of it may come from the network."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_line(text: str) -> None:
    """To standard error, whatever has become of it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


class Output(Protocol):
    """How a command tells what happens."""

    def listening(self, link: str, *options: str) -> None:
        """The link is there; ``options`` are what the other side's command needs besides."""

    def spoken(self, code: str, command: str) -> None:
        """The code is there; ``command`` is what to type on the other side."""

    def blob(self, kind: str, blob: str) -> None:
        """A blob to carry to the other side: an ``offer`` or an ``answer``."""

    def observed(self, event: PeerEvent) -> None:
        """Something happened on the way."""

    def connected(self, channel: Channel) -> None: ...

    def relayed(self, why: Diagnosis) -> None:
        """Why the path, which will not change any more, goes through a relay."""

    def closed(self, reason: str, channel: Channel, *, by_peer: bool) -> None: ...

    def warning(self, message: str) -> None: ...

    def file_received(self, path: str, size: int, sha256: str) -> None:
        """A file has arrived whole."""

    def file_failed(self, name: str, why: str) -> None:
        """A file of the peer's did not arrive, or was not taken."""

    def file_sent(self, path: str, size: int, sha256: str) -> None:
        """The peer has confirmed a file."""

    def error(
        self,
        name: str,
        message: str,
        report: Report | None = None,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        """What ends the command."""

    def event(self, name: str, **fields: Any) -> None:
        """For programs only."""


class TextOutput:
    """For people."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._selected = self._silent = False

    def listening(self, link: str, *options: str) -> None:
        from ice_punch.cli.qr import qr_code

        write_line(f"link: {link}")
        code = qr_code(link)
        if code is not None:
            write_line(f"\n{code}")
        write_line(f"on the other side: {connect_command(link, *options)}")
        browsers = browser_hint(link, *options)
        if browsers:
            write_line(browsers)

    def spoken(self, code: str, command: str) -> None:
        write_line(f"code: {code}")
        write_line(f"on the other side: {command}")

    def blob(self, kind: str, blob: str) -> None:
        if kind == "offer":
            write_line("on the other side: ice-punch connect --manual, and paste this there:")
            write_line(f"\n{blob}\n")
            write_line("then paste here what it answers:")
        else:
            write_line("paste this where the offer came from:")
            write_line(f"\n{blob}\n")

    def observed(self, event: PeerEvent) -> None:
        from ice_punch.cli import events

        told = events.observed(event)
        if told["event"] == "signaling" and told["state"] == "refused":
            write_line("refused a peer with a wrong secret")
        elif self._verbose:
            write_line(one_line(events.as_text(told)))
        else:
            self._tell_of_path(told)

    def _tell_of_path(self, told: dict[str, Any]) -> None:
        """What becomes of a path that there was."""
        if told["event"] == "selected":
            if self._selected:
                write_line(f"path: {told['kind']}, {one_line(told['reason'])}")
            self._selected = True
        elif told["event"] == "state" and self._selected:
            silent = told["state"] == "disconnected"
            if silent:
                write_line(f"disconnected: {one_line(told['reason'])}")
            elif self._silent and told["state"] in ("connected", "completed"):
                write_line(f"connected again: {one_line(told['reason'])}")
            self._silent = silent

    def connected(self, channel: Channel) -> None:
        path = channel.path
        encryption = "not encrypted" if channel.encryption is None else channel.encryption.version
        write_line(f"connected: {'path unknown' if path is None else path} {encryption}")

    def relayed(self, why: Diagnosis) -> None:
        write_line(f"relayed because {one_line(str(why))}")

    def closed(self, reason: str, channel: Channel, *, by_peer: bool) -> None:
        if by_peer or self._verbose:
            write_line(f"closed: {one_line(reason)}")

    def warning(self, message: str) -> None:
        write_line(f"warning: {one_line(message)}")

    def file_received(self, path: str, size: int, sha256: str) -> None:
        write_line(f"received: {one_line(path)}, {size} bytes")

    def file_failed(self, name: str, why: str) -> None:
        write_line(f"not received: {one_line(name)}: {one_line(why)}")

    def file_sent(self, path: str, size: int, sha256: str) -> None:
        write_line(f"sent: {one_line(path)}, {size} bytes")

    def error(
        self,
        name: str,
        message: str,
        report: Report | None = None,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        write_line(f"ice-punch: {one_line(message)}")

    def event(self, name: str, **fields: Any) -> None:
        pass


class JsonOutput:
    """For programs."""

    def listening(self, link: str, *options: str) -> None:
        self.event("listening", link=link, command=connect_command(link, *options))

    def spoken(self, code: str, command: str) -> None:
        self.event("code", code=code, command=command)

    def blob(self, kind: str, blob: str) -> None:
        self.event("blob", kind=kind, blob=blob)

    def observed(self, event: PeerEvent) -> None:
        from ice_punch.cli import events

        self._write(events.observed(event))

    def connected(self, channel: Channel) -> None:
        from ice_punch.cli import events

        self._write(events.connected(channel))

    def relayed(self, why: Diagnosis) -> None:
        from ice_punch.cli import events

        self._write(events.relayed(why))

    def closed(self, reason: str, channel: Channel, *, by_peer: bool) -> None:
        from ice_punch.cli import events

        self._write(events.closed(reason, channel))

    def warning(self, message: str) -> None:
        self.event("warning", message=message)

    def file_received(self, path: str, size: int, sha256: str) -> None:
        self.event("file_received", path=path, size=size, sha256=sha256)

    def file_failed(self, name: str, why: str) -> None:
        self._write({"event": "file_failed", "name": name, "reason": why})

    def file_sent(self, path: str, size: int, sha256: str) -> None:
        self.event("file_sent", path=path, size=size, sha256=sha256)

    def error(
        self,
        name: str,
        message: str,
        report: Report | None = None,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        from ice_punch.cli import events

        self._write(events.error(name, message, report, diagnosis))

    def event(self, name: str, **fields: Any) -> None:
        self._write({"event": name, **fields})

    def _write(self, event: dict[str, Any]) -> None:
        write_line(json.dumps(event))


def make_output(*, json: bool, verbose: bool = False) -> Output:
    return JsonOutput() if json else TextOutput(verbose=verbose)


def browser_hint(link: str, *options: str) -> str:
    """That the link opens in a browser, or what is in the way; empty where it does not."""
    from ice_punch.peer.transports import HOW_TO_INSTALL, has_webrtc

    if "--no-encrypt" in options:
        return ""
    if not has_webrtc():
        return f"a browser could open the link as well, after: {HOW_TO_INSTALL}"
    url = urlsplit(link)
    if url.scheme == "https" or is_loopback(url.hostname or ""):
        return "or open the link in a browser"
    return "a browser opens the link as well where the server has https"


def is_loopback(host: str) -> bool:
    """Whether a browser takes a page over plain HTTP from there for safe."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def connect_command(link: str, *options: str) -> str:
    """What to type on the other side."""
    return shlex.join(["ice-punch", "connect", *options, link])
