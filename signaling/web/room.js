// A room on a signaling server, and who in it talks to whom.

import { randomBytes, toBase64url } from "./base64url.js";
import { Channel } from "./channel.js";
import { IcePunchError } from "./errors.js";
import { Post, SealBroken } from "./post.js";
import { Sealer } from "./sealing.js";
import { Signaling, usedUp } from "./signaling.js";

const MAX_CHANNELS = 16;
const MAX_PEERS = 1024;

/** What a peer says of itself: { role, begins }. */
export function describe(meta) {
  try {
    const { role, begins } = JSON.parse(meta);
    return { role: String(role ?? ""), begins: begins === true };
  } catch {
    return { role: "", begins: false };
  }
}

/**
 * Whom to begin with, or null if nobody is there or others begin. Who only listens never begins, so
 * it comes first; of two that do both, the one that came later begins.
 */
export function whomToBeginWith(peers, order) {
  const listening = peers
    .map((peer) => ({ ...peer, ...describe(peer.meta) }))
    .filter((peer) => peer.role === "listen" && !peer.away)
    .sort((a, b) => a.order - b.order);
  return (
    listening.find((peer) => !peer.begins) ??
    listening.find((peer) => peer.order < order) ??
    null
  );
}

/**
 * `role` is `listen` (may be begun with) or `connect`; `begins` says that one that listens also begins
 * with others. Events: `entered`, `peers`,
 * `channel` (a `Channel` that another peer began, as `detail`), `refused` (a peer with a wrong
 * secret), `connection` ({ connected, reason? }), `closed` (whoever opened the room has ended it: an
 * `IcePunchError`), `failed` (an `IcePunchError`).
 */
export class Room extends EventTarget {
  #sealer = null;
  #channels = new Map();
  #refusedPeers = new Set();
  #iceServers = [];
  #order = 0;
  #work = Promise.resolve();
  #onPageHide = () => this.close();

  constructor(link, options = {}) {
    const { role = "listen", begins = false, token = "", maxPeers = null } = options;
    super();
    this.link = link;
    this.role = role;
    this.peers = new Map();
    this.selfId = "";
    /** Peers that came with a wrong secret. */
    this.refused = 0;
    this.timeout = options.timeout ?? 60;
    /** Takes a peer's id; why it is refused, as half a sentence, or null. */
    this.accepts =
      options.accepts ?? (() => (role === "listen" ? null : "it did not expect that"));
    const meta = JSON.stringify(begins ? { role, begins } : { role });
    this.signaling = new Signaling(link, { meta, token, maxPeers });
    this.signaling.addEventListener("event", ({ detail }) => {
      this.#work = this.#work.then(() => this.#take(detail)).catch(() => {});
    });
    this.signaling.addEventListener("connection", ({ detail }) => this.#tell("connection", detail));
    this.signaling.addEventListener("failed", ({ detail }) => {
      for (const channel of this.#channels.values()) channel.signalingFailed(detail);
      this.#tell("failed", detail);
    });
  }

  /** Throws an `IcePunchError` where the browser lacks what it takes. */
  async enter() {
    checkBrowser();
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    this.#sealer = await Sealer.of(this.link.secret, this.link.room);
    this.signaling.open();
  }

  /** Whom to begin with, as of now. */
  get host() {
    const order = this.role === "connect" ? Infinity : this.#order;
    return whomToBeginWith([...this.peers.values()], order);
  }

  /** Begin with a peer of the room: a new `Channel`. */
  begin(peer) {
    const channel = this.#channel(peer.id, toBase64url(randomBytes(12)), this.#order > peer.order);
    channel.begin();
    return channel;
  }

  /** Leave, and end every session. Waits for nothing; a page that goes away does it by itself. */
  close() {
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    for (const channel of [...this.#channels.values()]) channel.close();
    this.signaling.close();
  }

  async #take(event) {
    switch (event.type) {
      case "welcome":
        // Under the id that we had, nothing arrives any more.
        this.#failAll(new IcePunchError("lost", "The signaling session was lost."));
        this.selfId = event.selfId;
        this.#order = event.order;
        this.#iceServers = event.iceServers;
        this.peers = new Map(event.peers.slice(0, MAX_PEERS).map((peer) => [peer.id, peer]));
        this.#tell("entered");
        this.#tell("peers");
        break;
      case "resumed":
        this.peers = new Map(event.peers.slice(0, MAX_PEERS).map((peer) => [peer.id, peer]));
        this.#tell("peers");
        break;
      case "ice":
        this.#iceServers = event.servers;
        break;
      case "peer":
        this.#notice(event);
        break;
      case "signal":
        await this.#signal(event);
        break;
      case "unavailable":
        if (event.code === "peer_unavailable") this.#left(event.to);
        break;
      default:
    }
  }

  #notice({ event, id, order, meta, reason }) {
    const known = this.peers.get(id);
    if (event === "leave") {
      this.peers.delete(id);
      this.#refusedPeers.delete(id);
      this.#left(id);
      if (reason === "closed") this.#tell("closed", usedUp());
    } else if (known) {
      known.away = event === "away";
    } else if (this.peers.size < MAX_PEERS) {
      this.peers.set(id, { id, order, meta: meta ?? "", away: false });
    }
    this.#tell("peers");
  }

  #left(id) {
    for (const channel of this.#channels.values()) {
      if (channel.peerId === id) channel.peerLeft();
    }
  }

  async #signal({ from, link, gen, kind, data }) {
    const known = this.#channels.get(`${from} ${link}`);
    if (known) {
      known.receive({ kind, gen, data });
      return;
    }
    if (kind !== "offer" && kind !== "restart") return;
    const post = this.#post(from, link);
    try {
      if ((await post.open(kind, gen, data)) === null) return;
    } catch (error) {
      if (error instanceof SealBroken) this.#refuse(post);
      return;
    }
    const offers = (this.peers.get(from)?.order ?? Infinity) < this.#order;
    const reason =
      this.#channels.size >= MAX_CHANNELS
        ? "it has as many peers as it can take"
        : offers !== (kind === "restart")
          ? "the peer that came later makes the offers"
          : this.accepts(from);
    if (reason) {
      post.send("reject", { reason });
      return;
    }
    const channel = this.#channel(from, link, offers, post);
    this.#tell("channel", channel);
    channel.receive({ kind, gen, data });
  }

