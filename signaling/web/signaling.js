// The signaling client: a session over WebSockets that come and go.

import { IcePunchError, shown } from "./errors.js";
import { Session, backoff, judge } from "./session.js";

const SUBPROTOCOL = "icepunch.v1";
const ATTEMPT_TIMEOUT = 10;
const STABLE_AFTER = 30;
const FRAME_MAX = 2 * 1024 * 1024;

const now = () => performance.now() / 1000;

/**
 * Dispatches `event` (an `Event` with the message as `detail`), `connection` (`detail` is
 * { connected, reason? }) and, once, `failed` (`detail` is an `IcePunchError`).
 */
export class Signaling extends EventTarget {
  #url;
  #socket = null;
  #timer = null;
  #retry = null;
  #attempt = 0;
  #openedAt = 0;
  #welcomed = false;
  #closed = false;
  #onOnline = () => this.networkChanged();

  constructor(link, options) {
    super();
    this.#url = link.websocketUrl;
    this.server = link.server;
    this.session = new Session(link.wireRoom, options);
    globalThis.addEventListener?.("online", this.#onOnline);
  }

  get connected() {
    return this.session.established;
  }

  open() {
    if (this.#closed) return;
    let socket;
    try {
      socket = new WebSocket(this.#url, SUBPROTOCOL);
    } catch {
      this.#fail(new IcePunchError("unreachable", `${this.server} can not be reached from this page.`));
      return;
    }
    this.#socket = socket;
    this.#openedAt = now();
    const give_up = setTimeout(() => this.#drop(socket), ATTEMPT_TIMEOUT * 1000);
    socket.onopen = () => {
      this.session.connectionMade(now());
      this.#flush();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      if (typeof data !== "string" || data.length > FRAME_MAX) {
        this.session.fault = "the server broke the protocol: a binary or a giant frame";
      }
      const events = this.session.fault ? [] : this.session.receive(data, now());
      if (this.session.established) {
        clearTimeout(give_up);
        if (!this.#welcomed || events.some((e) => e.type === "welcome" || e.type === "resumed")) {
          this.#welcomed = true;
          this.#tell("connection", { connected: true });
        }
      }
      this.#flush();
      for (const event of events) this.#tell("event", event);
    };
    socket.onclose = ({ code }) => {
      clearTimeout(give_up);
      if (socket === this.#socket) this.#lost(code);
    };
  }

  /** `signal` is { to, link, gen, kind, data }. It survives reconnects. */
  send(signal) {
    this.session.send(signal, now());
    this.#flush();
  }

  reportOutcome(outcome, seconds) {
    this.session.reportOutcome(outcome, seconds);
    this.#flush();
  }

  /** Leave the room. What was sent before goes out first; nothing is awaited, so a page that is
   * being closed can call it. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    globalThis.removeEventListener?.("online", this.#onOnline);
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
    this.session.leave();
    this.#flush();
    this.#socket?.close(1000);
    this.#socket = null;
  }

  /** The networks are others now: a connection over the old one is not waited for. */
  networkChanged() {
    if (this.#closed) return;
    this.#attempt = 0;
    if (this.#socket) this.#drop(this.#socket);
    else this.#again(0);
  }

  #drop(socket) {
    if (socket !== this.#socket) return;
    socket.close();
    this.#lost(1006); // close() waits for an answer that may never come
  }

  #lost(code) {
    const { session } = this;
    const stable = session.established && now() - this.#openedAt >= STABLE_AFTER;
    this.#socket = null;
    clearTimeout(this.#timer);
    session.connectionLost();
    if (this.#closed) return;
    if (judge(code) === "never") {
      this.#fail(refused(this.server, code, session));
      return;
    }
    if (stable) this.#attempt = 0;
    const words = session.fault ?? session.refusal?.message ?? `closed with code ${code}`;
    const reason = this.#welcomed
      ? `The connection to ${this.server} was lost (${shown(words)}).`
      : `${this.server} can not be reached.`;
    const wait = backoff(this.#attempt, Math.random(), {
      jitter: session.drain?.jitter_s ?? null,
      retryAfter: session.refusal?.retry_after ?? 0,
    });
    this.#attempt += 1;
    this.#tell("connection", { connected: false, reason });
    this.#again(wait);
  }

  #again(seconds) {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.open(), seconds * 1000);
  }

  #fail(error) {
    this.close();
    this.#tell("failed", error);
  }

  #flush() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (const frame of this.session.framesToSend()) this.#socket.send(frame);
    if (this.session.fault) {
      this.#drop(this.#socket);
      return;
    }
    clearTimeout(this.#timer);
    const due = this.session.timer;
    if (due === Infinity) return;
    this.#timer = setTimeout(() => {
      this.session.handleTimer(now());
      this.#flush();
    }, Math.max(0, due - now()) * 1000);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export function usedUp() {
  const sentence = "Whoever made this link has ended, and it works only once: ask for a new one.";
  return new IcePunchError("used-up", sentence);
}

function refused(server, code, { refusal, token }) {
  if (code === 4504) {
    return new IcePunchError("room-full", "This link is in use by as many as it allows.");
  }
  if (code === 4508) return usedUp();
  const words = shown(refusal?.message) || `it closed with code ${code}`;
  if (["unauthorized", "token_expired"].includes(refusal?.code)) {
    const message = token
      ? `${server} refused the token: ${words}.`
      : `${server} lets in who has a token: enter the one that you were given.`;
    return new IcePunchError("token", message);
  }
  return new IcePunchError("refused", `${server} refused: ${words}.`);
}
