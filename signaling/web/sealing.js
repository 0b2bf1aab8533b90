// Payloads the server can neither read nor change: HKDF-SHA256 and AES-256-GCM, by WebCrypto.
// docs/reference/signaling-protocol.md, "Sealed payloads".

import { fromBase64url, randomBytes, toBase64url } from "./base64url.js";

const NONCE_SIZE = 12;
const TAG_SIZE = 16;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A letter that was not sealed with this link's secret for this place, or was altered. */
export class SealBroken extends Error {}

export class Sealer {
  #key;

  constructor(key) {
    this.#key = key;
  }

  /** For the bytes of a link's secret and the link's room. Needs a secure context. */
  static async of(secret, room) {
    const material = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]);
    const derivation = {
      name: "HKDF",
      hash: "SHA-256",
      salt: encoder.encode("icepunch.v1 seal"),
      info: encoder.encode(room),
    };
    const cipher = { name: "AES-GCM", length: 256 };
    const uses = ["encrypt", "decrypt"];
    return new Sealer(await crypto.subtle.deriveKey(derivation, material, cipher, false, uses));
  }

  /** `place` is { from, to, link, gen, kind }: what the letter is bound to. */
  async seal(text, place) {
    const iv = randomBytes(NONCE_SIZE);
    const algorithm = { name: "AES-GCM", iv, additionalData: bound(place) };
    const sealed = await crypto.subtle.encrypt(algorithm, this.#key, encoder.encode(text));
    const whole = new Uint8Array(NONCE_SIZE + sealed.byteLength);
    whole.set(iv);
    whole.set(new Uint8Array(sealed), NONCE_SIZE);
    return toBase64url(whole);
  }

  /** What `seal` was given. Throws `SealBroken` and nothing else. */
  async open(sealed, place) {
    try {
      const data = fromBase64url(sealed);
      if (data.length < NONCE_SIZE + TAG_SIZE) throw new SealBroken();
      const iv = data.subarray(0, NONCE_SIZE);
      const algorithm = { name: "AES-GCM", iv, additionalData: bound(place) };
      const text = await crypto.subtle.decrypt(algorithm, this.#key, data.subarray(NONCE_SIZE));
      return decoder.decode(text);
    } catch {
      throw new SealBroken("the payload does not open: another secret sealed it, or it was altered");
    }
  }
}

// Each field after its length, so that no two different places are the same bytes.
function bound({ from, to, link, gen, kind }) {
  const fields = [from, to, link, String(gen), kind].map((field) => encoder.encode(field));
  const out = new Uint8Array(fields.reduce((sum, field) => sum + 4 + field.length, 0));
  const view = new DataView(out.buffer);
  let at = 0;
  for (const field of fields) {
    view.setUint32(at, field.length);
    out.set(field, at + 4);
    at += 4 + field.length;
  }
  return out;
}
