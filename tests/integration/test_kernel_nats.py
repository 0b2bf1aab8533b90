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
from ice_punch.lab.scenario import Ip, Scenario, peer
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
    connector_json: bool = True,
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
        listener = stack.enter_context(
            Command(
                "listen",
                "--server",
                SIGNALING,
                "--json",
                *switches,
                start=net.peer_a.popen,
                environment=environment,
            )
        )
        link = listener.event("listening")["link"]
        connector = stack.enter_context(
            Command(
                "connect",
                link,
                *(["--json"] if connector_json else []),
                *switches,
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
            assert connected["why_relayed"]["sentence"]
        # What the relay's own pair shows is known when it is chosen; the rest may come too late.
        for relayed in pair.both("relayed"):
            assert why(relayed["why_relayed"])[0] == "mapping-varies"
        pair.exchange()


def why(diagnosis: dict[str, Any]) -> tuple[str, str]:
    return diagnosis["cause"], diagnosis["side"]


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
            assert why(connected["why_relayed"]) == ("udp-blocked", "here")
            assert connected["udp_works"] is not True
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
            assert why(failed["diagnosis"]) == ("mapping-varies", "both")
            assert failed["message"].endswith(
                "the NATs of both sides give a new port for every destination; leave out "
                "--direct-only and add a TURN server: --ice-server turn:HOST"
            )
            assert failed["local"]["mapping_varies"] is failed["remote"]["mapping_varies"] is True
            assert command.exit_code() == 1
        assert time.monotonic() - began < 15


def test_people_are_told_in_the_last_line() -> None:
    with two_commands(
        "--direct-only",
        "--ice-server",
        STUN,
        "--ice-server",
        STUN_SECOND_PORT,
        nat_a="symmetric",
        connector_json=False,
    ) as pair:
        assert pair.connector.exit_code() == 1
        (line,) = pair.connector.errors
        assert line.removeprefix("ice-punch: ").removeprefix("the peer gave up: ") == (
            "the peer's NAT gives a new port for every destination, and this side lets nothing in "
            "from a port that it does not know; leave out --direct-only and add a TURN server: "
            "--ice-server turn:HOST"
        )
        assert why(pair.listener.event("error")["diagnosis"]) == ("mapping-varies", "here")


def test_people_are_told_why_the_path_is_relayed() -> None:
    with two_commands(
        "--ice-server",
        TURN_UDP,
        nat_a="symmetric",
        nat_b="symmetric",
        environment=PASSWORD,
        connector_json=False,
    ) as pair:
        pair.listener.event("connected")
        pair.connector.until(lambda: len(pair.connector.errors) > 1, 10, "two lines")
        connected, because = pair.connector.errors
        assert connected.startswith("connected: relayed ")
        assert because.startswith("relayed because ")
        assert "a new port for every destination" in because
        assert because.endswith(
            "; a direct path needs IPv6 on both sides, or a NAT that keeps its ports"
        )


def test_udp_that_is_blocked_is_named_on_the_side_where_it_is() -> None:
    """The relay is there, and over UDP alone: the blocked side hears of TCP."""
    with two_commands(
        "--ice-server",
        TURN_UDP,
        "--timeout",
        "4",
        nat_a="udp_blocked",
        environment=PASSWORD,
    ) as pair:
        blocked, other = pair.both("error")
        assert blocked["error"] == other["error"] == "NoRoute"
        assert why(blocked["diagnosis"]) == ("udp-blocked", "here")
        assert blocked["udp_works"] is False
        assert blocked["message"].endswith(
            f"UDP is blocked: turn:{SERVER} did not answer, although that host does over TCP; let "
            "UDP out, or add a TURN server over TCP or TLS: "
            "--ice-server 'turn:HOST?transport=tcp'"
        )
        # It may have heard of it, or it gave up first and knows that the peer is private.
        assert why(other["diagnosis"]) in (("udp-blocked", "there"), ("no-public-address", "there"))
        assert other["udp_works"] is True


@pytest.mark.parametrize(
    ("server", "timeout", "cause", "says"),
    [
        ("stun:203.0.113.99", "3", "server-unreachable", "stun:203.0.113.99 did not answer, so "),
        ("stun:nowhere.invalid", "6", "server-name-unknown", "the name nowhere.invalid "),
    ],
)
def test_a_stun_server_that_is_not_there_is_named(
    server: str, timeout: str, cause: str, says: str
) -> None:
    with two_commands("--timeout", timeout, "--ice-server", server) as pair:
        for failed in pair.both("error", timeout=25):
            assert why(failed["diagnosis"]) == (cause, "here")
            assert says in failed["message"]
            assert (
                "so this side knows no public address of its own; check the " in failed["message"]
            )


def test_ipv4_alone_does_not_meet_ipv6_alone() -> None:
    scenario = Scenario(a=peer(ip=Ip.V4), b=peer(ip=Ip.V6))
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(KernelInternet.of(scenario))
        serve = ("serve", "--host", "", "--port", "8080", "--no-stun", "--json")
        stack.enter_context(Command(*serve, start=net.public.popen)).event("serving")
        switches = ("--json", "--timeout", "2")
        listen = ("listen", "--server", SIGNALING, *switches)
        listener = stack.enter_context(Command(*listen, start=net.peer_a.popen))
        link = listener.event("listening")["link"].replace(SERVER, "[2001:db8:f::10]")
        connect = ("connect", link, *switches)
        connector = stack.enter_context(Command(*connect, start=net.peer_b.popen))
        for command, has, other in ((listener, 4, 6), (connector, 6, 4)):
            failed = command.event("error", timeout=25)
            assert why(failed["diagnosis"]) == ("no-common-family", "both")
            assert f"this side has IPv{has} only, and the peer IPv{other} only" in failed["message"]
            assert failed["local"]["ip_versions"] == [has]
            assert failed["remote"]["ip_versions"] == [other]
            assert command.exit_code() == 1


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
        causes = {why(f["diagnosis"]) for f in failed}
        assert causes <= {("relay-refused", "here"), ("relay-refused", "there")}
        assert ("relay-refused", "here") in causes
        assert (pair.listener.exit_code(), pair.connector.exit_code()) == (1, 1)


def test_an_established_channel_outlives_the_signaling_server() -> None:
    with two_commands("--ice-server", STUN) as pair:
        pair.both("connected")
        pair.exchange()
        pair.server.process.kill()
        time.sleep(1)
        pair.listener.send(b"still here\n")
        pair.connector.received(b"still here")
