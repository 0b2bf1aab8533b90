"""An agent whose every input is written down before it acts on it, and every output after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import (
    MINIMUM_TA,
    Agent,
    AgentConfig,
    Candidate,
    Credentials,
    Event,
    Pacer,
    PatientPolicy,
    resembles_stun,
)
from ice_punch.recording import lines
from ice_punch.recording.recorder import Recorder
from ice_punch.version import __version__


class RecordedAgent(Agent):
    """Does exactly what an ``Agent`` with the same arguments does.

    ``end_recording`` writes the last line; a recording without it counts as cut short.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        recorder: Recorder,
        config: AgentConfig | None = None,
        policy: PatientPolicy | None = None,
        common: Pacer | None = None,
    ) -> None:
        """``common`` is the pacer that the agents of the process share."""
        config, policy = config or AgentConfig(), policy or PatientPolicy()
        self._recorder = recorder
        self._common = Pacer(MINIMUM_TA) if common is None else common
        self._common_at = float("-inf")
        self._acting = False
        self._fetched_events = self._fetched_datagrams = True
        recorder.write(
            lines.Header(
                version=lines.FORMAT_VERSION,
                package=__version__,
                controlling=controlling,
                credentials=credentials,
                config=config,
                policy=lines.Policy.of(policy),
                common_ta=self._common.ta,
                redacted=recorder.redaction.replaces_addresses,
                started=recorder.started,
            )
        )
        super().__init__(
            controlling=controlling,
            credentials=credentials,
            random=_RecordedRandom(random, recorder),
            config=config,
            policy=policy,
            pacer=_RecordedPacer(self, config.ta, self._common),
        )

    def end_recording(self) -> None:
        """Whatever comes now is not recorded. May be called again."""
        self._recorder.end(self.state, self.report(), self.counters)

    @contextlib.contextmanager
    def recorded(self, line: lines.Input) -> Iterator[None]:
        """The block is what happens on this input."""
        recorder = self._recorder
        if not recorder.open or self._acting:
            yield
            return
        if self._common.next_at != self._common_at:
            recorder.write(lines.OthersPaced(self._common.next_at))
        if not (self._fetched_events and self._fetched_datagrams):
            line = msgspec.structs.replace(line, waiting=True)
        recorder.write(line)
        self._acting = True
        self._fetched_events = self._fetched_datagrams = False
        try:
            yield
        except Exception as error:
            recorder.write(lines.Raised(type(error).__name__, str(error)))
            raise
        finally:
            self._acting = False
            self._common_at = self._common.next_at

    # -- inputs -------------------------------------------------------------------------------

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None:
        line = lines.AddHostCandidate(
            at=now,
            address=address,
            local_preference=local_preference,
            component=component,
        )
        with self.recorded(line):
            return super().add_host_candidate(
                address, now, local_preference=local_preference, component=component
            )

    def add_relayed_candidate(
        self,
        address: Address,
        now: float,
        *,
        server: str,
        mapped: Address | None = None,
        local_preference: int = 65535,
        component: int = 1,
    ) -> Candidate | None:
        line = lines.AddRelayedCandidate(
            at=now,
            address=address,
            server=server,
            mapped=mapped,
            local_preference=local_preference,
            component=component,
        )
        with self.recorded(line):
            return super().add_relayed_candidate(
                address,
                now,
                server=server,
                mapped=mapped,
                local_preference=local_preference,
                component=component,
            )

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None:
        line = lines.QueryServer(
            at=now,
            server=server,
            address=address,
            base=base,
            component=component,
        )
        with self.recorded(line):
            super().query_server(server, address, base, now, component=component)

    def add_server_reflexive_candidate(
        self,
        mapped: Address,
        base: Address,
        now: float,
        *,
        server: str,
        server_address: Address,
        component: int = 1,
    ) -> None:
        line = lines.AddServerReflexiveCandidate(
            at=now,
            mapped=mapped,
            base=base,
            server=server,
            server_address=server_address,
            component=component,
        )
        with self.recorded(line):
            super().add_server_reflexive_candidate(
                mapped,
                base,
                now,
                server=server,
                server_address=server_address,
                component=component,
            )

    def remove_local_candidate(self, address: Address, now: float) -> None:
        with self.recorded(lines.RemoveLocalCandidate(at=now, address=address)):
            super().remove_local_candidate(address, now)

    def set_remote_parameters(
        self,
        credentials: Credentials,
        now: float,
        *,
        lite: bool = False,
        ta: float | None = None,
        renomination: bool = False,
        start_at: float | None = None,
    ) -> None:
        line = lines.SetRemoteParameters(
            at=now,
            credentials=credentials,
            lite=lite,
            ta=ta,
            renomination=renomination,
            start_at=start_at,
        )
        with self.recorded(line):
            super().set_remote_parameters(
                credentials,
                now,
                lite=lite,
                ta=ta,
                renomination=renomination,
                start_at=start_at,
            )

    def restart(self, credentials: Credentials, now: float, *, fresh_sockets: bool = False) -> None:
        line = lines.Restart(at=now, credentials=credentials, fresh_sockets=fresh_sockets)
        with self.recorded(line):
            super().restart(credentials, now, fresh_sockets=fresh_sockets)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        line = lines.AddRemoteCandidate(at=now, candidate=candidate)
        with self.recorded(line):
            super().add_remote_candidate(candidate, now)

    def end_of_remote_candidates(self, now: float) -> None:
        with self.recorded(lines.EndOfRemoteCandidates(at=now)):
            super().end_of_remote_candidates(now)

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        line: lines.Input
        if resembles_stun(data):
            line = lines.ReceiveDatagram(at=now, data=data.hex(), source=source, local=local)
        else:
            line = lines.ReceiveData(at=now, size=len(data), source=source, local=local)
        with self.recorded(line):
            super().receive_datagram(data, source, local, now)

    def data_sent(self, now: float) -> None:
        with self.recorded(lines.DataSent(at=now)):
            super().data_sent(now)

    def data_received(self, source: Address, local: Address, now: float) -> None:
        with self.recorded(lines.DataReceived(at=now, source=source, local=local)):
            super().data_received(source, local, now)

    def data_from_stranger(self, source: Address, local: Address, now: float) -> None:
        with self.recorded(lines.DataFromStranger(at=now, source=source, local=local)):
            super().data_from_stranger(source, local, now)

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        line = lines.ReceiveIcmpError(at=now, local=local, destination=destination)
        with self.recorded(line):
            super().receive_icmp_error(local, destination, now)

    def handle_timer(self, now: float) -> None:
        with self.recorded(lines.HandleTimer(at=now)):
            super().handle_timer(now)

    def close(self, now: float) -> None:
        with self.recorded(lines.Close(at=now)):
            super().close(now)

    # -- outputs ------------------------------------------------------------------------------

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        sent = super().datagrams_to_send(now)
        self._fetched_datagrams = True
        for data, local, destination in sent:
            self._recorder.write(
                lines.Sent(at=now, data=data.hex(), local=local, destination=destination)
            )
        return sent

    def next_event(self) -> Event | None:
        event = super().next_event()
        if event is None:
            self._fetched_events = True
        else:
            self._recorder.write(lines.line_of_event(event))
        return event

    # -- what it draws on ---------------------------------------------------------------------

    def reserved(self, now: float, reserve: Callable[[float], float]) -> float:
        """A slot of the pacer is taken, by this agent or by a relay request."""
        if self._acting:
            return reserve(now)
        with self.recorded(lines.Reserve(at=now)):
            slot = reserve(now)
            self._recorder.write(lines.Reserved(slot))
            return slot


class _RecordedPacer(Pacer):
    def __init__(self, agent: RecordedAgent, ta: float, common: Pacer) -> None:
        super().__init__(ta, common=common)
        self._agent = agent

    def reserve(self, now: float) -> float:
        return self._agent.reserved(now, super().reserve)


class _RecordedRandom:
    """Passes on what ``source`` gives, and writes it down."""

    def __init__(self, source: RandomSource, recorder: Recorder) -> None:
        self._source = source
        self._recorder = recorder

    def randbytes(self, n: int, /) -> bytes:
        drawn = self._source.randbytes(n)
        self._recorder.write(lines.DrawnBytes(drawn.hex()))
        return drawn

    def getrandbits(self, k: int, /) -> int:
        drawn = self._source.getrandbits(k)
        self._recorder.write(lines.DrawnBits(k, drawn))
        return drawn

    def random(self) -> float:
        drawn = self._source.random()
        self._recorder.write(lines.DrawnNumber(drawn))
        return drawn
