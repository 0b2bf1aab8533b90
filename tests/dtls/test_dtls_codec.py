"""Which calls of OpenSSL carry the data, and how that is decided."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence

import pytest
from dtls_support import connected_pair
from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls import codec
from ice_punch.dtls.bindings import Meal
from ice_punch.dtls.codec import BindingsCodec, PublicCodec, is_sound
from ice_punch.dtls.segments import RecordShape, Segments, cut


def test_the_calls_beneath_pyopenssl_are_used_with_the_one_at_hand() -> None:
    """Where this fails pyOpenSSL has changed: all works, at half the speed."""
    assert codec.CODEC is BindingsCodec


@pytest.mark.parametrize("sound", [BindingsCodec, PublicCodec])
def test_both_codecs_pass_the_self_test(sound: type[codec.Codec]) -> None:
    assert is_sound(sound)


class Renamed(BindingsCodec):
    def __init__(self, connection: SSL.Connection) -> None:
        raise AttributeError("'Connection' object has no attribute '_ssl'")


class Plaintext(PublicCodec):
    def encrypt(
        self, datagrams: Sequence[Buffer], room: int, into: bytearray | None = None
    ) -> memoryview:
        super().encrypt(datagrams, room)
        return unprotected(datagrams)


def unprotected(datagrams: Sequence[Buffer]) -> memoryview:
    record = b"\x17\xfe\xfd\x00\x01" + bytes(6)
    bodies = (len(d).to_bytes(2) + bytes(d) for d in datagrams)
    return memoryview(b"".join(record + body for body in bodies))


class Joining(PublicCodec):
    def encrypt(
        self, datagrams: Sequence[Buffer], room: int, into: bytearray | None = None
    ) -> memoryview:
        return super().encrypt([b"".join(datagrams)], room)


class Replaying(PublicCodec):
    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]:
        delivered, error = super().decrypt(records, meals)
        return [delivered[0], *delivered], error


class Forgetful(PublicCodec):
    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]:
        return super().decrypt(records, [(0, end, count) for _, end, count in meals])


class Greedy(PublicCodec):
    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]:
        delivered, error = super().decrypt(records, meals)
        return delivered[:12], error


class PlaintextAlone(PublicCodec):
    def encrypt_one(self, datagram: bytes, room: int, into: bytearray | None = None) -> Buffer:
        super().encrypt_one(datagram, room)
        return b"\x17\xfe\xfd\x00\x01" + bytes(6) + len(datagram).to_bytes(2) + datagram


class ReplayingAlone(PublicCodec):
    last: tuple[bytes | None, SSL.Error | None] = (None, None)

    def decrypt_one(
        self, record: bytes | bytearray, size: int
    ) -> tuple[bytes | None, SSL.Error | None]:
        delivered = super().decrypt_one(record, size)
        ReplayingAlone.last = delivered if delivered[0] else ReplayingAlone.last
        return ReplayingAlone.last


class PlaintextAlike(PublicCodec):
    def encrypt_alike(
        self, datagrams: Sequence[Buffer], each: int, room: int, into: bytearray | None = None
    ) -> memoryview:
        super().encrypt_alike(datagrams, each, room)
        return unprotected(datagrams)


class OldAlike(BindingsCodec):
    """Gives out what a slot held before where nothing came."""

    def decrypt_alike(
        self, records: Buffer, each: int, count: int, content: int
    ) -> tuple[list[bytes], SSL.Error | None]:
        delivered, error = super().decrypt_alike(records, each, count, content)
        return [*delivered, *delivered[: count - len(delivered)]], error


class UnevenAlike(BindingsCodec):
    """Stops where a record brings nothing."""

    def decrypt_alike(
        self, records: Buffer, each: int, count: int, content: int
    ) -> tuple[list[bytes], SSL.Error | None]:
        delivered, error = super().decrypt_alike(records, each, count, content)
        return (delivered if len(delivered) == count else []), error


@pytest.mark.parametrize(
    "bad",
    [
        *(Renamed, Plaintext, Joining, Replaying, Forgetful, Greedy),
        *(PlaintextAlone, ReplayingAlone, PlaintextAlike, OldAlike, UnevenAlike),
    ],
)
def test_a_codec_that_is_not_sound_is_found_out(bad: type[codec.Codec]) -> None:
    assert not is_sound(bad)


def lacking(where: str, *names: str) -> str:
    """A program's first lines: pyOpenSSL's own calls work, and what is beneath lacks some."""
    return f"""
import OpenSSL.SSL
from OpenSSL import _util
class Lacking:
    def __getattr__(self, name, real=_util.{where}):
        if name in {names!r}:
            raise AttributeError(name)
        return getattr(real, name)
