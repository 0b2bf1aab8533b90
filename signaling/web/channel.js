// Two peers, one RTCPeerConnection: from the first letter to data channels, and through restarts.

import { Arrivals } from "./arrivals.js";
import { IcePunchError, shown } from "./errors.js";
import { FILE_PROTOCOL, sendFile } from "./files.js";
import { Negotiation } from "./negotiation.js";
import { makePeerConnection } from "./peer-connection.js";
import { SealBroken } from "./post.js";
import { credentials, readFragment } from "./sdpfrag.js";
import {
  NEEDS_SCTP,
  NO_DTLS,
  NO_PATH,
  NO_SCTP,
  WRONG_SECRET,
  closedHere,
  endedThere,
  notUnderstood,
} from "./sentences.js";
import { readStats } from "./stats.js";
import { Incoming, Outgoing } from "./trickle.js";

const DISCONNECTED_FOR = 1000;
const RESTART_FIRST = 2000;
const RESTART_MAX = 15000;
const LOST_AFTER = 60000;
const MAX_DATAGRAM = 65535;
const SEND_QUEUE = 1 << 20;

const now = () => performance.now() / 1000;

/**
 * A connection with one peer. `state` is `connecting`, `connected`, `interrupted` or `closed`.
 *
 * Events: `state`; `datagram` and `message` (a `MessageEvent`); `file` (an `IncomingFile` as
 * `detail`); `datachannel` (an `RTCDataChannel` of the application's as `detail`); `candidate`;
 * `close` (`detail` is the `IcePunchError` that ended it, null after `close()`).
 */
export class Channel extends EventTarget {
  #post;
  #negotiation;
  #serverRtt;
  #work = Promise.resolve();
  #outgoing;
  #incoming;
  #timers = {};
  #restartWait = RESTART_FIRST;
  #began = now();
  #fingerprints = null;
  #onNetwork = () => this.#networkChanged();

