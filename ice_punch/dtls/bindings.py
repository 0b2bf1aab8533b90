"""The only module that reaches below pyOpenSSL's public interface, to the calls beneath it.

pyOpenSSL costs several times what OpenSSL does for a record: a buffer is made and cleared for every
read, and every call looks for errors and raises an exception where there is nothing more to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any

from OpenSSL import SSL

from ice_punch.datagram import Buffer

try:
    from OpenSSL import _util
except ImportError:  # not of this pyOpenSSL: there is the public way
    _util = None  # type: ignore[assignment]

FEED = 16384
"""Bytes of records that OpenSSL takes at once: what its read buffer holds, whatever the cipher."""
GREATEST_RECORD = FEED + 256 + 13
"""Bytes of a record with its header (RFC 6347 section 4.1, RFC 5246 section 6.2.3)."""
GREATEST_CONTENT = 16384

Meal = tuple[int, int, int]
"""Where records begin and end in a buffer, and how many they are."""

_binding: Any = getattr(_util, "lib", None)
_ffi: Any = getattr(_util, "ffi", None)
_allocator: Any = getattr(_ffi, "new_allocator", None)
_make: Any = None if _allocator is None else _allocator(should_clear_after_alloc=False)
_REJECTION = ("SSL_CTX_set_verify", "X509_STORE_CTX_set_error", "X509_V_ERR_CERT_REJECTED")

SLOT = 1536
"""Bytes between where one datagram is decrypted to and the next: what an Ethernet frame has."""
SLOTS = 64
"""Datagrams that are decrypted before they are copied out: what a packet of the kernel's holds."""

# Where plaintext lies between OpenSSL and its copy. Two event loops may be in here at a time, as
# every call gives up the GIL: whoever comes takes one, or makes one, and puts it back.
_scratch: list[Any] = []
_trays: list[tuple[list[Any], Any]] = []


def _make_tray() -> tuple[list[Any], Any]:
    """Where each of `SLOTS` datagrams begins, and all of them as a buffer."""
    memory = _make("char[]", SLOT * SLOTS)
    return [memory + SLOT * n for n in range(SLOTS)], _ffi.buffer(memory)


@lru_cache(maxsize=256)
def _cutter(size: int, count: int) -> Struct:
    """Copies datagrams of ``size`` bytes out of a tray, in one call."""
    return Struct(f"{size}s{SLOT - size}x" * (count - 1) + f"{size}s")


# The buffers that single records leave from and come in last, as OpenSSL's calls take them: an
# event loop has one of each.
_records: tuple[bytearray, Any, memoryview] | None = None
_received: tuple[bytes | bytearray, Any] | None = None


def set_groups(context: SSL.Context, groups: bytes) -> None:
    """The groups of the key exchange, where the binding has the call.

    Older releases of cryptography have not; OpenSSL's own list then holds the usual ones too.
    """
    call = getattr(_binding, "SSL_CTX_set1_curves_list", None)
    if call is not None:
        private: Any = context
        call(private._context, groups)


def reject_with_bad_certificate(context: SSL.Context, mode: int) -> None:
    """Name the reason of a rejection, from which OpenSSL derives the alert.

    Left alone it would send unknown_ca or internal_error; RFC 8122 section 6.2 requires
    bad_certificate. Does nothing where pyOpenSSL is not as it was.
    """
    private: Any = context
    known = all(hasattr(_binding, name) for name in _REJECTION) and hasattr(_ffi, "callback")
    if not known or not hasattr(private, "_verify_callback"):
        return
    inner = private._verify_callback

    @_ffi.callback("int (*)(int, X509_STORE_CTX *)")  # type: ignore[untyped-decorator]
    def verify(ok: int, store: Any) -> int:
        accepted: int = inner(ok, store)
        if not accepted:
            _binding.X509_STORE_CTX_set_error(store, _binding.X509_V_ERR_CERT_REJECTED)
        return accepted

    # Connections keep this attribute of their context alive as long as they live.
    private._verify_callback = verify
    _binding.SSL_CTX_set_verify(private._context, mode, verify)


