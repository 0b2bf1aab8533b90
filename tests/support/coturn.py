"""coturn, a TURN and STUN server, as a context manager."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest

BINARY = "turnserver"
START_TIMEOUT = 20.0

_PROBE = """
import socket, sys, time
ip, deadline = sys.argv[1], time.monotonic() + float(sys.argv[2])
udp_port, tcp_ports = int(sys.argv[3]), [int(a) for a in sys.argv[4:]]
family = socket.AF_INET6 if ":" in ip else socket.AF_INET
request = bytes.fromhex("000100002112a442") + b"ready?ready?"
def answers():
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.1)
        probe.connect((ip, udp_port))
        probe.send(request)
        return probe.recv(1500)[8:20] == request[8:]
def accepts(port):
    with socket.create_connection((ip, port), 0.5):
        return True
while time.monotonic() < deadline:
    try:
        if answers() and all(accepts(port) for port in tcp_ports):
            sys.exit(0)
    except OSError:
        time.sleep(0.02)
sys.exit(1)
"""


class Coturn:
    """A running coturn with long-term credentials; the test is skipped where it is not installed.

    It listens for UDP and TCP at ``port`` and at the next one (an auxiliary server: two ports of
    one address tell how a NAT maps), and with ``certificate`` for TLS at ``tls_port``.
    ``command_prefix`` starts it elsewhere, as ``["ip", "netns", "exec", NAME]`` does; ``port`` 0
    picks free ports, on this host.
    """

    def __init__(
        self,
        ip: str = "127.0.0.1",
        port: int = 0,
        *,
        users: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        command_prefix: Sequence[str] = (),
        certificate: tuple[Path, Path] | None = None,
        realm: str = "test",
        configuration: Path | None = None,
    ) -> None:
        """``certificate`` is a pair of PEM files: certificate and key. ``configuration`` is a file
        whose lines hold where the command line says nothing else."""
        self.ip = ip
        self.users = dict(users) if users is not None else {"robot": "correct horse"}
        self.port = port or free_ports(ip)
        self.tls_port = self.port + 2
        self._options = list(options)
        self._prefix = list(command_prefix)
        self._certificate = certificate
        self._realm = realm
        self._configuration = configuration
        self._stack = contextlib.ExitStack()
        self._log: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return (self.ip, self.port)

    def uri(self, transport: str = "udp", *, scheme: str = "turn") -> str:
        """The URI of this server; ``transport`` is ``udp``, ``tcp`` or ``tls``."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        if transport == "tls":
            return f"turns:{host}:{self.tls_port}?transport=tcp"
        if scheme == "stun":
            return f"stun:{host}:{self.port}"
        return f"turn:{host}:{self.port}?transport={transport}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log is not None else ""

    def __enter__(self) -> Coturn:
        if shutil.which(BINARY) is None:
            pytest.skip("coturn is not installed (no turnserver in PATH)")
        try:
            self._start()
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server, by its process id; may be called twice."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()

    def _start(self) -> None:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coturn-")))
        self._log = directory / "log"
        second = f"[{self.ip}]" if ":" in self.ip else self.ip
        command = [
            *self._prefix,
            BINARY,
            *(["-n"] if self._configuration is None else ["-c", str(self._configuration)]),
            "--no-cli",
            "--no-dtls",
            "--lt-cred-mech",
            "--allow-loopback-peers",
            "--verbose",
            "--log-file=stdout",
            f"--listening-ip={self.ip}",
            f"--relay-ip={self.ip}",
            f"--listening-port={self.port}",
            f"--aux-server={second}:{self.port + 1}",
            f"--realm={self._realm}",
            f"--pidfile={directory / 'pid'}",
            f"--userdb={directory / 'users'}",
            *(f"--user={name}:{password}" for name, password in self.users.items()),
        ]
        if self._certificate is None:
            command.append("--no-tls")
        else:
            certificate, key = self._certificate
            command += [f"--cert={certificate}", f"--pkey={key}"]
            command.append(f"--tls-listening-port={self.tls_port}")
        log = self._stack.enter_context(self._log.open("wb"))
        self.process = subprocess.Popen(
            [*command, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
        )

    def _wait(self) -> None:
        """Until it answers a Binding request and takes TCP connections."""
        tcp = [] if "--no-tcp" in self._options else [self.port]
        if self._certificate is not None:
            tcp.append(self.tls_port)
        ready = subprocess.run(
            [
                *self._prefix,
                sys.executable,
                "-c",
                _PROBE,
                self.ip,
                str(START_TIMEOUT),
                str(self.port),
                *map(str, tcp),
            ],
            check=False,
        )
        assert self.process is not None
        if ready.returncode or self.process.poll() is not None:
            raise AssertionError(f"coturn did not start:\n{self.log}")


def free_ports(ip: str, count: int = 3) -> int:
    """The first of ``count`` neighbouring ports that are free for UDP and TCP."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = 0
            for index in range(count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = stack.enter_context(socket.socket(family, kind))
                    probe.bind((ip, first + index if first else 0))
                    first = first or probe.getsockname()[1]
            return first
    raise AssertionError(f"no {count} neighbouring ports are free on {ip}")
