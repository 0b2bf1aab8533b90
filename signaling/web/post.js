// The sealed post between two peers: what an attempt says, in order, however long sealing takes.

import { SealBroken } from "./sealing.js";

export const KINDS = ["offer", "answer", "cand", "restart", "reject", "bye"];

export class Post {
  #sealer;
  #send;
  #queue = Promise.resolve();
  #goodbye = null;

  /** `send` takes { to, link, gen, kind, data }. */
  constructor({ sealer, send, selfId, peerId, link }) {
    this.#sealer = sealer;
    this.#send = send;
    this.selfId = selfId;
    this.peerId = peerId;
    this.link = link;
    const place = { from: selfId, to: peerId, link, gen: 0, kind: "bye" };
    const letter = JSON.stringify({ reason: "closed" });
    // Sealed ahead: a page that is being closed has no time to wait for WebCrypto.
    sealer.seal(letter, place).then((sealed) => (this.#goodbye = sealed));
  }

  send(kind, letter, gen = 0) {
    const place = { from: this.selfId, to: this.peerId, link: this.link, gen, kind };
    const sealed = this.#sealer.seal(JSON.stringify(letter), place);
    this.#queue = this.#queue.then(async () => this.#put(kind, gen, await sealed));
  }

  /** Say at once that the session is over. */
  goodbye() {
    if (this.#goodbye !== null) this.#put("bye", 0, this.#goodbye);
    else this.send("bye", { reason: "closed" });
  }

  /** Say that a letter could not be opened; there is nothing to seal that with. */
  refuseUnread() {
    this.#put("reject", 0, "");
  }

  /** The letter, or null for what makes no sense. Throws `SealBroken`. */
  async open(kind, gen, data) {
    const place = { from: this.peerId, to: this.selfId, link: this.link, gen, kind };
    const text = await this.#sealer.open(data, place);
    try {
      const letter = JSON.parse(text);
      return letter !== null && typeof letter === "object" ? letter : null;
    } catch {
      return null;
    }
  }

  #put(kind, gen, data) {
    this.#send({ to: this.peerId, link: this.link, gen, kind, data });
  }
}

export { SealBroken };
