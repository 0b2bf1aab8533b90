"""What the lines of a recording say: one JSON object each, told apart by ``what``."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

import msgspec

from ice_punch.datagram import Address
from ice_punch.ice import (
    MINIMUM_TA,
    AgentConfig,
    Candidate,
    CandidatePair,
    Credentials,
    Event,
    FailureCause,
    IceState,
    LocalCandidateFound,
    PatientPolicy,
    RestartAdvised,
    SelectedPairChanged,
    ServerQueryEnded,
    StateChanged,
    events,
)
from ice_punch.report import PairReport, Report, ServerReport

FORMAT_VERSION = 2
MAX_LINE = 1 << 20
"""Characters. A datagram has at most 65,535 bytes, in hexadecimal; a report is shorter still."""

LATEST = 1e12
"""Seconds. Of later times a float can not tell the milliseconds apart."""


class Line(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="what"
):
    """One line. Addresses are ``[ip, port]``, times seconds of the session's own clock, datagrams
    hexadecimal."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``PatientPolicy``. Times in seconds."""

    round_trips: float
    shortest: float
    longest: float

    @classmethod
    def of(cls, policy: PatientPolicy) -> Policy:
        return cls(policy.round_trips, policy.shortest, policy.longest)

    def make(self) -> PatientPolicy:
        return PatientPolicy(
            round_trips=self.round_trips, shortest=self.shortest, longest=self.longest
        )


class Header(Line, tag="recording", kw_only=True, frozen=True):
    """The first line: how the agent was made."""

    version: int
    package: str
    """The version of ice-punch that recorded."""
    controlling: bool
    credentials: Credentials
    config: AgentConfig
    policy: Policy
    common_ta: float = MINIMUM_TA
    """Seconds: the distance that the agents of the process kept among each other."""
    redacted: bool = False
    """Whether addresses and names were replaced. Passwords always are."""
    started: str = ""
    """The date, for people."""


# Inputs


class Input(Line, kw_only=True, frozen=True):
    """A call of the agent. ``waiting``: not everything was fetched that came of the calls before
    it."""

    at: float
    waiting: bool = False


class AddHostCandidate(Input, tag="add_host_candidate", kw_only=True, frozen=True):
    address: Address
    local_preference: int = 65535
    component: int = 1


class AddRelayedCandidate(Input, tag="add_relayed_candidate", kw_only=True, frozen=True):
    address: Address
    server: str
    mapped: Address | None = None
    local_preference: int = 65535
    component: int = 1


class QueryServer(Input, tag="query_server", kw_only=True, frozen=True):
    server: str
    address: Address
    base: Address
    component: int = 1


class AddServerReflexiveCandidate(
    Input, tag="add_server_reflexive_candidate", kw_only=True, frozen=True
):
    mapped: Address
    base: Address
    server: str
    server_address: Address
    component: int = 1


class RemoveLocalCandidate(Input, tag="remove_local_candidate", kw_only=True, frozen=True):
    address: Address


class SetRemoteParameters(Input, tag="set_remote_parameters", kw_only=True, frozen=True):
    credentials: Credentials
    lite: bool = False
    ta: float | None = None
    renomination: bool = False
    start_at: float | None = None


class Restart(Input, tag="restart", kw_only=True, frozen=True):
    credentials: Credentials
    fresh_sockets: bool = False


class AddRemoteCandidate(Input, tag="add_remote_candidate", kw_only=True, frozen=True):
    candidate: Candidate


class EndOfRemoteCandidates(Input, tag="end_of_remote_candidates", kw_only=True, frozen=True):
    pass


class ReceiveDatagram(Input, tag="receive_datagram", kw_only=True, frozen=True):
    data: str
    source: Address
    local: Address


class ReceiveData(Input, tag="receive_data", kw_only=True, frozen=True):
    """``receive_datagram`` with what is not STUN: of application data only the size is told."""

    size: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    source: Address
    local: Address


class DataSent(Input, tag="data_sent", kw_only=True, frozen=True):
    """Application data has left, once for many datagrams."""


class DataReceived(Input, tag="data_received", kw_only=True, frozen=True):
    """Application data came past the agent, once for many datagrams."""

    source: Address
    local: Address


class DataFromStranger(Input, tag="data_from_stranger", kw_only=True, frozen=True):
    source: Address
    local: Address


class ReceiveIcmpError(Input, tag="receive_icmp_error", kw_only=True, frozen=True):
    local: Address
    destination: Address


class HandleTimer(Input, tag="handle_timer", kw_only=True, frozen=True):
    pass


class Reserve(Input, tag="reserve", kw_only=True, frozen=True):
    """Somebody else, a relay request mostly, took a slot of the agent's pacer."""


class Close(Input, tag="close", kw_only=True, frozen=True):
    pass


# What else the agent saw


class DrawnBytes(Line, tag="drawn_bytes", frozen=True):
    """A random draw of the agent, within the input above."""

    value: str


