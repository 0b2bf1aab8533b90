import assert from "node:assert/strict";
import { createHash, randomBytes, webcrypto } from "node:crypto";
import { test } from "node:test";
import { Sha256 } from "../../../signaling/web/sha256.js";

const hex = (bytes) => createHash("sha256").update(bytes).digest("hex");

test("the vectors of FIPS 180-4", () => {
  const of = (text) => new Sha256().update(new TextEncoder().encode(text)).hex();
  assert.equal(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert.equal(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(
    of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
  );
});

test("every length around a block is what node makes of it", () => {
  for (let length = 0; length <= 200; length++) {
    const bytes = randomBytes(length);
    assert.equal(new Sha256().update(bytes).hex(), hex(bytes), `${length} bytes`);
  }
});

test("pieces of any size make the same hash as the whole, and as WebCrypto", async () => {
  const whole = randomBytes(300_000);
  const hash = new Sha256();
  for (let at = 0; at < whole.length; ) {
    const next = Math.min(whole.length, at + 1 + ((at * 7919) % 5000));
    hash.update(at % 2 ? whole.subarray(at, next) : new Uint8Array(whole.subarray(at, next)).buffer);
    at = next;
  }
  const digest = new Uint8Array(await webcrypto.subtle.digest("SHA-256", whole));
  assert.deepEqual(hash.digest(), digest);
});

test("more than 512 MiB is counted in more than 32 bits", { timeout: 60_000 }, () => {
  const piece = new Uint8Array(1 << 24);
  const ours = new Sha256();
  const nodes = createHash("sha256");
  for (let i = 0; i < 33; i++) {
    ours.update(piece);
    nodes.update(piece);
  }
  assert.equal(ours.hex(), nodes.digest("hex"));
});
