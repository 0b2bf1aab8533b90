// Whose turn it is to offer, which generation counts, when a candidate may be used. No clock of its
// own: `now` is seconds from any origin. The rules are those of docs/reference/signaling-protocol.md.

export const MAX_WAITING = 32;
const MAX_WAIT = 15;
const RESTART_INTERVAL = 1;
const ANSWER_WITHIN = 20;
const GENERATION_MAX = 2 ** 31 - 1;

export class Negotiation {
  #answered = false;
  #askedAt = null;
  #offeredAt = null;
  #described = { generation: -1, ufrag: "" };
  #waiting = [];

  /** `offers`: our order in the room is the larger one, so every offer is ours. */
  constructor(offers) {
    this.offers = offers;
    /** The last one offered, by us or to us; -1 before the first offer. */
    this.generation = -1;
    /** Candidates and descriptions that were too old, too early for too long, or too many. */
    this.dropped = 0;
  }

  /** Whether the last offer has its answer. */
  get settled() {
    return this.#answered;
  }

  /** The first step of an attempt of ours: { kind: "offer" | "restart", generation }. */
  begin() {
    return this.#step(null);
  }

  /** ICE is to restart: what to send, or null while a restart is under way or was a moment ago. */
  restart(now) {
    return this.#mayRestart(now) ? this.#step(now) : null;
  }

  /** We sent the answer to the offer last taken. */
  answered() {
    this.#answered = true;
  }

  /** The peer asks for an offer: the generation to offer, or null. */
  receiveRestart(generation, now) {
    if (!this.offers || generation <= this.generation) return null;
    if (this.generation >= 0 && !this.#mayRestart(now)) {
      this.dropped += 1;
      return null;
    }
    return this.#step(now).generation;
  }

  /** Whether this offer is to be taken: it is the peer's turn, and it is newer. */
  receiveOffer(generation) {
    if (this.offers || generation <= this.generation) {
      this.dropped += 1;
      return false;
    }
    this.generation = generation;
    this.#answered = false;
    this.#askedAt = null;
    return true;
  }

  /** Whether this answer is to be taken: it is the first to our last offer. */
  receiveAnswer(generation) {
    if (!this.offers || generation !== this.generation || this.#answered) {
      this.dropped += 1;
      return false;
    }
    this.#answered = true;
    return true;
  }

  /** Whether the fragment is to be used now. One that comes early waits. */
  receiveCandidates(generation, fragment, now) {
    if (this.#isDescribed(generation, fragment.ufrag)) return true;
    if (generation < this.generation || generation <= this.#described.generation) {
      this.dropped += 1;
      return false;
    }
    this.#forgetOld(now);
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.dropped += 1;
    }
    this.#waiting.push({ until: now + MAX_WAIT, generation, fragment });
    return false;
  }

  /** The peer's description was set: the fragments that waited for it, in order. */
  descriptionSet(generation, ufrag, now) {
    this.#described = { generation, ufrag };
    this.#forgetOld(now);
    const due = this.#waiting.filter((w) => this.#isDescribed(w.generation, w.fragment.ufrag));
    const later = this.#waiting.filter((w) => w.generation > generation);
    this.dropped += this.#waiting.length - due.length - later.length;
    this.#waiting = later;
    return due.map((waiting) => waiting.fragment);
  }

  #isDescribed(generation, ufrag) {
    return generation === this.#described.generation && ufrag === this.#described.ufrag;
  }

  #mayRestart(now) {
    if (this.generation >= GENERATION_MAX) return false;
    if (!this.#answered) {
      return this.#offeredAt !== null && now >= this.#offeredAt + ANSWER_WITHIN;
    }
    return this.#askedAt === null || now >= this.#askedAt + RESTART_INTERVAL;
  }

  #step(now) {
    this.#askedAt = now;
    if (!this.offers) return { kind: "restart", generation: this.generation + 1 };
    this.generation += 1;
    this.#answered = false;
    this.#offeredAt = now;
    return { kind: "offer", generation: this.generation };
  }

  #forgetOld(now) {
    while (this.#waiting.length > 0 && this.#waiting[0].until <= now) {
      this.#waiting.shift();
      this.dropped += 1;
    }
  }
}
