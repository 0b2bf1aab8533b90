"""GStreamer's end of the tests of data channels: webrtcbin, with libnice and an RSA certificate. It
says and hears JSON, an object a line, and sends every message of a channel back on it. Run by the
system's Python."""

from __future__ import annotations

import json
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

Gst.init(None)
loop = GLib.MainLoop()
pipeline = Gst.Pipeline()
webrtc = Gst.ElementFactory.make("webrtcbin")
if webrtc is None:
    raise SystemExit("there is no webrtcbin")
webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
pipeline.add(webrtc)
agent = webrtc.get_property("ice-agent")  # kept: its reference is floating, Python has taken it
agent.emit("add-local-ip-address", "127.0.0.1")
pipeline.set_state(Gst.State.PLAYING)
channels = {}


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def take(channel):
    label = channel.get_property("label")
    channels[label] = channel
    channel.connect("on-message-string", lambda c, text: c.emit("send-string", text or ""))
    channel.connect("on-message-data", lambda c, data: c.emit("send-data", data))
    channel.connect("on-close", lambda _: say({"closed": label}))

    def opened(*_):
        say({"channel": label, "protocol": channel.get_property("protocol")})

    if channel.get_property("ready-state") == GstWebRTC.WebRTCDataChannelState.OPEN:
        opened()
    else:
        channel.connect("on-open", opened)


def complete(*_):
    done = GstWebRTC.WebRTCICEGatheringState.COMPLETE
    if webrtc.get_property("ice-gathering-state") == done:
        now = webrtc.get_property("local-description")
        kind = "offer" if now.type == GstWebRTC.WebRTCSDPType.OFFER else "answer"
        say({"description": {"type": kind, "sdp": now.sdp.as_text()}})


def made(promise, kind):
    promise.wait()
    reply = promise.get_reply()  # what it has is not copied
    description = reply.get_value(kind)
    webrtc.emit("set-local-description", description, Gst.Promise.new())


def make(kind):
    promise = Gst.Promise.new_with_change_func(made, kind)
    webrtc.emit(f"create-{kind}", None, promise)


webrtc.connect("on-data-channel", lambda _, channel: take(channel))
webrtc.connect("notify::ice-gathering-state", complete)
webrtc.connect(
    "notify::connection-state",
    lambda *_: say({"state": webrtc.get_property("connection-state").value_nick}),
)


def open_channel(label, unordered=False, maxRetransmits=None, protocol=""):  # noqa: N803
    options = Gst.Structure.new_empty("options")
    options.set_value("ordered", not unordered)
    options.set_value("protocol", protocol)
    if maxRetransmits is not None:
        options.set_value("max-retransmits", maxRetransmits)
    take(webrtc.emit("create-data-channel", label, options))
    if webrtc.get_property("signaling-state") == GstWebRTC.WebRTCSignalingState.STABLE and (
        webrtc.get_property("current-remote-description") is None
    ):
        make("offer")


def describe(type, sdp):
    _, message = GstSdp.SDPMessage.new_from_text(sdp)
    kind = getattr(GstWebRTC.WebRTCSDPType, type.upper())
    description = GstWebRTC.WebRTCSessionDescription.new(kind, message)
    promise = Gst.Promise.new()
    webrtc.emit("set-remote-description", description, promise)
    promise.wait()
    if type == "offer":
        make("answer")


def run(command, argument):
    if command == "open":
        open_channel(**argument)
    elif command == "describe":
        describe(**argument)
    elif command == "send":
        channels[argument["label"]].emit("send-string", argument["text"])
    elif command == "close":
        channels[argument["label"]].emit("close")
    elif command == "end":
        loop.quit()
    return False


def listen():
    for line in sys.stdin:
        GLib.idle_add(run, *json.loads(line))
    GLib.idle_add(run, "end", {})


threading.Thread(target=listen, daemon=True).start()
loop.run()
pipeline.set_state(Gst.State.NULL)
