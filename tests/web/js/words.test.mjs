import assert from "node:assert/strict";
import { test } from "node:test";
import { asText } from "../../../signaling/web/chat.js";
import { History, diagnostics } from "../../../signaling/web/diagnostics.js";
import { IcePunchError, shown } from "../../../signaling/web/errors.js";
import { safeName } from "../../../signaling/web/files.js";
import { points, roundUp } from "../../../signaling/web/graph.js";
import { Readings } from "../../../signaling/web/measure.js";
import { checkBrowser, whomToBeginWith } from "../../../signaling/web/room.js";
import { credentials, identity, readFragment, writeFragment } from "../../../signaling/web/sdpfrag.js";
import { endpoint, readStats } from "../../../signaling/web/stats.js";
import { milliseconds, size, stateInWords, testInWords } from "../../../signaling/web/words.js";

const stats = (...entries) => new Map(entries.map((entry) => [entry.id, entry]));
const local = { id: "l", type: "local-candidate", candidateType: "host", address: "10.0.0.1", port: 5, protocol: "udp", priority: 9 };
const remote = { id: "r", type: "remote-candidate", candidateType: "relay", address: "2001:db8::1", port: 6, protocol: "udp", priority: 8 };
const pair = { id: "p", type: "candidate-pair", localCandidateId: "l", remoteCandidateId: "r", state: "succeeded", nominated: true, currentRoundTripTime: 0.03 };

test("the path is found as Chromium tells it, as Firefox does, and by nomination", () => {
  const transport = { id: "t", type: "transport", selectedCandidatePairId: "p" };
  for (const report of [
    stats(local, remote, pair, transport),
    stats(local, remote, { ...pair, selected: true }),
    stats(local, remote, pair),
  ]) {
    const { path, pairs, candidates } = readStats(report);
    assert.equal(path.kind, "relayed");
    assert.equal(path.rtt, 0.03);
    assert.equal(endpoint(path.remote), "[2001:db8::1]:6");
    assert.equal(pairs.length, 1);
    assert.equal(candidates.length, 2);
  }
  assert.equal(readStats(stats(local, remote, { ...pair, nominated: false })).path, null);
  assert.equal(readStats(stats()).path, null);
});

test("what a browser hides is said to be hidden", () => {
  assert.equal(endpoint(null), "hidden by the browser");
  assert.equal(endpoint({ address: "(redacted)", port: 1 }), "hidden by the browser");
});

test("every stage has a title, and every error its own words", () => {
  const titles = new Set();
  for (const stage of ["entering", "waiting", "connecting", "connected", "interrupted", "ended"]) {
    titles.add(stateInWords({ stage }).title);
  }
  assert.equal(titles.size, 6);
  const path = readStats(stats(local, remote, pair)).path;
  assert.equal(stateInWords({ stage: "connected", path }).title, "Connected through a relay");
  const direct = { ...path, kind: "direct" };
  assert.equal(stateInWords({ stage: "connected", path: direct }).title, "Connected directly");
  const error = new IcePunchError("wrong-secret", "The secret is wrong.");
  const said = stateInWords({ stage: "ended", error });
  assert.deepEqual(said, { tone: "bad", title: "Wrong secret", detail: "The secret is wrong." });
  assert.match(stateInWords({ stage: "waiting", waited: 30 }).detail, /used up/);
});

test("a browser that lacks WebRTC, and a page without WebCrypto, are told apart", () => {
  const subtle = { subtle: {} };
  assert.throws(() => checkBrowser({ crypto: subtle }), { code: "no-webrtc" });
  const scope = { RTCPeerConnection: class {}, crypto: {} };
  assert.throws(() => checkBrowser(scope), { code: "insecure-page" });
  checkBrowser({ ...scope, crypto: subtle });
});

test("who begins: with a program always, of two pages the one that came later", () => {
  const peer = (order, role, begins) => ({ id: `p${order}`, order, meta: JSON.stringify({ role, begins }) });
  assert.equal(whomToBeginWith([], 1), null);
  assert.equal(whomToBeginWith([peer(2, "connect")], 1), null);
  assert.equal(whomToBeginWith([peer(1, "listen", true)], 2).id, "p1");
  assert.equal(whomToBeginWith([peer(3, "listen", true)], 2), null);
  assert.equal(whomToBeginWith([peer(3, "listen")], 2).id, "p3");
  assert.equal(whomToBeginWith([peer(1, "listen", true), peer(4, "listen")], 2).id, "p4");
  assert.equal(whomToBeginWith([{ ...peer(1, "listen"), away: true }], 2), null);
  assert.equal(whomToBeginWith([{ id: "x", order: 1, meta: "no JSON" }], 2), null);
});

