"""Two peers that carry blobs by hand: what a blob holds, what is wrong with one, and patience."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace

import pytest

from ice_punch.errors import HandshakeFailed, InvalidDescription
from ice_punch.peer.manual import ManualPeer, read_blob
from signaling.randomness import base64url
from support.leaks import nothing_left_behind
from support.loopback import OPTIONS


@pytest.mark.parametrize("encrypt", [True, False])
def test_an_offer_and_an_answer_make_a_channel(encrypt: bool) -> None:
    options = replace(OPTIONS, encrypt=encrypt)

    async def run() -> None:
        async with nothing_left_behind():
            async with ManualPeer(options) as a, ManualPeer(options) as b:
                answer = await b.answer(await a.offer())
                connecting = asyncio.ensure_future(b.connect())
                there, here = await a.connect(answer), await connecting
                await there.send(b"by hand")
                assert await asyncio.wait_for(here.recv(), 2) == b"by hand"
            await here.send(b"the channel lives on")
            assert await asyncio.wait_for(there.recv(), 2) == b"the channel lives on"
            await there.close()
            await here.close()

    asyncio.run(run())


def test_the_side_that_answered_waits_for_the_person_who_carries_the_answer() -> None:
    hasty = replace(OPTIONS, timeout=0.5)  # the time for a handshake, once there is somebody

    async def run() -> None:
        async with nothing_left_behind(), ManualPeer(OPTIONS) as a, ManualPeer(hasty) as b:
            answer = await b.answer(await a.offer())
            connecting = asyncio.ensure_future(b.connect())
            await asyncio.sleep(1.0)  # its own checks have long been answered
            assert not connecting.done()
            there, here = await a.connect(answer), await connecting
            await there.close()
            await here.close()

    asyncio.run(run())


def test_a_blob_has_everything_and_survives_line_breaks() -> None:
    async def run() -> None:
        async with ManualPeer(OPTIONS) as peer:
            blob = await peer.offer()
        assert len(blob) < 1024  # what the narrowest terminal takes on one line
        folded = "\n".join(blob[at : at + 60] for at in range(0, len(blob), 60))
        description = read_blob("offer", f"  {folded}\n")
        assert description.candidates
        assert description.end_of_candidates
        assert description.fingerprints

    asyncio.run(run())


def _packed(data: bytes) -> str:
    return "icepunch1-offer." + base64url(zlib.compress(data))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is no offer"),
        ("icepunch2-offer.abc", "this is no offer"),
        ("icepunch1-offer.", "this is no offer"),
        ("icepunch1-answer.abc", "this is an answer"),
        ("icepunch1-offer.abc", "cut off or garbled"),
        (_packed(b"v=0\r\n")[:-4], "cut off or garbled"),
        (_packed(b"\xff\xff"), "cut off or garbled"),
        (_packed(b"v=0\r\n" * 100_000), "cut off or garbled"),
        (_packed(b"no description"), "."),
    ],
)
def test_what_is_no_offer_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidDescription, match=says) as caught:
        read_blob("offer", text)
    assert "\n" not in str(caught.value)


def test_out_of_turn_and_unlike_sides_are_typed_errors() -> None:
    async def run() -> None:
        async with (
            ManualPeer(OPTIONS) as a,
            ManualPeer(OPTIONS) as b,
            ManualPeer(replace(OPTIONS, encrypt=False)) as plain,
        ):
            offer = await a.offer()
            with pytest.raises(InvalidDescription):
                await a.offer()
            with pytest.raises(InvalidDescription):
                await a.connect()
            with pytest.raises(InvalidDescription):
                await b.connect("icepunch1-answer.abc")
            with pytest.raises(HandshakeFailed, match="insists on encryption"):
                await plain.answer(offer)

    asyncio.run(run())
