// What "copy diagnostics" copies: text to send to whoever helps. Never the link or its secret.

import { endpoint } from "./stats.js";
import { milliseconds, pairState, pathInWords } from "./words.js";

const MAX_EVENTS = 200;

/** What happened, with seconds since the page was opened. */
export class History {
  events = [];
  left = 0;

  constructor(clock = () => performance.now() / 1000) {
    this.clock = clock;
  }

  note(text) {
    this.events.push({ at: this.clock(), text });
    if (this.events.length > MAX_EVENTS) {
      this.events.splice(20, 1); // the beginning tells most
      this.left += 1;
    }
  }
}

export function diagnostics({ server, browser, state, history, stats, channel }) {
  const lines = [
    "ice-punch diagnostics (addresses inside; no secret)",
    `server   ${server}`,
    `browser  ${browser}`,
    `state    ${state.title}${state.detail ? ` - ${state.detail}` : ""}`,
  ];
  if (channel) {
    const { pc } = channel;
    lines.push(
      `ice      ${pc.iceConnectionState}, gathering ${pc.iceGatheringState}, ` +
        `${channel.offers ? "offers" : "answers"}, ${channel.restarts} restarts`,
    );
  }
  if (stats?.path) {
    lines.push(`path     ${stats.path.kind} ${pathInWords(stats.path)} ${milliseconds(stats.path.rtt)}`);
  }
  lines.push("", "candidates");
  for (const c of stats?.candidates ?? []) {
    lines.push(`  ${c.side.padEnd(6)}${c.kind.padEnd(18)}${c.protocol} ${endpoint(c)}${c.url ? ` of ${c.url}` : ""}`);
  }
  lines.push("", "check list");
  for (const pair of stats?.pairs ?? []) {
    lines.push(
      `  ${pairState(pair).padEnd(10)}${endpoint(pair.local)} > ${endpoint(pair.remote)} ${milliseconds(pair.rtt)}`,
    );
  }
  lines.push("", "what happened");
  for (const { at, text } of history.events) lines.push(`  ${at.toFixed(3).padStart(8)}  ${text}`);
  if (history.left) lines.push(`  (${history.left} events left out)`);
  return `${lines.join("\n")}\n`;
}
