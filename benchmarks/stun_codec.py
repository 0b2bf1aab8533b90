"""CPU time of the STUN work behind one connectivity check: ice-punch and aioice, in turn.

Only the codecs: message and HMAC, no sockets, no agent. Runs anywhere, needs no root.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from aioice import stun as theirs
from harness import at_least_one, interleaved, table, where

from ice_punch.ice.binding import Credentials, check_request, success_response
from ice_punch.stun import USERNAME, parse_message, short_term_key

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


WORK: dict[str, dict[str, Callable[[], object]]] = {
    "build a check": {"ice-punch": build_ours, "aioice": build_theirs},
    "parse and verify a check": {"ice-punch": read_ours, "aioice": read_theirs},
    "parse, verify and answer a check": {"ice-punch": answer_ours, "aioice": answer_theirs},
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
        rows.append([name, f"{ours:.1f}", f"{other:.1f}", f"{other / ours:.1f}"])
    print(table(["", "ice-punch", "aioice", "ratio"], rows))


if __name__ == "__main__":
    main()
