/**
 * ice-punch in a browser: a link in, a connection out. An ES module without dependencies; every
 * name is described in docs/reference/javascript.md.
 */

import { IcePunchError } from "./errors.js";
import { Link, createLink, parseLink } from "./link.js";
import { measure } from "./measure.js";
import { Room } from "./room.js";
import { Sha256 } from "./sha256.js";

export { IcePunchError, Link, Room, Sha256, createLink, measure, parseLink };
export { Channel } from "./channel.js";
export { IncomingFile } from "./files.js";

/**
 * Reach the peer that listens on `link`: a `Channel` that is open. Options: `token`, `timeout`
 * (seconds, 60), `signal` (an `AbortSignal`). Rejects with an `IcePunchError`.
 */
export function connect(link, options = {}) {
  return inRoom(link, { ...options, role: "connect" }, (room, found) => {
    const look = () => {
      const host = room.host;
      if (host) found(room.begin(host));
    };
    room.addEventListener("peers", look);
    return () => room.removeEventListener("peers", look);
  });
}

/**
 * Reach whoever else has `link`: a program or page that listens on it, or another one that calls
 * this. Options and errors as for `connect`.
 */
export function meet(link, options = {}) {
  return inRoom(link, { ...options, role: "listen", begins: true }, (room, found) => {
    const look = () => {
      const host = room.host;
      if (host) found(room.begin(host));
    };
    const come = ({ detail }) => found(detail);
    room.addEventListener("peers", look);
    room.addEventListener("channel", come);
    return () => {
      room.removeEventListener("peers", look);
      room.removeEventListener("channel", come);
      room.accepts = () => "it is talking to somebody else";
    };
  });
}

/**
 * Wait in a new room on the server at `server`, or in that of a `Link`. Options: `token`,
 * `maxPeers` (seats of the room), `timeout`. The `Listener`'s `link` is for the other side.
 */
export async function listen(server, options = {}) {
  const link = server instanceof Link ? server : createLink(server);
  const room = new Room(link, { ...options, role: "listen" });
  const listener = new Listener(room);
  await entered(room);
  return listener;
}

/** Gives every peer that comes as an open `Channel`: `for await (const channel of listener)`. */
export class Listener {
  #ready = [];
  #waiting = [];
  #error = null;

  constructor(room) {
    this.room = room;
    room.addEventListener("channel", ({ detail }) => {
      detail.opened.then((channel) => this.#give(channel), () => {});
    });
    room.addEventListener("failed", ({ detail }) => this.#stop(detail));
  }

  get link() {
    return String(this.room.link);
  }

  /** The next peer. Rejects when no more can come. */
  accept() {
    if (this.#ready.length > 0) return Promise.resolve(this.#ready.shift());
    if (this.#error) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  async *[Symbol.asyncIterator]() {
    for (;;) yield await this.accept();
  }

  /** Leave the room; the channels close as well. */
  close() {
    this.room.close();
    this.#stop(new IcePunchError("closed", "The listener is closed."));
  }

  #give(channel) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting.resolve(channel);
    else this.#ready.push(channel);
  }

  #stop(error) {
    this.#error = error;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

async function inRoom(link, options, search) {
  const { timeout = 60, signal } = options;
  const room = new Room(link instanceof Link ? link : parseLink(link), options);
  let stop = () => {};
  let late;
  try {
    signal?.throwIfAborted();
    const channel = await new Promise((resolve, reject) => {
      const nobody = new IcePunchError("nobody-there", `Nobody came on this link within ${timeout} s.`);
      late = setTimeout(() => reject(nobody), timeout * 1000);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      let one = null;
      stop = search(room, (found) => {
        if (one) return;
        one = found;
        stop();
        found.opened.then(resolve, reject);
      });
      entered(room).catch(reject);
      room.addEventListener("closed", ({ detail }) => reject(detail));
      room.addEventListener("failed", ({ detail }) => reject(detail));
    });
    channel.addEventListener("close", () => room.close());
    return channel;
  } catch (error) {
    room.close();
    throw error;
  } finally {
    clearTimeout(late);
    stop();
  }
}

function entered(room) {
  return new Promise((resolve, reject) => {
    room.addEventListener("entered", resolve, { once: true });
    room.addEventListener("failed", ({ detail }) => reject(detail), { once: true });
    room.addEventListener("connection", ({ detail }) => {
      if (!detail.connected && !room.selfId) {
        room.close();
        reject(new IcePunchError("unreachable", detail.reason));
      }
    });
    room.enter().catch(reject);
  });
}