class BindingsCodec:
    """Encrypts and decrypts on an open association, many records to a call.

    Raises AttributeError or TypeError where pyOpenSSL is not as it was.
    """

    __slots__ = ("_connection", "_from_ssl", "_into_ssl", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        private: Any = connection
        self._connection = private
        self._ssl, self._into_ssl, self._from_ssl = (
            private._ssl,
            private._into_ssl,
            private._from_ssl,
        )

    def encrypt(
        self, datagrams: Sequence[Buffer], room: int, into: bytearray | None = None
    ) -> memoryview:
        """A record for each datagram, one after another, in ``into`` if they have room there.

        Else in memory of their own. ``room`` is the size in bytes that they have at most together,
        or a larger one. Raises SSL.Error where OpenSSL does.
        """
        write, ssl, view = _binding.SSL_write, self._ssl, _ffi.from_buffer
        read, written = _binding.BIO_read, self._from_ssl
        output = _make("char[]", room) if into is None or len(into) < room else view(into)
        size, count = 0, len(datagrams)
        # Taken out now and then, so that OpenSSL's own buffer stays small.
        step = max(FEED * count // room, 1)
        for start in range(0, count, step):
            for datagram in datagrams[start : start + step] if step < count else datagrams:
                try:
                    result = write(ssl, datagram, len(datagram))
                except TypeError:  # not bytes
                    data = view(datagram)
                    result = write(ssl, data, len(data))
                if result <= 0:
                    self._connection._raise_ssl_error(ssl, result)
            size += max(read(written, output + size, room - size), 0)
        return memoryview(_ffi.buffer(output, size))

    def encrypt_alike(
        self, datagrams: Sequence[Buffer], each: int, room: int, into: bytearray | None = None
    ) -> memoryview:
        """`encrypt` for datagrams of ``each`` bytes, which are bytes objects: the loop is C's."""
        global _records
        known = _records
        if into is None or len(into) < room:
            into = bytearray(room)
            known = into, _ffi.from_buffer(into), memoryview(into)
        elif known is None or known[0] is not into:
            known = _records = into, _ffi.from_buffer(into), memoryview(into)
        write, ssl, left, sizes = _binding.SSL_write, self._ssl, iter(datagrams), repeat(each)
        read, written, output = _binding.BIO_read, self._from_ssl, known[1]
        size, count = 0, len(datagrams)
        step = FEED * count // room or 1
        while count > 0:
            part = step if step < count else count
            # Counted before what is left, so that none is taken from that in vain.
            if sum(map(write, repeat(ssl, part), left, sizes)) != each * part:
                self._connection._raise_ssl_error(ssl, -1)
            size += read(written, output + size, room - size)
            count -= part
        return known[2][:size]

    def encrypt_one(self, datagram: bytes, room: int, into: bytearray | None = None) -> Buffer:
        """`encrypt` for one datagram."""
        global _records
        binding, ssl = _binding, self._ssl
        result = binding.SSL_write(ssl, datagram, len(datagram))
        if result <= 0:
            self._connection._raise_ssl_error(ssl, result)
        known = _records
        if into is None or len(into) < room:
            into = bytearray(room)
            known = into, _ffi.from_buffer(into), memoryview(into)
        elif known is None or known[0] is not into:
            known = _records = into, _ffi.from_buffer(into), memoryview(into)
        size = binding.BIO_read(self._from_ssl, known[1], room)
        return known[2][: size if size > 0 else 0]

    def decrypt_one(
        self, record: bytes | bytearray, size: int
    ) -> tuple[bytes | None, SSL.Error | None]:
        """`decrypt` for one record, the first ``size`` bytes of a buffer."""
        global _received
        binding = _binding
        source: Any = record
        if type(record) is not bytes:
            known = _received
            if known is None or known[0] is not record:
                known = _received = record, _ffi.from_buffer(record)
            source = known[1]
        try:
            plaintext = _scratch.pop()
        except IndexError:
            plaintext = _make("char[]", GREATEST_CONTENT)
        # What others left in the queue of this thread would pass for an error of ours.
        binding.ERR_clear_error()
        binding.BIO_write(self._into_ssl, source, size)
        length = binding.SSL_read(self._ssl, plaintext, GREATEST_CONTENT)
        data = _ffi.unpack(plaintext, length) if length > 0 else None
        _scratch.append(plaintext)
        return data, None if length > 0 else self._error_of(length)

    def decrypt(
        self, records: Buffer, meals: Iterable[Meal]
    ) -> tuple[list[bytes], SSL.Error | None]:
        """What is in whole records, some of which OpenSSL may drop, up to the first error if any.

        A meal is no more than `FEED` bytes, or one record.
        """
        delivered: list[bytes] = []
        add, read, ssl, unpack = delivered.append, _binding.SSL_read, self._ssl, _ffi.unpack
        try:
            plaintext = _scratch.pop()
        except IndexError:
            plaintext = _make("char[]", GREATEST_CONTENT)
        try:
            # What others left in the queue of this thread would pass for an error of ours.
            _binding.ERR_clear_error()
            source, write, into = _ffi.from_buffer(records), _binding.BIO_write, self._into_ssl
            for start, end, count in meals:
                write(into, source + start, end - start)
                for _ in range(count):
                    size = read(ssl, plaintext, GREATEST_CONTENT)
                    if size <= 0:
                        error = self._error_of(size)
                        if error is not None:
                            return delivered, error
                        break
                    add(unpack(plaintext, size))
            return delivered, None
        finally:
            _scratch.append(plaintext)

    def decrypt_alike(
        self, records: Buffer, each: int, count: int, content: int
    ) -> tuple[list[bytes], SSL.Error | None]:
        """`decrypt` for ``count`` records of ``each`` bytes, back to back. ``content`` is what each
        has in it, in bytes, if it has no padding; others are taken too, and take more time."""
        if not 0 < content < each <= SLOT:
            return self.decrypt(records, meals(each * count, each))
        read, ssl, rooms = _binding.SSL_read, self._ssl, repeat(SLOT)
        write, into, source = _binding.BIO_write, self._into_ssl, _ffi.from_buffer(records)
        delivered: list[bytes] = []
        try:
            tray = _trays.pop()
        except IndexError:
            tray = _make_tray()
        slots, plaintext = tray
        # A meal is copied out before the next: it is still in the cache nearest to the processor.
        part = min(FEED // each, SLOTS)
        at = 0
        try:
            _binding.ERR_clear_error()
            while count > 0:
                if part > count:
                    part = count
                count -= part
                write(into, source + at, part * each)
                at += part * each
                lengths = list(map(read, repeat(ssl, part), slots, rooms))
                # None can have more than that, so all have as much.
                if sum(lengths) == content * part:
                    delivered += _cutter(content, part).unpack_from(plaintext)
                    continue
                # OpenSSL tells of its last call only.
                error = self._error_of(lengths[-1]) if lengths[-1] <= 0 else None
                delivered += [
                    _ffi.unpack(s, n) for s, n in zip(slots, lengths, strict=False) if n > 0
                ]
                if error is not None:
                    return delivered, error
            return delivered, None
        finally:
            _trays.append(tray)

    def _error_of(self, result: int) -> SSL.Error | None:
        if _binding.SSL_get_error(self._ssl, result) == _binding.SSL_ERROR_WANT_READ:
            return None
        try:
            self._connection._raise_ssl_error(self._ssl, result)
        except SSL.Error as error:
            return error
        return None


def meals(end: int, size: int) -> Iterator[Meal]:
    """Parts of datagrams of ``size`` bytes back to back, each as much as OpenSSL takes at once."""
    step = max(FEED // size, 1) * size
    for start in range(0, end, step):
        stop = min(start + step, end)
        yield start, stop, (stop - start) // size
