// One end of a data channel of libdatachannel's, unordered and without retransmission, in its own
// process; commands and answers are those of dtls_party.py, but that the second end describes itself
// only once it is told the first's description.
"use strict";
const readline = require("node:readline");
const { performance } = require("node:perf_hooks");
const nd = require(process.env.NODE_DATACHANNEL || "node-datachannel");

const BURST = 52, STALLED = 250;
const first = process.argv[2] === "first";
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const turn = () => new Promise((resolve) => setImmediate(resolve));
const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };

let onData = () => {};
let channel = null;
let stopped = () => {};

const pc = new nd.PeerConnection("end", { iceServers: [] });
let description = null;
pc.onLocalDescription((sdp, type) => { description = { sdp, type }; });
pc.onGatheringStateChange((state) => {
  if (state === "complete") say({ description: pc.localDescription() || description });
});
function take(opened) {
  channel = opened;
  channel.onMessage((data) => onData(data));
  const ready = () => say({ ready: "DTLS and SCTP" });
  if (channel.isOpen()) ready(); else channel.onOpen(ready);
}
if (first) take(pc.createDataChannel("data", { unordered: true, maxRetransmits: 0 }));
else pc.onDataChannel(take);

// It refuses candidates that come before its own ICE transport is there.
function meet({ sdp, type }) {
  const lines = sdp.split("\r\n"), candidates = lines.filter((line) => line.startsWith("a=candidate:"));
  const apart = ["a=candidate:", "a=end-of-candidates"];
  pc.setRemoteDescription(
    lines.filter((line) => !apart.some((start) => line.startsWith(start))).join("\r\n"), type);
  const mid = (lines.find((line) => line.startsWith("a=mid:")) || "a=mid:0").slice(6);
  setTimeout(() => candidates.forEach((line) => pc.addRemoteCandidate(line.slice(2), mid)), 100);
}

// As fast as a window of so many datagrams under way allows.
async function send({ size, seconds, window }) {
  const burst = [];
  for (let n = 0; n < Math.min(BURST, window >> 2); n++) burst.push(Buffer.alloc(size, n));
  let sent = 0, answered = 0, lost = 0, heard = () => {};
  onData = (data) => {
    answered = Math.max(answered, Number(Buffer.from(data).readBigUInt64BE(0)));
    heard();
  };
  const began = performance.now(), used = cpu();
  while (performance.now() < began + seconds * 1000) {
    if (sent - lost - answered + burst.length <= window) {
      for (const data of burst) channel.sendMessageBinary(data);
      sent += burst.length;
      await turn();
      continue;
    }
    let timer;
    const woken = await new Promise((resolve) => {
      heard = () => resolve(true);
      timer = setTimeout(() => resolve(false), STALLED);
    });
    clearTimeout(timer);
    if (!woken) lost = sent - answered;
  }
  const result = { seconds: (performance.now() - began) / 1000, cpu: cpu() - used };
  await sleep(STALLED);
  return { sent, lost, ...result };
}

// Counts what arrives and says so eight times in a window.
async function count({ window }) {
  let received = 0, answered = 0;
  onData = () => {
    received++;
    if (received - answered >= window >> 3) {
      answered = received;
      const answer = Buffer.alloc(38);
      answer.writeBigUInt64BE(BigInt(received), 0);
      channel.sendMessageBinary(answer);
    }
  };
  const used = cpu(), end = new Promise((resolve) => { stopped = resolve; });
  say({ started: true });
  await end;
  return { received, cpu: cpu() - used };
}

async function ping({ size, rounds }) {
  const times = [], data = Buffer.alloc(size);
  for (let n = 0; n < rounds; n++) {
    const began = performance.now();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000);
      onData = () => { clearTimeout(timer); resolve(); };
      channel.sendMessageBinary(data);
    });
    times.push((performance.now() - began) / 1000);
  }
  times.sort((a, b) => a - b);
  return { median: times[rounds >> 1], p99: times[Math.floor((rounds * 99) / 100)] };
}

async function echo() {
  onData = (data) => channel.sendMessageBinary(Buffer.from(data));
  const began = performance.now(), used = cpu();
  const end = new Promise((resolve) => { stopped = resolve; });
  say({ started: true });
  await end;
  return { cpu: (cpu() - used) / ((performance.now() - began) / 1000) };
}

const work = { send, count, ping, echo };
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  if (command.remote) meet(command.remote);
  else if (command.do === "stop") stopped();
  else work[command.do](command).then(say);
}).on("close", () => process.exit(0));
