"""Any number of pairs of peers on one virtual internet, each pair on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ice_punch.ice import Candidate, Credentials
from ice_punch.lab.peers import make_machine
from ice_punch.lab.scenario import Habit
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.peer import StunServer, VirtualPeer
from ice_punch.lab.virtual.servers import serve_stun

STUN = ("203.0.113.10", "203.0.113.11")


def with_stun(seed: int = 0) -> VirtualInternet:
    net = VirtualInternet(seed)
    serve_stun(net.host("stun", *STUN))
    return net


class Pair:
    """Two hosts that are to meet. ``name`` keeps their randomness apart from others'."""

    def __init__(self, name: str, a: VirtualHost, b: VirtualHost) -> None:
        self.told: dict[str, list[Candidate]] = {"a": [], "b": []}
        self.a = self._peer(f"{name} a", a, controlling=True, told=self.told["a"].append)
        self.b = self._peer(f"{name} b", b, controlling=False, told=self.told["b"].append)

    @staticmethod
    def _peer(
        name: str, host: VirtualHost, *, controlling: bool, told: Callable[[Candidate], None]
    ) -> VirtualPeer:
        source = host.internet.random(name)
        letters = name.replace(" ", "")
        machine = make_machine(
            Habit.FULL,
            controlling=controlling,
            credentials=Credentials(f"u{letters}", f"password-of-24-characters-{letters}"),
            random=source,
        )
        servers = tuple(StunServer(f"stun:{ip}", (ip, 3478)) for ip in STUN)
        return VirtualPeer(host, machine, stun=servers, on_candidate=told, on_end=lambda: None)

    @property
    def peers(self) -> tuple[VirtualPeer, VirtualPeer]:
        return (self.a, self.b)

    def gather(self) -> None:
        for peer in self.peers:
            peer.gather(peer.host.internet.now)

    def meet(self) -> None:
        for peer, other, told in ((self.a, self.b, "b"), (self.b, self.a, "a")):
            now = peer.host.internet.now
            peer.machine.set_remote_parameters(other.machine.credentials, now, ta=0.02)
            for candidate in self.told[told]:
                peer.add_remote_candidate(replace(candidate, base=None, server=None), now)
            peer.machine.end_of_remote_candidates(now)

    @property
    def addresses(self) -> list[tuple[object, object]]:
        """The selected pair as each end sees it."""
        found: list[tuple[object, object]] = []
        for peer in self.peers:
            pair = peer.machine.selected_pair()
            assert pair is not None
            found.append(((pair.mapped or pair.local).address, pair.remote.address))
        return found
