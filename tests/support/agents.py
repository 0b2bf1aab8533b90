"""Two agents on a virtual internet, introduced to each other with a chosen skew."""

from __future__ import annotations

import random
from collections.abc import Callable

from ice_punch.ice import (
    Agent,
    AgentConfig,
    Candidate,
    CandidateType,
    Credentials,
    IceState,
    LocalCandidateFound,
    StateChanged,
)
from ice_punch.lab.behaviour import NatBehaviour, NatKind
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.stun import MessageClass, Method, StunParseError, parse_message

PORT = 50000


class Side:
    """One agent, where it lives and what it has told."""

    def __init__(
        self,
        internet: VirtualInternet,
        name: str,
        *,
        controlling: bool,
        nat: NatKind | NatBehaviour,
        network: int,
        link: LinkProfile,
        config: AgentConfig | None = None,
        make_agent: Callable[..., Agent] = Agent,
    ) -> None:
        self.internet = internet
        self.name = name
        self.agent = make_agent(
            controlling=controlling,
            credentials=Credentials(f"ufrag{name}", f"{name}-password-of-24-characters"),
            random=random.Random(f"{internet.seed}/{name}"),
            config=config,
        )
        if nat is NatKind.NONE:
            self.ip = f"203.0.113.{network}"
            self.public_ip = self.ip
            self.nat = None
            self.host = internet.host(name, self.ip, link=link)
        else:
            self.ip = f"192.168.{network}.2"
            self.public_ip = f"203.0.113.{network}"
            self.nat = internet.nat(f"nat-{name}", self.public_ip, nat, link=link)
            self.host = internet.host(name, self.ip, behind=self.nat)
        self.address = (self.ip, PORT)
        self.events: list[tuple[float, object]] = []
        internet.attach(self.host, self.agent, on_event=self._on_event)

    def _on_event(self, now: float, event: object) -> None:
        self.events.append((now, event))

    @property
    def candidates(self) -> list[Candidate]:
        """What this side signals."""
        return [
            e.candidate
            for _, e in self.events
            if isinstance(e, LocalCandidateFound) and e.candidate.type is not CandidateType.PRFLX
        ]

    def when(self, state: IceState) -> float:
        """When the state was first entered; infinity if never."""
        return next(
            (t for t, e in self.events if isinstance(e, StateChanged) and e.state is state),
            float("inf"),
        )

    @property
    def valid_at(self) -> float:
        return self.when(IceState.CONNECTED)

    def meet(self, other: Side, *, end: bool = True, ta: float | None = 0.02) -> None:
        """This side learns the other's parameters and candidates, now."""
        now = self.internet.now
        self.agent.set_remote_parameters(other.agent.credentials, now, ta=ta)
        for candidate in other.candidates:
            self.agent.add_remote_candidate(candidate, now)
        if end:
            self.agent.end_of_remote_candidates(now)

    def packets(self) -> list[str]:
        """What this side sent, each as method, class and whether it nominates."""
        kinds = []
        for packet in self.internet.trace.sent_by(self.name):
            try:
                message = parse_message(packet.data)
            except StunParseError:
                kinds.append("data")
                continue
            assert message.method == Method.BINDING
            kinds.append(MessageClass(message.message_class).name.lower())
        return kinds


class Meeting:
    """Two sides with gathered candidates and an internet between them."""

    def __init__(
        self,
        nat_a: NatKind | NatBehaviour = NatKind.PORT_RESTRICTED,
        nat_b: NatKind | NatBehaviour = NatKind.PORT_RESTRICTED,
        *,
        rtt: float = 0.1,
        seed: int = 0,
        config_a: AgentConfig | None = None,
        config_b: AgentConfig | None = None,
        controlling_b: bool = False,
        gather: bool = True,
        loss: float = 0.0,
        start: float = 100.0,
        make_agent: Callable[..., Agent] = Agent,
    ) -> None:
        from ice_punch.stun import BindingServer

        self.internet = VirtualInternet(seed, start=start)
        link = LinkProfile(delay=rtt / 4, loss=loss)
        self.a = Side(
            self.internet,
            "a",
            controlling=True,
            nat=nat_a,
            network=1,
            link=link,
            config=config_a,
            make_agent=make_agent,
        )
        self.b = Side(
            self.internet,
            "b",
            controlling=controlling_b,
            nat=nat_b,
            network=2,
            link=link,
            config=config_b,
            make_agent=make_agent,
        )
        server = self.internet.host("stun", "198.51.100.1", link=LinkProfile(delay=0.001))
        self.internet.attach(server, BindingServer(("198.51.100.1", 3478)))
        for side in (self.a, self.b):
            side.agent.add_host_candidate(side.address, self.internet.now)
            if gather:
                side.agent.query_server(
                    "stun:198.51.100.1:3478",
                    ("198.51.100.1", 3478),
                    side.address,
                    self.internet.now,
                )
        if gather:
            self.internet.run(
                start + 30,
                stop=lambda: not (self.a.agent.queries_busy or self.b.agent.queries_busy),
            )
        self.internet.run(self.internet.now + 0.1)
        self.begun = self.internet.now
        self.first_packet = len(self.internet.trace)

    def start(self, skew: float = 0.0) -> None:
        """``a`` learns of ``b`` now, ``b`` of ``a`` after ``skew`` seconds."""
        begin = self.internet.now
        self.begun = begin
        self.internet.at(begin, lambda: self.a.meet(self.b))
        self.internet.at(begin + skew, lambda: self.b.meet(self.a))

    def run(self, seconds: float) -> None:
        self.internet.run(self.internet.now + seconds)

    def until_valid(self, limit: float = 45.0) -> bool:
        return self.internet.run(
            self.internet.now + limit,
            stop=lambda: self.a.valid_at < float("inf") and self.b.valid_at < float("inf"),
        )

    def until_completed(self, limit: float = 45.0) -> bool:
        done = (IceState.COMPLETED,)
        return self.internet.run(
            self.internet.now + limit,
            stop=lambda: self.a.agent.state in done and self.b.agent.state in done,
        )
