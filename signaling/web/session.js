// The client's side of a signaling session: counters, replay, keep-alive. No socket and no clock of
// its own; `now` is seconds. It outlives its connections. docs/reference/signaling-protocol.md.

const WINDOW = 64;
const ACK_EVERY = 16;
const ANSWER_TIMEOUT = 10;
const SILENT_PINGS = 2.5;

export class Session {
  #outgoing = [];
  #unconfirmed = [];
  #backlog = [];
  #sid = "";
  #key = "";
  #lastId = 0;
  #taken = 0;
  #acknowledged = 0;
  #ping = 25;
  #pings = 0;
  #pingAt = Infinity;
  #heardAt = 0;
  #greetedAt = 0;
  #waitingSince = 0;

  constructor(room, { meta = "", maxPeers = null, token = "" } = {}) {
    this.room = room;
    this.meta = meta;
    this.maxPeers = maxPeers;
    this.token = token;
    this.established = false;
    /** Why this connection is of no use any more, as half a sentence. */
    this.fault = null;
    /** The fatal `error` of the server. */
    this.refusal = null;
    this.drain = null;
    this.selfId = "";
    this.order = 0;
    /** Seconds to the server and back, as of the last welcome. */
    this.roundTrip = null;
  }

  connectionMade(now) {
    this.established = false;
    this.fault = this.refusal = this.drain = null;
    this.#outgoing = [];
    this.#heardAt = this.#greetedAt = now;
    this.#pingAt = Infinity;
    const hello = { type: "hello", v: 1, room: this.room };
    if (this.token) hello.token = this.token;
    if (this.meta) hello.meta = this.meta;
    if (this.maxPeers) hello.max_peers = this.maxPeers;
    if (this.#sid) hello.resume = { sid: this.#sid, key: this.#key, seq: this.#taken };
    this.#put(hello);
  }

  connectionLost() {
    this.established = false;
    this.#outgoing = [];
    this.#pingAt = Infinity;
  }

  /** A signal, kept until the server has confirmed it, over any number of connections. */
  send(signal, now) {
    if (this.#unconfirmed.length >= WINDOW) {
      this.#backlog.push(signal);
      return;
    }
    this.#lastId += 1;
    const frame = { type: "signal", id: this.#lastId, ...signal };
    if (this.#unconfirmed.length === 0) this.#waitingSince = now;
    this.#unconfirmed.push(frame);
    if (this.established) this.#put(frame);
  }

  reportOutcome(outcome, seconds) {
    const ms = seconds === undefined ? {} : { ms: Math.max(0, Math.round(seconds * 1000)) };
    if (this.established) this.#put({ type: "outcome", outcome, ...ms });
  }

  askForIceServers() {
    if (this.established) this.#put({ type: "ice" });
  }

  leave() {
    if (this.established) this.#put({ type: "leave" });
  }

  /** The text frames that are to go out now. */
  framesToSend() {
    const frames = this.#outgoing;
    this.#outgoing = [];
    return frames.map((frame) => JSON.stringify(frame));
  }

  /** When `handleTimer` is due. */
  get timer() {
    return Math.min(this.#pingAt, this.#pingAt === Infinity ? Infinity : this.#deadline);
  }

  handleTimer(now) {
    if (this.#pingAt === Infinity) return;
    if (now >= this.#deadline) {
      this.fault = "the signaling server went silent";
    } else if (now >= this.#pingAt) {
      this.#acknowledge(1);
      this.#pings += 1;
      this.#put({ type: "ping", n: this.#pings });
      this.#pingAt = now + this.#ping;
    }
  }

  /** Takes a frame of the server; the events it makes, each with a `type`. */
  receive(text, now) {
    this.#heardAt = now;
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      message = null;
    }
    if (typeof message?.type !== "string") {
      this.fault = "the server broke the protocol: a frame that is no message";
      return [];
    }
    if (["peer", "signal"].includes(message.type) || (message.type === "error" && message.seq)) {
      return this.#numbered(message, now);
    }
    switch (message.type) {
      case "welcome":
        return this.#welcomed(message, now);
      case "resumed":
        return this.#resumed(message, now);
      case "ack":
        this.#confirm(message.id, now);
        return [];
      case "ice":
        return [{ type: "ice", servers: message.servers }];
      case "drain":
        this.drain = message;
        return [];
      case "error":
        if (message.fatal) this.refusal = message;
        return [];
      default:
        return [];
    }
  }

  #put(frame) {
    this.#outgoing.push(frame);
  }

  #welcomed(welcome, now) {
    if (this.established || !Array.isArray(welcome.peers) || !welcome.self) {
      this.fault = "the server broke the protocol: a welcome out of place";
      return [];
    }
    if (welcome.v !== 1) {
      this.fault = `the server speaks version ${Number(welcome.v)} of the protocol, not 1`;
      return [];
    }
    this.established = true;
    this.roundTrip = now - this.#greetedAt;
    this.selfId = welcome.self;
    this.order = welcome.order;
    this.#sid = welcome.sid;
    this.#key = welcome.key;
    this.#lastId = this.#taken = this.#acknowledged = 0;
    this.#unconfirmed = [];
    this.#backlog = [];
    this.#beginPings(welcome.ping, now);
    const iceServers = welcome.ice?.servers ?? [];
    const { self: selfId, order, peers, you } = welcome;
    return [{ type: "welcome", selfId, order, peers, iceServers, observed: you }];
  }

  #resumed(resumed, now) {
    if (this.established || !this.#sid || !(resumed.rx >= 0 && resumed.rx <= this.#lastId)) {
      this.fault = "the server broke the protocol: it resumed what was not asked for";
      return [];
    }
    this.established = true;
    this.#confirm(resumed.rx, now);
    this.#acknowledged = this.#taken;
    this.#waitingSince = now;
    this.#outgoing.push(...this.#unconfirmed);
    this.#beginPings(this.#ping, now);
    return [{ type: "resumed", peers: resumed.peers }];
  }

  #numbered(message, now) {
    if (message.seq <= this.#taken) return [];
    if (message.seq !== this.#taken + 1 || !this.established) {
      this.fault = `frame ${message.seq} came after ${this.#taken}`;
      return [];
    }
    this.#taken = message.seq;
    this.#acknowledge(ACK_EVERY);
    if (message.type === "error") {
      this.#confirm(message.ref ?? 0, now);
      return [{ type: "unavailable", to: message.to ?? "", code: message.code, text: message.message }];
    }
    return [message];
  }

  #acknowledge(atLeast) {
    if (this.#taken - this.#acknowledged < atLeast) return;
    this.#acknowledged = this.#taken;
    this.#put({ type: "ack", seq: this.#taken });
  }

  #confirm(id, now) {
    while (this.#unconfirmed.length > 0 && this.#unconfirmed[0].id <= id) this.#unconfirmed.shift();
    while (this.#backlog.length > 0 && this.#unconfirmed.length < WINDOW) {
      this.send(this.#backlog.shift(), now);
    }
  }

  #beginPings(interval, now) {
    this.#ping = Math.max(1, Number(interval) || 25);
    this.#pingAt = now + this.#ping;
  }

  get #deadline() {
    const silent = this.#heardAt + SILENT_PINGS * this.#ping;
    if (this.#unconfirmed.length === 0) return silent;
    return Math.min(silent, Math.max(this.#heardAt, this.#waitingSince) + ANSWER_TIMEOUT);
  }
}

/** What the end of a connection means: come back ("again") or not ("never"). */
export function judge(code) {
  if (code >= 4500 && code <= 4999) return "never";
  return [1000, 1002, 1003, 1007, 1008, 1009, 1010].includes(code) ? "never" : "again";
}

/** Seconds until the next connection: full jitter, 0.5 s doubling to 30 s. `random` is 0 to 1. */
export function backoff(attempt, random, { jitter = null, retryAfter = 0 } = {}) {
  const bounded = (seconds) => Math.min(Math.max(Number(seconds) || 0, 0), 30);
  const spread = Math.min(30, 0.5 * 2 ** Math.min(attempt, 16));
  // Sent away time and again, it comes less and less often, whatever the server says.
  if (jitter !== null) return random * Math.max(bounded(jitter), attempt === 0 ? 0 : spread);
  return bounded(retryAfter) + random * spread;
}