_util.{where} = Lacking()
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("import OpenSSL.SSL\nOpenSSL._util = object()", "PublicCodec"),
        *((lacking("lib", f"SSL_{call}"), "PublicCodec") for call in ("read", "write")),
        *((lacking("lib", f"BIO_{call}"), "PublicCodec") for call in ("read", "write")),
        (lacking("lib", "SSL_get_error"), "PublicCodec"),
        (lacking("lib", "ERR_clear_error"), "PublicCodec"),
        (lacking("ffi", "unpack"), "PublicCodec"),
        (lacking("ffi", "new_allocator"), "PublicCodec"),
        (lacking("lib", "SSL_CTX_set_verify"), "BindingsCodec"),
        (lacking("lib", "X509_V_ERR_CERT_REJECTED", "SSL_CTX_set1_curves_list"), "BindingsCodec"),
        (lacking("ffi", "callback"), "BindingsCodec"),
    ],
)
def test_without_the_bindings_the_public_calls_do(change: str, expected: str) -> None:
    """As a pyOpenSSL that has moved them would, for a whole session: in a process of its own."""
    program = """
from dtls_support import connected_pair, events_of
from ice_punch.dtls import PeerClosed, codec
pair = connected_pair()
client, server = pair.client, pair.server
for sizes in ([100], [100] * 90, [100, 7, 1000] * 30):
    datagrams = [b"x" * size for size in sizes]
    arrived = []
    for run in client.encrypt_many(datagrams, 0.0):
        arrived += server.decrypt_segments(bytes(run.buffer), len(run.buffer), run.size, 0.0)
    assert arrived == datagrams
    answer = bytearray(server.encrypt_one(b"answer"))
    assert client.decrypt_alone(answer, len(answer), 0.0) == b"answer"
    assert client.decrypt_alone(answer, len(answer), 0.0) == b""
client.close(0.0)
server.receive_datagram(client.datagrams_to_send(0.0)[0], 0.0)
assert events_of(server) == [PeerClosed("close_notify")]
print(codec.CODEC.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"{change}\n{program}"],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.parametrize("error", [RuntimeError, OverflowError, SystemError, AssertionError])
def test_a_codec_may_fail_in_any_way(error: type[Exception]) -> None:
    class Failing(BindingsCodec):
        def encrypt_one(self, datagram: bytes, room: int, into: bytearray | None = None) -> Buffer:
            raise error

    assert not is_sound(Failing)


def test_associations_of_several_threads_do_not_mix() -> None:
    """OpenSSL is called without the GIL: event loops of two threads are in here at once."""
    wrong: list[bytes] = []

    def talk(letter: bytes) -> None:
        pair = connected_pair()
        datagrams = [letter * 1000] * 50
        for _ in range(60):
            (run,) = pair.client.encrypt_many(datagrams, pair.now)
            buffer = bytes(run.buffer)
            arrived = pair.server.decrypt_segments(buffer, len(buffer), run.size, pair.now)
            if arrived != datagrams:
                wrong.append(letter)

    threads = [threading.Thread(target=talk, args=(bytes((65 + n,)),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- what records look like from outside ------------------------------------------------------


def test_a_buffer_is_cut_where_a_run_of_one_size_ends() -> None:
    buffer = memoryview(bytes(range(30)))
    assert cut(buffer, [10, 10, 10]) == [Segments(buffer, 10)]
    assert cut(buffer, [10, 10, 5, 5]) == [Segments(buffer[:25], 10), Segments(buffer[25:], 5)]
    assert cut(buffer, [5, 10, 10, 5]) == [Segments(buffer[:5], 5), Segments(buffer[5:], 10)]
    assert cut(buffer, [20, 5, 5]) == [Segments(buffer[:25], 20), Segments(buffer[25:], 5)]


def unified(first: int, sequence: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return bytes((first,)) + sequence + size.to_bytes(2) + body


def test_dtls_1_3_records_are_recognised_by_their_unified_headers() -> None:
    """RFC 9147 section 4, for the day that OpenSSL speaks it."""
    shape = RecordShape(is_1_3=True, expansion=9)
    long, short = unified(0x2F, b"\x01\x02", bytes(40)), unified(0x27, b"\x01", bytes(40))
    for record in (long, short):
        assert shape.fits(record)
        assert shape.fit(record * 5, len(record) * 5, len(record))
    for other in (
        unified(0x2B, b"\x01\x02", bytes(40)),  # without a length it fills its datagram
        unified(0x3F, b"\x01\x02", bytes(40)),  # with a connection id
        unified(0x2F, b"\x01\x02", bytes(40), 41),
        b"\x17\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x28" + bytes(40),
        unified(0x2F, b"\x01\x02", bytes(5)),  # no room for a tag
    ):
        assert not shape.fits(other)
    lie = unified(0x2F, b"\x01\x02", bytes(40), 85)
    batch = long * 3 + lie + long
    assert not shape.fit(batch, len(batch), len(long))