test("fragments are written as RFC 8840 has them, and read again", () => {
  const candidates = ["candidate:1 1 udp 99 10.0.0.1 5 typ host", "candidate:2 1 udp 98 10.0.0.2 6 typ host"];
  const fragment = { ufrag: "abcd", pwd: "p".repeat(22), mid: "0", candidates, ended: true };
  const text = writeFragment(fragment);
  assert.ok(text.endsWith("\r\na=end-of-candidates\r\n"));
  assert.deepEqual(readFragment(text), fragment);
  assert.throws(() => readFragment("a=ice-ufrag:abcd\r\n"), SyntaxError);
  assert.throws(() => readFragment(undefined), SyntaxError);
  assert.equal(readFragment(writeFragment({ ...fragment, candidates: Array(500).fill(candidates[0]) })).candidates.length, 128);
  assert.equal(identity(candidates[0]), identity("candidate:7 1 UDP 5 10.0.0.1 5 typ prflx"));
  assert.equal(credentials("v=0\r\na=ice-ufrag:x y\r\n").ufrag, "x y");
});

test("a file's name does no harm", () => {
  const names = {
    "../../etc/passwd": "passwd", "C:\\a\\b.txt": "b.txt", ".bashrc": "bashrc", "": "file",
    "a\u0000b\u202ec.txt": "abc.txt", "x/": "file", "a:b?.txt": "a_b_.txt", "grüße.txt": "grüße.txt",
  };
  for (const [name, safe] of Object.entries(names)) assert.equal(safeName(name), safe, name);
  assert.equal(new TextEncoder().encode(safeName("ü".repeat(500))).length <= 255, true);
  assert.equal(safeName(undefined), "file");
  const began = performance.now();
  safeName("ü".repeat(1 << 20));
  assert.ok(performance.now() - began < 1000);
});

test("text of the other side is one line and bounded", () => {
  assert.equal(shown("a\nb\u001b[31m"), "a?b?[31m");
  assert.equal(shown("x".repeat(999)).length, 200);
  assert.equal(shown(undefined), "");
  assert.equal(asText(new TextEncoder().encode("hi\n").buffer), "hi");
  assert.equal(asText(new Uint8Array([0, 1, 2]).buffer), null);
  assert.equal(asText(new Uint8Array([255, 254]).buffer), null);
});

test("sizes, times and the end of a test are said as people say them", () => {
  assert.deepEqual([0, 999, 1000, 50e6, 999.9e6].map(size), ["0 bytes", "999 bytes", "1.0 kB", "50 MB", "1.0 GB"]);
  assert.deepEqual([null, 0, 0.0042, 0.25].map(milliseconds), ["–", "under 1 ms", "4.2 ms", "250 ms"]);
  const readings = new Readings(1000);
  readings.take(JSON.stringify({ ping: 1500 }), 1520);
  readings.take(JSON.stringify({ received: 100, bytes: 125000 }), 2000);
  readings.take(JSON.stringify({ received: 300, bytes: 375000 }), 3000);
  readings.take(JSON.stringify({ received: 1, bytes: 1 }), 3500);
  for (const junk of ["", "null", "[]", '{"ping":"x"}', '{"bytes":1}', '{"ping":9e9}']) readings.take(junk, 3600);
  assert.deepEqual(readings.rates, [{ t: 1, value: 1 }, { t: 2, value: 2 }]);
  assert.deepEqual(readings.latencies, [{ t: 0.52, value: 20 }]);
  assert.equal(testInWords(new Readings(0).summary), "No answer came.");
});

test("a graph's top is a round number and its points stay inside", () => {
  assert.deepEqual([0, 1, 3, 7, 12, 0.03].map(roundUp), [1, 1, 5, 10, 20, 0.05]);
  const drawn = points([{ t: 0, value: 0 }, { t: 99, value: 99 }], 10, 10);
  for (const point of drawn.split(" ")) {
    const [x, y] = point.split(",").map(Number);
    assert.ok(x >= 0 && x <= 480 && y >= 0 && y <= 120);
  }
});

test("diagnostics tell what happened, bounded, without the link", () => {
  let clock = 0;
  const history = new History(() => clock++);
  for (let i = 0; i < 1000; i++) history.note(`event ${i}`);
  const text = diagnostics({
    server: "https://h", browser: "B", state: { title: "T", detail: "D" }, history,
    stats: readStats(stats(local, remote, pair)), channel: null,
  });
  assert.match(text, /in use +10\.0\.0\.1:5 > \[2001:db8::1\]:6 30 ms/);
  assert.match(text, /event 0\n/);
  assert.match(text, /event 999\n/);
  assert.match(text, /800 events left out/);
});
