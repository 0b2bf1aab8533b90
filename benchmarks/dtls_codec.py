"""CPU time of DTLS for one datagram: ice-punch, its fallback, pyOpenSSL and OpenSSL, in turn.

Two associations in memory, no sockets, no ICE. Runs anywhere, needs no root.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from harness import at_least_one, interleaved, table, where
from OpenSSL import SSL, _util

from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole, HandshakeCompleted, codec

BATCH = 52
"""Datagrams of 1200 bytes that one packet of the kernel's holds once they are encrypted."""
ROUNDS = 25
BATCHES = 40
"""Batches in a round."""
FEED = 13

ffi: Any = _util.ffi
lib: Any = _util.lib


def associate(chosen: type[codec.Codec]) -> tuple[DtlsMachine, DtlsMachine]:
    """A client and a server that have shaken hands."""
    ours, theirs = Certificate.generate(), Certificate.generate()
    client = DtlsMachine(ours, DtlsRole.CLIENT, theirs.fingerprints(), mtu=1400)
    server = DtlsMachine(theirs, DtlsRole.SERVER, ours.fingerprints(), mtu=1400)
    usual, codec.CODEC = codec.CODEC, chosen
    try:
        client.start(0.0)
        server.start(0.0)
        for _ in range(3):
            for sender, receiver in ((client, server), (server, client)):
                for datagram in sender.datagrams_to_send(0.0):
                    receiver.receive_datagram(datagram, 0.0)
    finally:
        codec.CODEC = usual
    for machine in (client, server):
        assert isinstance(machine.next_event(), HandshakeCompleted)
    return client, server


class Machines:
    """``encrypt_many`` and ``decrypt_segments`` of our machine, by one codec or the other."""

    def __init__(self, chosen: type[codec.Codec]) -> None:
        self.client, self.server = associate(chosen)
        self.records, self.arrived = bytearray(1 << 17), bytearray(1 << 17)

    def encrypt(self, datagrams: list[bytes]) -> Any:
        return self.client.encrypt_many(datagrams, 0.0, self.records)[0]

    def travel(self, run: Any) -> Any:
        self.arrived[: len(run.buffer)] = run.buffer
        return len(run.buffer), run.size

    def decrypt(self, run: Any) -> list[bytes]:
        return self.server.decrypt_segments(self.arrived, *run, 0.0)


class Single(Machines):
    """One datagram at a time, as a ping-pong does."""

    def encrypt(self, datagrams: list[bytes]) -> Any:
        records = []
        for datagram in datagrams:
            self.client.send(datagram, 0.0)
            records += self.client.datagrams_to_send(0.0)
        return records

    def travel(self, run: Any) -> Any:
        return run

    def decrypt(self, run: Any) -> list[bytes]:
        received = []
        for record in run:
            self.server.receive_datagram(record, 0.0)
            while (event := self.server.next_event()) is not None:
                received.append(event.data)  # type: ignore[union-attr]
        return received


class Naive:
    """pyOpenSSL as its manual has it: a record at a time."""

    def travel(self, run: Any) -> Any:
        return run

    def __init__(self) -> None:
        client, server = associate(codec.PublicCodec)
        self.client: SSL.Connection = client._connection
        self.server: SSL.Connection = server._connection

    def encrypt(self, datagrams: list[bytes]) -> Any:
        records = []
        for datagram in datagrams:
            self.client.send(datagram)
            records.append(self.client.bio_read(2048))
        return records

    def decrypt(self, run: Any) -> list[bytes]:
        received = []
        for record in run:
            self.server.bio_write(record)
            received.append(self.server.recv(2048))
        return received


class Bare:
    """OpenSSL's calls in a loop and nothing else: no check of a record, no count, no error."""

    def travel(self, run: Any) -> Any:
        return run

    def __init__(self) -> None:
        client, server = associate(codec.BindingsCodec)
        self.client: Any = client._connection
        self.server: Any = server._connection
        self.records = ffi.new("char[]", 1 << 17)
        self.plaintext = ffi.new("char[]", 1 << 14)

    def encrypt(self, datagrams: list[bytes]) -> Any:
        for datagram in datagrams:
            lib.SSL_write(self.client._ssl, datagram, len(datagram))
        size = lib.BIO_read(self.client._from_ssl, self.records, 1 << 17)
        return self.records, size, size // len(datagrams)

    def decrypt(self, run: Any) -> list[bytes]:
        records, end, size = run
        received = []
        for start in range(0, end, FEED * size):
            stop = min(start + FEED * size, end)
            lib.BIO_write(self.server._into_ssl, records + start, stop - start)
            for _ in range((stop - start) // size):
                length = lib.SSL_read(self.server._ssl, self.plaintext, 1 << 14)
                received.append(ffi.unpack(self.plaintext, length))
        return received


CASES: dict[str, Callable[[], Any]] = {
    "OpenSSL in a bare loop": Bare,
    "ice-punch, batches": lambda: Machines(codec.BindingsCodec),
    "ice-punch, batches, public calls only": lambda: Machines(codec.PublicCodec),
    "ice-punch, one by one": lambda: Single(codec.BindingsCodec),
    "pyOpenSSL, one by one": Naive,
}


def cpu_times(case: Any, datagrams: list[bytes]) -> tuple[float, float]:
    """Seconds of CPU to encrypt and to decrypt a datagram."""
    encrypting = decrypting = 0
    for _ in range(BATCHES):
        began = time.process_time_ns()
        run = case.encrypt(datagrams)
        encrypting += time.process_time_ns() - began
        run = case.travel(run)
        began = time.process_time_ns()
        received = case.decrypt(run)
        decrypting += time.process_time_ns() - began
        assert received == datagrams
    each = BATCHES * len(datagrams) * 1e9
    return encrypting / each, decrypting / each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS)
    arguments = parser.parse_args()
    cases = {name: make() for name, make in CASES.items()}
    print(where())
    cipher = cases["pyOpenSSL, one by one"].client.get_cipher_name()
    print(f"openssl  {SSL.OpenSSL_version(0).decode()}, {cipher}")
    for size in (1200, 200):
        datagrams = [bytes((n,)) * size for n in range(BATCH)]
        times = interleaved(
            list(cases),
            arguments.rounds,
            lambda name, datagrams=datagrams: cpu_times(cases[name], datagrams),  # type: ignore[misc]
        )
        print(
            f"\n{size} bytes: µs of CPU for a datagram, median of {arguments.rounds} rounds of "
            f"{BATCHES} batches of {BATCH}, in turn\n"
        )
        rows = []
        medians = {
            name: [statistics.median(column) * 1e6 for column in zip(*times[name], strict=True)]
            for name in cases
        }
        naive = sum(medians["pyOpenSSL, one by one"])
        for name, both in medians.items():
            rows.append([name, *(f"{value:.2f}" for value in both), f"{naive / sum(both):.1f}"])
        print(table(["", "encrypt", "decrypt", "pyOpenSSL / this"], rows))


if __name__ == "__main__":
    main()
