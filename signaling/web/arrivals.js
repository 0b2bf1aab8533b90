// Data channels that the other side opens: files, tests, and the application's own.

import { FILE_PROTOCOL, IncomingFile } from "./files.js";
import { TEST_PROTOCOL, answerTest } from "./measure.js";

const AT_ONCE = { [FILE_PROTOCOL]: 8, [TEST_PROTOCOL]: 4 };

export class Arrivals {
  #session;
  #open = { [FILE_PROTOCOL]: 0, [TEST_PROTOCOL]: 0 };

  /** `session` is the `Channel` that tells the application. */
  constructor(session) {
    this.#session = session;
  }

  take(channel) {
    const { protocol } = channel;
    channel.binaryType = "arraybuffer";
    if (!Object.hasOwn(AT_ONCE, protocol)) {
      this.#session.dispatchEvent(new CustomEvent("datachannel", { detail: channel }));
    } else if (this.#open[protocol] >= AT_ONCE[protocol]) {
      channel.close();
    } else {
      this.#open[protocol] += 1;
      channel.addEventListener("close", () => (this.#open[protocol] -= 1), { once: true });
      if (protocol === TEST_PROTOCOL) answerTest(channel);
      else this.#offer(channel);
    }
  }

  async #offer(channel) {
    const file = await IncomingFile.announced(channel);
    if (file === null) return;
    this.#session.dispatchEvent(new CustomEvent("file", { detail: file }));
    if (!file.handled) file.decline("this side takes no files");
  }
}
