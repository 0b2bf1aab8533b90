"""Stands in for ``ice-punch`` in tests of the demo: says the same events, carries bytes over TCP.

``FAKE_FAULT`` in the environment makes it misbehave: ``no-route``, ``garble``, ``mute``, ``crash``
or ``hang``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

FAULT = os.environ.get("FAKE_FAULT", "")
SIZE = 64


def tell(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(4096):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def serve() -> None:
    hub = socket.create_server((option("--host"), int(option("--port"))))
    host, port = hub.getsockname()
    tell("serving", url=f"http://{host}:{port}", stun=f"stun:{host}:3478")
    one, _ = hub.accept()
    other, _ = hub.accept()
    threads = [threading.Thread(target=copy, args=ends) for ends in ((one, other), (other, one))]
    for end in (one, other):
        end.sendall(b"!")
    for thread in threads:
        thread.start()
    time.sleep(1000)


def pair(state: str, local: str, remote: str, *, nominated: bool) -> dict[str, object]:
    return {
        "local": local,
        "remote": remote,
        "local_type": "host",
        "remote_type": "srflx",
        "state": state,
        "requests_sent": 2,
        "responses_received": 1,
        "requests_received": 1,
        "rtt_ms": 41.25 if nominated else None,
        "nominated": nominated,
    }


def be_peer(url: str, local: str, remote: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80))
    if "listen" in sys.argv:
        tell("listening", link=f"{url}/j/room#secret", command="ice-punch connect ...")
    print("a line for people, not for programs", file=sys.stderr, flush=True)
    assert connection.recv(1) == b"!"
    if FAULT == "crash":
        print("Segmentation fault", file=sys.stderr, flush=True)
        sys.exit(139)
    if FAULT == "no-route":
        tell("error", error="NoRoute", message="no candidate pair works")
        sys.exit(1)
    if FAULT == "hang":
        time.sleep(1000)
    for kind, address in (("host", local), ("srflx", "198.51.100.1:50000")):
        tell(
            "candidate",
            side="local",
            type=kind,
            address=address,
            base=local,
            priority=2130706431,
            component=1,
            foundation="1",
            server=None,
        )
    tell("state", state="checking", reason="the answer is here")
    tell(
        "connected",
        path={
            "kind": "direct",
            "local": local,
            "remote": remote,
            "local_type": "host",
            "remote_type": "srflx",
            "rtt_ms": 41.25,
        },
        dtls={"version": "DTLSv1.2", "cipher": "ECDHE-ECDSA-AES256-GCM-SHA384"},
        timings={"signaling_ms": 12.5, "gathering_ms": 22.0, "checks_ms": 63.1, "dtls_ms": 101.0},
        pairs=[
            pair("succeeded", local, remote, nominated=True),
            pair("failed", local, "10.9.9.9:1", nominated=False),
        ],
    )
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))

    def out() -> None:
        buffered = connection.makefile("rb")
        while data := buffered.read(SIZE):
            sys.stdout.buffer.write(data if FAULT != "garble" else data.swapcase())
            sys.stdout.buffer.flush()
        tell("closed", reason="the peer closed", stats={})
        os._exit(0)

    threading.Thread(target=out, daemon=True).start()
    while data := sys.stdin.buffer.read(SIZE):
        if FAULT != "mute":
            connection.sendall(data)


match sys.argv[1]:
    case "serve":
        serve()
    case "listen":
        be_peer(option("--server"), "10.1.0.2:50000", "198.51.100.2:50000")
    case "connect":
        link = os.environ["ICE_PUNCH_LINK"]
        assert link.endswith("/j/room#secret")
        be_peer(link.partition("/j/")[0], "10.2.0.2:50000", "198.51.100.1:50000")
