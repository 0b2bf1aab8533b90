"""How signals pass in rooms that are shared: through the bus, or without it. Sans-IO."""

from __future__ import annotations

from typing import Any

from signaling.backends.calls import Frame, Reply, frame_of
from signaling.backends.shared_entrance import Bus, SharedEntrance
from signaling.backends.shared_member import Outgoing, SharedMember
from signaling.connections import Connection
from signaling.member import Member
from signaling.messages import CloseCode, Error, ErrorCode, Relayed, SendSignal, SignalAck

_TEXTS = {
    "unavailable": (ErrorCode.PEER_UNAVAILABLE, "no such peer in this room"),
    "queue_full": (ErrorCode.QUEUE_FULL, "the peer is away and its queue is full"),
}


class SharedRelay(SharedEntrance):
    """Signals between sessions, wherever their connections are."""

    _held: list[tuple[SharedMember, SendSignal, Frame]] | None = None
    """Signals that wait until it is known, after a cut, which sessions are still here."""

    def _serve(self, source: Connection, member: Member, data: str, now: float) -> None:
        self._now = now
        super()._serve(source, member, data, now)

    def _relay(self, source: Connection, member: Member, signal: SendSignal) -> None:
        assert isinstance(member, SharedMember)
        if signal.id <= member.rx:
            self.counters["duplicates"] += 1
            return
        if signal.id > member.rx + 1 and member.takeovers:
            # A process that was cut off confirmed what it has not told anybody yet.
            self._hall.end(member, "gap")
            self._forget(source, CloseCode.BUS_LOST, "the session was lost")
            return
        if signal.id != member.rx + 1:
            text = f"signal {signal.id} after {member.rx}: ids count up by one"
            self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)
            return
        member.rx = signal.id
        refusal = self._hall.refusal_here(member, signal)
        if refusal is not None:
            self._decline(member, signal, *refusal)
            return
        frame = frame_of(
            Relayed(
                seq=0,
                sender=member.id,
                link=signal.link,
                gen=signal.gen,
                kind=signal.kind,
                data=signal.data,
            ),
            member.id,
            signal.id,
        )
        if self.bus is not Bus.UP:
            self._relay_here(member, signal, frame, self._now)
        elif self._held is not None:
            self._held.append((member, signal, frame))
        else:
            self._relay_to(member, signal, frame)

    def _relay_to(self, member: SharedMember, signal: SendSignal, frame: Frame) -> None:
        outgoing = Outgoing(frame, signal.to, self._now)

        def done(reply: Reply, now: float) -> None:
            status = reply[0]
            if status == "gone":
                self._part(member, "gap")
            elif status in ("delivered", "queued"):
                self.counters["relayed"] += 1
                if signal.to not in self._hall.by_id:
                    member.retain(outgoing, now)
                self._acknowledge(member, signal.id, status)
            elif status in _TEXTS:
                self.counters[str(_TEXTS[status][0])] += 1
                if status == "unavailable":
                    self._acknowledge(member, signal.id, "unavailable")

        self._ask(
            "relay",
            member.room.name,
            self._relay_arguments(member, outgoing),
            done=done,
            lost=lambda now: self._relay_here(member, signal, frame, now),
        )

    def _relay_arguments(
        self, member: SharedMember, outgoing: Outgoing, *, again: bool = False, quiet: bool = False
    ) -> dict[str, Any]:
        frame = outgoing.frame
        refusals = {}
        for name, (code, text) in _TEXTS.items():
            refused = frame_of(Error(code=code, message=text, ref=frame.n, to=outgoing.to))
            refusals[name] = [refused.head, refused.tail]
        return {
            "id": member.id,
            "n": frame.n,
            "to": outgoing.to,
            "head": frame.head,
            "tail": frame.tail,
            "refusals": refusals,
            "again": int(again),
            "quiet": int(quiet),
        }

    def _relay_again(self, member: SharedMember, outgoing: Outgoing, *, quiet: bool) -> None:
        """A signal that waited for the bus, or that the bus may have forgotten."""

        def lost(now: float) -> None:
            if not quiet:
                member.put_out(outgoing)

        def done(reply: Reply, now: float) -> None:
            if not quiet and reply[0] in ("delivered", "queued"):
                self.counters["relayed"] += 1
                member.retain(outgoing, now)

        arguments = self._relay_arguments(member, outgoing, again=True, quiet=quiet)
        self._ask("relay", member.room.name, arguments, done=done, lost=lost)

    def _relay_here(
        self, member: SharedMember, signal: SendSignal, frame: Frame, now: float
    ) -> None:
        if member.sid not in self._hall.members:
            return
        status = self._hall.relay_here(member, signal, frame, now)
        if status == "full":
            self._decline(member, signal, *_TEXTS["queue_full"])
            return
        self.counters["relayed"] += 1
        self._acknowledge(member, signal.id, status)

    def _decline(
        self, member: SharedMember, signal: SendSignal, code: ErrorCode, text: str
    ) -> None:
        self.counters[str(code)] += 1
        if code is ErrorCode.PEER_UNAVAILABLE:
            self._acknowledge(member, signal.id, "unavailable")
        self._hall.post(member, Error(code=code, message=text, ref=signal.id, to=signal.to))

    def _acknowledge(self, member: Member, id: int, status: Any) -> None:
        source = self._connection_of(member)
        if source is not None:
            self._send(source, SignalAck(id=id, status=status))
