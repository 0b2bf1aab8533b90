// libdatachannel's end of the tests of data channels: it says and hears JSON, an object a line. Alone on the loopback
// interface it sends every message of a channel back on it. With {"stun": [host, port]} as its argument it does what
// a page at a link does, docs/reference/browser-peers.md.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const readline = require("node:readline");
const nd = require("node-datachannel");

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const config = process.argv[2] ? JSON.parse(process.argv[2]) : null;
nd.initLogger("Warning", (level, text) => { if (config) say({ log: text, level }); });
const pc = new nd.PeerConnection("peer", config
  ? { iceServers: [`stun:${config.stun[0]}:${config.stun[1]}`], disableAutoNegotiation: true }
  : { iceServers: [], bindAddress: "127.0.0.1" });

if (config) {
  pc.onLocalDescription((sdp, type) => say({ description: { type, sdp } }));
  pc.onLocalCandidate((line, mid) => say({ candidate: line, mid }));
}
pc.onGatheringStateChange((state) => {
  if (state === "complete") say(config ? { gathered: true } : { description: pc.localDescription() });
});
pc.onStateChange((state) => say({ state }));

const channels = new Map();
function take(channel) {
  const label = channel.getLabel();
  channels.set(label, channel);
  channel.onMessage((data) => {
    if (typeof data === "string") channel.sendMessage(data);
    else channel.sendMessageBinary(Buffer.from(data));
  });
  channel.onClosed(() => say({ closed: label }));
  const opened = () => say({ channel: label, protocol: channel.getProtocol() });
  if (channel.isOpen()) opened(); else channel.onOpen(opened);
}

// -- as a page ----------------------------------------------------------------------------------------------------

const PIECE = 16384, HIGH = 1 << 20, LOW = 1 << 18;
const received = new Set();
let datagrams, messages;

function beginPage() {
  datagrams = pc.createDataChannel("datagrams", { negotiated: true, id: 0, unordered: true, maxRetransmits: 0 });
  datagrams.onMessage((data) => received.add(Buffer.from(data).readBigUInt64BE()));
  messages = pc.createDataChannel("messages", { negotiated: true, id: 2 });
  messages.onMessage((text) => say({ message: text }));
  messages.onOpen(() => {
    const { local, remote } = pc.getSelectedCandidatePair();
    say({ pair: [local.candidate, remote.candidate] });
    say({ channel: "messages" });
  });
  messages.onClosed(() => say({ closed: "messages" }));
}

function receiveFile(channel) {
  const digest = crypto.createHash("sha256");
  let header, size = 0;
  channel.onMessage((data) => {
    if (typeof data !== "string") {
      digest.update(Buffer.from(data));
      size += data.byteLength;
    } else if (!header) {
      header = JSON.parse(data);
      channel.sendMessage(JSON.stringify({ ok: true }));
    } else {
      const sha256 = digest.digest("hex");
      const ok = sha256 === JSON.parse(data).sha256 && size === header.size;
      channel.sendMessage(JSON.stringify(ok ? { ok, sha256 } : { error: "it is another file" }));
      say({ file: header.name, size, sha256 });
    }
  });
}

function sendFile({ path, name }) {
  const content = fs.readFileSync(path);
  const channel = pc.createDataChannel(name, { protocol: "icepunch.file.1" });
  channel.setBufferedAmountLowThreshold(LOW);
  let at = 0, ended = false;
  const more = () => {
    while (at < content.length && channel.bufferedAmount() < HIGH) {
      channel.sendMessageBinary(content.subarray(at, at += PIECE));
    }
    if (at >= content.length && !ended) {
      ended = true;
      channel.sendMessage(JSON.stringify({ sha256: crypto.createHash("sha256").update(content).digest("hex") }));
    }
  };
  channel.onMessage((text) => {
    const answer = JSON.parse(text);
    if (answer.sha256 || !answer.ok) {
      say({ sent: answer });
      channel.close();
      return;
    }
    channel.onBufferedAmountLow(more);
    more();
  });
  channel.onOpen(() => channel.sendMessage(JSON.stringify({ name, size: content.length })));
}

function stream({ rate, seconds }) {
  const count = rate * seconds, began = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(count, Math.floor((performance.now() - began) * rate / 1000));
    for (; sent < due; sent++) {
      const datagram = Buffer.alloc(8);
      datagram.writeBigUInt64BE(BigInt(sent));
      datagrams.sendMessageBinary(datagram);
    }
    if (sent === count) {
      clearInterval(timer);
      say({ streamed: count });
    }
  }, 2);
}

pc.onDataChannel((channel) => {
  if (config && channel.getProtocol() === "icepunch.file.1") receiveFile(channel); else take(channel);
});
if (config) beginPage();

const commands = {
  // Offers, with a channel of this name and these limits.
  open: ({ label, unordered, maxRetransmits, protocol }) => {
    const bounds = { protocol: protocol || "", unordered: Boolean(unordered) };
    if (maxRetransmits !== undefined && maxRetransmits !== null) bounds.maxRetransmits = maxRetransmits;
    take(pc.createDataChannel(label, bounds));
  },
  offer: (init) => pc.setLocalDescription("offer", init),
  describe: ({ type, sdp }) => {
    pc.setRemoteDescription(sdp, type);
    if (config && type === "offer") pc.setLocalDescription("answer");
  },
  candidate: ({ line, mid }) => pc.addRemoteCandidate(line, mid),
  say: ({ text }) => messages.sendMessage(text),
  file: sendFile,
  stream,
  count: () => say({ received: received.size }),
  send: ({ label, text }) => channels.get(label).sendMessage(text),
  close: ({ label }) => channels.get(label).close(),
  end: () => { pc.close(); nd.cleanup(); process.exit(0); },
};
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [command, argument] = JSON.parse(line);
  try {
    commands[command](argument);
  } catch (error) {
    if (!config) throw error;
    say({ error: error.message, command });
  }
}).on("close", commands.end);