  #refuse(post) {
    if (this.#refusedPeers.has(post.peerId) || this.#refusedPeers.size >= MAX_PEERS) return;
    this.#refusedPeers.add(post.peerId);
    this.refused += 1;
    post.refuseUnread();
    this.#tell("refused");
  }

  #post(peerId, link) {
    const send = (signal) => this.signaling.send(signal);
    return new Post({ sealer: this.#sealer, send, selfId: this.selfId, peerId, link });
  }

  #channel(peerId, link, offers, post = this.#post(peerId, link)) {
    const channel = new Channel({
      post,
      offers,
      iceServers: this.#iceServers,
      serverRtt: this.signaling.session.roundTrip,
      timeout: this.timeout,
    });
    const key = `${peerId} ${link}`;
    this.#channels.set(key, channel);
    channel.addEventListener("close", () => this.#channels.delete(key));
    if (offers) this.#report(channel);
    return channel;
  }

  // Only the side that offers tells the statistics: an attempt counts once.
  async #report(channel) {
    try {
      await channel.opened;
      const { path } = await channel.stats();
      this.signaling.reportOutcome(path?.kind === "relayed" ? "relay" : "direct", channel.seconds);
    } catch (error) {
      if (error?.code === "no-path") this.signaling.reportOutcome("failed");
    }
  }

  #failAll(error) {
    for (const channel of [...this.#channels.values()]) channel.signalingFailed(error);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Throws an `IcePunchError` that says what this browser, or this page, cannot do. */
export function checkBrowser(scope = globalThis) {
  if (typeof scope.RTCPeerConnection !== "function") {
    throw new IcePunchError(
      "no-webrtc",
      "This browser has no WebRTC, or it is switched off, so it cannot connect directly.",
    );
  }
  if (!scope.crypto?.subtle) {
    throw new IcePunchError(
      "insecure-page",
      "This page was opened over plain http://, where browsers do not encrypt: open it over https:// or on localhost.",
    );
  }
}
