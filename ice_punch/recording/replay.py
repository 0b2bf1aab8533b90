"""Runs a recorded agent again on what it was told, and compares all it does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ice_punch.datagram import Transmit, format_address
from ice_punch.errors import RecordingAltered, RecordingCutShort
from ice_punch.ice import MINIMUM_TA, Agent, Event, IceState, Pacer, StateChanged
from ice_punch.recording import lines
from ice_punch.recording.recorder import compared
from ice_punch.recording.recording import Recording
from ice_punch.report import Report
from ice_punch.version import __version__

LONGEST = 200
"""Characters of what an error shows."""
APPLICATION_DATA = b"\xff"
"""Repeated, it stands for application data: it does not resemble STUN (RFC 7983)."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording whose agent did the same again. Times are those of the recording, in seconds."""

    recording: Recording
    agent: Agent = field(repr=False)
    """As it was in the end."""
    events: tuple[tuple[float, Event], ...] = field(repr=False)
    sent: tuple[tuple[float, Transmit], ...] = field(repr=False)
    inputs: int
    outputs: int
    """That were compared."""
    complete: bool
    """Whether the end was compared too. False for what was cut short or stopped at a limit."""

    @property
    def states(self) -> tuple[tuple[float, StateChanged], ...]:
        return tuple((at, e) for at, e in self.events if isinstance(e, StateChanged))

    @property
    def state(self) -> IceState:
        return self.agent.state

    @property
    def reason(self) -> str:
        """Of the last change of state."""
        return self.states[-1][1].reason if self.states else ""

    @property
    def report(self) -> Report:
        return self.agent.report()


def replay(recording: Recording) -> Replay:
    """Run the agent of ``recording`` again.

    Raises RecordingAltered where it does something else than what is recorded: the first time, with
    the input and its time; also for a checksum that is wrong although all came out the same.
    RecordingCutShort where too little is there to make the agent.
    """
    player = _Player(recording)
    player.play()
    return player.result()


class _RanOut(Exception):
    """What is there of a recording ends within an input."""


