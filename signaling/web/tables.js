// The candidates and the check list, live.

import { $, setRows } from "./dom.js";
import { endpoint } from "./stats.js";
import { milliseconds, pairState, size } from "./words.js";

const MAX_ROWS = 100;

export function showTables(stats) {
  const candidates = stats.candidates.slice(0, MAX_ROWS);
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
  $("candidates-count").textContent = String(stats.candidates.length);
  $("checks-count").textContent = String(stats.pairs.length);
}
