// The test of throughput and latency, both ends of it.

export const TEST_PROTOCOL = "icepunch.test.1";
const PIECE = 1024;
const AHEAD = 64 * 1024;
const PING_EVERY = 100;
const MAX_READINGS = 2000;

/** The far end: send back texts, count bytes, tell once a second. */
export function answerTest(channel) {
  let received = 0;
  let bytes = 0;
  channel.onmessage = ({ data }) => {
    if (typeof data === "string") {
      if (data.length <= 1024 && channel.bufferedAmount < AHEAD) channel.send(data);
      return;
    }
    received += 1;
    bytes += data.byteLength;
  };
  const timer = setInterval(() => {
    if (channel.readyState === "open") channel.send(JSON.stringify({ received, bytes }));
  }, 1000);
  channel.addEventListener("close", () => clearInterval(timer), { once: true });
}

/** Bytes per second between reports, and round trips, as they come in. */
export class Readings {
  #last = null;
  sent = 0;
  received = 0;
  latencies = [];
  rates = [];

  constructor(startedAt) {
    this.startedAt = startedAt;
  }

  /** A text of the far end at `now`, milliseconds. */
  take(text, now) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const t = (now - this.startedAt) / 1000;
    if (typeof message?.ping === "number") {
      const ms = now - message.ping;
      if (this.latencies.length >= MAX_READINGS) return;
      if (ms >= 0 && ms < 60000) this.latencies.push({ t, value: ms });
    } else if (Number.isFinite(message?.bytes) && Number.isFinite(message?.received)) {
      const last = this.#last ?? { t: 0, bytes: 0 };
      if (this.rates.length >= MAX_READINGS) return;
      if (t > last.t && message.bytes >= last.bytes) {
        this.rates.push({ t, value: ((message.bytes - last.bytes) * 8) / (t - last.t) / 1e6 });
      }
      this.#last = { t, bytes: message.bytes };
      this.received = message.received;
    }
  }

  /** { megabits, median, worst, sent, received }: Mbit/s on average, milliseconds. */
  get summary() {
    const sorted = this.latencies.map((reading) => reading.value).sort((a, b) => a - b);
    const last = this.#last;
    return {
      megabits: last ? (last.bytes * 8) / last.t / 1e6 : null,
      median: sorted.length ? sorted[sorted.length >> 1] : null,
      worst: sorted.length ? sorted.at(-1) : null,
      sent: this.sent,
      received: this.received,
    };
  }
}

/** Run a test of `seconds` over `connection` (a `Channel`). `onReading(readings)` is called often;
 * resolves with the `Readings`. `signal` ends it early. */
export function measure(connection, { seconds = 10, onReading = () => {}, signal } = {}) {
  const options = { protocol: TEST_PROTOCOL, ordered: false, maxRetransmits: 0 };
  const channel = connection.createDataChannel("test", options);
  channel.binaryType = "arraybuffer";
  channel.bufferedAmountLowThreshold = AHEAD / 2;
  const readings = new Readings(performance.now());
  const piece = crypto.getRandomValues(new Uint8Array(PIECE));
  return new Promise((resolve) => {
    let timer = null;
    let running = true;
    const pump = () => {
      while (running && channel.readyState === "open" && channel.bufferedAmount < AHEAD) {
        channel.send(piece);
        readings.sent += 1;
      }
    };
    const end = () => {
      if (timer === null && !running) return;
      running = false;
      clearInterval(timer);
      timer = null;
      clearTimeout(over);
      channel.close();
      resolve(readings);
    };
    channel.onopen = () => {
      readings.startedAt = performance.now();
      timer = setInterval(() => {
        if (channel.readyState === "open") channel.send(JSON.stringify({ ping: performance.now() }));
      }, PING_EVERY);
      pump();
    };
    channel.onbufferedamountlow = pump;
    channel.onmessage = ({ data }) => {
      if (typeof data !== "string") return;
      readings.take(data, performance.now());
      onReading(readings);
    };
    channel.onclose = end;
    const over = setTimeout(end, seconds * 1000 + 500);
    signal?.addEventListener("abort", end, { once: true });
  });
}
