"""Encrypting and decrypting by the calls beneath pyOpenSSL's, or by its own if these fail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls import openssl
from ice_punch.dtls.bindings import FEED, GREATEST_CONTENT, BindingsCodec, Meal, meals
from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.records import split_records


class Codec(Protocol):
    """An open association's records, many at a time; see `BindingsCodec` for the calls."""

    def __init__(self, connection: SSL.Connection) -> None: ...

    def encrypt(
        self, datagrams: Sequence[Buffer], room: int, into: bytearray | None = None
    ) -> memoryview: ...

    def encrypt_alike(
        self, datagrams: Sequence[Buffer], each: int, room: int, into: bytearray | None = None
    ) -> memoryview: ...

    def encrypt_one(self, datagram: bytes, room: int, into: bytearray | None = None) -> Buffer: ...

    def decrypt_one(
        self, record: bytes | bytearray, size: int
    ) -> tuple[bytes | None, SSL.Error | None]: ...

    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]: ...

    def decrypt_alike(
        self, records: Buffer, each: int, count: int, content: int
    ) -> tuple[list[bytes], SSL.Error | None]: ...


class PublicCodec:
    """The same with nothing but public calls of pyOpenSSL."""

    __slots__ = ("_connection",)

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def encrypt(
        self, datagrams: Sequence[Buffer], room: int, into: bytearray | None = None
    ) -> memoryview:
        for datagram in datagrams:
            self._connection.send(datagram)
        return memoryview(self._connection.bio_read(room))

    def encrypt_alike(
        self, datagrams: Sequence[Buffer], each: int, room: int, into: bytearray | None = None
    ) -> memoryview:
        return self.encrypt(datagrams, room, into)

    def encrypt_one(self, datagram: bytes, room: int, into: bytearray | None = None) -> Buffer:
        self._connection.send(datagram)
        return self._connection.bio_read(room)

    def decrypt_one(
        self, record: bytes | bytearray, size: int
    ) -> tuple[bytes | None, SSL.Error | None]:
        delivered, error = self.decrypt(record, [(0, size, 1)])
        return delivered[0] if delivered else None, error

    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]:
        delivered: list[bytes] = []
        for start, end, count in meals:
            self._connection.bio_write(bytes(memoryview(records)[start:end]))
            try:
                for _ in range(count):
                    delivered.append(self._connection.recv(GREATEST_CONTENT))
            except SSL.WantReadError:
                continue
            except SSL.Error as error:
                return delivered, error
        return delivered, None

    def decrypt_alike(
        self, records: Buffer, each: int, count: int, content: int
    ) -> tuple[list[bytes], SSL.Error | None]:
        return self.decrypt(records, meals(each * count, each))


def is_sound(candidate: type[Codec]) -> bool:
    """Whether a codec does its work with the pyOpenSSL and the cryptography at hand."""
    try:
        client, server = _association()
        sender, receiver = candidate(client), candidate(server)
        datagrams: list[Buffer] = [b"first", b"second" * 150, bytearray(b"third")]
        datagrams.append(memoryview(b"fourth"))
        records = sender.encrypt(datagrams, 2000)
        found = split_records(bytes(records))[0]
        if len(found) != len(datagrams) or b"second" in records.tobytes():
            return False
        damaged = found[2][:-1] + bytes((found[2][-1] ^ 1,))
        arrived = b"".join((found[0], found[0], found[1], damaged, found[3]))
        expected = ([b"first", b"second" * 150, b"fourth"], None)
        if receiver.decrypt(b"-" + arrived, [(1, 1 + len(arrived), 5)]) != expected:
            return False
        for room in (None, bytearray(600)):
            alone = bytes(sender.encrypt_one(b"alone" * 50, 500, room))
            if b"alone" in alone:
                return False
            buffer = bytearray(alone + b"more")
            if receiver.decrypt_one(buffer, len(alone)) != (b"alone" * 50, None):
                return False
            if receiver.decrypt_one(alone, len(alone)) != (None, None):
                return False
        # As much at once as it will ever be
        many = [bytes((n,)) * (FEED // 13 - 60) for n in range(13)]
        records = sender.encrypt(many, FEED)
        if receiver.decrypt(records, [(0, len(records), 13)]) != (many, None):
            return False
        return _is_sound_alike(sender, receiver)
    except Exception:  # whatever a pyOpenSSL of another day comes up with
        return False


def _is_sound_alike(sender: Codec, receiver: Codec) -> bool:
    """The same for datagrams of one size, with one that is damaged and one that came before."""
    alike = [bytes((n,)) * 300 for n in range(70)]
    for room in (None, bytearray(30000)):
        records = bytes(sender.encrypt_alike(alike, 300, 28000, room))
        found = split_records(records)[0]
        if len(found) != len(alike) or alike[1] in records:
            return False
        size = len(found[0])
        if receiver.decrypt_alike(records[:size], size, 1, 300) != (alike[:1], None):
            return False
        damaged = found[40][:-1] + bytes((found[40][-1] ^ 1,))
        arrived = b"".join((*found[:40], damaged, *found[41:]))
        expected = alike[1:40] + alike[41:]
        if receiver.decrypt_alike(arrived, size, len(alike), 300) != (expected, None):
            return False
        if receiver.decrypt_alike(records, size, len(alike), 300) != (alike[40:41], None):
            return False
    return True


def _association() -> tuple[SSL.Connection, SSL.Connection]:
    """Two ends that have shaken hands in memory."""
    certificate = Certificate.generate()
    ends = [openssl.make_connection(certificate, lambda _: True, c, 1200) for c in (True, False)]
    for turn in range(6):
        here, there = ends[turn % 2], ends[1 - turn % 2]
        with suppress(SSL.WantReadError):
            here.do_handshake()
        for record in openssl.read_records(here):
            there.bio_write(record)
            with suppress(SSL.WantReadError):
                there.do_handshake()
    for end in ends:
        openssl.forget_handshake(end)
    return ends[0], ends[1]


CODEC: type[Codec] = BindingsCodec if is_sound(BindingsCodec) else PublicCodec
"""What associations use. Chosen when this module is imported."""
