"""What the two peers of a session tell each other, over a server half way between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ice_punch.ice import Agent, Candidate, CandidateType, Credentials
from ice_punch.ice.advice import addresses_within
from ice_punch.lab.scenario import Side
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.peer import VirtualPeer
from ice_punch.sdp import make_pwd, make_ufrag

RETRY = 0.5
"""Seconds after which a message is sent again while one of the two has no network."""
TA = 0.02
GATHERING_LOOKS = 0.01
EARLY = 32
"""Candidates that wait for the credentials they belong to."""


class VirtualSignaling:
    """Delivers in order, ``way`` seconds from one peer to the other. A restart that one agent is
    advised to make is made, and answered by a restart of the other (RFC 8839 section 4.4.1.1.1)."""

    def __init__(
        self,
        internet: VirtualInternet,
        peers: dict[Side, VirtualPeer],
        way: float,
        reaches: Callable[[Side], bool],
    ) -> None:
        self._internet = internet
        self._peers = peers
        self._way = way
        self._reaches = reaches
        self._met: set[Side] = set()
        self._told: dict[Side, list[Candidate]] = {"a": [], "b": []}
        """What each side has to signal before the other knows of it."""
        self._ended: set[Side] = set()
        self._waiting: dict[Side, list[Callable[[], None]]] = {"a": [], "b": []}
        self._early: dict[Side, deque[tuple[Credentials, Candidate]]] = {
            side: deque(maxlen=EARLY) for side in self._told
        }
        self._told_at: dict[Side, float] = {}
        """When each side told of its latest restart."""
        self._random = {side: internet.random(f"{side} restarts") for side in self._told}

    # -- what a peer says ---------------------------------------------------------------------

    def candidate(self, side: Side, candidate: Candidate) -> None:
        """A candidate of ``side`` is to reach the other side."""
        self._told[side].append(candidate)
        if other(side) in self._met:
            credentials = self._peers[side].machine.credentials
            self._carry(side, lambda: self._deliver(other(side), credentials, candidate))

    def end(self, side: Side) -> None:
        """No more candidates of ``side``: every server has answered, or been given up."""
        self._ended.add(side)
        if other(side) in self._met:
            self._carry(side, lambda: self._deliver_end(other(side)))

    def restart(self, side: Side, *, fresh_sockets: bool = False) -> None:
        """``side`` begins an ICE restart, unless one waits for the other side already."""
        peer, agent = self._peers[side], self._peers[side].machine
        if not isinstance(agent, Agent) or agent.restarting or agent.remote_credentials is None:
            return
        source, now = self._random[side], self._internet.now
        self._told_at.pop(side, None)
        agent.restart(
            Credentials(make_ufrag(source), make_pwd(source)), now, fresh_sockets=fresh_sockets
        )
        if fresh_sockets:
            peer.open_fresh_sockets(now)
        within = addresses_within(fresh_sockets=fresh_sockets)
        self._told_when_known(side, agent, agent.credentials, now + within)

    def _told_when_known(
        self, side: Side, agent: Agent, credentials: Credentials, until: float
    ) -> None:
        """Reflexive addresses, which may be others now, go along with the new credentials: a fresh
        socket has to be known from its first packet on."""
        if agent.credentials != credentials:
            return
        if not agent.addresses_known and self._internet.now < until:
            again = self._internet.now + GATHERING_LOOKS
            self._internet.at(again, lambda: self._told_when_known(side, agent, credentials, until))
        else:
            self._tell_restart(side, agent)

    def _tell_restart(self, side: Side, agent: Agent) -> None:
        credentials = agent.credentials
        self._told_at[side] = self._internet.now
        candidates = [c for c in agent.local_candidates if c.type is not CandidateType.PRFLX]
        self._carry(side, lambda: self._restarted(other(side), credentials, candidates))

    # -- what the other one hears -------------------------------------------------------------

    def meet(self, side: Side) -> None:
        """``side`` learns the other's parameters and candidates, now."""
        now = self._internet.now
        self._met.add(side)
        machine, far = self._peers[side].machine, self._peers[other(side)].machine
        if isinstance(machine, Agent) and isinstance(far, Agent):
            machine.set_remote_parameters(far.credentials, now, ta=TA, renomination=True)
        else:
            lite = getattr(far, "lite", False)
            machine.set_remote_parameters(far.credentials, now, lite=lite, ta=TA)
        for candidate in self._told[other(side)]:
            self._deliver(side, far.credentials, candidate)
        if other(side) in self._ended:
            self._deliver_end(side)

    def _deliver(self, side: Side, credentials: Credentials, candidate: Candidate) -> None:
        agent = self._peers[side].machine
        if isinstance(agent, Agent) and agent.remote_credentials != credentials:
            # RFC 8840 section 4.4: of another generation, one that is yet to come or is gone.
            early = self._early[side]
            early.append((credentials, candidate))
            return
        # The base and the server never leave a host.
        signalled = replace(candidate, base=None, server=None)
        self._peers[side].add_remote_candidate(signalled, self._internet.now)

    def _deliver_end(self, side: Side) -> None:
        self._peers[side].machine.end_of_remote_candidates(self._internet.now)

    def _restarted(self, side: Side, credentials: Credentials, candidates: list[Candidate]) -> None:
        agent = self._peers[side].machine
        if not isinstance(agent, Agent):
            return
        now = self._internet.now
        if not agent.restarting:
            self.restart(side)
        told_at = self._told_at.get(side)
        if told_at is None:
            again = partial(self._restarted, side, credentials, candidates)
            self._internet.after(GATHERING_LOOKS, again)
            return
        # Checks begin on both sides once each has what the other has told.
        agent.set_remote_parameters(
            credentials, now, ta=TA, renomination=True, start_at=told_at + self._way
        )
        for candidate in candidates:
            self._deliver(side, credentials, candidate)
        waiting = [*self._early[side]]
        self._early[side].clear()
        for theirs, candidate in waiting:
            if theirs == credentials:
                self._deliver(side, credentials, candidate)

    # -- on the way ---------------------------------------------------------------------------

    def _carry(self, side: Side, message: Callable[[], None]) -> None:
        queue = self._waiting[side]
        queue.append(message)
        if len(queue) == 1:
            self._try(side)

    def _connected(self) -> bool:
        return self._reaches("a") and self._reaches("b")

    def _try(self, side: Side) -> None:
        queue = self._waiting[side]
        if not self._connected():
            self._internet.after(RETRY, lambda: self._try(side))
            return
        for message in queue:
            self._internet.after(self._way, message)
        queue.clear()


def other(side: Side) -> Side:
    return "b" if side == "a" else "a"
