"""The commands stay connected: their NAT moves every port in mid-session, and routers that claim
early checks are passed, over our own signaling."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from ice_punch.lab.behaviour import EarlyInbound, NatBehaviour
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.kernel.faults import happen
from ice_punch.lab.scenario import Event, Happening, Scenario, Side, peer
from support.commands import Command
from support.netns import NETNS

pytestmark = NETNS

SERVER = "203.0.113.10"
CLAIM = NatBehaviour(early_inbound=EarlyInbound.CLAIM)


@contextlib.contextmanager
def connected(scenario: Scenario) -> Iterator[tuple[KernelInternet, Command, Command]]:
    """``serve`` with its STUN server, ``listen`` and ``connect``."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(KernelInternet.of(scenario))
        server = stack.enter_context(
            Command("serve", "--host", SERVER, "--port", "8080", "--json", start=net.public.popen)
        )
        server.event("serving")
        url = f"http://{SERVER}:8080"
        listener = stack.enter_context(
            Command("listen", "--server", url, "--json", start=net.peer_a.popen)
        )
        link = listener.event("listening")["link"]
        connector = stack.enter_context(Command("connect", link, "--json", start=net.peer_b.popen))
        for command in (listener, connector):
            assert command.event("connected")["path"]["kind"] == "direct"
        yield net, listener, connector


def flows_again(sender: Command, receiver: Command, within: float) -> float:
    """Seconds until lines get through; a line that is lost stays lost, so they are numbered."""
    began = time.monotonic()
    for number in range(int(within / 0.1)):
        line = b"after %d %d" % (id(sender), number)
        sender.send(line + b"\n")
        with contextlib.suppress(AssertionError, TimeoutError):
            receiver.received(line, timeout=0.1)
            return time.monotonic() - began
    raise AssertionError(f"nothing came through for {within} s")


@pytest.mark.parametrize("side", ["a", "b"])
def test_when_a_nat_moves_every_port_the_commands_restart_and_go_on(side: Side) -> None:
    with connected(Scenario(rtt=0.04)) as (net, listener, connector):
        listener.send(b"before\n")
        connector.received(b"before")
        happen(net, Happening(0.0, Event.NAT_REBINDS, side))
        mover, other = (listener, connector) if side == "a" else (connector, listener)
        # Data from the moved port is stopped by the other side's filter: only a restart helps.
        assert flows_again(other, mover, 10.0) < 5.0
        assert flows_again(mover, other, 2.0) < 1.0
        assert listener.process.poll() is None
        assert connector.process.poll() is None


def test_the_commands_pass_routers_that_claim_early_checks() -> None:
    """The instants of the first start are agreed on over signaling."""
    with connected(Scenario(a=peer(CLAIM), b=peer(CLAIM), rtt=0.04)) as (_, listener, connector):
        listener.send(b"hello\n")
        connector.received(b"hello")
