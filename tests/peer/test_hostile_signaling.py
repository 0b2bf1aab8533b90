"""Peers and servers that lie: with the secret, without it, and in between."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

import ice_punch
from ice_punch import (
    ChannelClosed,
    IcePunchError,
    NoRoute,
    PeerSilent,
    SignalingFailed,
    WrongSecret,
)
from ice_punch.channel import Channel
from ice_punch.diagnosis import Cause, Side
from ice_punch.peer.attempt import MAX_EARLY_FRAGMENTS, Attempt
from ice_punch.peer.connector import Connector
from ice_punch.peer.listener import MAX_ATTEMPTS_PER_PEER, MAX_REFUSALS, Listener
from ice_punch.peer.post import Candidates, Envelope, Goodbye, Offer, Post
from ice_punch.sdp import Description, Fragment
from signaling.client import SignalingClient
from signaling.errors import SessionReplaced
from signaling.events import SignalReceived, Unavailable, Welcomed
from signaling.hall import Hall
from signaling.link import Link
from signaling.member import Member
from signaling.messages import ErrorCode, Kind, SendSignal
from signaling.sealing import Sealer
from support.leaks import nothing_left_behind
from support.loopback import OPTIONS, signaling

PLAIN = replace(OPTIONS, encrypt=False)
SECRET = b"sixteen bytes ok"
KINDS: tuple[Kind, ...] = ("offer", "answer", "cand", "restart", "reject", "bye")


async def _accept(listener: Listener) -> Channel:
    return await listener.accept()


async def _connect(link: str, options: ice_punch.PeerOptions = OPTIONS) -> Channel:
    return await ice_punch.connect(link, options)


async def _serves(listener: Listener) -> None:
    """The listener still takes an honest peer; failures of hostile ones may come before."""
    connecting = asyncio.ensure_future(_connect(listener.link))
    while True:
        try:
            accepted = await asyncio.wait_for(_accept(listener), 5)
            break
        except IcePunchError:
            continue
    channel = await connecting
    await channel.send(b"honest")
    assert await asyncio.wait_for(accepted.recv(), 2) == b"honest"
    await channel.close()
    await accepted.close()


class Intruder:
    """A member of the room that speaks only the protocol of signaling."""

    def __init__(self, link: str, *, secret: bytes | None = None, role: str = "connect") -> None:
        self.link = Link.parse(link)
        self.sealer = Sealer(secret or self.link.secret, self.link.room)
        self.client = SignalingClient(
            self.link.websocket_url, self.link.wire_room, meta=f'{{"role":"{role}"}}'
        )
        self.peer_id = ""
        self.events: list[Any] = []

    async def __aenter__(self) -> Intruder:
        await self.client.connect()
        welcome = await anext(self.client)
        assert isinstance(welcome, Welcomed)
        self.peer_id = welcome.peers[0].id if welcome.peers else ""
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def _read(self) -> None:
        async for event in self.client:
            self.events.append(event)

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self.client.close()

    def post(self, link: str) -> Post:
        return Post(
            Envelope(self.client.self_id, self.peer_id, link), self.sealer, self.client.send
        )

    async def seal(self, kind: Kind, text: str, link: str) -> None:
        sealed = self.sealer.seal(
            text, sender=self.client.self_id, to=self.peer_id, link=link, generation=0, kind=kind
        )
        await self.client.send(self.peer_id, link, 0, kind, sealed)

    def kinds(self) -> list[tuple[str, str]]:
        return [(e.kind, e.link) for e in self.events if isinstance(e, SignalReceived)]


def _offer() -> Offer:
    fingerprint = "sha-256 " + ":".join(["AB"] * 32)
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    lines += ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:0"]
    lines += ["a=ice-ufrag:abcdefgh", "a=ice-pwd:" + "p" * 24, "a=setup:actpass"]
    lines += [f"a=fingerprint:{fingerprint}", "a=ice-options:trickle ice2"]
    return Offer("".join(line + "\r\n" for line in lines))


@contextlib.contextmanager
def lying_server(
    lie: Callable[[SendSignal], list[SendSignal]],
) -> Iterator[list[tuple[Member, SendSignal]]]:
    """Every server of this process passes on what ``lie`` makes of a signal."""
    relay, relayed = Hall.relay, []

    def lying(hall: Hall, member: Member, signal: SendSignal) -> Any:
        relayed.append((member, signal))
        result: Any = "delivered"
        for told in lie(signal):
            result = relay(hall, member, told)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hall, "relay", lying)
        yield relayed


# -- a peer without the secret --------------------------------------------------------------------


def test_a_flood_without_the_secret_is_refused_once_and_fills_nothing() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            ice_punch.listen(url, OPTIONS) as listener,
            Intruder(listener.link, secret=b"not the secret..") as intruder,
        ):
            for number in range(50):
                await intruder.post(f"link{number}").send("offer", _offer())
            await intruder.client.send(intruder.peer_id, "x", 0, "offer", "")
            await intruder.client.send(intruder.peer_id, "x", 7, "cand", "\u0000\ud7ff" * 99)
            async with asyncio.timeout(3):
                while not intruder.kinds():
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert intruder.kinds() == [("reject", "link0")]
            assert listener.refused == 1
            assert not listener._attempts
            assert len(listener._tasks) <= MAX_REFUSALS
            await _serves(listener)

    asyncio.run(run())


def test_refusals_are_bounded_while_signaling_is_stuck() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:

            async def stuck(*_: object) -> int:
                await asyncio.sleep(60)
                return 0

            listener._client.send = stuck  # type: ignore[method-assign]
            for number in range(500):
                listener._receive(SignalReceived(f"peer{number}", "link", 0, "offer", "junk"))
            assert len(listener._tasks) == MAX_REFUSALS
            assert listener.refused == 500

    asyncio.run(run())


def test_a_false_listener_without_the_secret_gets_nothing_out_of_a_connector() -> None:
    async def run() -> None:
        async with signaling() as url:
            link = f"{url}/j/" + "C" * 22 + "#" + "A" * 22
            async with Intruder(link, secret=b"not the secret..", role="listen") as intruder:
                connecting = asyncio.ensure_future(_connect(link))
                while not intruder.kinds():
                    await asyncio.sleep(0.01)
                offer = next(e for e in intruder.events if isinstance(e, SignalReceived))
                assert "ufrag" not in offer.data
                intruder.peer_id = offer.sender
                await intruder.post(offer.link).send("answer", _offer())
                with pytest.raises(WrongSecret):
                    await connecting

    asyncio.run(run())


# -- a peer with the secret -----------------------------------------------------------------------


def test_sealed_nonsense_ends_the_attempt_it_is_part_of_and_no_listener() -> None:
    rng = random.Random(4)
    good = msgspec.json.encode(_offer()).decode()

    def nonsense() -> str:
        text = list(rng.choice([good, '{"sdpfrag": "a=ice-ufrag:x"}', '{"reason": "bye"}']))
        for _ in range(rng.randrange(1, 30)):
            text[rng.randrange(len(text))] = chr(rng.choice([*range(128), 0x2028, 0x1F600]))
        return "".join(text[: rng.randrange(1, len(text) + 1)])

    async def run() -> None:
        async with (
            signaling() as url,
            nothing_left_behind(),
            ice_punch.listen(url, OPTIONS) as listener,
            Intruder(listener.link) as intruder,
        ):
            # Most of it past the server, whose rate limit would make this test slow.
            for number in range(2000):
                kind = rng.choice(KINDS)
                text = "[" * 5000 if number % 100 == 0 else nonsense()
                link = f"link{rng.randrange(6)}"
                sealed = intruder.sealer.seal(
                    text,
                    sender="intruder",
                    to=listener._self_id,
                    link=link,
                    generation=0,
                    kind=kind,
                )
                listener._receive(SignalReceived("intruder", link, 0, kind, sealed))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            for kind in KINDS:
                await intruder.seal(kind, "{}", "another")
                await intruder.seal(kind, '{"sdp": 1}', "another")
            await _serves(listener)

    asyncio.run(run())


def test_one_peer_can_not_take_all_places() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            nothing_left_behind(),
            ice_punch.listen(url, OPTIONS) as listener,
        ):
            async with Intruder(listener.link) as intruder:
                for number in range(20):
                    await intruder.post(f"link{number}").send("offer", _offer())
                async with asyncio.timeout(5):
                    while sum(kind == "reject" for kind, _ in intruder.kinds()) < 16:
                        await asyncio.sleep(0.01)
                assert len(listener._attempts) == MAX_ATTEMPTS_PER_PEER
                await _serves(listener)
            for _ in range(MAX_ATTEMPTS_PER_PEER):
                with pytest.raises(PeerSilent, match="left"):
                    await asyncio.wait_for(_accept(listener), 2)

    asyncio.run(run())


def test_a_reason_of_the_peers_can_not_write_to_the_terminal() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            ice_punch.listen(url, OPTIONS) as listener,
            Intruder(listener.link) as intruder,
        ):
            post = intruder.post("link")
            await post.send("offer", _offer())
            await post.send("bye", Goodbye("\x1b]0;owned\x07\r\n" + "x" * 5000))
            with pytest.raises(NoRoute, match="the peer gave up") as caught:
                await asyncio.wait_for(_accept(listener), 2)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 300

    asyncio.run(run())


@pytest.mark.parametrize(
    ("goodbye", "cause", "says"),
    [
        (
            Goodbye("", "udp-blocked", "here"),
            (Cause.UDP_BLOCKED, Side.THERE),
            "the peer gave up: UDP is blocked on the peer's side; let UDP out there",
        ),
        (
            Goodbye("turn:r rejected\x07 us", "relay-refused", "here"),
            (Cause.RELAY_REFUSED, Side.THERE),
            "a TURN server refused the peer (turn:r rejected? us); see what the other side says",
        ),
        (Goodbye("tea is ready", "no such cause", "here"), None, "the peer gave up: tea is ready"),
        (Goodbye("tea is ready", "udp-blocked", "elsewhere"), None, "gave up: tea is ready"),
        (Goodbye("", "x" * 5000, "x" * 5000), None, "the peer gave up"),
    ],
)
def test_a_peer_that_gives_up_may_say_why(
    goodbye: Goodbye, cause: tuple[Cause, Side] | None, says: str
) -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            ice_punch.listen(url, OPTIONS) as listener,
            Intruder(listener.link) as intruder,
        ):
            post = intruder.post("link")
            await post.send("offer", _offer())
            await post.send("bye", goodbye)
            with pytest.raises(NoRoute, match="the peer gave up") as caught:
                await asyncio.wait_for(_accept(listener), 2)
            error = caught.value
            assert says in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 500
            found = error.diagnosis
            assert (None if found is None else (found.cause, found.side)) == cause

    asyncio.run(run())


def test_errors_nobody_accepts_are_bounded_and_push_out_no_channel() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            channel = await _connect(listener.link)
            while not listener._results:
                await asyncio.sleep(0.01)
            for number in range(500):
                listener._offer_result(NoRoute(str(number)))
            assert len(listener._results) <= 64
            accepted = await listener.accept()
            await accepted.send(b"kept")
            assert await asyncio.wait_for(channel.recv(), 2) == b"kept"
            await channel.close()
            await accepted.close()

    asyncio.run(run())


# -- a server that lies ---------------------------------------------------------------------------


def _altered(signal: SendSignal) -> list[SendSignal]:
    middle = len(signal.data) // 2
    other = "A" if signal.data[middle] != "A" else "B"
    data = signal.data[:middle] + other + signal.data[middle + 1 :]
    return [msgspec.structs.replace(signal, data=data)]


@pytest.mark.parametrize("kind", ["offer", "answer"])
def test_a_server_that_alters_a_description_is_found_out(kind: str) -> None:
    """A fingerprint, a candidate or anything else in it: the seal covers all."""

    async def run() -> None:
        with lying_server(lambda s: _altered(s) if s.kind == kind else [s]):
            async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
                with pytest.raises(WrongSecret, match="the signaling server alters") as caught:
                    await _connect(listener.link)
                assert "\n" not in str(caught.value)

    asyncio.run(run())


def test_a_server_that_says_one_thing_is_another_is_found_out() -> None:
    stolen: list[str] = []

    def swap(signal: SendSignal) -> list[SendSignal]:
        if signal.kind == "offer":
            stolen.append(signal.data)
        if signal.kind == "answer":  # the connector's own offer comes back as the answer
            return [msgspec.structs.replace(signal, data=stolen[0])]
        return [signal]

    async def run() -> None:
        with lying_server(swap):
            async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
                with pytest.raises(WrongSecret):
                    await _connect(listener.link)

    asyncio.run(run())


def test_a_server_that_repeats_and_reorders_changes_nothing() -> None:
    held: list[SendSignal] = []

    def repeat(signal: SendSignal) -> list[SendSignal]:
        """Everything three times, and each candidate once more before the answer."""
        if signal.kind == "cand":
            held.append(signal)
        return [signal, signal, signal]

    async def run() -> None:
        with lying_server(repeat):
            async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
                await _serves(listener)
                await asyncio.sleep(0.3)
                assert not listener._attempts
                assert not listener._results

    asyncio.run(run())


def test_a_replayed_offer_and_a_replayed_bye_begin_and_end_nothing() -> None:
    async def run() -> None:
        with lying_server(lambda s: [s]) as relayed:
            async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
                await _serves(listener)
                old = [
                    SignalReceived(member.id, s.link, s.gen, s.kind, s.data)
                    for member, s in relayed
                    if s.to == listener._self_id
                ]
                assert {"offer", "bye"} <= {signal.kind for signal in old}
                accepting = asyncio.ensure_future(_accept(listener))
                channel = await _connect(listener.link)
                accepted = await accepting
                (now,) = listener._attempts
                for signal in old * 20:
                    listener._receive(signal)
                    relabelled = replace(signal, sender=now[0], link=now[1])
                    listener._receive(relabelled)
                await asyncio.sleep(0.3)
                assert list(listener._attempts) == [now]
                await channel.send(b"alive")
                assert await asyncio.wait_for(accepted.recv(), 1) == b"alive"
                assert not accepted.closed
                await channel.close()
                await accepted.close()

    asyncio.run(run())


def test_an_unreadable_letter_ends_no_open_plain_channel() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, PLAIN) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            channel = await _connect(listener.link, PLAIN)
            accepted = await accepting
            ((sender, link),) = listener._attempts
            for kind, data in (("reject", ""), ("bye", "junk"), ("cand", "junk"), ("offer", "x")):
                listener._receive(SignalReceived(sender, link, 0, kind, data))
            await channel.send(b"alive")
            assert await asyncio.wait_for(accepted.recv(), 1) == b"alive"
            await channel.close()
            await accepted.close()

    asyncio.run(run())


# -- two attempts, and the post between them in our hands -----------------------------------------


class Meeting:
    """Two attempts whose letters pass through ``deliver``."""

    def __init__(self, options: ice_punch.PeerOptions = OPTIONS) -> None:
        sealer = Sealer(SECRET, "room")
        self.letters: list[tuple[Attempt, Kind, str]] = []

        def send_to(side: str) -> Callable[..., Any]:
            async def send(_to: str, _link: str, _gen: int, kind: Kind, data: str) -> None:
                self.letters.append((getattr(self, side), kind, data))

            return send

        self.offerer = Attempt(
            Post(Envelope("a", "b", "link"), sealer, send_to("answerer")), options, offerer=True
        )
        self.answerer = Attempt(
            Post(Envelope("b", "a", "link"), sealer, send_to("offerer")), options, offerer=False
        )

    async def letter(self, kind: Kind) -> str:
        """Wait until a letter of this kind was written; it is not delivered."""
        async with asyncio.timeout(5):
            while not any(written == kind for _, written, _ in self.letters):
                await asyncio.sleep(0.005)
        return next(data for _, written, data in self.letters if written == kind)

    async def deliver_all(self, *waiting: asyncio.Future[Channel]) -> None:
        async with asyncio.timeout(10):
            while not all(future.done() for future in waiting):
                letters, self.letters = self.letters, []
                for attempt, kind, data in letters:
                    attempt.receive(kind, 0, data)
                await asyncio.sleep(0.005)


def test_fragments_may_come_long_before_the_answer() -> None:
    async def run() -> None:
        async with nothing_left_behind():
            meeting = Meeting()
            offering = asyncio.ensure_future(meeting.offerer.run())
            answering = asyncio.ensure_future(meeting.answerer.run())
            meeting.answerer.receive("offer", 0, await meeting.letter("offer"))
            sealed = await meeting.letter("answer")
            opened = meeting.offerer.post.open("answer", 0, sealed)
            assert isinstance(opened, Offer)
            described = Description.parse(opened.sdp)
            empty = Offer(replace(described, candidates=(), end_of_candidates=False).to_sdp())
            written = len(meeting.letters)
            for number in range(MAX_EARLY_FRAGMENTS + 20):
                last = number == MAX_EARLY_FRAGMENTS + 19
                fragment = Fragment(
                    ufrag=described.ufrag,
                    pwd=described.pwd,
                    mid="0",
                    candidates=described.candidates if last else (),
                    end_of_candidates=last,
                )
                await meeting.answerer.post.send("cand", Candidates(fragment.to_sdp()))
            await meeting.answerer.post.send("answer", empty)
            late, meeting.letters = meeting.letters[written:], []
            for attempt, kind, data in late:
                attempt.receive(kind, 0, data)
            await meeting.deliver_all(offering, answering)
            await (await offering).close()
            await (await answering).close()

    asyncio.run(run())


def test_an_offer_is_no_answer() -> None:
    async def run() -> None:
        async with nothing_left_behind():
            meeting = Meeting(replace(OPTIONS, timeout=0.4))
            offering = asyncio.ensure_future(meeting.offerer.run())
            await meeting.letter("offer")
            meeting.letters.clear()
            await meeting.answerer.post.send("offer", _offer())
            ((attempt, kind, data),) = [m for m in meeting.letters if m[1] == "offer"]
            attempt.receive(kind, 0, data)
            with pytest.raises(PeerSilent, match="did not answer"):
                await offering

    asyncio.run(run())


def test_the_peer_may_leave_at_any_stage() -> None:
    async def run() -> None:
        async with nothing_left_behind():
            for stage in ("offer", "answer", "handshake"):
                meeting = Meeting(replace(OPTIONS, timeout=5))
                offering = asyncio.ensure_future(meeting.offerer.run())
                answering = asyncio.ensure_future(meeting.answerer.run())
                if stage == "handshake":
                    meeting.answerer._dtls = lambda _: None  # type: ignore[method-assign,assignment,return-value]
                await meeting.letter("offer")
                if stage != "offer":
                    meeting.answerer.receive("offer", 0, await meeting.letter("offer"))
                    answer = await meeting.letter("answer")
                    if stage != "answer":
                        meeting.offerer.receive("answer", 0, answer)
                    if stage == "handshake":
                        while meeting.offerer.channel is None:
                            await asyncio.sleep(0.005)
                        assert not offering.done()
                meeting.offerer.peer_left()
                async with asyncio.timeout(2):
                    with pytest.raises(IcePunchError):
                        await offering
                answering.cancel()
                with contextlib.suppress(asyncio.CancelledError, IcePunchError):
                    await (await answering).close()

    asyncio.run(run())


def test_a_lost_session_ends_an_attempt_and_a_refused_candidate_does_not() -> None:
    async def run() -> None:
        async with nothing_left_behind():
            meeting = Meeting()
            offering = asyncio.ensure_future(meeting.offerer.run())
            await meeting.letter("offer")
            too_many = ErrorCode.TOO_MANY_CANDIDATES
            meeting.offerer.undelivered(Unavailable("b", 1, too_many, "too many"))
            await asyncio.sleep(0.05)
            assert not offering.done()
            meeting.offerer.signaling_failed(SignalingFailed("the signaling session was lost"))
            with pytest.raises(SignalingFailed, match="lost"):
                await asyncio.wait_for(offering, 1)

    asyncio.run(run())


def test_signaling_that_comes_back_under_another_name_ends_the_attempt() -> None:
    async def run() -> None:
        async with signaling() as url:
            link = f"{url}/j/" + "D" * 22 + "#" + "A" * 22
            async with Intruder(link, role="listen") as silent:
                connector = ice_punch.connect(link, OPTIONS)
                assert isinstance(connector, Connector)
                connecting = asyncio.ensure_future(connector._connect())
                while not silent.kinds():
                    await asyncio.sleep(0.01)
                assert connector._welcome is not None
                connector._take(replace(connector._welcome, self_id="another"))
                with pytest.raises(SignalingFailed, match="session was lost"):
                    await asyncio.wait_for(connecting, 2)

    asyncio.run(run())


def test_signaling_that_goes_away_for_good_ends_the_listener() -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            waiting = [asyncio.ensure_future(_accept(listener)) for _ in range(2)]
            await asyncio.sleep(0.01)
            listener._client._fail(SessionReplaced("replaced", code="replaced", close_code=4504))
            async with asyncio.timeout(1):
                ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ends] == [SignalingFailed] * 2
            with pytest.raises((SignalingFailed, ChannelClosed)):
                await listener.accept()

    asyncio.run(run())
