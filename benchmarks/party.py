"""One side of a session, in its own process: reads commands and prints answers, a JSON line each.

{"do": "gather", "stack": ..., "controlling": ..., "servers": [[ip, port], ...],
 "relay": [ip, port, user, password] or null}
{"do": "connect", "remote": SDP, "at": moment of the monotonic clock, "patience": seconds}
{"do": "exchange"}
{"do": "stay", "seconds": ...}
{"do": "close"}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Protocol

import aioice

from ice_punch import IceConnection
from ice_punch.datagram import Address
from ice_punch.errors import IcePunchError
from ice_punch.ice import Candidate, CandidateType, IceState, SelectedPairChanged, StateChanged
from ice_punch.net.ice_server import IceServer
from ice_punch.sdp import Description

Answer = dict[str, Any]
Servers = list[tuple[str, int]]
Relay = tuple[str, int, str, str]
GIVE_UP = 90.0
"""Seconds, unless told otherwise."""
EXCHANGE_TIMEOUT = 2.0
HELLO = b"hello, peer"


class Side(Protocol):
    """What both stacks have to offer."""

    connection: Any

    async def gather(self) -> Answer: ...
    async def connect(self, remote: str, patience: float = GIVE_UP) -> Answer: ...
    async def exchange(self) -> Answer: ...
    async def ended(self) -> None: ...
    async def close(self) -> None: ...


class IcePunch:
    def __init__(self, controlling: bool, servers: Servers, relay: Relay | None = None) -> None:
        asked = [IceServer.parse(f"stun:{ip}:{port}") for ip, port in servers]
        if relay is not None:
            ip, port, user, password = relay
            asked.append(IceServer.parse(f"turn:{ip}:{port}", user, password))
        self.connection = IceConnection(controlling=controlling, ice_servers=asked)
        self._selected = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._wait_for_nomination())

    async def _wait_for_nomination(self) -> None:
        async for event in self.connection.events():
            if isinstance(event, SelectedPairChanged) and not self._selected.done():
                self._selected.set_result(time.monotonic())

    async def gather(self) -> Answer:
        began = time.monotonic()
        found = []
        async for candidate in self.connection.gather():
            found.append((time.monotonic() - began, candidate.type.value))
        ended = time.monotonic() - began
        return {"found": found, "ended": ended, "description": self.connection.local_description}

    async def connect(self, remote: str, patience: float = GIVE_UP) -> Answer:
        end = time.monotonic() + patience
        self.connection.set_remote_description(remote)
        await self.connection.connect(patience)
        connected = time.monotonic()
        nominated = await asyncio.wait_for(self._selected, end - time.monotonic())
        return {"connected": connected, "nominated": nominated}

    async def exchange(self) -> Answer:
        await self.connection.send(HELLO)
        heard = await _hello_comes(self.connection)
        pair = self.connection.selected_pair
        assert pair is not None
        return {
            "heard": heard,
            "local": (pair.mapped or pair.local).address,
            "remote": pair.remote.address,
            "relayed": pair.relayed,
            "valid_since": pair.valid_since,
        }

    async def ended(self) -> None:
        async for event in self.connection.events():
            if isinstance(event, StateChanged) and event.state is IceState.FAILED:
                return

    async def close(self) -> None:
        await self.connection.close()
        await self._watch


class Aioice:
    def __init__(self, controlling: bool, servers: Servers, relay: Relay | None = None) -> None:
        ip, port, user, password = relay or (None, None, None, None)
        self.connection = aioice.Connection(
            ice_controlling=controlling,
            stun_server=servers[0] if servers else None,  # it takes one
            turn_server=None if ip is None or port is None else (ip, port),
            turn_username=user,
            turn_password=password,
        )
        self._heard_from: Address | None = None

    async def gather(self) -> Answer:
        began = time.monotonic()
        await self.connection.gather_candidates()
        ended = time.monotonic() - began
        for protocol in self.connection._protocols:
            self._note_the_source(protocol)
        # Nothing can be seen of it before it ends.
        found = [(ended, candidate.type) for candidate in self.connection.local_candidates]
        return {"found": found, "ended": ended, "description": describe(self.connection)}

    def _note_the_source(self, protocol: Any) -> None:
        """Where the peer's greeting comes from: aioice does not tell. It is the only one to see how
        a NAT maps what aioice sends to it."""
        receive = protocol.datagram_received

        def receive_and_note(data: bytes, source: tuple[Any, ...]) -> None:
            if data == HELLO:
                self._heard_from = (source[0], source[1])
            receive(data, source)

        protocol.datagram_received = receive_and_note

    async def connect(self, remote: str, patience: float = GIVE_UP) -> Answer:
        description = Description.parse(remote)
        self.connection.remote_username = description.ufrag
        self.connection.remote_password = description.pwd
        for candidate in description.candidates:
            await self.connection.add_remote_candidate(_theirs(candidate))
        await self.connection.add_remote_candidate(None)
        await asyncio.wait_for(self.connection.connect(), patience)
        connected = time.monotonic()
        return {"connected": connected, "nominated": connected}

    async def exchange(self) -> Answer:
        await self.connection.send(HELLO)
        heard = await _hello_comes(self.connection)
        pair = self.connection._nominated[1]
        return {
            "heard": heard,
            "heard_from": self._heard_from,
            "remote": pair.remote_addr,
            "relayed": "relay" in (pair.local_candidate.type, pair.remote_candidate.type),
        }

    async def ended(self) -> None:
        await self.connection.get_event()

    async def close(self) -> None:
        await self.connection.close()


STACKS: dict[str, type[IcePunch] | type[Aioice]] = {"ice-punch": IcePunch, "aioice": Aioice}


async def _hello_comes(connection: IceConnection | aioice.Connection) -> bool:
    try:
        return await asyncio.wait_for(connection.recv(), EXCHANGE_TIMEOUT) == HELLO
    except TimeoutError:
        return False


def describe(connection: aioice.Connection) -> str:
    """The description of an aioice connection that has gathered."""
    return Description(
        ufrag=connection.local_username,
        pwd=connection.local_password,
        options=(),
        protocol="UDP",
        formats=("octet-stream",),
        candidates=tuple(map(_ours, connection.local_candidates)),
        end_of_candidates=True,
    ).to_sdp()


def _ours(candidate: aioice.Candidate) -> Candidate:
    related = None
    if candidate.related_address is not None and candidate.related_port is not None:
        related = (candidate.related_address, candidate.related_port)
    return Candidate(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=candidate.host,
        port=candidate.port,
        type=CandidateType(candidate.type),
        related_address=related,
    )


def _theirs(candidate: Candidate) -> aioice.Candidate:
    related = candidate.related_address
    return aioice.Candidate(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=candidate.host,
        port=candidate.port,
        type=candidate.type.value,
        related_address=related[0] if related else None,
        related_port=related[1] if related else None,
    )


async def obey() -> None:
    loop = asyncio.get_running_loop()
    side: Side | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer: Answer = {}
        if command["do"] == "gather":
            servers = [(ip, port) for ip, port in command["servers"]]
            side = STACKS[command["stack"]](command["controlling"], servers, command.get("relay"))
            answer = await side.gather()
        elif side is not None and command["do"] == "connect":
            await asyncio.sleep(command["at"] - time.monotonic())
            answer = {"began": time.monotonic()}
            try:
                answer |= await side.connect(command["remote"], command.get("patience", GIVE_UP))
            except (IcePunchError, ConnectionError, TimeoutError) as error:
                answer["failed"] = f"{type(error).__name__}: {error}"
        elif side is not None and command["do"] == "exchange":
            answer = await side.exchange()
        elif side is not None and command["do"] == "stay":
            began = time.monotonic()
            try:
                await asyncio.wait_for(side.ended(), command["seconds"])
                answer = {"lasted": time.monotonic() - began}
            except TimeoutError:
                answer = {"lasted": None}
        elif side is not None:
            await side.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(obey())
