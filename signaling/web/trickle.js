// Candidates on their way out, gathered for a moment, and on their way in.

import { credentials, identity, writeFragment } from "./sdpfrag.js";

const GATHER_FOR = 20;

/** Tells the peer of our candidates: each fragment repeats those before it (RFC 8840 section 4.4). */
export class Outgoing {
  #send;
  #found = new Map();
  #current = null;
  #timer = null;

  /** `send(sdpfrag, generation)`. */
  constructor(send) {
    this.#send = send;
  }

  /** Our description of this generation is on its way, so its candidates may follow. */
  described(sdp, generation) {
    this.#current = { ...credentials(sdp), generation };
    for (const ufrag of this.#found.keys()) {
      if (ufrag !== this.#current.ufrag) this.#found.delete(ufrag);
    }
    if (this.#found.size > 0) this.#soon();
  }

  /** A candidate of `onicecandidate`, null at the end. */
  found(candidate) {
    const text = candidate?.candidate ?? "";
    const ufrag =
      candidate?.usernameFragment ?? / ufrag (\S+)/.exec(text)?.[1] ?? this.#current?.ufrag;
    if (!ufrag) return;
    const found = this.#found.get(ufrag) ?? { candidates: [], ended: false };
    if (text) found.candidates.push(text);
    else found.ended = true;
    this.#found.set(ufrag, found);
    if (ufrag === this.#current?.ufrag) this.#soon();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#send = () => {};
  }

  #soon() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const found = this.#found.get(this.#current.ufrag);
      if (found) this.#send(writeFragment({ ...this.#current, ...found }), this.#current.generation);
    }, GATHER_FOR);
  }
}

/** Gives the browser what fragments bring, each candidate once. */
export class Incoming {
  #pc;
  #known = new Set();
  #ended = new Set();

  constructor(pc) {
    this.#pc = pc;
  }

  async take({ ufrag, candidates, ended }) {
    const mid = credentials(this.#pc.remoteDescription?.sdp ?? "").mid ?? "0";
    for (const candidate of candidates) {
      const key = `${ufrag} ${identity(candidate)}`;
      if (this.#known.has(key) || this.#known.size >= 1024) continue;
      this.#known.add(key);
      await this.#add({ candidate, sdpMid: mid, usernameFragment: ufrag });
    }
    if (ended && !this.#ended.has(ufrag)) {
      this.#ended.add(ufrag);
      await this.#add({ candidate: "", sdpMid: mid, usernameFragment: ufrag });
    }
  }

  async #add(init) {
    try {
      await this.#pc.addIceCandidate(init);
    } catch {
      // One the browser does not understand, or the end, which some take for an error.
    }
  }
}
