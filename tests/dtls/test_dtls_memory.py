"""What an association costs while nothing happens on it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from dtls_support import assert_data_flows, make_pair

PROGRAM = """
import gc
from dtls_support import make_pair
from ice_punch.dtls import Certificate

def pair():
    made = make_pair(Certificate.generate(), Certificate.generate()).start().run()
    if BUSY:
        datagrams = [bytes(1000)] * 1000
        for one, other in ((made.client, made.server), (made.server, made.client)):
            (run,) = one.encrypt_many(datagrams, 0.0)
            arrived = other.decrypt_segments(bytes(run.buffer), len(run.buffer), run.size, 0.0)
            assert len(arrived) == 1000
    return made.client, made.server

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

kept = [pair() for _ in range(20)]
before = resident()
kept += [pair() for _ in range(150)]
print((resident() - before) / 300)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.parametrize(("busy", "limit"), [(False, 72_000), (True, 122_000)])
def test_an_idle_association_takes_a_bounded_amount_of_memory(busy: bool, limit: int) -> None:
    """63 kB with OpenSSL 4.0, of which some 58 are its own structures, and 113 once megabytes have
    gone both ways. Certificate, key and handshake would be 10 more, a context and two buffers of
    16 KB for each 30 to 60."""
    done = subprocess.run(
        [sys.executable, "-c", f"BUSY = {busy}\n{PROGRAM}"],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    each = float(done.stdout)
    print(f"{each / 1000:.1f} kB")
    assert each < limit


def test_an_open_association_keeps_nothing_of_its_handshake() -> None:
    """What it had to show and whom to accept: 11 kB of certificate and key, in two forms. No
    collection of cycles is needed for it."""
    pair = make_pair()
    machines = pair.client, pair.server
    handshakes = [weakref.ref(machine._handshake) for machine in machines if machine._handshake]
    gc.disable()
    try:
        pair.start().run()
        assert [handshake() for handshake in handshakes] == [None, None]
    finally:
        gc.enable()
    for machine in machines:
        assert machine._connection.get_certificate() is None
        assert machine.next_event() is not None
    assert pair.client._repetition._flight == []
    assert_data_flows(pair)
