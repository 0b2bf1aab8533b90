// The candidates and the check list, live.

import { $, setRows } from "./dom.js";
import { endpoint } from "./stats.js";
import { milliseconds, pairState, size } from "./words.js";

const MAX_ROWS = 100;

export function showTables(stats) {
  const candidates = distinct(stats.candidates).slice(0, MAX_ROWS);
  setRows(
    $("candidates"),
    candidates.map((candidate) => ({
      cells: [
        { label: "Side", text: candidate.side === "here" ? "this side" : "other side" },
        { label: "Kind", text: candidate.kind },
        { label: "Address", text: endpoint(candidate) },
        { label: "Transport", text: candidate.relayProtocol ?? candidate.protocol },
      ],
    })),
  );
  setRows(
    $("checks"),
    stats.pairs.slice(0, MAX_ROWS).map((pair) => ({
      className: pair.selected ? "selected" : pair.state,
      cells: [
        { label: "State", text: pairState(pair) },
        { label: "From", text: endpoint(pair.local) },
        { label: "To", text: endpoint(pair.remote) },
        { label: "Round trip", text: milliseconds(pair.rtt) },
        { label: "Sent, received", text: `${size(pair.bytesSent)}, ${size(pair.bytesReceived)}` },
      ],
    })),
  );
  $("candidates-count").textContent = String(candidates.length);
  $("checks-count").textContent = String(stats.pairs.length);
}

// A browser lists a candidate once per generation, and those whose address it hides look alike.
function distinct(candidates) {
  const seen = new Map();
  for (const candidate of candidates) {
    const { side, kind, protocol, relayProtocol } = candidate;
    const key = [side, kind, protocol, relayProtocol, endpoint(candidate)].join();
    if (!seen.has(key)) seen.set(key, candidate);
  }
  return [...seen.values()];
}
