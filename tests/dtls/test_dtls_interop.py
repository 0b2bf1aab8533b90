"""Against the openssl command over loopback UDP, in both roles, with EC and RSA certificates."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from dtls_support import ALICE, BOB, events_of, received, rsa_certificate

from ice_punch.dtls import (
    Certificate,
    DtlsMachine,
    DtlsRole,
    Event,
    HandshakeCompleted,
    HandshakeFailedEvent,
    PeerClosed,
)
from ice_punch.errors import DatagramTooLarge, FingerprintMismatch

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")

RSA = rsa_certificate()
THEIRS = pytest.mark.parametrize(
    "theirs", [pytest.param(BOB, id="EC"), pytest.param(RSA, id="RSA")]
)
OURS = pytest.mark.parametrize("ours", [pytest.param(ALICE, id="EC"), pytest.param(RSA, id="RSA")])


class Driver:
    """A machine on a loopback socket, in real time."""

    def __init__(self, machine: DtlsMachine, remote: tuple[str, int] | None) -> None:
        self.machine, self.remote = machine, remote
        self.events: list[Event] = []
        self.sent: list[bytes] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def flush(self) -> None:
        for datagram in self.machine.datagrams_to_send(time.monotonic()):
            self.sent.append(datagram)
            if self.remote is not None:
                with suppress(ConnectionRefusedError):
                    self.socket.sendto(datagram, self.remote)

    def until(self, condition: Callable[[], bool], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self.flush()
            self.events += events_of(self.machine)
            if condition():
                return
            now = time.monotonic()
            assert now < deadline, (self.events, self.machine.counters)
            timer = self.machine.get_timer()
            wait = min(deadline, deadline if timer is None else timer) - now
            if select.select([self.socket], [], [], max(0.0, wait))[0]:
                try:
                    datagram, self.remote = self.socket.recvfrom(65536)
                except ConnectionRefusedError:
                    continue
                self.machine.receive_datagram(datagram, time.monotonic())
            now = time.monotonic()
            timer = self.machine.get_timer()
            if timer is not None and timer <= now:
                self.machine.handle_timer(now)

    def has(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


@contextmanager
def openssl(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["openssl", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[bytes], text: bytes, timeout: float = 15.0) -> bytes:
    assert process.stdout is not None
    output, deadline = b"", time.monotonic() + timeout
    while text not in output:
        left = deadline - time.monotonic()
        assert left > 0, output
        if select.select([process.stdout], [], [], left)[0]:
            chunk = process.stdout.read(65536)
            assert chunk, output
            output += chunk
    return output


def write_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)


def pem(tmp_path: Path, certificate: Certificate) -> str:
    path = tmp_path / "peer.pem"
    path.write_bytes(certificate.to_pem())
    return str(path)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def talk(driver: Driver, process: subprocess.Popen[bytes]) -> None:
    """Handshake and a line each way."""
    driver.until(lambda: driver.has(HandshakeCompleted))
    write_line(process, b"from the command\n")
    driver.until(lambda: received(driver.events) == [b"from the command\n"])
    driver.machine.send(b"from the machine\n", time.monotonic())
    driver.flush()
    read_until(process, b"from the machine")


@THEIRS
@OURS
def test_a_client_against_s_server(tmp_path: Path, ours: Certificate, theirs: Certificate) -> None:
    """RFC 8122 section 6.2: s_server demands a certificate, and gets ours."""
    port = free_port()
    machine = DtlsMachine(ours, DtlsRole.CLIENT, theirs.fingerprints(), rtt=0.05)
    command = ("s_server", "-dtls1_2", "-accept", f"127.0.0.1:{port}", "-Verify", "1")
    with openssl(*command, "-cert", pem(tmp_path, theirs)) as process:
        read_until(process, b"ACCEPT")
        driver = Driver(machine, ("127.0.0.1", port))
        machine.start(time.monotonic())
        talk(driver, process)
    completed = driver.events[0]
    assert isinstance(completed, HandshakeCompleted)
    assert completed.version == "DTLSv1.2"
    assert completed.peer_fingerprint == theirs.fingerprint()
    assert completed.cipher.startswith("ECDHE-RSA" if theirs is RSA else "ECDHE-ECDSA")


@THEIRS
@OURS
def test_a_server_against_s_client(tmp_path: Path, ours: Certificate, theirs: Certificate) -> None:
    machine = DtlsMachine(ours, DtlsRole.SERVER, theirs.fingerprints(), rtt=0.05)
    driver = Driver(machine, None)
    machine.start(time.monotonic())
    address = f"127.0.0.1:{driver.port}"
    command = ("s_client", "-dtls1_2", "-connect", address)
    with openssl(*command, "-cert", pem(tmp_path, theirs)) as process:
        talk(driver, process)
        write_line(process, b"Q\n")
        driver.until(lambda: driver.has(PeerClosed))
        assert driver.events[-1] == PeerClosed("close_notify")
    completed = driver.events[0]
    assert isinstance(completed, HandshakeCompleted)
    assert completed.peer_fingerprint == theirs.fingerprint()


@pytest.mark.parametrize("mtu", [400, 1200])
def test_small_datagrams_against_s_server(tmp_path: Path, mtu: int) -> None:
    """RFC 6347 section 4.2.3: fragments of either side are put together."""
    port = free_port()
    machine = DtlsMachine(RSA, DtlsRole.CLIENT, RSA.fingerprints(), mtu=mtu, rtt=0.05)
    command = ("s_server", "-dtls1_2", "-accept", f"127.0.0.1:{port}", "-Verify", "1")
    # The command counts its MTU with IP and UDP headers.
    options = ("-mtu", str(mtu + 28), "-cert", pem(tmp_path, RSA))
    with openssl(*command, *options) as process:
        read_until(process, b"ACCEPT")
        driver = Driver(machine, ("127.0.0.1", port))
        machine.start(time.monotonic())
        talk(driver, process)
    assert max(map(len, driver.sent)) <= mtu


def test_a_cookie_exchange_with_s_server(tmp_path: Path) -> None:
    """RFC 6347 section 4.2.1."""
    port = free_port()
    machine = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints(), rtt=0.05)
    command = ("s_server", "-dtls1_2", "-listen", "-accept", f"127.0.0.1:{port}", "-Verify", "1")
    with openssl(*command, "-cert", pem(tmp_path, BOB)) as process:
        read_until(process, b"ACCEPT")
        driver = Driver(machine, ("127.0.0.1", port))
        machine.start(time.monotonic())
        driver.until(lambda: driver.has(HandshakeCompleted))


def test_s_client_is_told_bad_certificate(tmp_path: Path) -> None:
    """RFC 8122 section 6.2."""
    machine = DtlsMachine(ALICE, DtlsRole.SERVER, ALICE.fingerprints(), rtt=0.05)
    driver = Driver(machine, None)
    machine.start(time.monotonic())
    address = f"127.0.0.1:{driver.port}"
    command = ("s_client", "-dtls1_2", "-connect", address, "-cert", pem(tmp_path, BOB))
    with openssl(*command) as process:
        driver.until(lambda: driver.has(HandshakeFailedEvent))
        read_until(process, b"alert bad certificate")
    (event,) = driver.events
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, FingerprintMismatch)


def test_s_client_without_a_certificate_is_told_bad_certificate() -> None:
    """RFC 8122 section 6.2."""
    machine = DtlsMachine(ALICE, DtlsRole.SERVER, BOB.fingerprints(), rtt=0.05)
    driver = Driver(machine, None)
    machine.start(time.monotonic())
    address = f"127.0.0.1:{driver.port}"
    with openssl("s_client", "-dtls1_2", "-connect", address) as process:
        driver.until(lambda: driver.has(HandshakeFailedEvent))
        read_until(process, b"alert bad certificate")


def test_our_close_ends_s_server_s_connection(tmp_path: Path) -> None:
    """RFC 5246 section 7.2.1."""
    port = free_port()
    machine = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints(), rtt=0.05)
    command = ("s_server", "-dtls1_2", "-naccept", "1", "-accept", f"127.0.0.1:{port}")
    with openssl(*command, "-cert", pem(tmp_path, BOB)) as process:
        read_until(process, b"ACCEPT")
        driver = Driver(machine, ("127.0.0.1", port))
        machine.start(time.monotonic())
        driver.until(lambda: driver.has(HandshakeCompleted))
        machine.close(time.monotonic())
        driver.flush()
        assert process.wait(10.0) == 0


@pytest.mark.parametrize("length", [512, 1024, 4096])
def test_a_client_that_asks_for_small_records_gets_them(tmp_path: Path, length: int) -> None:
    """RFC 6066 section 4: the largest datagram is no larger, and one above it ends nothing."""
    machine = DtlsMachine(ALICE, DtlsRole.SERVER, BOB.fingerprints(), rtt=0.05)
    driver = Driver(machine, None)
    machine.start(time.monotonic())
    address = f"127.0.0.1:{driver.port}"
    command = ("s_client", "-dtls1_2", "-maxfraglen", str(length), "-connect", address)
    with openssl(*command, "-cert", pem(tmp_path, BOB)) as process:
        talk(driver, process)
        machine.set_mtu(9000)
        assert machine.max_datagram_size == length
        for batch in ([bytes(length + 1)], [b"one", bytes(length + 1)], [bytes(length + 1)] * 2):
            with pytest.raises(DatagramTooLarge):
                machine.encrypt_many(batch, time.monotonic())
        machine.send(b"x" * (length - 5) + b"whole", time.monotonic())
        driver.flush()
        read_until(process, b"xwhole")
    assert not driver.has(PeerClosed)
