// Files over data channels of protocol icepunch.file.1, with a hash at the end.
// docs/reference/browser-peers.md has the messages.

import { IcePunchError, shown } from "./errors.js";
import { Sha256 } from "./sha256.js";

export const FILE_PROTOCOL = "icepunch.file.1";
const PIECE = 16 * 1024;
const READ = 1024 * 1024;
const AHEAD = 1024 * 1024;
const PATIENCE = 60;
const PATIENCE_WITH_PEOPLE = 300;
const NAME_BYTES = 255;
const MAX_UNREAD = 16 * 1024 * 1024;

/** A name nobody can do harm with: the last part of a path, no control characters, not too long. */
export function safeName(name) {
  const last = String(name ?? "").slice(-4096).split(/[/\\]/).at(-1).slice(0, NAME_BYTES);
  let clean = last.replace(/\p{C}/gu, "").replace(/[<>:"|?*]/g, "_").trim().replace(/^\.+/, "");
  const bytes = (text) => new TextEncoder().encode(text).length;
  while (bytes(clean) > NAME_BYTES) clean = [...clean].slice(0, -1).join("");
  return clean || "file";
}

/** Messages of a data channel, one at a time, and its end as an error. */
class Mailbox {
  #messages = [];
  #unread = 0;
  #waiting = null;
  #ended = false;

  constructor(channel) {
    channel.binaryType = "arraybuffer";
    channel.addEventListener("message", ({ data }) => {
      this.#unread += sizeOf(data);
      // Nobody sends as much before it was asked to.
      if (this.#unread > MAX_UNREAD) channel.close();
      else this.#messages.push(data);
      this.#wake();
    });
    for (const type of ["close", "error", "closing"]) {
      channel.addEventListener(type, () => {
        this.#ended = true;
        this.#wake();
      });
    }
  }

  get empty() {
    return this.#messages.length === 0;
  }

  /** Throws an `IcePunchError` at the end, and after `patience` seconds of silence. */
  async next(patience = PATIENCE) {
    while (this.#messages.length === 0) {
      if (this.#ended) throw new IcePunchError("file-broken", "The other side broke the file off.");
      await within(patience, new Promise((resolve) => (this.#waiting = resolve)));
    }
    const message = this.#messages.shift();
    this.#unread -= sizeOf(message);
    return message;
  }

  async nextObject(patience) {
    return parse(await this.next(patience));
  }

  #wake() {
    this.#waiting?.();
    this.#waiting = null;
  }
}

async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    const error = new IcePunchError("file-broken", `The other side was silent for ${seconds} s.`);
    timer = setTimeout(() => reject(error), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function sizeOf(message) {
  return typeof message === "string" ? message.length : message.byteLength;
}

function parse(text) {
  try {
    const value = typeof text === "string" ? JSON.parse(text) : null;
    if (value !== null && typeof value === "object") return value;
  } catch {
    // Said below.
  }
  throw new IcePunchError("file-broken", "The other side does not keep to the file protocol.");
}

/** Used by `Channel.sendFile`. */
export async function sendFile(channel, file, { name, onProgress = () => {}, signal }) {
  const mailbox = new Mailbox(channel);
  const cancelled = new IcePunchError("closed", "The file was cancelled here.");
  const onAbort = () => channel.close();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    if (signal?.aborted) throw cancelled;
    await opened(channel);
    channel.send(JSON.stringify({ name: safeName(name), size: file.size, type: file.type || undefined }));
    expectOk(await mailbox.nextObject(PATIENCE_WITH_PEOPLE));
    const hash = new Sha256();
    for (let at = 0; at < file.size; at += READ) {
      const part = new Uint8Array(await file.slice(at, at + READ).arrayBuffer());
      hash.update(part);
      for (let from = 0; from < part.length; from += PIECE) {
        const piece = part.subarray(from, from + PIECE);
        await roomFor(channel, mailbox);
        channel.send(piece);
        onProgress(at + from + piece.length - channel.bufferedAmount, file.size);
      }
    }
    const sha256 = hash.hex();
    channel.send(JSON.stringify({ sha256 }));
    const answer = await mailbox.nextObject();
    expectOk(answer);
    if (answer.sha256 !== sha256) {
      throw new IcePunchError("file-broken", "The other side received something else: the hashes differ.");
    }
    onProgress(file.size, file.size);
    return { sha256, size: file.size };
  } catch (error) {
    if (signal?.aborted) throw cancelled;
    if (error instanceof IcePunchError) throw error;
    throw new IcePunchError("file-broken", `The file could not be sent: ${shown(error?.message)}.`);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    channel.close();
  }
}

function expectOk(answer) {
  if (answer.ok === true) return;
  const reason = shown(answer.error) || "no reason given";
  throw new IcePunchError("file-refused", `The other side does not take the file: ${reason}.`);
}

function opened(channel) {
  if (channel.readyState === "open") return Promise.resolve();
  return new Promise((resolve, reject) => {
    channel.addEventListener("open", resolve, { once: true });
    const gone = () => reject(new IcePunchError("file-broken", "The connection closed."));
    for (const type of ["close", "error"]) channel.addEventListener(type, gone, { once: true });
  });
}

async function roomFor(channel, mailbox) {
  while (channel.readyState === "open" && channel.bufferedAmount > AHEAD && mailbox.empty) {
    channel.bufferedAmountLowThreshold = AHEAD / 2;
    const events = ["bufferedamountlow", "close", "error", "message"];
    const happened = new Promise((resolve) => {
      const done = () => {
        for (const type of events) channel.removeEventListener(type, done);
        resolve();
      };
      for (const type of events) channel.addEventListener(type, done);
    });
    await within(PATIENCE, happened);
  }
  if (!mailbox.empty) expectOk(await mailbox.nextObject()); // only an error comes in the middle
  if (channel.readyState !== "open") {
    throw new IcePunchError("file-broken", "The other side broke the file off.");
  }
}

/** A file that the other side wants to send: `name`, `size` (bytes), `type`. Nothing of it comes
 * before `accept()`. */
export class IncomingFile {
  #channel;
  #mailbox;
  handled = false;

  constructor(channel, mailbox, { name, size, type }) {
    this.#channel = channel;
    this.#mailbox = mailbox;
    this.name = safeName(name);
    this.size = size;
    this.type = typeof type === "string" && /^[\w.+-]+\/[\w.+-]+$/.test(type) ? type : "";
  }

  /** The file a new channel speaks of, or null if it makes no sense. */
  static async announced(channel) {
    const mailbox = new Mailbox(channel);
    try {
      const head = await mailbox.nextObject();
      if (!Number.isSafeInteger(head.size) || head.size < 0) throw new SyntaxError();
      return new IncomingFile(channel, mailbox, head);
    } catch {
      refuse(channel, "the announcement of the file makes no sense");
      return null;
    }
  }

  decline(reason = "it was declined") {
    this.handled = true;
    refuse(this.#channel, reason);
  }

  /** Leave it in the middle. */
  cancel() {
    this.#channel.close();
  }

  /** Called once the sender gave up before `accept()`. */
  onWithdrawn(callback) {
    this.#channel.addEventListener("close", callback, { once: true });
  }

  /** Receive it: { blob, sha256 }. `onProgress(receivedBytes, size)`. */
  async accept({ onProgress = () => {} } = {}) {
    this.handled = true;
    const hash = new Sha256();
    const parts = [];
    let pending = [];
    let held = 0;
    let received = 0;
    try {
      if (this.#channel.readyState !== "open") {
        throw new IcePunchError("file-broken", "The other side has withdrawn the file.");
      }
      this.#channel.send(JSON.stringify({ ok: true }));
      for (;;) {
        const message = await this.#mailbox.next();
        if (typeof message === "string") {
          const { sha256 } = parse(message);
          return { blob: this.#finish(parts, pending, received, hash, sha256), sha256 };
        }
        received += message.byteLength;
        if (received > this.size) throw new IcePunchError("file-broken", "More came than announced.");
        hash.update(message);
        pending.push(message);
        held += message.byteLength;
        if (held >= 8 * READ) {
          parts.push(new Blob(pending)); // a browser may keep blobs on disk
          pending = [];
          held = 0;
        }
        onProgress(received, this.size);
      }
    } catch (error) {
      refuse(this.#channel, error.message);
      throw error;
    }
  }

  #finish(parts, pending, received, hash, sha256) {
    if (received !== this.size || hash.hex() !== sha256) {
      throw new IcePunchError("file-broken", "The file arrived damaged: its size or hash differs.");
    }
    this.#channel.send(JSON.stringify({ ok: true, sha256 })); // the sender closes
    return new Blob([...parts, ...pending], { type: this.type });
  }
}

function refuse(channel, reason) {
  if (channel.readyState !== "open") return;
  channel.send(JSON.stringify({ error: reason }));
  // The sender closes; if it does not, we do.
  setTimeout(() => channel.close(), 2000);
}
