// What the page says, in words: pure functions, so that tests can read every sentence.

import { endpoint } from "./stats.js";

/** { tone, title, detail } for what is going on. `tone` is `busy`, `good`, `warn` or `bad`. */
export function stateInWords({ stage, path = null, error = null, waited = 0 }) {
  switch (stage) {
    case "entering":
      return { tone: "busy", title: "Reaching the server…", detail: "" };
    case "waiting":
      return {
        tone: "busy",
        title: "Waiting for the other side",
        detail:
          waited < 20
            ? "Nobody else is on this link yet. Keep this page open."
            : "Nobody has come yet. If the other side is running, this link may be used up: ask for a new one.",
      };
    case "connecting":
      return { tone: "busy", title: "Looking for a path…", detail: "The other side is there." };
    case "connected":
      return {
        tone: "good",
        title: path?.kind === "relayed" ? "Connected through a relay" : connectedTitle(path),
        detail: path?.kind === "relayed" ? RELAYED : "",
      };
    case "interrupted":
      return {
        tone: "warn",
        title: "The path is silent",
        detail: "Looking for another one. Nothing is lost yet.",
      };
    default:
      return {
        tone: error === null || error.code === "closed" ? "off" : "bad",
        title: TITLES[error?.code] ?? "Not connected",
        detail: error?.message ?? "You ended the connection.",
      };
  }
}

const RELAYED = "No direct way was found, so a relay passes on what only you two can read.";

const TITLES = {
  "invalid-link": "This link does not work",
  "no-webrtc": "This browser cannot connect",
  "insecure-page": "This page cannot encrypt",
  unreachable: "The server is out of reach",
  token: "This server wants a token",
  refused: "The server said no",
  "used-up": "This link is used up",
  "room-full": "Somebody else uses this link",
  "nobody-there": "Nobody answered",
  "wrong-secret": "Wrong secret",
  "peer-refused": "The other side said no",
  "peer-left": "The other side left",
  "no-path": "No path was found",
  lost: "The connection was lost",
  closed: "The connection has ended",
};

function connectedTitle(path) {
  return path === null ? "Connected" : "Connected directly";
}

/** The path as a line: addresses of both ends. */
export function pathInWords(path) {
  if (path === null) return "";
  return `${endpoint(path.local)} ↔ ${endpoint(path.remote)}`;
}

export function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms < 1) return "under 1 ms";
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`;
}

const PAIR_STATES = {
  frozen: "frozen",
  waiting: "waiting",
  "in-progress": "asking",
  failed: "failed",
  succeeded: "works",
  cancelled: "cancelled",
};

export function pairState(pair) {
  if (pair.selected) return "in use";
  return PAIR_STATES[pair.state] ?? pair.state;
}

export function testInWords(summary) {
  if (summary.megabits === null && summary.median === null) return "No answer came.";
  const parts = [];
  if (summary.megabits !== null) parts.push(`${summary.megabits.toFixed(1)} Mbit/s to the other side`);
  if (summary.median !== null) {
    parts.push(`round trip ${milliseconds(summary.median / 1000)}, worst ${milliseconds(summary.worst / 1000)}`);
  }
  return `${parts.join("; ")}.`;
}