  constructor({ post, offers, iceServers, serverRtt = null, timeout = 60 }) {
    super();
    this.#post = post;
    this.#serverRtt = serverRtt;
    this.#negotiation = new Negotiation(offers);
    this.state = "connecting";
    this.peerId = post.peerId;
    this.link = post.link;
    this.offers = offers;
    /** The `IcePunchError` that ended it. */
    this.error = null;
    /** ICE restarts that brought a new description of the other side. */
    this.restarts = 0;
    this.pc = makePeerConnection(iceServers);
    this.#outgoing = new Outgoing((sdpfrag, generation) =>
      this.#post.send("cand", { sdpfrag }, generation),
    );
    this.#incoming = new Incoming(this.pc);
    const unreliable = { negotiated: true, id: 0, ordered: false, maxRetransmits: 0 };
    this.datagrams = this.pc.createDataChannel("datagrams", unreliable);
    this.messages = this.pc.createDataChannel("messages", { negotiated: true, id: 2 });
    this.opened = new Promise((resolve, reject) => {
      this.addEventListener("state", () => this.state === "connected" && resolve(this));
      this.addEventListener("close", () => reject(this.error ?? closedHere()));
    });
    this.opened.catch(() => {});
    this.#listen();
    this.#timers.connect = setTimeout(() => this.#timedOut(timeout), timeout * 1000);
  }

  // -- what an application does --------------------------------------------------------------

  /** A string or bytes, which may be lost or come out of order. Dropped while 1 MiB waits. */
  sendDatagram(data) {
    this.#demandOpen();
    this.#demandSize(data, MAX_DATAGRAM);
    if (this.datagrams.bufferedAmount < SEND_QUEUE) this.datagrams.send(data);
  }

  /** A string or bytes, in order and reliably. */
  sendMessage(data) {
    this.#demandOpen();
    this.#demandSize(data, this.pc.sctp?.maxMessageSize || Infinity);
    this.messages.send(data);
  }

  /** Send a `File` or a `Blob` (then `name` is needed): { sha256, size }, once the other side has
   * it and says the same hash. `onProgress(sentBytes, size)`; `signal` is an `AbortSignal`. */
  sendFile(file, { name = file.name ?? "file", onProgress, signal } = {}) {
    this.#demandOpen();
    const options = { protocol: FILE_PROTOCOL };
    return sendFile(this.pc.createDataChannel(name, options), file, { name, onProgress, signal });
  }

  /** A data channel of the application's own. */
  createDataChannel(label, options) {
    return this.pc.createDataChannel(label, options);
  }

  /** { candidates, pairs, path } as of now; `path` is { kind, local, remote, rtt } or null. */
  async stats() {
    return readStats(await this.pc.getStats());
  }

  /** Restart ICE now. */
  restart(reason = "the application wants it") {
    this.#advise(reason);
  }

  /** End the session; the other side is told. Waits for nothing. */
  close() {
    if (this.state === "closed") return;
    this.#post.goodbye();
    this.#end(null);
  }

  // -- what the room does --------------------------------------------------------------------

  /** Our first letter. */
  begin() {
    const step = this.#negotiation.begin();
    if (step.kind === "offer") this.#do(() => this.#offer(step.generation, false));
    else this.#post.send("restart", { reason: "" }, step.generation);
  }

  receive({ kind, gen, data }) {
    this.#do(() => this.#take(kind, gen, data));
  }

  peerLeft() {
    if (this.state === "connecting") {
      this.#end(new IcePunchError("peer-left", "The other side left before a path was found."));
    }
  }

  signalingFailed(error) {
    if (this.state === "connecting") this.#end(error);
  }

  // -- letters -------------------------------------------------------------------------------

  #do(work) {
    this.#work = this.#work.then(async () => {
      if (this.state === "closed") return;
      try {
        await work();
      } catch (error) {
        this.#failed(error);
      }
    });
  }

  #failed(error) {
    if (this.state !== "connecting") return; // the session goes on as it was
    const known = error instanceof IcePunchError;
    const why = known ? error : new IcePunchError("peer-refused", notUnderstood(error));
    this.#refuse("its browser could not use what this side described", why);
  }

  #refuse(reason, error) {
    this.#post.send("reject", { reason });
    this.#end(error);
  }

  async #take(kind, gen, data) {
    if (kind === "reject" && data === "") {
      if (this.state === "connecting") this.#end(new IcePunchError("wrong-secret", WRONG_SECRET));
      return;
    }
    let letter;
    try {
      letter = await this.#post.open(kind, gen, data);
    } catch (error) {
      if (!(error instanceof SealBroken)) throw error;
      if (this.state !== "connecting") return;
      this.#post.refuseUnread();
      this.#end(new IcePunchError("wrong-secret", WRONG_SECRET));
      return;
    }
    if (letter === null) return;
    if (kind === "offer" && this.#negotiation.receiveOffer(gen)) await this.#answer(letter, gen);
    if (kind === "answer" && this.#negotiation.receiveAnswer(gen)) await this.#answered(letter, gen);
    if (kind === "cand") await this.#takeCandidates(letter, gen);
    if (kind === "restart") {
      const generation = this.#negotiation.receiveRestart(gen, now());
      if (generation !== null) await this.#offer(generation, this.pc.remoteDescription !== null);
    }
    if (kind === "bye" || kind === "reject") this.#peerEnded(kind, letter);
  }

  async #offer(generation, iceRestart) {
    await this.pc.setLocalDescription(await this.pc.createOffer({ iceRestart }));
    this.#describe("offer", generation);
  }

  async #answer(letter, generation) {
    const offered = letter.transports ?? ["datagram"];
    if (!Array.isArray(offered) || !offered.includes("sctp")) {
      this.#refuse(NEEDS_SCTP, new IcePunchError("peer-refused", NO_SCTP));
      return;
    }
    await this.#setRemote("offer", letter, generation);
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    this.#describe("answer", generation);
    this.#negotiation.answered();
  }

  async #answered(letter, generation) {
    if (!(letter.transports ?? ["datagram"]).includes("sctp")) {
      this.#refuse(NEEDS_SCTP, new IcePunchError("peer-refused", NO_SCTP));
      return;
    }
    await this.#setRemote("answer", letter, generation);
  }

  async #setRemote(type, letter, generation) {
    const sdp = String(letter.sdp ?? "");
    if (!/^m=application /m.test(sdp)) {
      throw new IcePunchError("peer-refused", "The other side described no data channel.");
    }
    const fingerprints = [...sdp.matchAll(/^a=fingerprint:(.*?)\r?$/gm)].map((m) => m[1]).join();
    // RFC 8842 section 5.5: an ICE restart leaves DTLS as it is.
    if (this.#fingerprints !== null && this.#fingerprints !== fingerprints) return;
    await this.pc.setRemoteDescription({ type, sdp });
    this.#fingerprints = fingerprints;
    if (generation > 0) this.restarts += 1;
    const { ufrag } = credentials(sdp);
    for (const fragment of this.#negotiation.descriptionSet(generation, ufrag, now())) {
      await this.#incoming.take(fragment);
    }
  }

  #describe(kind, generation) {
    const { sdp } = this.pc.localDescription;
    const letter = { sdp, transports: ["sctp"] };
    if (this.#serverRtt !== null) letter.server_rtt = this.#serverRtt;
    this.#post.send(kind, letter, generation);
    this.#outgoing.described(sdp, generation);
  }

  async #takeCandidates(letter, generation) {
    let fragment;
    try {
      fragment = readFragment(letter.sdpfrag);
    } catch {
      return;
    }
    if (this.#negotiation.receiveCandidates(generation, fragment, now())) {
      await this.#incoming.take(fragment);
    }
  }

  #peerEnded(kind, letter) {
    if (this.state !== "connecting") {
      this.#end(endedThere());
      return;
    }
    const reason = shown(letter.reason);
    const verb = kind === "reject" ? "refused" : "gave up";
    const sentence = `The other side ${verb}${reason ? `: ${reason}` : ""}.`;
    this.#end(new IcePunchError("peer-refused", sentence));
  }

  // -- the browser's connection --------------------------------------------------------------

  #listen() {
    const { pc, datagrams, messages } = this;
    pc.onicecandidate = ({ candidate }) => {
      this.#outgoing.found(candidate);
      this.dispatchEvent(new Event("candidate"));
    };
    pc.oniceconnectionstatechange = () => this.#iceChanged(pc.iceConnectionState);
    pc.onconnectionstatechange = () => {
      if (pc.connectionState !== "failed") return;
      if (hasPath(pc.iceConnectionState)) this.#encryptionEnded();
      else if (this.state === "connecting") this.#noPath();
    };
    const arrivals = new Arrivals(this);
    pc.ondatachannel = ({ channel }) => arrivals.take(channel);
    datagrams.binaryType = messages.binaryType = "arraybuffer";
    datagrams.onmessage = ({ data }) => this.#pass("datagram", data);
    messages.onmessage = ({ data }) => this.#pass("message", data);
    datagrams.onopen = messages.onopen = () => this.#channelOpened();
    messages.onclose = () => this.#end(endedThere());
    globalThis.addEventListener?.("online", this.#onNetwork);
    globalThis.navigator?.connection?.addEventListener?.("change", this.#onNetwork);
  }

  // DTLS has ended and ICE has not: before the session it failed, later the other side closed it.
  #encryptionEnded() {
    const first = this.state === "connecting";
    this.#end(first ? new IcePunchError("lost", NO_DTLS) : endedThere());
  }

  #pass(type, data) {
    this.dispatchEvent(new MessageEvent(type, { data }));
  }

  #channelOpened() {
    const open = [this.datagrams, this.messages].every((c) => c.readyState === "open");
    if (!open || this.state !== "connecting") return;
    clearTimeout(this.#timers.connect);
    this.seconds = now() - this.#began;
    this.#setState("connected");
  }

  #iceChanged(ice) {
    if (ice === "failed" && this.state === "connecting") {
      this.#noPath();
    } else if (hasPath(ice)) {
      this.#recovered();
    } else if (/^(disconnected|failed)$/.test(ice) && this.state !== "connecting") {
      this.#interrupted(ice);
    }
  }

  #recovered() {
    clearTimeout(this.#timers.restart);
    clearTimeout(this.#timers.lost);
    this.#timers.lost = null;
    this.#restartWait = RESTART_FIRST;
    if (this.state === "interrupted") this.#setState("connected");
  }

  #interrupted(ice) {
    this.#timers.lost ??= setTimeout(() => {
      const text = "The connection was lost: nothing was heard of the other side for a minute.";
      this.#post.goodbye();
      this.#end(new IcePunchError("lost", text));
    }, LOST_AFTER);
    this.#setState("interrupted");
    this.#restartIn(ice === "failed" ? 0 : DISCONNECTED_FOR);
  }

  #restartIn(wait) {
    clearTimeout(this.#timers.restart);
    this.#timers.restart = setTimeout(() => {
      if (this.state !== "interrupted") return;
      this.#advise(`the path is ${this.pc.iceConnectionState}`);
      this.#restartWait = Math.min(this.#restartWait * 2, RESTART_MAX);
      this.#restartIn(this.#restartWait);
    }, wait);
  }

  #networkChanged() {
    if (this.state === "connected" || this.state === "interrupted") this.#advise("the network changed");
  }

  #advise(reason) {
    this.#do(async () => {
      const step = this.#negotiation.restart(now());
      if (step?.kind === "offer") await this.#offer(step.generation, true);
      if (step?.kind === "restart") this.#post.send("restart", { reason }, step.generation);
    });
  }

  // -- the end -------------------------------------------------------------------------------

  #timedOut(seconds) {
    if (this.pc.remoteDescription === null) {
      const text = `The other side did not answer within ${seconds} s.`;
      const error = new IcePunchError("nobody-there", text);
      this.#refuse("no answer came from this side in time", error);
    } else {
      this.#noPath();
    }
  }

  #noPath() {
    this.#refuse("no path to this side was found", new IcePunchError("no-path", NO_PATH));
  }

  #end(error) {
    if (this.state === "closed") return;
    this.error = error;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#onNetwork);
    globalThis.navigator?.connection?.removeEventListener?.("change", this.#onNetwork);
    this.#outgoing.stop();
    this.messages.onclose = null;
    this.pc.close();
    this.#setState("closed");
    this.dispatchEvent(new CustomEvent("close", { detail: error }));
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #demandSize(data, limit) {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data).length : data.byteLength;
    if (bytes <= limit) return;
    const text = `The message has ${bytes} bytes; the other side takes at most ${limit}.`;
    throw new IcePunchError("too-large", text);
  }

  #demandOpen() {
    if (this.messages.readyState !== "open") throw this.error ?? closedHere();
  }
}

const hasPath = (ice) => ice === "connected" || ice === "completed";
