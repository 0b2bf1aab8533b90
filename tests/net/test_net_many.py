"""Many datagrams by one call, each with its own source, its own size and its own answer."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ice_punch.net import many
from ice_punch.net.many import MOST, MOST_ANSWER, DatagramBatch
from ice_punch.net.udp import bind

pytestmark = pytest.mark.skipif(many._CALLS is None, reason="recvmmsg and sendmmsg are Linux's")


@pytest.fixture
def server():
    with bind("127.0.0.1") as sock:
        yield sock


def drain(batch, server):
    """What waits, in calls of at most ``MOST``."""
    with contextlib.suppress(BlockingIOError):
        while True:
            count = batch.receive(server.fileno())
            assert 0 < count <= MOST
            yield list(batch.datagrams(count))


def test_every_size_arrives_whole_and_with_its_source(server):
    sizes = [0, 1, 3, 20, 1472, 2048, 9000, 65507, 4, 65507, 0]
    batch = DatagramBatch()
    with bind("127.0.0.2") as one, bind("127.9.8.7") as other:
        sent = []
        for number, size in enumerate(sizes):
            data = bytes((number,)) * size
            sender = other if number % 3 else one
            sender.sendto(data, server.getsockname())
            ip, port = sender.getsockname()
            sent.append((data, int.from_bytes(socket.inet_aton(ip)), port))
        assert [found for call in drain(batch, server) for found in call] == sent


def test_more_than_a_batch_holds_takes_more_calls(server):
    batch = DatagramBatch()
    with bind("127.0.0.1") as client:
        for number in range(150):
            client.sendto(b"%d" % number, server.getsockname())
        calls = list(drain(batch, server))
    assert [len(call) for call in calls] == [64, 64, 22]
    assert [data for call in calls for data, _, _ in call] == [b"%d" % n for n in range(150)]
    with pytest.raises(BlockingIOError):
        batch.receive(server.fileno())


def test_answers_go_to_whom_they_answer_and_may_be_sent_in_parts(server):
    batch = DatagramBatch()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(bind(f"127.0.0.{n + 1}")) for n in range(6)]
        for client in clients:
            client.sendto(b"?", server.getsockname())
        assert batch.receive(server.fileno()) == 6
        answers = [b"", b"a", None, b"b" * MOST_ANSWER, b"c" * 20, b"d"]
        for index, answer in enumerate(answers):
            if answer is not None:
                batch.answer(index, answer)
        assert batch.send(server.fileno(), 0, 2) == 2
        assert batch.send(server.fileno(), 3, 6) == 3
        assert batch.send(server.fileno(), 6, 6) == 0
        for client, answer in zip(clients, answers, strict=True):
            if answer is None:
                with pytest.raises(BlockingIOError):
                    client.recv(2048)
            else:
                assert client.recv(2048) == answer


def test_an_answer_that_can_not_leave_takes_no_other_with_it(server):
    batch = DatagramBatch()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(bind("127.0.0.1")) for _ in range(5)]
        for client in clients:
            client.sendto(b"?", server.getsockname())
        count = batch.receive(server.fileno())
        assert count == 5
        for index in range(count):
            batch.answer(index, b"%d" % index)
        for index in (0, 3):  # a broadcast address, which the socket may not send to
            batch._names[16 * index + 4 : 16 * index + 8] = b"\xff\xff\xff\xff"
        assert batch.send(server.fileno(), 0, count) == 3
        for index in (1, 2, 4):
            assert clients[index].recv(2048) == b"%d" % index


def test_an_answer_has_a_bound():
    with pytest.raises(ValueError, match="1025 bytes"):
        DatagramBatch().answer(0, bytes(MOST_ANSWER + 1))


def test_a_closed_socket_is_an_error_and_nothing_worse():
    batch = DatagramBatch()
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.receive(-1)
    batch.answer(0, b"x")
    assert batch.send(-1, 0, 1) == 0


def test_where_the_calls_are_missing_there_is_no_batch(monkeypatch):
    monkeypatch.setattr(many, "_CALLS", None)
    with pytest.raises(NotImplementedError):
        DatagramBatch()
