// Files on the page: what is offered, what is under way, what has arrived.

import { make } from "./dom.js";
import { IcePunchError } from "./errors.js";
import { size } from "./words.js";

const MAX_ITEMS = 50;
const RATE_OVER = 1000;
const AT_ONCE = 3;

export class Transfers {
  #list;
  #say;
  #sending = 0;
  #queue = [];

  /** `say` notes a sentence for people who do not see the list. */
  constructor(list, say) {
    this.#list = list;
    this.#say = say;
  }

  /** Sends it now, or when fewer others are under way. */
  send(channel, file) {
    const item = this.#item(file.name, `${size(file.size)}, waiting for the others`);
    this.#queue.push(() => this.#send(channel, file, item));
    this.#next();
  }

  async #next() {
    if (this.#sending >= AT_ONCE || this.#queue.length === 0) return;
    this.#sending += 1;
    await this.#queue.shift()();
    this.#sending -= 1;
    this.#next();
  }

  async #send(channel, file, item) {
    const abort = new AbortController();
    item.buttons(button("Cancel", `Cancel sending ${file.name}`, () => abort.abort()));
    item.status(`${size(file.size)}, waiting for the other side to take it`);
    try {
      const onProgress = item.progress("Sent");
      const { sha256 } = await channel.sendFile(file, { onProgress, signal: abort.signal });
      item.done(`Sent, ${size(file.size)}`, sha256);
      this.#say(`${file.name} was sent.`);
    } catch (error) {
      item.failed(error);
      this.#say(`${file.name} was not sent. ${error.message}`);
    }
  }

  /** A file the other side offers: nothing of it comes before somebody says yes. */
  offered(file) {
    file.handled = true;
    const item = this.#item(file.name, `The other side wants to send this, ${size(file.size)}`);
    const no = () => {
      file.decline("it was declined");
      item.failed(new IcePunchError("closed", "You declined it."));
    };
    const yes = () => this.#receive(file, item);
    item.buttons(
      button("Receive", `Receive ${file.name}`, yes, "primary"),
      button("Decline", `Decline ${file.name}`, no),
    );
    file.onWithdrawn(() => item.pending && item.failed(new IcePunchError("closed", "It was withdrawn.")));
    this.#say(`The other side wants to send ${file.name}, ${size(file.size)}.`);
  }

  async #receive(file, item) {
    item.pending = false;
    item.buttons(button("Cancel", `Cancel receiving ${file.name}`, () => file.cancel()));
    try {
      const { blob, sha256 } = await file.accept({ onProgress: item.progress("Received") });
      item.done(`Received, ${size(file.size)}`, sha256);
      const href = URL.createObjectURL(blob);
      const save = make("a", { href, download: file.name, className: "button primary" }, "Save");
      save.setAttribute("aria-label", `Save ${file.name}`);
      const forget = button("Forget", `Forget ${file.name}`, () => {
        URL.revokeObjectURL(href);
        item.element.remove();
      });
      item.buttons(save, forget);
      this.#say(`${file.name} has arrived.`);
    } catch (error) {
      item.failed(error);
      this.#say(`${file.name} did not arrive. ${error.message}`);
    }
  }

  #item(name, text) {
    const item = new Item(name, text);
    this.#list.prepend(item.element);
    const old = [...this.#list.children].slice(MAX_ITEMS).filter((e) => e.dataset.state !== "busy");
    for (const element of old) element.remove();
    return item;
  }
}

class Item {
  #status;
  #hash;
  #bar;
  #buttons;

  constructor(name, text) {
    this.pending = true;
    this.#status = make("span", { className: "status" }, text);
    this.#hash = make("code", { className: "hash", hidden: true });
    this.#bar = make("progress", { hidden: true, max: 1, value: 0 });
    this.#bar.setAttribute("aria-label", `Progress of ${name}`);
    this.#buttons = make("span", { className: "buttons" });
    const title = make("strong", { className: "name", title: name }, name);
    const words = make("div", { className: "words" }, title, this.#status, this.#bar, this.#hash);
    this.element = make("li", { className: "transfer" }, words, this.#buttons);
    this.element.dataset.state = "busy";
  }

  status(text) {
    this.#status.textContent = text;
  }

  buttons(...buttons) {
    this.#buttons.replaceChildren(...buttons);
  }

  progress(verb) {
    const began = performance.now();
    let shownAt = 0;
    return (bytes, total) => {
      const now = performance.now();
      if (now - shownAt < 100 && bytes < total) return;
      shownAt = now;
      this.#bar.hidden = false;
      this.#bar.value = total > 0 ? bytes / total : 1;
      const elapsed = now - began;
      const rate = elapsed > RATE_OVER ? `, ${size((bytes / elapsed) * 1000)}/s` : "";
      this.status(`${verb} ${size(bytes)} of ${size(total)}${rate}`);
    };
  }

  done(text, sha256) {
    this.#end("done", text);
    this.#hash.hidden = false;
    this.#hash.textContent = `SHA-256 ${sha256}`;
  }

  failed(error) {
    this.#end("failed", error.message);
  }

  #end(state, text) {
    this.pending = false;
    this.element.dataset.state = state;
    this.#bar.hidden = true;
    this.buttons();
    this.status(text);
  }
}

function button(text, name, onclick, className = "") {
  const made = make("button", { type: "button", className, onclick }, text);
  made.setAttribute("aria-label", name);
  return made;
}
