"""One agent on a bench: virtual time, and a peer that does exactly what the test says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.ice import (
    Agent,
    AgentConfig,
    Candidate,
    CandidatePair,
    CandidateType,
    Credentials,
    NominationPolicy,
    Pacer,
    StateChanged,
)
from ice_punch.ice.candidate import candidate_priority
from ice_punch.stun import (
    ERROR_CODE,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    NOMINATION,
    PRIORITY,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    parse_message,
    response_to,
)

LOCAL = ("192.0.2.1", 5000)
REMOTE = ("198.51.100.1", 6000)
PEER = Credentials("peerfrag", "peer-password-of-24-chars")
OURS = Credentials("ourfrag1", "our-password-of-24-chars!")
SPIN = 50


def remote_candidate(
    address: Address = REMOTE,
    type_: CandidateType = CandidateType.HOST,
    *,
    priority: int | None = None,
    foundation: str = "1",
    component: int = 1,
    related: Address | None = None,
    transport: str = "udp",
) -> Candidate:
    return Candidate(
        foundation=foundation,
        component=component,
        transport=transport,
        priority=candidate_priority(type_, 65535, component) if priority is None else priority,
        host=address[0],
        port=address[1],
        type=type_,
        related_address=related,
    )


@dataclass(frozen=True)
class Sent:
    at: float
    data: bytes
    local: Address
    destination: Address

    @property
    def message(self) -> Message:
        return parse_message(self.data)

    @property
    def is_request(self) -> bool:
        return self.message.message_class is MessageClass.REQUEST

    @property
    def nominates(self) -> bool:
        return self.is_request and self.message.get(USE_CANDIDATE) is not None

    @property
    def error(self) -> int | None:
        error = self.message.get(ERROR_CODE)
        return None if error is None else error.code


class Bench:
    """``sent`` holds everything the agent sent since the last ``take``."""

    def __init__(
        self,
        *,
        controlling: bool = True,
        config: AgentConfig | None = None,
        policy: NominationPolicy | None = None,
        pacer: Pacer | None = None,
        bases: Iterable[Address] = (LOCAL,),
        remotes: Iterable[Address | Candidate] = (),
        meet: bool = True,
        ta: float | None = 0.02,
        lite: bool = False,
        start: float = 1000.0,
        seed: int = 0,
        make_agent: Callable[..., Agent] = Agent,
    ) -> None:
        self.now = start
        self.begun = start
        self.agent = make_agent(
            controlling=controlling,
            credentials=OURS,
            random=random.Random(seed),
            config=config,
            policy=policy,
            pacer=pacer,
        )
        self.sent: list[Sent] = []
        self.events: list[tuple[float, object]] = []
        self.responder: Callable[[Sent], None] | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        for base in bases:
            self.agent.add_host_candidate(base, self.now)
        if meet:
            self.meet(ta=ta, lite=lite)
        for remote in remotes:
            self.signal(remote)

    # -- what the test does -------------------------------------------------------------------

    def meet(self, *, ta: float | None = 0.02, lite: bool = False) -> None:
        self.agent.set_remote_parameters(PEER, self.now, ta=ta, lite=lite)
        self.flush()

    def signal(self, remote: Address | Candidate) -> Candidate:
        candidate = remote if isinstance(remote, Candidate) else remote_candidate(remote)
        self.agent.add_remote_candidate(candidate, self.now)
        self.flush()
        return candidate

    def receive(self, data: bytes, source: Address = REMOTE, local: Address = LOCAL) -> None:
        self.agent.receive_datagram(data, source, local, self.now)
        self.flush()

    def later(self, delay: float, action: Callable[[], None]) -> None:
        self._order += 1
        self._due.append((self.now + delay, self._order, action))

    def flush(self) -> None:
        while True:
            sent = [Sent(self.now, *t) for t in self.agent.datagrams_to_send(self.now)]
            self.sent += sent
            for one in sent:
                if self.responder is not None and one.is_request:
                    self.responder(one)
            while (event := self.agent.next_event()) is not None:
                self.events.append((self.now, event))
            if not sent:
                return

    def run(self, seconds: float) -> None:
        """Let time pass; a timer that stands still fails the test."""
        end = self.now + seconds
        turns, last = 0, -1.0
        while True:
            self.flush()
            timer = self.agent.get_timer()
            due = min(self._due, default=None)
            at = min(t for t in (timer, due and due[0], end + 1) if t is not None)
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            turns = turns + 1 if self.now == last else 0
            last = self.now
            assert turns < SPIN, f"the timer stands still at {self.now - self.begun} s"
            if due is not None and due[0] <= self.now:
                self._due.remove(due)
                due[2]()
            else:
                self.agent.handle_timer(self.now)

    def take(self) -> list[Sent]:
        sent, self.sent = self.sent, []
        return sent

    # -- what the peer does -------------------------------------------------------------------

    def request(
        self,
        *,
        controlling: bool | None = None,
        use_candidate: bool = False,
        nomination: int = 0,
        priority: int | None = 1845501695,
        tie_breaker: int = 1,
        username: str | None = f"{OURS.ufrag}:{PEER.ufrag}",
        key: bytes | None = OURS.key,
        fingerprint: bool = True,
        transaction_id: bytes | None = None,
        algorithm: Integrity = Integrity.SHA1,
    ) -> bytes:
        """A check of the peer, by default in the role that the agent has not."""
        self._order += 1
        id_ = transaction_id or self._order.to_bytes(12, "big")
        message = Message(Method.BINDING, MessageClass.REQUEST, id_)
        if username is not None:
            message.add(USERNAME, username)
        if priority is not None:
            message.add(PRIORITY, priority)
        peer_controls = not self.agent.controlling if controlling is None else controlling
        message.add(ICE_CONTROLLING if peer_controls else ICE_CONTROLLED, tie_breaker)
        if use_candidate:
            message.add(USE_CANDIDATE, True)
        if nomination:
            message.add(NOMINATION, nomination)
        return message.to_bytes(key=key, algorithms=(algorithm,), fingerprint=fingerprint)

    def answer(
        self,
        sent: Sent,
        *,
        mapped: Address | None = None,
        code: int | None = None,
        key: bytes = PEER.key,
    ) -> bytes:
        """A response to a check of ours: success, or the error ``code``."""
        if code is None:
            response = response_to(sent.message, MessageClass.SUCCESS)
            response.add(XOR_MAPPED_ADDRESS, mapped or sent.local)
        else:
            response = response_to(sent.message, MessageClass.ERROR)
            response.add(ERROR_CODE, ErrorCode(code, "because"))
        return response.to_bytes(key=key)

    def answer_with_unknown_attribute(self, sent: Sent) -> bytes:
        """A success that demands comprehension of what nobody knows (RFC 8489 section 6.3.3)."""
        response = response_to(sent.message, MessageClass.SUCCESS)
        response.add(XOR_MAPPED_ADDRESS, sent.local)
        data = response.to_bytes(fingerprint=False) + b"\x7f\xfe\0\0"
        data = data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
        return parse_message(data).to_bytes(key=PEER.key)

    def answer_all(
        self, rtt: float = 0.1, *, when: Callable[[Sent], bool] = lambda _: True
    ) -> None:
        """Checks, those sent already too, are answered after ``rtt`` seconds."""

        def respond(sent: Sent) -> None:
            if when(sent):
                data = self.answer(sent)
                self.later(rtt, lambda: self.receive(data, sent.destination, sent.local))

        self.responder = respond
        for sent in self.requests:
            respond(sent)

    # -- what there is to see -----------------------------------------------------------------

    @property
    def requests(self) -> list[Sent]:
        return [s for s in self.sent if s.is_request]

    @property
    def responses(self) -> list[Sent]:
        return [s for s in self.sent if not s.is_request]

    def times(self) -> list[float]:
        """When requests left, in seconds since the beginning."""
        return [round(s.at - self.begun, 6) for s in self.requests]

    def pair(self, remote: Address = REMOTE, local: Address = LOCAL) -> CandidatePair:
        pair = self.agent.check_list.find(local, remote)
        assert pair is not None
        return pair

    @property
    def states(self) -> list[str]:
        return [e.state.value for _, e in self.events if isinstance(e, StateChanged)]

    @property
    def elapsed(self) -> float:
        return self.now - self.begun


def valid_bench(**keywords: object) -> Bench:
    """A bench whose one pair is valid but not selected: the agent is controlled."""
    bench = Bench(controlling=False, remotes=[REMOTE], **keywords)  # type: ignore[arg-type]
    bench.receive(bench.answer(bench.requests[0]))
    assert bench.pair().valid
    bench.take()
    return bench


def completed_bench(**keywords: object) -> Bench:
    """A bench whose peer has nominated the one pair there is."""
    bench = valid_bench(**keywords)
    bench.receive(bench.request(use_candidate=True))
    assert bench.agent.selected_pair() is bench.pair()
    bench.take()
    return bench
