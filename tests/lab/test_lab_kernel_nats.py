"""The kernel's NATs, judged by two programs that know nothing of how they are made: coturn's
`turnutils_natdiscovery`, and our own discovery of RFC 5780."""

from __future__ import annotations

import contextlib
import random
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ice_punch.lab.behaviour import NINE, Filtering, Hairpinning, Mapping, NatBehaviour
from ice_punch.lab.kernel import KernelHost, KernelInternet
from ice_punch.nat import BehaviourDetermined, BehaviourDiscovery
from support.netns import NETNS, UdpProbe, start_discovery_server

needs_natdiscovery = pytest.mark.skipif(
    shutil.which("turnutils_natdiscovery") is None, reason="coturn's tools are not installed"
)
pytestmark = [*NETNS, needs_natdiscovery]

SERVER = "203.0.113.10"
OPEN = Filtering.ENDPOINT_INDEPENDENT
OTHERS = {
    "hairpins": NatBehaviour(filtering=OPEN, hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "does not hairpin": NatBehaviour(filtering=OPEN),
    "forgets": NatBehaviour(lifetime=2.0),
}
SWITCHES = {"hairpins": "-H", "does not hairpin": "-H", "forgets": "-t -T 3"}
"""Of `turnutils_natdiscovery`; the nine are asked for mapping and filtering."""


@dataclass
class Verdicts:
    """What is being found out about one NAT."""

    host: KernelHost
    coturns: subprocess.Popen[str] | None = None
    told: str = ""

    def begin(self, *switches: str) -> None:
        self.coturns = self.host.popen(
            ["turnutils_natdiscovery", *switches, SERVER], stdout=subprocess.PIPE, text=True
        )

    def output(self) -> str:
        if self.coturns is not None:
            self.told = self.coturns.communicate(timeout=60)[0]
            self.coturns = None
        return self.told


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdicts]]:
    """All NATs at once, since most of the time goes by waiting for what never comes."""
    directory = tmp_path_factory.mktemp("coturn")
    behaviours = {**{behaviour.short: behaviour for behaviour in NINE}, **OTHERS}
    found: dict[str, Verdicts] = {}
    with contextlib.ExitStack() as stack:
        names = list(behaviours)
        for a, b in zip(names[::2], names[1::2], strict=True):
            net = stack.enter_context(KernelInternet(nat_a=behaviours[a], nat_b=behaviours[b]))
            start_discovery_server(net, directory)
            found[a], found[b] = Verdicts(net.peer_a), Verdicts(net.peer_b)
        for name, verdicts in found.items():
            verdicts.begin(*SWITCHES.get(name, "-m -f").split())
        yield found


def discover(host: KernelHost) -> BehaviourDetermined:
    """Our own discovery, over sockets in the host's namespace."""
    with contextlib.ExitStack() as stack:
        probes = [UdpProbe(host) for _ in range(2)]
        for probe in probes:
            stack.callback(probe.close)
        by_local = {probe.address: probe for probe in probes}
        mapping, filtering = by_local
        discovery = BehaviourDiscovery(
            (SERVER, 3478),
            mapping,
            filtering,
            random.Random(1),
            time.monotonic(),
            rto=0.2,
            rc=2,
            rm=2,
        )
        while True:
            now = time.monotonic()
            for transmit in discovery.datagrams_to_send(now):
                by_local[transmit.local].send(transmit.destination, transmit.data)
            event = discovery.next_event()
            if event is not None:
                return event
            due = discovery.get_timer()
            wait = 1.0 if due is None else max(0.0, due - now)
            sockets = {probe.socket: local for local, probe in by_local.items()}
            for sock in select.select(list(sockets), [], [], wait)[0]:
                data, source = sock.recvfrom(2048)
                discovery.receive_datagram(data, source, sockets[sock], time.monotonic())
            discovery.handle_timer(time.monotonic())


@pytest.mark.parametrize("behaviour", NINE, ids=lambda behaviour: behaviour.short)
def test_mapping_and_filtering_are_what_the_behaviour_says(
    behaviour: NatBehaviour, verdicts: dict[str, Verdicts]
) -> None:
    ours = discover(verdicts[behaviour.short].host)
    assert ours.mapping.value == behaviour.mapping.value
    assert ours.filtering.value == behaviour.filtering.value
    told = verdicts[behaviour.short].output()
    assert re.findall(r"NAT with (.*) (Mapping|Filtering)!", told) == [
        (_IN_COTURNS_WORDS[behaviour.mapping.value], "Mapping"),
        (_IN_COTURNS_WORDS[behaviour.filtering.value], "Filtering"),
    ]


_IN_COTURNS_WORDS = {
    Mapping.ENDPOINT_INDEPENDENT.value: "Endpoint Independent",
    Mapping.ADDRESS_DEPENDENT.value: "Address Dependent",
    Mapping.ADDRESS_AND_PORT_DEPENDENT.value: "Address and Port Dependent",
}


def test_coturn_sees_a_hairpin_and_that_there_is_none(
    verdicts: dict[str, Verdicts],
) -> None:
    assert "maybe a successful hairpinning" in verdicts["hairpins"].output()
    told = verdicts["does not hairpin"].output()
    assert "maybe a successful hairpinning" not in told
    assert "STUN receive timeout" in told


def test_coturn_sees_that_a_mapping_of_two_seconds_is_gone_after_three(
    verdicts: dict[str, Verdicts],
) -> None:
    assert "STUN receive timeout" in verdicts["forgets"].output()
