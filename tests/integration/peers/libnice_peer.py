"""A program around Debian's libnice: one session, in the words of ``support/foreign_peer.py``.

The library is called through ctypes: its introspection data leaves out the receiving of datagrams,
and its headers bring all of GTK along.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_uint, c_ulong, c_void_p, pointer
from typing import Any

RFC5245, RELAY_UDP, COMPONENT = 0, 0, 1
REGULAR_NOMINATION, LITE_MODE, ICE_TRICKLE, RENOMINATION, CONSENT_FRESHNESS = 1, 4, 8, 16, 32
STATES = ("disconnected", "gathering", "connecting", "connected", "ready", "failed")
IO_IN, IO_HUP = 1, 16


class GSList(ctypes.Structure):
    pass


GSList._fields_ = [("data", c_void_p), ("next", POINTER(GSList))]


OnReadable = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
OnReceived = CFUNCTYPE(None, c_void_p, c_uint, c_uint, c_uint, c_void_p, c_void_p)
OnGathered = CFUNCTYPE(None, c_void_p, c_uint, c_void_p)
OnCandidate = CFUNCTYPE(None, c_void_p, c_void_p, c_void_p)
OnState = CFUNCTYPE(None, c_void_p, c_uint, c_uint, c_uint, c_void_p)
OnSelected = CFUNCTYPE(None, c_void_p, c_uint, c_uint, c_void_p, c_void_p, c_void_p)

_agent, _stream = c_void_p, c_uint
_signatures: dict[str, tuple[Any, ...]] = {
    "g_main_loop_new": (c_void_p, c_void_p, c_int),
    "g_main_loop_run": (None, c_void_p),
    "g_main_loop_quit": (None, c_void_p),
    "g_unix_fd_add": (c_uint, c_int, c_int, OnReadable, c_void_p),
    "g_free": (None, c_void_p),
    "g_slist_free": (None, POINTER(GSList)),
    "g_signal_connect_data": (c_ulong, c_void_p, c_char_p, c_void_p, c_void_p, c_void_p, c_int),
    "nice_agent_new_full": (_agent, c_void_p, c_int, c_int),
    "nice_agent_add_stream": (_stream, _agent, c_uint),
    "nice_agent_gather_candidates": (c_int, _agent, _stream),
    "nice_agent_set_relay_info": (
        *(c_int, _agent, _stream, c_uint),
        *(c_char_p, c_uint, c_char_p, c_char_p, c_int),
    ),
    "nice_agent_get_local_credentials": (
        *(c_int, _agent, _stream),
        *(POINTER(c_void_p), POINTER(c_void_p)),
    ),
    "nice_agent_set_remote_credentials": (c_int, _agent, _stream, c_char_p, c_char_p),
    "nice_agent_generate_local_candidate_sdp": (c_void_p, _agent, c_void_p),
    "nice_agent_parse_remote_candidate_sdp": (c_void_p, _agent, _stream, c_char_p),
    "nice_agent_set_remote_candidates": (c_int, _agent, _stream, c_uint, POINTER(GSList)),
    "nice_agent_peer_candidate_gathering_done": (c_int, _agent, _stream),
    "nice_agent_get_local_candidates": (POINTER(GSList), _agent, _stream, c_uint),
    "nice_agent_restart_stream": (c_int, _agent, _stream),
    "nice_agent_attach_recv": (c_int, _agent, _stream, c_uint, c_void_p, OnReceived, c_void_p),
    "nice_agent_send": (c_int, _agent, _stream, c_uint, c_uint, c_char_p),
    "nice_candidate_free": (None, c_void_p),
}

_libraries = [
    ctypes.CDLL(name) for name in ("libnice.so.10", "libgobject-2.0.so.0", "libglib-2.0.so.0")
]


def library(name: str) -> Any:
    """A function of the library that has it."""
    function = next(getattr(one, name) for one in _libraries if hasattr(one, name))
    if name in _signatures:
        function.restype, *function.argtypes = _signatures[name]
    return function


def say(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


class Peer:
    def __init__(self, config: dict[str, Any]) -> None:
        self._kept: list[Any] = []  # callbacks, which the library does not keep alive
        self._unread = b""
        self._loop = library("g_main_loop_new")(None, 0)
        self._trickle = config["trickle"]
        flags = CONSENT_FRESHNESS
        flags |= REGULAR_NOMINATION if config["nomination"] == "regular" else 0
        flags |= LITE_MODE if config["lite"] else 0
        flags |= ICE_TRICKLE if self._trickle else 0
        flags |= RENOMINATION if config["renomination"] else 0
        self._agent = c_void_p(library("nice_agent_new_full")(None, RFC5245, flags))
        self._set("controlling-mode", c_int(config["controlling"]))
        self._set("upnp", c_int(0))
        if config["stun"]:
            host, port = config["stun"]
            self._set("stun-server", c_char_p(host.encode()))
            self._set("stun-server-port", c_uint(port))
        self._stream = library("nice_agent_add_stream")(self._agent, 1)
        if config["turn"]:
            host, port, user, password = config["turn"]
            self._call(
                "set_relay_info",
                *(COMPONENT, host.encode(), port, user.encode(), password.encode(), RELAY_UDP),
            )
        self._connect("candidate-gathering-done", OnGathered(lambda *_: say("gathered")))
        self._connect("new-candidate-full", OnCandidate(self._on_candidate))
        self._connect("component-state-changed", OnState(self._on_state))
        self._connect("new-selected-pair-full", OnSelected(self._on_selected))
        on_received = self._keep(OnReceived(self._on_received))
        self._call("attach_recv", COMPONENT, None, on_received, None)
        self._say_credentials()
        if not self._call("gather_candidates"):
            say("failed")

    def run(self) -> None:
        on_readable = self._keep(OnReadable(self._on_readable))
        library("g_unix_fd_add")(sys.stdin.fileno(), IO_IN | IO_HUP, on_readable, None)
        library("g_main_loop_run")(self._loop)

    def _call(self, name: str, *arguments: Any) -> Any:
        return library(f"nice_agent_{name}")(self._agent, self._stream, *arguments)

    def _set(self, name: str, value: Any) -> None:
        library("g_object_set")(self._agent, c_char_p(name.encode()), value, c_void_p())

    def _keep(self, callback: Any) -> Any:
        self._kept.append(callback)
        return callback

    def _connect(self, signal: str, callback: Any) -> None:
        function = ctypes.cast(self._keep(callback), c_void_p)
        library("g_signal_connect_data")(self._agent, signal.encode(), function, None, None, 0)

    def _say_credentials(self) -> None:
        ufrag, pwd = c_void_p(), c_void_p()
        self._call("get_local_credentials", byref(ufrag), byref(pwd))
        say("credentials", ufrag=taken(ufrag.value), pwd=taken(pwd.value))

    def _say_candidates(self) -> None:
        """All that it has; only new ones are told by a signal."""
        first = link = self._call("get_local_candidates", COMPONENT)
        while link:
            say("candidate", line=self._line(link.contents.data))
            library("nice_candidate_free")(link.contents.data)
            link = link.contents.next
        library("g_slist_free")(first)
        say("gathered")

    def _line(self, candidate: int) -> str:
        line = library("nice_agent_generate_local_candidate_sdp")(self._agent, candidate)
        return taken(line).removeprefix("a=")

    # -- what the agent tells -----------------------------------------------------------------

    def _on_candidate(self, _agent: int, candidate: int, _data: int) -> None:
        say("candidate", line=self._line(candidate))

    def _on_state(self, _agent: int, _stream: int, _component: int, state: int, _: int) -> None:
        say("state", state=STATES[state])

    def _on_selected(
        self, _agent: int, _stream: int, _component: int, local: int, remote: int, _: int
    ) -> None:
        say("selected", local=self._line(local), remote=self._line(remote))

    def _on_received(
        self, _agent: int, _stream: int, _component: int, length: int, data: int, _: int
    ) -> None:
        say("received", text=ctypes.string_at(data, length).decode())

    # -- what it is told ----------------------------------------------------------------------

    def _on_readable(self, fd: int, _condition: int, _data: int) -> int:
        read = os.read(fd, 65536)
        if not read:
            library("g_main_loop_quit")(self._loop)
            return 0
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return 1

    def _obey(self, order: dict[str, Any]) -> None:
        match order:
            case {"remote": {"ufrag": ufrag, "pwd": pwd}}:
                self._call("set_remote_credentials", ufrag.encode(), pwd.encode())
            case {"candidate": line}:
                candidate = self._call("parse_remote_candidate_sdp", f"a={line}".encode())
                self._call("set_remote_candidates", COMPONENT, pointer(GSList(candidate, None)))
                library("nice_candidate_free")(candidate)
            case {"end": True}:
                if self._trickle:
                    self._call("peer_candidate_gathering_done")
            case {"send": texts}:
                for text in texts:
                    if self._call("send", COMPONENT, len(text), text.encode()) != len(text):
                        say("unsent", text=text)
            case {"restart": True}:
                self._call("restart_stream")
                self._say_credentials()
                self._say_candidates()


def taken(text: int | None) -> str:
    """A string that the library has made for us."""
    assert text
    copy = ctypes.string_at(text).decode()
    library("g_free")(text)
    return copy


if __name__ == "__main__":
    Peer(json.loads(sys.argv[1])).run()
