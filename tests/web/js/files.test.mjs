import assert from "node:assert/strict";
import { test } from "node:test";
import { IncomingFile, sendFile } from "../../../signaling/web/files.js";

/** Two ends of a data channel as far as files need it. */
class End extends EventTarget {
  readyState = "open";
  bufferedAmount = 0;
  sent = [];

  static pair() {
    const [a, b] = [new End(), new End()];
    a.other = b;
    b.other = a;
    return [a, b];
  }

  send(data) {
    assert.equal(this.readyState, "open");
    const copy = typeof data === "string" ? data : Uint8Array.from(data).buffer;
    this.sent.push(copy);
    queueMicrotask(() => this.other.dispatchEvent(new MessageEvent("message", { data: copy })));
  }

  close() {
    for (const end of [this, this.other]) {
      if (end.readyState === "closed") continue;
      end.readyState = "closed";
      queueMicrotask(() => end.dispatchEvent(new Event("close")));
    }
  }

  say(object) {
    this.send(JSON.stringify(object));
  }
}

const file = (bytes, name = "a.bin") => Object.assign(new Blob([bytes]), { name });

test("a file arrives whole, in pieces of 16 KiB, with its hash", async () => {
  const [there, here] = End.pair();
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const sending = sendFile(there, file(bytes), { name: "a.bin" });
  const incoming = await IncomingFile.announced(here);
  assert.deepEqual([incoming.name, incoming.size], ["a.bin", 60_000]);
  const seen = [];
  const received = await incoming.accept({ onProgress: (done) => seen.push(done) });
  assert.deepEqual(new Uint8Array(await received.blob.arrayBuffer()), bytes);
  assert.equal((await sending).sha256, received.sha256);
  assert.equal(seen.at(-1), 60_000);
  const pieces = there.sent.filter((message) => typeof message !== "string");
  assert.ok(pieces.every((piece) => piece.byteLength <= 16_384));
});

test("an empty file is a file", async () => {
  const [there, here] = End.pair();
  const sending = sendFile(there, file(new Uint8Array()), { name: "empty" });
  const { blob } = await (await IncomingFile.announced(here)).accept();
  assert.equal(blob.size, 0);
  assert.equal((await sending).size, 0);
});

test("a declined file and a cancelled one end in a sentence", async () => {
  const [there, here] = End.pair();
  const sending = sendFile(there, file(new Uint8Array(9)), { name: "a" });
  (await IncomingFile.announced(here)).decline("not today");
  await assert.rejects(sending, { code: "file-refused", message: /not today\.$/ });
  const [out, into] = End.pair();
  const abort = new AbortController();
  const cancelled = sendFile(out, file(new Uint8Array(9)), { name: "a", signal: abort.signal });
  const incoming = await IncomingFile.announced(into);
  abort.abort();
  await assert.rejects(cancelled, { code: "closed" });
  await assert.rejects(incoming.accept(), { code: "file-broken" });
});

const LIES = {
  "more than announced": (end) => end.send(new Uint8Array(11)),
  "less than announced": (end) => end.say({ sha256: "00" }),
  "another hash": (end) => {
    end.send(new Uint8Array(10));
    end.say({ sha256: "00".repeat(32) });
  },
  "no JSON": (end) => end.send("nonsense"),
  "the end": (end) => end.close(),
};

for (const [name, lie] of Object.entries(LIES)) {
  test(`a sender that lies is found out: ${name}`, async () => {
    const [there, here] = End.pair();
    there.say({ name: "x", size: 10 });
    const accepting = (await IncomingFile.announced(here)).accept();
    lie(there);
    await assert.rejects(accepting, { code: "file-broken" });
  });
}

test("an announcement that makes no sense is refused", async () => {
  for (const head of [{}, { size: -1 }, { size: "9" }, { size: 1e300 }, { name: 1, size: 1.5 }]) {
    const [there, here] = End.pair();
    there.say(head);
    assert.equal(await IncomingFile.announced(here), null);
    assert.match(here.sent[0], /error/);
    here.close();
  }
});

test("what comes unasked is bounded", async () => {
  const [there, here] = End.pair();
  there.say({ name: "x", size: 1e9 });
  const incoming = await IncomingFile.announced(here);
  for (let i = 0; i < 2000 && there.readyState === "open"; i++) {
    there.send(new Uint8Array(16_384));
    await null;
  }
  assert.equal(here.readyState, "closed");
  await assert.rejects(incoming.accept(), { code: "file-broken" });
});

test("a receiver that says another hash is not believed", async () => {
  const [there, here] = End.pair();
  const sending = sendFile(there, file(new Uint8Array(5)), { name: "a" });
  here.addEventListener("message", ({ data }) => {
    if (typeof data !== "string") return;
    if ("size" in JSON.parse(data)) here.say({ ok: true });
    else here.say({ ok: true, sha256: "00".repeat(32) });
  });
  await assert.rejects(sending, { code: "file-broken", message: /hashes differ/ });
});

test("nobody waits forever: a receiver for pieces, a sender for an answer", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const turns = async () => {
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  const [there, here] = End.pair();
  there.say({ name: "x", size: 10 });
  const accepting = (await IncomingFile.announced(here)).accept();
  const receiver = assert.rejects(accepting, { code: "file-broken", message: /silent for 60 s/ });
  const [out] = End.pair();
  const sending = sendFile(out, file(new Uint8Array(9)), { name: "a" });
  const sender = assert.rejects(sending, { code: "file-broken", message: /silent for 300 s/ });
  await turns();
  context.mock.timers.tick(60_000);
  await receiver;
  context.mock.timers.tick(240_000);
  await sender;
});
