"""CPU time of the STUN work behind one connectivity check and one answer of a server: ice-punch and
aioice, in turn.

Only the codecs: message and HMAC, no sockets, no agent. Runs anywhere, needs no root.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

from aioice import stun as theirs
from harness import at_least_one, interleaved, table, where

from ice_punch.ice import resembles_stun
from ice_punch.ice.binding import Credentials, check_request, success_response
from ice_punch.stun import (
    USERNAME,
    BindingServer,
    Message,
    MessageClass,
    Method,
    parse_message,
    short_term_key,
)

BATCH = 2000
ROUNDS = 25

SENDER, RECEIVER = "sFrg", "rFrg"
PASSWORD = "password-of-22-letters"
USER = f"{RECEIVER}:{SENDER}"
PEER = Credentials(RECEIVER, PASSWORD)
KEY = short_term_key(PASSWORD)
THEIR_KEY = PASSWORD.encode()
SOURCE = ("192.0.2.1", 54321)
ID = bytes(range(12))
TIE_BREAKER = 0x0123456789ABCDEF
CHECK_PRIORITY = 1853824767


def build_ours() -> bytes:
    return check_request(
        ID,
        local_ufrag=SENDER,
        remote=PEER,
        priority=CHECK_PRIORITY,
        controlling=True,
        tie_breaker=TIE_BREAKER,
        nominate=False,
    )


def build_theirs() -> bytes:
    request = theirs.Message(theirs.Method.BINDING, theirs.Class.REQUEST, transaction_id=ID)
    request.attributes["USERNAME"] = USER
    request.attributes["PRIORITY"] = CHECK_PRIORITY
    request.attributes["ICE-CONTROLLING"] = TIE_BREAKER
    request.add_message_integrity(THEIR_KEY)
    return bytes(request)


CHECK = build_ours()


def read_ours() -> bool:
    message = parse_message(CHECK)
    return message.get(USERNAME) == USER and message.verify(KEY)


def read_theirs() -> bool:
    message = theirs.parse_message(CHECK)
    return message.attributes["USERNAME"] == USER and message.check_message_integrity(THEIR_KEY)


def answer_ours() -> bytes:
    message = parse_message(CHECK)
    assert message.get(USERNAME) == USER
    assert message.verify(KEY)
    return success_response(message, SOURCE, KEY)


def answer_theirs() -> bytes:
    message = theirs.parse_message(CHECK)
    assert message.attributes["USERNAME"] == USER
    assert message.check_message_integrity(THEIR_KEY)
    response = theirs.Message(
        theirs.Method.BINDING, theirs.Class.RESPONSE, transaction_id=message.transaction_id
    )
    response.attributes["XOR-MAPPED-ADDRESS"] = SOURCE
    response.add_message_integrity(THEIR_KEY)
    return bytes(response)


# A check of a session that nothing is remembered of: its own password, ufrag and tie-breaker

SESSIONS = itertools.cycle(f"password-{number:013}" for number in range(5000))


def build_first_ours() -> bytes:
    password = next(SESSIONS)
    return check_request(
        ID,
        local_ufrag=SENDER,
        remote=Credentials(password[-8:], password),
        priority=CHECK_PRIORITY,
        controlling=True,
        tie_breaker=int(password[-8:]),
        nominate=False,
    )


def build_first_theirs() -> bytes:
    password = next(SESSIONS)
    request = theirs.Message(theirs.Method.BINDING, theirs.Class.REQUEST, transaction_id=ID)
    request.attributes["USERNAME"] = f"{password[-8:]}:{SENDER}"
    request.attributes["PRIORITY"] = CHECK_PRIORITY
    request.attributes["ICE-CONTROLLING"] = int(password[-8:])
    request.add_message_integrity(password.encode())
    return bytes(request)


# A server's work

PLAIN = Message(Method.BINDING, MessageClass.REQUEST, ID).to_bytes(fingerprint=False)
WITH_FINGERPRINT = Message(Method.BINDING, MessageClass.REQUEST, ID).to_bytes()
SERVER_AT = ("198.51.100.1", 3478)
SERVER = BindingServer(software=None)


def serve_plain_ours() -> bytes | None:
    return SERVER.answer_plain(PLAIN, SOURCE, SERVER_AT)


def serve_fingerprint_ours() -> bytes | None:
    return SERVER.answer_plain(WITH_FINGERPRINT, SOURCE, SERVER_AT)


def serve_queued_ours() -> bytes:
    SERVER.receive_datagram(PLAIN, SOURCE, SERVER_AT, 0.0)
    return SERVER.datagrams_to_send(0.0)[0].data


def serve_theirs(request: bytes) -> bytes:
    message = theirs.parse_message(request)
    response = theirs.Message(
        message.message_method, theirs.Class.RESPONSE, transaction_id=message.transaction_id
    )
    response.attributes["XOR-MAPPED-ADDRESS"] = SOURCE
    if request is WITH_FINGERPRINT:
        response.add_fingerprint()
    return bytes(response)


def serve_plain_theirs() -> bytes:
    return serve_theirs(PLAIN)


def serve_fingerprint_theirs() -> bytes:
    return serve_theirs(WITH_FINGERPRINT)


# What comes in on a path of a session: a check, or data. aioice takes for data what does not parse

DATA = bytes(range(20, 64)) * 28


def tell_check_ours() -> bool:
    return resembles_stun(CHECK)


def tell_data_ours() -> bool:
    return resembles_stun(DATA)


def tell_theirs(datagram: bytes) -> bool:
    try:
        theirs.parse_message(datagram)
    except ValueError:
        return False
    return True


def tell_check_theirs() -> bool:
    return tell_theirs(CHECK)


def tell_data_theirs() -> bool:
    return tell_theirs(DATA)


WORK: dict[str, dict[str, Callable[[], object]]] = {
    "build a check": {"ice-punch": build_ours, "aioice": build_theirs},
    "build the first check of a session": {
        "ice-punch": build_first_ours,
        "aioice": build_first_theirs,
    },
    "parse and verify a check": {"ice-punch": read_ours, "aioice": read_theirs},
    "parse, verify and answer a check": {"ice-punch": answer_ours, "aioice": answer_theirs},
    "answer a Binding request": {"ice-punch": serve_plain_ours, "aioice": serve_plain_theirs},
    "the same by receive_datagram and datagrams_to_send": {
        "ice-punch": serve_queued_ours,
        "aioice": serve_plain_theirs,
    },
    "answer one with FINGERPRINT": {
        "ice-punch": serve_fingerprint_ours,
        "aioice": serve_fingerprint_theirs,
    },
    "take a check for STUN": {"ice-punch": tell_check_ours, "aioice": tell_check_theirs},
    "take data for data": {"ice-punch": tell_data_ours, "aioice": tell_data_theirs},
}


def cpu_time(name: str, stack: str, calls: int = BATCH) -> float:
    """Seconds of CPU for one call."""
    work = WORK[name][stack]
    began = time.process_time_ns()
    for _ in range(calls):
        work()
    return (time.process_time_ns() - began) / calls / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS)
    arguments = parser.parse_args()
    print(where())
    print(f"\nµs of CPU, median of {arguments.rounds} rounds of {BATCH} calls, in turn\n")
    cases = {f"{stack}: {name}": (name, stack) for name in WORK for stack in WORK[name]}
    times = interleaved(list(cases), arguments.rounds, lambda case: cpu_time(*cases[case]))
    rows = []
    for name in WORK:
        ours, other = (
            statistics.median(times[f"{stack}: {name}"]) * 1e6 for stack in ("ice-punch", "aioice")
        )
        rows.append([name, f"{ours:.2f}", f"{other:.2f}", f"{other / ours:.1f}"])
    print(table(["", "ice-punch", "aioice", "ratio"], rows))


if __name__ == "__main__":
    main()
