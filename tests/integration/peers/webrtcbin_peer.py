"""GStreamer's end of the tests of data channels: webrtcbin, with libnice and an RSA certificate. It
says and hears JSON, an object a line. Alone on the loopback interface it sends every message of a
channel back on it. With {"stun": [host, port]} as its argument it does what a page at a link does,
docs/reference/browser-peers.md. Run by the system's Python."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

Gst.init(None)
config = json.loads(sys.argv[1]) if len(sys.argv) > 1 else None
loop = GLib.MainLoop()
pipeline = Gst.Pipeline()
webrtc = Gst.ElementFactory.make("webrtcbin")
if webrtc is None:
    raise SystemExit("there is no webrtcbin")
webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
pipeline.add(webrtc)
agent = webrtc.get_property("ice-agent")  # kept: its reference is floating, Python has taken it
if config:
    webrtc.set_property("stun-server", "stun://{}:{}".format(*config["stun"]))
else:
    agent.emit("add-local-ip-address", "127.0.0.1")
pipeline.set_state(Gst.State.PLAYING)
channels = {}
output = threading.Lock()


def say(what):
    with output, contextlib.suppress(BrokenPipeError):  # nobody listens at the end
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def when_open(channel, opened):
    if channel.get_property("ready-state") == GstWebRTC.WebRTCDataChannelState.OPEN:
        opened()
    else:
        channel.connect("on-open", lambda _: opened())


def take(channel):
    label = channel.get_property("label")
    channels[label] = channel
    channel.connect("on-message-string", lambda c, text: c.emit("send-string", text or ""))
    channel.connect("on-message-data", lambda c, data: c.emit("send-data", data))
    channel.connect("on-close", lambda _: say({"closed": label}))
    protocol = channel.get_property("protocol")
    when_open(channel, lambda: say({"channel": label, "protocol": protocol}))


# -- descriptions and candidates ------------------------------------------------------------------


def describe_us(description):
    kind = "offer" if description.type == GstWebRTC.WebRTCSDPType.OFFER else "answer"
    say({"description": {"type": kind, "sdp": description.sdp.as_text()}})


def complete(*_):
    done = GstWebRTC.WebRTCICEGatheringState.COMPLETE
    if webrtc.get_property("ice-gathering-state") == done:
        if config:
            say({"gathered": True})
        else:
            describe_us(webrtc.get_property("local-description"))


def made(promise, kind):
    promise.wait()
    reply = promise.get_reply()  # what it has is not copied
    description = reply.get_value(kind)
    if config:
        describe_us(description)
    webrtc.emit("set-local-description", description, Gst.Promise.new())


def make(kind):
    promise = Gst.Promise.new_with_change_func(made, kind)
    webrtc.emit(f"create-{kind}", None, promise)


def open_channel(label, unordered=False, maxRetransmits=None, protocol=""):  # noqa: N803
    take(new_channel(label, protocol, unordered, maxRetransmits))
    if webrtc.get_property("signaling-state") == GstWebRTC.WebRTCSignalingState.STABLE and (
        webrtc.get_property("current-remote-description") is None
    ):
        make("offer")


def new_channel(label, protocol="", unordered=False, most=None, number=None):
    options = Gst.Structure.new_empty("options")
    options.set_value("ordered", not unordered)
    options.set_value("protocol", protocol)
    if most is not None:
        options.set_value("max-retransmits", most)
    if number is not None:
        options.set_value("negotiated", True)
        options.set_value("id", number)
    return webrtc.emit("create-data-channel", label, options)


def describe(type, sdp):
    _, message = GstSdp.SDPMessage.new_from_text(sdp)
    kind = getattr(GstWebRTC.WebRTCSDPType, type.upper())
    description = GstWebRTC.WebRTCSessionDescription.new(kind, message)
    promise = Gst.Promise.new()
    webrtc.emit("set-remote-description", description, promise)
    promise.wait()
    if type == "offer":
        make("answer")


# -- as a page ------------------------------------------------------------------------------------

PIECE, HIGH, LOW = 16384, 1 << 20, 1 << 18
received = set()
page = {}


def begin_page():
    datagrams = page["datagrams"] = new_channel("datagrams", "", True, 0, 0)
    datagrams.connect(
        "on-message-data", lambda _, data: received.add(int.from_bytes(data.get_data(), "big"))
    )
    messages = page["messages"] = new_channel("messages", number=2)
    messages.connect("on-message-string", lambda _, text: say({"message": text}))
    messages.connect("on-close", lambda _: say({"closed": "messages"}))
    when_open(messages, lambda: say({"channel": "messages"}))


def receive_file(channel):
    digest, got = hashlib.sha256(), {"size": 0}
    channels[channel] = got

    def piece(_, data):
        content = data.get_data()
        digest.update(content)
        got["size"] += len(content)

    def told(_, text):
        if "header" not in got:
            got["header"] = json.loads(text)
            channel.emit("send-string", json.dumps({"ok": True}))
            return
        sha256, header = digest.hexdigest(), got["header"]
        good = sha256 == json.loads(text)["sha256"] and got["size"] == header["size"]
        answer = {"ok": True, "sha256": sha256} if good else {"error": "it is another file"}
        channel.emit("send-string", json.dumps(answer))
        say({"file": header["name"], "size": got["size"], "sha256": sha256})

    channel.connect("on-message-data", piece)
    channel.connect("on-message-string", told)


def send_file(path, name):
    content = Path(path).read_bytes()
    channel = channels[name] = new_channel(name, "icepunch.file.1")
    channel.set_property("buffered-amount-low-threshold", LOW)
    begun = threading.Event()
    room = threading.Semaphore(0)

    def push():
        begun.wait()
        for at in range(0, len(content), PIECE):
            while channel.get_property("buffered-amount") > HIGH:
                room.acquire(timeout=1)
            channel.emit("send-data", GLib.Bytes.new(content[at : at + PIECE]))
        digest = hashlib.sha256(content).hexdigest()
        channel.emit("send-string", json.dumps({"sha256": digest}))

    def told(_, text):
        answer = json.loads(text)
        if "sha256" in answer or not answer.get("ok"):
            say({"sent": answer})
            channel.emit("close")
        else:
            begun.set()

    header = json.dumps({"name": name, "size": len(content)})
    channel.connect("on-message-string", told)
    channel.connect("on-buffered-amount-low", lambda _: room.release())
    when_open(channel, lambda: channel.emit("send-string", header))
    threading.Thread(target=push, daemon=True).start()


def stream(rate, seconds):
    def push():
        began = time.monotonic()
        for number in range(rate * seconds):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            page["datagrams"].emit("send-data", GLib.Bytes.new(number.to_bytes(8, "big")))
        say({"streamed": rate * seconds})

    threading.Thread(target=push, daemon=True).start()


def arrived(_, channel):
    if config and channel.get_property("protocol") == "icepunch.file.1":
        receive_file(channel)
    else:
        take(channel)


webrtc.connect("on-data-channel", arrived)
webrtc.connect("notify::ice-gathering-state", complete)
webrtc.connect(
    "notify::connection-state",
    lambda *_: say({"state": webrtc.get_property("connection-state").value_nick}),
)
if config:
    webrtc.connect("on-ice-candidate", lambda _, mline, line: say({"candidate": line}))
    begin_page()

commands = {
    "open": open_channel,
    "offer": lambda: make("offer"),
    "describe": describe,
    "candidate": lambda line, mid: webrtc.emit("add-ice-candidate", 0, line),
    "say": lambda text: page["messages"].emit("send-string", text),
    "file": send_file,
    "stream": stream,
    "count": lambda: say({"received": len(received)}),
    "send": lambda label, text: channels[label].emit("send-string", text),
    "close": lambda label: channels[label].emit("close"),
    "end": loop.quit,
}


def run(command, argument):
    commands[command](**argument)
    return False


def listen():
    for line in sys.stdin:
        GLib.idle_add(run, *json.loads(line))
    GLib.idle_add(run, "end", {})


threading.Thread(target=listen, daemon=True).start()
loop.run()
pipeline.set_state(Gst.State.NULL)
