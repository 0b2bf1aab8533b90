"""The page on browser peers names what there is, with the bounds that hold."""

from __future__ import annotations

import inspect
import re

import pytest
from docs_pages import ROOT

from ice_punch.webrtc import (
    DataChannel,
    DataChannelStats,
    FileReceiver,
    WebRtcChannel,
    WebRtcPeer,
    association,
    channel,
    data_channel,
    echo,
    files,
    receiving,
    send_file,
)

PAGE = (ROOT / "docs" / "reference" / "browser-peers.md").read_text()
INTERNAL = {
    *("data", "open", "opened", "give_next", "take", "finish", "peer_closing", "gone"),
    "raise_end",
}
"""For the package's own layers."""


def _table(title: str) -> str:
    start = PAGE.index(f"| of a `{title}` |")
    return PAGE[start : PAGE.index("\n\n", start)]


@pytest.mark.parametrize("described", [WebRtcChannel, DataChannel, WebRtcPeer])
def test_classes_are_described_member_by_member(described: type) -> None:
    cells = "\n".join(line.split(" | ")[0] for line in _table(described.__name__).splitlines())
    named = set(re.findall(r"(?:`|await |in )([a-z_]+)(?=[(:`])", cells))
    as_channel = {name for base in described.__mro__[1:] for name in vars(base)}
    public = {n for n in vars(described) if not n.startswith("_")} - INTERNAL - as_channel
    assert public <= named, public - named
    source = inspect.getsource(described)
    for name in named - {"channel"}:
        assert hasattr(described, name) or f"self.{name}" in source, name


def test_signatures_are_those_of_the_code() -> None:
    for described in (WebRtcPeer, FileReceiver):
        shown = re.search(rf"`{described.__name__}\(([^`]*)\)`", PAGE)
        assert shown is not None
        names = re.findall(r"(\w+)(?:=|,|$)", re.sub(r"=[^,]*", "=", shown[1]))
        assert names == list(inspect.signature(described).parameters)
    assert "progress" in inspect.signature(send_file).parameters
    for field in DataChannelStats.__dataclass_fields__:
        assert f"`{field}`" in PAGE


def test_the_bounds_are_those_of_the_code() -> None:
    bounds = PAGE[PAGE.index("## What is bounded") :]
    for words, number in (
        ("{} at once; label and protocol", association.MAX_CHANNELS),
        ("label and protocol {} bytes", association.MAX_NAME),
        ("{} streams", receiving.MAX_STREAMS),
        ("{} chunks beyond one that is missing", receiving.MAX_AHEAD),
        ("{} KiB a channel", data_channel.SEND_BUFFER // 1024),
        ("{} MiB a reliable channel", data_channel.UNREAD // 2**20),
        ("{} MiB of window", receiving.WINDOW // 2**20),
    ):
        assert words.format(number) in bounds
    for number in (association.MAX_MESSAGE_SIZE, channel.MAX_DATAGRAM):
        assert f"{number:,}".replace(",", " ") in bounds
    assert f"{files.PIECE:,}".replace(",", " ") in PAGE
    assert f"silent for {files.PATIENCE:g} s" in " ".join(PAGE.split())
    assert f"{files.DECISION:g} s to say" in PAGE
    assert files.PROTOCOL in PAGE
    assert echo.PROTOCOL in PAGE
    assert channel.DATAGRAMS == ("datagrams", 0)
    assert channel.MESSAGES == ("messages", 2)
