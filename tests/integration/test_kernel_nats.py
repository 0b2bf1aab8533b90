"""The commands through real kernel NATs: direct where it can be, relayed where it must, and a
clear end where neither is allowed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ice_punch.lab.kernel import KernelInternet
from support.commands import Command
from support.coturn import Coturn
from support.netns import NETNS

pytestmark = NETNS

SERVER = "203.0.113.10"
SIGNALING = f"http://{SERVER}:8080"
STUN = f"stun:{SERVER}:3478"
STUN_SECOND_PORT = f"stun:{SERVER}:3479"
TURN_UDP = f"turn:{SERVER}:3478"
TURN_TCP = f"turn:{SERVER}:3478?transport=tcp"
PASSWORD = {"ICE_PUNCH_TURN_USERNAME": "robot", "ICE_PUNCH_TURN_PASSWORD": "correct horse"}


@dataclass
class Pair:
    listener: Command
    connector: Command
    server: Command

    def both(self, event: str, timeout: float = 20.0) -> list[dict[str, Any]]:
        return [self.listener.event(event, timeout), self.connector.event(event, timeout)]

    def exchange(self) -> None:
        self.listener.send(b"from the listener\n")
        self.connector.send(b"from the connector\n")
        self.connector.received(b"from the listener")
        self.listener.received(b"from the connector")


@contextlib.contextmanager
def two_commands(
    *switches: str,
    nat_a: str = "port_restricted",
    nat_b: str = "port_restricted",
    environment: dict[str, str] | None = None,
    rtt: float = 0.0,
    connector_only: tuple[str, ...] = (),
) -> Iterator[Pair]:
    """Signaling and coturn on the public internet, ``listen`` and ``connect`` behind two NATs."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(KernelInternet(nat_a=nat_a, nat_b=nat_b, rtt=rtt))
        stack.enter_context(
            Coturn(
                SERVER,
                3478,
                users={"robot": "correct horse"},
                command_prefix=net.public.command([]),
            )
        )
        server = stack.enter_context(
            Command(
                "serve",
                "--host",
                SERVER,
                "--port",
                "8080",
                "--no-stun",
                "--json",
                start=net.public.popen,
            )
        )
        server.event("serving")
        options = ["--json", *switches]
        listener = stack.enter_context(
            Command(
                "listen",
                "--server",
                SIGNALING,
                *options,
                start=net.peer_a.popen,
                environment=environment,
            )
        )
        link = listener.event("listening")["link"]
        connector = stack.enter_context(
            Command(
                "connect",
                link,
                *options,
                *connector_only,
                start=net.peer_b.popen,
                environment=environment,
            )
        )
        yield Pair(listener, connector, server)


def test_two_port_restricted_nats_are_punched_with_coturn_as_stun_server() -> None:
    with two_commands("--ice-server", STUN) as pair:
        for connected in pair.both("connected"):
            assert connected["path"]["kind"] == "direct"
            assert connected["dtls"]["version"] == "DTLSv1.2"
        pair.exchange()


def test_two_port_restricted_nats_are_punched_even_with_a_relay_at_hand() -> None:
    with two_commands("--ice-server", TURN_UDP, environment=PASSWORD, rtt=0.04) as pair:
        for connected in pair.both("connected"):
            assert connected["path"]["kind"] == "direct"
        pair.exchange()


def test_two_symmetric_nats_meet_at_the_relay_over_udp() -> None:
    with two_commands(
        "--ice-server", TURN_UDP, nat_a="symmetric", nat_b="symmetric", environment=PASSWORD
    ) as pair:
        for connected in pair.both("connected"):
            assert connected["path"]["kind"] == "relayed"
        pair.exchange()


@pytest.mark.parametrize("nat_a", ["symmetric", "port_restricted"])
def test_the_relay_of_one_side_serves_a_peer_behind_a_symmetric_nat(nat_a: str) -> None:
    """What comes to the relay from a port that nobody told is a Data indication."""
    with two_commands(
        "--ice-server",
        STUN,
        nat_a="symmetric",
        nat_b=nat_a,
        environment=PASSWORD,
        connector_only=("--ice-server", TURN_UDP),
    ) as pair:
        assert pair.connector.event("connected")["path"]["kind"] == "relayed"
        pair.listener.event("connected")
        pair.exchange()


def test_where_udp_is_blocked_the_relay_is_reached_over_tcp() -> None:
    with two_commands(
        "--ice-server",
        TURN_UDP,
        "--ice-server",
        TURN_TCP,
        nat_a="udp_blocked",
        nat_b="udp_blocked",
        environment=PASSWORD,
    ) as pair:
        for connected in pair.both("connected", timeout=30):
            assert connected["path"]["kind"] == "relayed"
        pair.exchange()


def test_direct_only_between_symmetric_nats_fails_in_seconds_and_says_why() -> None:
    with two_commands(
        "--direct-only",
        "--ice-server",
        STUN,
        "--ice-server",
        STUN_SECOND_PORT,
        nat_a="symmetric",
        nat_b="symmetric",
    ) as pair:
        began = time.monotonic()
        for command in (pair.connector, pair.listener):
            failed = command.event("error", timeout=20)
            assert failed["error"] == "NoRoute"
            assert command.exit_code() == 1
        assert time.monotonic() - began < 15
        said = pair.connector.event("error")["message"] + pair.listener.event("error")["message"]
        assert "new port for every destination" in said


def test_direct_only_between_punchable_nats_stays_direct() -> None:
    with two_commands("--direct-only", "--ice-server", STUN) as pair:
        for connected in pair.both("connected"):
            assert connected["path"]["kind"] == "direct"


def test_relay_only_tells_no_address_of_its_own() -> None:
    with two_commands("--relay-only", "--ice-server", TURN_UDP, environment=PASSWORD) as pair:
        for connected in pair.both("connected"):
            assert connected["path"]["kind"] == "relayed"
        told = [e for e in pair.connector.events if e.get("side") == "remote"]
        assert told
        assert {e["type"] for e in told} == {"relay"}
        pair.exchange()


def test_a_relay_that_rejects_the_password_is_named() -> None:
    wrong = {**PASSWORD, "ICE_PUNCH_TURN_PASSWORD": "wrong"}
    with two_commands("--relay-only", "--ice-server", TURN_UDP, environment=wrong) as pair:
        # Whoever is told first tells the other, who then says that the peer refused.
        failed = pair.both("error")
        rejected = [f for f in failed if f["error"] == "AuthenticationRejected"]
        assert rejected
        assert all(f"turn:{SERVER}" in f["message"] for f in rejected)
        assert all("wrong" not in f["message"].split() for f in failed)
        assert (pair.listener.exit_code(), pair.connector.exit_code()) == (1, 1)


def test_an_established_channel_outlives_the_signaling_server() -> None:
    with two_commands("--ice-server", STUN) as pair:
        pair.both("connected")
        pair.exchange()
        pair.server.process.kill()
        time.sleep(1)
        pair.listener.send(b"still here\n")
        pair.connector.received(b"still here")
