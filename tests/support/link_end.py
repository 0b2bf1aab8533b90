"""Stands in a room for a WebRTC stack that knows nothing of links: it opens and seals the letters,
and leaves descriptions, candidates and channels to the stack. ``link_end.py JSON``, with

- ``link``, ``cafile``: where the room is, and who vouches for its server;
- ``command``: of the stack, which says and hears JSON, a line each; it gets the STUN server as an
  argument;
- ``waits``: whether this side is there first, so that the other one offers;
- ``lie``: whose fingerprint is another one in what it passes on, ``ours``, ``theirs`` or nobody's.

What it hears goes on to the stack, but for ``{"do": "bye", "reason": ...}``, a letter of its own;
what the stack says comes out, as ``{"event": ..., ...}``.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import subprocess
import sys
from dataclasses import replace
from typing import Any

from ice_punch.errors import IcePunchError
from ice_punch.peer.post import Candidates, Envelope, Goodbye, Letter, Offer, Post, Restart
from ice_punch.sdp import Description, Fragment, format_candidate, parse_candidate
from signaling.client import SignalingClient
from signaling.errors import SealBroken
from signaling.events import SignalReceived, Welcomed
from signaling.link import Link
from signaling.randomness import base64url
from signaling.sealing import Sealer

FINGERPRINT = re.compile(r"(a=fingerprint:sha-256 )[0-9A-F:]+", re.IGNORECASE)
ANOTHER = ":".join(["5A"] * 32)


def tell(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class LinkEnd:
    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._link = Link.parse(setup["link"])
        context = ssl.create_default_context(cafile=setup["cafile"])
        meta = json.dumps({"role": "listen" if setup["waits"] else "connect"})
        self._client = SignalingClient(
            self._link.websocket_url, self._link.wire_room, meta=meta, ssl=context
        )
        self._stack: asyncio.subprocess.Process | None = None
        self._post: Post | None = None
        self._self_id = ""
        self._local: Description | None = None
        self._known: set[str] = set()
        """Lines of the other side's candidates that the stack has."""
        self._generation = 0

    async def run(self) -> None:
        await self._client.connect(10)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_orders())
                async for event in self._client:
                    match event:
                        case Welcomed():
                            self._self_id = event.self_id
                            await self._start([u for s in event.ice_servers for u in s.urls])
                            tasks.create_task(self._hear())
                            tell("ready")
                            if not self._setup["waits"]:
                                self._begin(event.peers[0].id, base64url(random.randbytes(12)))
                                self._order("offer")
                        case SignalReceived():
                            if self._post is None:
                                self._begin(event.sender, event.link)
                            await self._take(event)
        finally:
            if self._stack is not None:
                self._stack.kill()

    # -- the stack ------------------------------------------------------------------------------

    async def _start(self, stun: list[str]) -> None:
        host, port = next(u for u in stun if u.startswith("stun:"))[5:].rsplit(":", 1)
        config = json.dumps({"stun": [host, int(port)]})
        self._stack = await asyncio.create_subprocess_exec(
            *self._setup["command"],
            config,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )

    def _order(self, command: str, **argument: Any) -> None:
        assert self._stack is not None
        assert self._stack.stdin is not None
        self._stack.stdin.write(json.dumps([command, argument]).encode() + b"\n")

    async def _pass_orders(self) -> None:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            if order["do"] == "bye":
                await self._send("bye", Goodbye(order["reason"]))
            else:
                self._order(order.pop("do"), **order)

    async def _hear(self) -> None:
        assert self._stack is not None
        assert self._stack.stdout is not None
        async for line in self._stack.stdout:
            said = json.loads(line)
            if "description" in said:
                await self._send_description(said["description"])
            elif "candidate" in said:
                await self._send_candidates(said["candidate"])
            elif "gathered" in said:
                await self._send_candidates(None)
            else:
                tell(next(iter(said)), **said)
        tell("died", code=await self._stack.wait())

    # -- letters to the other side --------------------------------------------------------------

    def _begin(self, peer_id: str, link: str) -> None:
        sealer = Sealer(self._link.secret, self._link.room)
        self._post = Post(Envelope(self._self_id, peer_id, link), sealer, self._client.send)

    async def _send(self, kind: Any, letter: Letter) -> None:
        assert self._post is not None
        await self._post.send(kind, letter, self._generation)

    async def _send_description(self, description: dict[str, str]) -> None:
        sdp = description["sdp"]
        self._local = Description.parse(sdp)
        tell("described", kind=description["type"], ufrag=self._local.ufrag, sdp=sdp)
        if self._setup["lie"] == "ours":
            sdp = FINGERPRINT.sub(rf"\g<1>{ANOTHER}", sdp)
        await self._send(description["type"], Offer(sdp, transports=("sctp",)))

    async def _send_candidates(self, line: str | None) -> None:
        """One more, or that there are no more: each fragment repeats those before it."""
        local = self._local
        assert local is not None
        candidate = parse_candidate(line) if line else None
        tell("ours", line=line)
        if candidate is not None:
            local = replace(local, candidates=(*local.candidates, candidate))
        self._local = local = replace(local, end_of_candidates=line is None)
        fragment = Fragment(
            local.ufrag, local.pwd, local.mid, local.candidates, local.end_of_candidates
        )
        await self._send("cand", Candidates(fragment.to_sdp()))

    # -- letters of the other side --------------------------------------------------------------

    async def _take(self, signal: SignalReceived) -> None:
        assert self._post is not None
        if signal.kind == "reject" and not signal.data:
            tell("wrong-secret")
            return
        try:
            letter = self._post.open(signal.kind, signal.generation, signal.data)
        except SealBroken:
            await self._post.refuse_unread()
            tell("wrong-secret")
            return
        match letter:
            case Offer():
                self._generation = signal.generation
                self._describe(signal.kind, letter.sdp)
            case Candidates():
                self._add(Fragment.parse(letter.sdpfrag))
            case Restart():
                tell("restart-asked", reason=letter.reason)
                self._generation = signal.generation
                self._order("offer")
            case Goodbye():
                tell("goodbye", kind=signal.kind, reason=letter.reason)

    def _describe(self, kind: str, sdp: str) -> None:
        if self._setup["lie"] == "theirs":
            sdp = FINGERPRINT.sub(rf"\g<1>{ANOTHER}", sdp)
        tell("told", kind=kind, generation=self._generation)
        self._order("describe", type=kind, sdp=sdp)

    def _add(self, fragment: Fragment) -> None:
        for candidate in fragment.candidates:
            line = format_candidate(candidate)
            if line not in self._known:
                self._known.add(line)
                tell("theirs", line=line)
                self._order("candidate", line=line, mid=fragment.mid)


if __name__ == "__main__":
    try:
        asyncio.run(LinkEnd(json.loads(sys.argv[1])).run())
    except IcePunchError as error:
        tell("failed", why=str(error))
