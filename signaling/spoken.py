"""Handing a link over under a spoken code, on a signaling server."""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import Callable
from ssl import SSLContext

from signaling.client import SignalingClient
from signaling.codes import NUMBERS, SpokenCode, code_room
from signaling.errors import (
    CodeNotFound,
    CodeSpent,
    InvalidLink,
    RoomFull,
    ServerUnreachable,
    SignalingError,
    WrongCode,
)
from signaling.events import PeerLeft, Rejected, SignalReceived, Unavailable, Welcomed
from signaling.handover import Guest, Host, LinkPart, Names, Reply
from signaling.link import Link
from signaling.randomness import RandomSource, base64url

SEATS = 4
"""Of a code's room: its host, its guest, and two who may have mistyped theirs."""
_DRAWS = 12
_META = '{"role":"code"}'

Token = str | Callable[[], str]


class CodeOffer:
    """Gives ``link`` to the first who knows a code. ::

        async with CodeOffer(link) as offer:
            print(offer.code)
            await offer.taken()

    The code is good once, for three tries, and until this is closed.
    """

    def __init__(
        self,
        link: Link,
        *,
        token: Token = "",
        ssl: SSLContext | None = None,
        timeout: float = 10.0,
        random: RandomSource | None = None,
    ) -> None:
        self._link = link
        self._options = {"token": token, "ssl": ssl}
        self._timeout = timeout
        self._random = random if random is not None else random_module.SystemRandom()
        self._client: SignalingClient | None = None
        self._host: Host | None = None
        self._reader: asyncio.Task[None] | None = None
        self._self_id = ""

    @property
    def code(self) -> str:
        """What to say. Known once this was entered."""
        assert self._host is not None
        return str(self._host.code)

    async def taken(self) -> None:
        """Wait until the link was handed over.

        Raises :class:`signaling.errors.CodeSpent` after the third wrong try, and what ended
        signaling before.
        """
        assert self._reader is not None
        await asyncio.shield(self._reader)

    async def __aenter__(self) -> CodeOffer:
        """Draw a code and wait under its number. Raises what ``SignalingClient.connect`` does, and
        :class:`signaling.errors.CodeNotFound` if no number is free."""
        for draw in range(_DRAWS):
            bound = NUMBERS[0] if draw < _DRAWS // 2 else NUMBERS[1]
            number = 1 + int(self._random.random() * bound)
            client = self._new_client(number)
            try:
                await client.connect(self._timeout)
                welcome = await anext(client)
            except RoomFull:
                await client.close()
                continue
            except BaseException:
                await client.close()
                raise
            if isinstance(welcome, Welcomed) and not welcome.peers:
                self._begin(client, welcome, number)
                return self
            await client.close()
        raise CodeNotFound("every number that was tried is taken: try again, or use the link")

    def _new_client(self, number: int) -> SignalingClient:
        return SignalingClient(
            self._link.websocket_url,
            code_room(number),
            meta=_META,
            max_peers=SEATS,
            random=self._random,
            **self._options,  # type: ignore[arg-type]
        )

    def _begin(self, client: SignalingClient, welcome: Welcomed, number: int) -> None:
        link = LinkPart(room=self._link.room, secret=base64url(self._link.secret))
        self._client = client
        self._host = Host(SpokenCode.create(number, self._random), link, self._random)
        self._self_id = welcome.self_id
        self._reader = asyncio.ensure_future(self._read(client, self._host))
        self._reader.add_done_callback(_look_at)

    async def __aexit__(self, *exc_info: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        if self._client is not None:
            await self._client.close()

    async def _read(self, client: SignalingClient, host: Host) -> None:
        async for event in client:
            match event:
                case Welcomed():
                    # Another may have taken the number meanwhile: then the code leads astray.
                    self._self_id = event.self_id
                    if event.peers:
                        raise CodeSpent("the code was lost with the signaling session")
                case PeerLeft(peer_id=peer_id):
                    host.forget(peer_id)
                case SignalReceived():
                    names = Names(self._self_id, event.sender, event.link)
                    replies = host.receive(names, event.kind, event.generation, event.data)
                    await _send(client, names, replies)
                    if host.state == "taken":
                        await client.close()  # what was sent goes out first
                        return
                    if host.state == "spent":
                        await client.close()
                        raise CodeSpent(
                            "somebody tried wrong codes: this one is void, listen again for another"
                        )
                case Rejected(error=error):
                    raise error
        raise ServerUnreachable("signaling ended before the code was used", "network")


async def fetch_link(
    server: str,
    code: str | SpokenCode,
    *,
    token: Token = "",
    ssl: SSLContext | None = None,
    timeout: float = 10.0,
    random: RandomSource | None = None,
) -> Link:
    """The link that waits under ``code`` on the signaling server at ``server``.

    Raises :class:`signaling.errors.InvalidCode` for a text that is no code,
    :class:`signaling.errors.CodeNotFound` if nobody offers it,
    :class:`signaling.errors.WrongCode` if its words are wrong,
    :class:`signaling.errors.CodeSpent` if it was used or guessed at, and what
    ``SignalingClient.connect`` raises.
    """
    spoken = code if isinstance(code, SpokenCode) else SpokenCode.parse(code)
    source = random if random is not None else random_module.SystemRandom()
    async with SignalingClient(
        server, spoken.room, meta=_META, max_peers=SEATS, token=token, ssl=ssl, random=source
    ) as client:
        await client.connect(timeout)
        try:
            async with asyncio.timeout(timeout):
                part = await _ask(client, spoken, source)
        except TimeoutError:
            raise CodeNotFound(f"nobody answered under number {spoken.number}") from None
        return _link(client, part)


async def _ask(client: SignalingClient, code: SpokenCode, random: RandomSource) -> LinkPart:
    guest: Guest | None = None
    names = Names("", "", base64url(random.randbytes(9)))
    nobody = CodeNotFound(
        f"nobody waits under number {code.number}: a code is good once, and only while the other "
        "side listens"
    )
    async for event in client:
        match event:
            case Welcomed():
                if not event.peers:
                    raise nobody
                host = min(event.peers, key=lambda peer: peer.order)
                names = Names(event.self_id, host.id, names.link)
                guest = Guest(code, names, random)
                await _send(client, names, [guest.begin()])
            case SignalReceived(sender=sender, link=link):
                if guest is None or (sender, link) != (names.peer_id, names.link):
                    continue
                replies = guest.receive(event.kind, event.generation, event.data)
                await _send(client, names, replies)
                if guest.link is not None:
                    return guest.link
                if guest.refusal == "spent":
                    raise CodeSpent("this code is void: it was used, or guessed at too often")
                if guest.refusal == "wrong":
                    raise WrongCode("the words of the code are wrong: ask the other side again")
            case PeerLeft(peer_id=peer_id):
                if peer_id == names.peer_id:
                    raise nobody
            case Unavailable():
                raise nobody
            case Rejected(error=error):
                raise error
    raise nobody


async def _send(client: SignalingClient, names: Names, replies: list[Reply]) -> None:
    for reply in replies:
        await client.send(names.peer_id, names.link, reply.generation, reply.kind, reply.data)


def _link(client: SignalingClient, part: LinkPart) -> Link:
    try:
        return Link.parse(f"{client.server}/j/{part.room}#{part.secret}")
    except InvalidLink as error:
        raise WrongCode(f"the other side sent no link: {error}") from None


def _look_at(task: asyncio.Task[None]) -> None:
    """An error that nobody waits for is no news for the event loop."""
    with contextlib.suppress(asyncio.CancelledError, SignalingError):
        task.result()
