// The conversation: chat lines, and datagrams that are text.

import { make } from "./dom.js";
import { shown } from "./errors.js";

const MAX_LINES = 500;
const MAX_SHOWN = 4000;
const DATAGRAM_LINES_PER_SECOND = 4;

const decoder = new TextDecoder("utf-8", { fatal: true });

/** The line that `data` is, or null if it is no text. */
export function asText(data) {
  if (typeof data === "string") return data.slice(0, MAX_SHOWN);
  if (data.byteLength === 0 || data.byteLength > MAX_SHOWN) return null;
  try {
    const text = decoder.decode(data);
    return /[^\P{C}\n\t\r]/u.test(text) ? null : text.replace(/\r?\n$/, "");
  } catch {
    return null;
  }
}

export class Chat {
  #log;
  #tokens = DATAGRAM_LINES_PER_SECOND;
  #refilled = 0;

  constructor(log) {
    this.#log = log;
  }

  mine(text) {
    this.#add("mine", "You", text);
  }

  theirs(data) {
    const text = asText(data);
    this.#add("theirs", "They", text ?? `(${data.byteLength} bytes)`);
  }

  /** A datagram is shown if it is text, and if they do not come all the time. */
  datagram(data, now) {
    this.#tokens = Math.min(
      DATAGRAM_LINES_PER_SECOND,
      this.#tokens + ((now - this.#refilled) / 1000) * DATAGRAM_LINES_PER_SECOND,
    );
    this.#refilled = now;
    const text = asText(data);
    if (text === null || this.#tokens < 1) return;
    this.#tokens -= 1;
    this.#add("theirs", "They", text);
  }

  note(text) {
    this.#add("note", "", text);
  }

  #add(className, who, text) {
    const log = this.#log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const name = who ? make("span", { className: "hidden" }, `${who}: `) : null;
    const clean = text.split("\n").map((line) => shown(line, MAX_SHOWN)).join("\n");
    log.append(make("p", { className }, name, clean));
    while (log.children.length > MAX_LINES) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}