class DrawnBits(Line, tag="drawn_bits", frozen=True):
    bits: int
    value: int


class DrawnNumber(Line, tag="drawn_number", frozen=True):
    value: float


class OthersPaced(Line, tag="others_paced", frozen=True):
    """Other agents of the process moved the next free slot of their common pacer."""

    next_at: float


# Outputs


class Output(Line, frozen=True):
    """What came of the inputs above."""


class Sent(Output, tag="sent", kw_only=True, frozen=True):
    at: float
    data: str
    local: Address
    destination: Address


class Reserved(Output, tag="reserved", frozen=True):
    slot: float


class Raised(Output, tag="raised", frozen=True):
    error: str
    message: str


class State(Output, tag="state", frozen=True):
    state: IceState
    reason: str
    cause: FailureCause | None = None


class LocalCandidate(Output, tag="local_candidate", frozen=True):
    candidate: Candidate


class QueryEnded(Output, tag="query_ended", frozen=True):
    base: Address
    report: ServerReport


class Selected(Output, tag="selected", kw_only=True, frozen=True):
    base: Address
    remote: Candidate
    priority: int
    report: PairReport
    reason: str = ""


class Advised(Output, tag="advised", kw_only=True, frozen=True):
    """An ICE restart was advised."""

    reason: str
    fresh_sockets: bool = False


class Data(Output, tag="data", kw_only=True, frozen=True):
    """Application data was handed out."""

    size: int
    local: Address
    source: Address


# Notes for people; a replay does not need them


class InterfaceNote(Line, tag="interface", frozen=True):
    """The interface behind a base."""

    base: Address
    name: str


class ServerNote(Line, tag="server", frozen=True):
    """What came of a server that the agent does not know of."""

    report: ServerReport


class FailureNote(Line, tag="failure", frozen=True):
    """What the user was told."""

    error: str
    message: str


# The last line


class Last(Line, kw_only=True, frozen=True):
    """Followed by ``sha256``, over everything before it."""

    inputs: int
    outputs: int


class End(Last, tag="end", kw_only=True, frozen=True):
    """The session ended, or whoever recorded had enough."""

    state: IceState
    report: Report
    counters: dict[str, int]


class Stopped(Last, tag="stopped", kw_only=True, frozen=True):
    """The session went on and the recording did not."""

    reason: str


AnyLine = (
    Header
    | AddHostCandidate
    | AddRelayedCandidate
    | QueryServer
    | AddServerReflexiveCandidate
    | RemoveLocalCandidate
    | SetRemoteParameters
    | Restart
    | AddRemoteCandidate
    | EndOfRemoteCandidates
    | ReceiveDatagram
    | ReceiveData
    | DataSent
    | DataReceived
    | DataFromStranger
    | ReceiveIcmpError
    | HandleTimer
    | Reserve
    | Close
    | DrawnBytes
    | DrawnBits
    | DrawnNumber
    | OthersPaced
    | Sent
    | Reserved
    | Raised
    | State
    | LocalCandidate
    | QueryEnded
    | Selected
    | Advised
    | Data
    | InterfaceNote
    | ServerNote
    | FailureNote
    | End
    | Stopped
)
AnyEvent = State | LocalCandidate | QueryEnded | Selected | Advised | Data

L = TypeVar("L", bound=Line)


def encode(line: Line) -> str:
    """One line of text, ASCII, without its line break."""
    return json.dumps(msgspec.to_builtins(line), separators=(",", ":"))


def decode(text: str) -> AnyLine:
    """Raises ValueError (``msgspec.ValidationError`` and ``JSONDecodeError`` are) for what is no
    line of a recording."""
    try:
        line: AnyLine = msgspec.convert(json.loads(text, parse_constant=_constant), AnyLine)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(line, Input | Sent) and not abs(line.at) <= LATEST:
        raise ValueError("there is no such time")
    return line


def _constant(name: str) -> float:
    """A patience may be infinite; an agent that reckons with NaN comes to no end."""
    if name == "NaN":
        raise ValueError("NaN is no number")
    return float(name)


def as_read(line: L) -> L:
    """The line as it will be after it was written and read."""
    return msgspec.convert(json.loads(encode(line)), type(line))


def line_of_event(event: Event) -> AnyEvent:
    match event:
        case StateChanged():
            return State(event.state, event.reason, event.cause)
        case LocalCandidateFound():
            return LocalCandidate(event.candidate)
        case ServerQueryEnded():
            return QueryEnded(event.base, event.report)
        case SelectedPairChanged():
            return _selected(event.pair, event.reason)
        case RestartAdvised():
            return Advised(reason=event.reason, fresh_sockets=event.fresh_sockets)
        case events.DataReceived():
            return Data(size=len(event.data), local=event.local, source=event.source)


def _selected(pair: CandidatePair, reason: str) -> Selected:
    return Selected(
        base=pair.base,
        remote=pair.remote,
        priority=pair.priority,
        report=pair.report(),
        reason=reason,
    )
