"""What ``listen`` and ``connect`` are told, checked as far as it can be without a peer."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ice_punch.cli.output import Output
from ice_punch.cli.pipe import PipeOptions
from ice_punch.errors import InvalidConfiguration, PortRangeExhausted
from ice_punch.net.ice_server import IceServer, credentials_from_environment
from ice_punch.net.udp import bind
from ice_punch.peer import PeerOptions


@dataclass(frozen=True, slots=True)
class SessionArguments:
    """What both commands take."""

    ice_servers: tuple[str, ...]
    encrypt: bool
    direct_only: bool
    relay_only: bool
    interface: str | None
    only_ipv4: bool
    only_ipv6: bool
    port_range: str | None
    timeout: float
    pipe: PipeOptions
    hide_addresses: bool = False
    record: str | None = None
    redact_addresses: bool = False
    code: bool = False
    token: str = ""
    ca_file: str | None = None
    files: str | None = None
    """A directory to take files into."""
    send: tuple[str, ...] = ()
    """Files to send."""

    def peer_options(self, output: Output) -> PeerOptions:
        """Raises what can be known before a peer comes: InvalidConfiguration, InterfaceNotFound,
        PortRangeExhausted."""
        if self.only_ipv4 and self.only_ipv6:
            raise InvalidConfiguration("-4 and -6 exclude each other")
        if self.direct_only and self.relay_only:
            raise InvalidConfiguration("--direct-only and --relay-only exclude each other")
        if self.redact_addresses and self.record is None:
            raise InvalidConfiguration("--redact-addresses is for a recording: --record FILE")
        self._check_files()
        credentials = credentials_from_environment(os.environ)
        options = PeerOptions(
            ice_servers=tuple(IceServer.parse(uri, *credentials) for uri in self.ice_servers),
            encrypt=self.encrypt,
            transports=("sctp",) if self.moves_files else ("datagram", "sctp"),
            direct_only=self.direct_only,
            relay_only=self.relay_only,
            hide_addresses=self.hide_addresses,
            interface=self.interface,
            ipv4=not self.only_ipv6,
            ipv6=not self.only_ipv4,
            port_range=None if self.port_range is None else parse_port_range(self.port_range),
            timeout=self.timeout,
            observer=output.observed,
            token=self.token,
            ssl=None if self.ca_file is None else trust(self.ca_file),
        )
        _check_here(options)
        return options

    @property
    def moves_files(self) -> bool:
        return self.files is not None or bool(self.send)

    def _check_files(self) -> None:
        if self.moves_files and not self.encrypt:
            raise InvalidConfiguration("files need encryption: not with --no-encrypt")
        if self.files is not None and not os.path.isdir(self.files):
            raise InvalidConfiguration(f"--files {self.files}: it is not a directory")
        for path in self.send:
            if not os.path.isfile(path):
                raise InvalidConfiguration(f"--send {path}: it is not a file")

    @contextlib.contextmanager
    def recorded(self, options: PeerOptions, output: Output) -> Iterator[PeerOptions]:
        """``options`` with files to record to, if there are to be any; they are closed in the end.

        Raises InvalidConfiguration for a file that is there already or can not be written.
        """
        if self.record is None:
            yield options
            return
        from ice_punch.net.recording_file import RecordingFiles

        with RecordingFiles(
            self.record, redact_addresses=self.redact_addresses, on_stopped=output.warning
        ) as record:
            yield replace(options, record=record)


def trust(ca_file: str) -> ssl.SSLContext:
    """Certificates of ``ca_file`` and no others. Raises InvalidConfiguration."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise InvalidConfiguration(f"--ca-file {ca_file}: it holds no PEM certificate") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidConfiguration(f"--ca-file {ca_file}: {why}") from None


def parse_port_range(text: str) -> tuple[int, int]:
    """``LOW-HIGH``, or one port. Raises InvalidConfiguration."""
    low, dash, high = text.partition("-")
    bounds = (low, high if dash else low)
    if not all(bound.isascii() and bound.isdigit() and len(bound) <= 5 for bound in bounds):
        raise InvalidConfiguration(f"--port-range {text}: it should read LOW-HIGH, 40000-40100")
    first, last = map(int, bounds)
    if not 1 <= first <= last <= 65535:
        raise InvalidConfiguration(
            f"--port-range {text}: ports are 1 to 65535, the lower one first"
        )
    return first, last


def _check_here(options: PeerOptions) -> None:
    """Gathering would find the same out, on the listening side only once a peer has come."""
    gathering = options.gathering()
    if options.interface is None and options.port_range is None:
        return
    addresses = gathering.addresses()
    if options.port_range is None or options.relay_only:
        return
    exhausted: PortRangeExhausted | None = None
    for address in addresses:
        try:
            bind(address.ip, options.port_range).close()
        except PortRangeExhausted as error:
            exhausted = error
        except OSError:
            continue
        else:
            return
    if exhausted is not None:
        raise exhausted