class _Player:
    """One replay. Doubles as the randomness of its agent."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._left = deque(recording.body)
        self._began = recording.began
        self._now: float | None = None
        self._input: lines.Input | None = None
        self._pending: deque[Transmit] = deque()
        self._result: lines.Line | None = None
        self._events: list[tuple[float, Event]] = []
        self._sent: list[tuple[float, Transmit]] = []
        self._inputs = 0
        self._outputs = 0
        header = recording.header
        self._others = _Others(header.common_ta)
        self._agent = self._make(header)

    def _make(self, header: lines.Header) -> Agent:
        try:
            return Agent(
                controlling=header.controlling,
                credentials=header.credentials,
                random=self,
                config=header.config,
                policy=header.policy.make(),
                pacer=Pacer(header.config.ta, common=self._others),
            )
        except _RanOut:
            why = "the recording is cut short: nothing of its agent is there"
            raise RecordingCutShort(why, inputs=0) from None
        except RecordingAltered:
            raise
        except Exception as error:
            raise self._parted("an agent", f"{type(error).__name__} ({error})") from None

    def play(self) -> None:
        while self._left:
            line = self._left.popleft()
            if isinstance(line, lines.Input):
                self._nothing_more(unless=line.waiting)
                self._inputs += 1
                self._input, self._now = line, line.at
                try:
                    self._act(line)
                except _RanOut:
                    self._inputs -= 1
                    return
            elif isinstance(line, lines.Output):
                self._compare(line)
                self._outputs += 1
            elif isinstance(line, lines.OthersPaced):
                self._others.move(line.next_at)
            elif isinstance(line, lines.DrawnBytes | lines.DrawnBits | lines.DrawnNumber):
                raise self._parted(_shown(line), "no draw")
        if isinstance(self._recording.last, lines.End):
            self._compare_end(self._recording.last)

    def result(self) -> Replay:
        recording = self._recording
        if not recording.intact:
            raise RecordingAltered(
                "the recording was altered: its checksum is wrong, although all "
                f"{self._inputs} inputs gave what is recorded",
                input=self._inputs,
            )
        return Replay(
            recording=recording,
            agent=self._agent,
            events=tuple(self._events),
            sent=tuple(self._sent),
            inputs=self._inputs,
            outputs=self._outputs,
            complete=isinstance(recording.last, lines.End),
        )

    # -- inputs -------------------------------------------------------------------------------

    def _act(self, line: lines.Input) -> None:
        self._result = None
        try:
            self._call(line)
        except (_RanOut, RecordingAltered):
            raise
        except Exception as error:
            self._result = lines.Raised(type(error).__name__, str(error))

    def _call(self, line: lines.Input) -> None:
        agent, now = self._agent, line.at
        match line:
            case lines.AddHostCandidate():
                agent.add_host_candidate(
                    line.address,
                    now,
                    local_preference=line.local_preference,
                    component=line.component,
                )
            case lines.AddRelayedCandidate():
                agent.add_relayed_candidate(
                    line.address,
                    now,
                    server=line.server,
                    mapped=line.mapped,
                    local_preference=line.local_preference,
                    component=line.component,
                )
            case lines.QueryServer():
                agent.query_server(
                    line.server, line.address, line.base, now, component=line.component
                )
            case lines.AddServerReflexiveCandidate():
                agent.add_server_reflexive_candidate(
                    line.mapped,
                    line.base,
                    now,
                    server=line.server,
                    server_address=line.server_address,
                    component=line.component,
                )
            case lines.RemoveLocalCandidate():
                agent.remove_local_candidate(line.address, now)
            case lines.SetRemoteParameters():
                agent.set_remote_parameters(
                    line.credentials,
                    now,
                    lite=line.lite,
                    ta=line.ta,
                    renomination=line.renomination,
                    start_at=line.start_at,
                )
            case lines.Restart():
                agent.restart(line.credentials, now, fresh_sockets=line.fresh_sockets)
            case lines.AddRemoteCandidate():
                agent.add_remote_candidate(line.candidate, now)
            case lines.EndOfRemoteCandidates():
                agent.end_of_remote_candidates(now)
            case lines.ReceiveDatagram():
                agent.receive_datagram(bytes.fromhex(line.data), line.source, line.local, now)
            case lines.ReceiveData():
                data = APPLICATION_DATA * line.size
                agent.receive_datagram(data, line.source, line.local, now)
            case lines.DataSent():
                agent.data_sent(now)
            case lines.DataReceived():
                agent.data_received(line.source, line.local, now)
            case lines.DataFromStranger():
                agent.data_from_stranger(line.source, line.local, now)
            case lines.ReceiveIcmpError():
                agent.receive_icmp_error(line.local, line.destination, now)
            case lines.HandleTimer():
                agent.handle_timer(now)
            case lines.Reserve():
                self._result = lines.Reserved(agent.pacer.reserve(now))
            case lines.Close():
                agent.close(now)

    # -- outputs ------------------------------------------------------------------------------

    def _compare(self, recorded: lines.Output) -> None:
        came: lines.Line | None
        match recorded:
            case lines.Sent():
                came = self._next_sent(recorded.at)
            case lines.Raised() | lines.Reserved():
                came, self._result = self._result, None
            case _:
                came = self._next_event()
        if came is None or lines.as_read(came) != recorded:
            raise self._parted(_shown(recorded), _shown(came))

    def _next_sent(self, now: float) -> lines.Sent | None:
        if not self._pending:
            self._pending.extend(self._agent.datagrams_to_send(now))
        if not self._pending:
            return None
        transmit = self._pending.popleft()
        self._sent.append((now, transmit))
        return lines.Sent(
            at=now,
            data=transmit.data.hex(),
            local=transmit.local,
            destination=transmit.destination,
        )

    def _next_event(self) -> lines.AnyEvent | None:
        event = self._agent.next_event()
        if event is None:
            return None
        self._events.append((self._began if self._now is None else self._now, event))
        return lines.line_of_event(event)

    def _nothing_more(self, *, unless: bool = False) -> None:
        """What is recorded was all, up to the next input."""
        if self._result is not None:
            raise self._parted("nothing more", _shown(self._result))
        if unless:
            return
        for came in (self._next_sent(self._now or 0.0), self._next_event()):
            if came is not None:
                raise self._parted("nothing more", _shown(came))

    def _compare_end(self, end: lines.End) -> None:
        agent = self._agent
        if self._result is not None:
            raise self._parted("nothing more", _shown(self._result))
        recorded, came = compared(end.counters), compared(agent.counters)
        pairs: list[tuple[str, object, object]] = [
            ("state", end.state.value, agent.state.value),
            ("inputs", end.inputs, self._inputs),
            ("outputs", end.outputs, self._outputs),
            ("report", end.report, agent.report()),
            ("counters", recorded, came),
        ]
        for name, there, here in pairs:
            if there != here:
                raise self._parted(f"at the end {name} {there}", f"{name} {here}")

    def _parted(self, recorded: str, came: str) -> RecordingAltered:
        when = "before the first input"
        at = None
        if self._input is not None and self._now is not None:
            at = self._now - self._began
            what = self._input.__struct_config__.tag
            when = f"after input {self._inputs} ({what}, at {at:.6f} s)"
        package = self._recording.header.package
        why = "" if package == __version__ else f"; it is of ice-punch {package}, not {__version__}"
        return RecordingAltered(
            f"the recording was altered, or the agent is another one: {when} there is "
            f"{_clipped(recorded)}, and came {_clipped(came)}{why}",
            input=self._inputs,
            at=at,
        )

    # -- randomness ---------------------------------------------------------------------------

    def randbytes(self, n: int, /) -> bytes:
        drawn = self._drawn(f"a draw of {n} bytes")
        if not isinstance(drawn, lines.DrawnBytes) or len(drawn.value) != 2 * n:
            raise self._parted(_shown(drawn), f"a draw of {n} bytes")
        return bytes.fromhex(drawn.value)

    def getrandbits(self, k: int, /) -> int:
        drawn = self._drawn(f"a draw of {k} bits")
        if not isinstance(drawn, lines.DrawnBits) or drawn.bits != k:
            raise self._parted(_shown(drawn), f"a draw of {k} bits")
        return drawn.value

    def random(self) -> float:
        drawn = self._drawn("a draw of a number")
        if not isinstance(drawn, lines.DrawnNumber):
            raise self._parted(_shown(drawn), "a draw of a number")
        return drawn.value

    def _drawn(self, wanted: str) -> lines.AnyLine:
        if self._left:
            return self._left.popleft()
        if isinstance(self._recording.last, lines.End):
            raise self._parted("the end", wanted)
        raise _RanOut


class _Others(Pacer):
    """The pacer that the agents of a process share, without the others."""

    def __init__(self, ta: float = MINIMUM_TA) -> None:
        super().__init__(ta)

    def move(self, next_at: float) -> None:
        self._next_at = next_at


def _shown(line: lines.Line | None) -> str:
    match line:
        case None:
            return "nothing"
        case lines.Sent():
            size, local, destination = len(line.data) // 2, line.local, line.destination
            way = f"from {format_address(local)} to {format_address(destination)}"
            return f"sent {line.data[:40]}..., {size} bytes {way}"
        case lines.State():
            return f"state {line.state.value} ({line.reason})"
        case _:
            return lines.encode(line)


def _clipped(text: str) -> str:
    """For one line that people read."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
