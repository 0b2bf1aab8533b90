// The page at a link: one connection at a time with whoever else has the link.

import { Chat } from "./chat.js";
import { History, diagnostics } from "./diagnostics.js";
import { $ } from "./dom.js";
import { IcePunchError } from "./errors.js";
import { draw } from "./graph.js";
import { parseLink } from "./link.js";
import { measure } from "./measure.js";
import { Room, checkBrowser } from "./room.js";
import { showTables } from "./tables.js";
import { Transfers } from "./transfers.js";
import { milliseconds, pathInWords, stateInWords, testInWords } from "./words.js";

const LOOK_EVERY = 500;
const TEST_SECONDS = 10;
const WAIT_AT_MOST = 30 * 60;
const TOKEN = "ice-punch token";

const history = new History();
const chat = new Chat($("log"));
const announce = (text) => {
  $("announcer").textContent = text;
  history.note(text);
};
const transfers = new Transfers($("transfers"), announce);

let room = null;
let token = rememberedToken();
let channel = null;
let stage = "entering";
let error = null;
let stats = null;
let since = performance.now();
let looking = false;
let test = null;
let usedUp = false;
let datagrams = 0;
let spoken = "";

/** The connection as other scripts and tests of this page see it. */
globalThis.icePunch = {
  get channel() {
    return channel;
  },
  get stage() {
    return stage;
  },
};

// -- what is going on ------------------------------------------------------------------------

function enterStage(next, why = null) {
  if (stage === "ended" && next === "ended") return;
  stage = next;
  error = why;
  since = performance.now();
  history.note(why ? `${next}: ${why.message}` : next);
  show();
}

const hopeless = ["invalid-link", "used-up"];

function words() {
  const waited = (performance.now() - since) / 1000;
  return stateInWords({ stage, path: stats?.path ?? null, error, waited });
}

function show() {
  const { tone, title, detail } = words();
  if (`${title}${detail}` !== spoken) {
    spoken = `${title}${detail}`;
    $("title").textContent = title;
    $("detail").textContent = detail;
    document.title = `${title} · ice-punch`;
  }
  $("state-card").dataset.tone = tone;
  const open = stage === "connected" || stage === "interrupted";
  for (const id of ["line", "send", "pick"]) $(id).disabled = !open;
  $("pick-label").classList.toggle("off", !open);
  $("test").disabled = !open;
  $("hang-up").hidden = !open;
  const asksForToken = stage === "ended" && error?.code === "token";
  $("token-form").hidden = !asksForToken;
  $("again").hidden = stage !== "ended" || hopeless.includes(error?.code) || asksForToken || !room;
  showPath();
}

function showPath() {
  const path = stats?.path ?? null;
  $("path").hidden = path === null || stage === "ended" || stage === "waiting";
  if (path === null) return;
  $("path-kind").textContent = path.kind;
  $("path-rtt").textContent = milliseconds(path.rtt);
  $("path-addresses").textContent = pathInWords(path);
  $("datagram-count").textContent = `${datagrams} received`;
}

async function look() {
  if (looking || !channel || channel.state === "closed") return;
  looking = true;
  try {
    const before = stats?.path;
    stats = await channel.stats();
    showTables(stats);
    const path = stats.path;
    if (path && pathInWords(path) !== pathInWords(before ?? null)) {
      history.note(`path: ${path.kind} ${pathInWords(path)}`);
    }
    show();
  } finally {
    looking = false;
  }
}

// -- the room --------------------------------------------------------------------------------

function enter() {
  try {
    const link = parseLink(location.href);
    checkBrowser();
    const busy = () => (isBusy() ? "it is talking to somebody else" : null);
    room = new Room(link, { role: "listen", begins: true, accepts: busy, token });
  } catch (problem) {
    enterStage("ended", problem);
    return;
  }
  room.addEventListener("entered", () => {
    // Again when the server has forgotten us: a session that is open does not need it.
    if (!channel || channel.state === "closed") enterStage("waiting");
  });
  room.addEventListener("peers", begin);
  room.addEventListener("channel", ({ detail }) => adopt(detail));
  room.addEventListener("refused", () => {
    chat.note("Somebody came with a wrong secret and was refused.");
    history.note("a peer with a wrong secret was refused");
  });
  room.addEventListener("closed", ({ detail }) => {
    usedUp = true;
    if (channel && channel.state !== "closed") return;
    room.close();
    enterStage("ended", detail);
  });
  room.addEventListener("connection", ({ detail }) => serverConnection(detail));
  room.addEventListener("failed", ({ detail }) => {
    if (!channel || channel.state === "closed") enterStage("ended", detail);
    else serverConnection({ connected: false, reason: detail.message });
  });
  room.enter().catch((problem) => enterStage("ended", problem));
}

// Never in the URL, and gone with the tab.
function rememberedToken() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

function rememberToken(given) {
  token = given;
  try {
    sessionStorage.setItem(TOKEN, given);
  } catch {
    // then it is known until the page is loaded again
  }
}

function isBusy() {
  if (!channel || channel.state === "closed") return false;
  if (channel.state === "connected") return true; // its peer has a new id once the server comes back
  const peer = room.peers.get(channel.peerId);
  return channel.state === "connecting" ? Boolean(peer) : Boolean(peer && !peer.away);
}

function begin() {
  if (stage !== "waiting") return;
  const host = room.host;
  if (host) adopt(room.begin(host));
}

function serverConnection({ connected, reason }) {
  history.note(connected ? "signaling: connected" : `signaling: ${reason}`);
  const open = channel !== null && channel.state !== "closed";
  $("server-note").hidden = connected;
  $("server-note").textContent = connected
    ? ""
    : `${reason} Trying again.${open ? " The connection itself does not need it." : ""}`;
}

function adopt(next) {
  const old = channel;
  channel = next;
  old?.close();
  stats = null;
  datagrams = 0;
  enterStage("connecting");
  next.addEventListener("state", () => {
    if (next !== channel || next.state === "closed") return;
    if (next.state === "connected") chat.note(stage === "connecting" ? "Connected." : "The path is back.");
    enterStage(next.state);
    look();
  });
  next.addEventListener("candidate", look);
  next.addEventListener("message", ({ data }) => next === channel && chat.theirs(data));
  next.addEventListener("datagram", ({ data }) => {
    if (next !== channel) return;
    datagrams += 1;
    chat.datagram(data, performance.now());
  });
  next.addEventListener("file", ({ detail }) => transfers.offered(detail));
  next.addEventListener("datachannel", ({ detail }) => detail.close());
  next.addEventListener("close", ({ detail }) => {
    if (next !== channel) return;
    chat.note(detail?.message ?? "You ended the connection.");
    enterStage("ended", detail);
    // The seat is somebody else's, or nobody comes any more.
    if (usedUp || detail?.code === "wrong-secret") room.close();
  });
}

// -- what people do --------------------------------------------------------------------------

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  if (!given) return;
  $("token").value = "";
  rememberToken(given);
  enterStage("entering");
  enter();
});

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const line = $("line");
  if (!line.value || channel?.state === "closed") return;
  try {
    channel.sendMessage(line.value);
    chat.mine(line.value);
    line.value = "";
  } catch (problem) {
    chat.note(problem.message);
  }
  line.focus();
});

function sendFiles(files) {
  if (stage !== "connected" && stage !== "interrupted") {
    announce("Files can be sent once the other side is connected.");
    return;
  }
  for (const file of files) transfers.send(channel, file);
}

$("pick").addEventListener("change", () => {
  sendFiles($("pick").files);
  $("pick").value = "";
});

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  sendFiles(event.dataTransfer.files);
});

$("test").addEventListener("click", async () => {
  if (test) {
    test.abort();
    return;
  }
  test = new AbortController();
  $("test").textContent = "Stop the test";
  $("graphs").hidden = false;
  $("test-result").textContent = "";
  const paint = (readings) => {
    const seconds = TEST_SECONDS;
    draw($("throughput"), readings.rates, { seconds, unit: "Mbit/s", className: "rate" });
    draw($("latency"), readings.latencies, { seconds, unit: "ms", className: "delay" });
  };
  let painted = 0;
  const onReading = (readings) => {
    if (performance.now() - painted < 100) return;
    painted = performance.now();
    paint(readings);
  };
  const readings = await measure(channel, { seconds: TEST_SECONDS, onReading, signal: test.signal });
  paint(readings);
  $("test-result").textContent = testInWords(readings.summary);
  history.note(`test: ${testInWords(readings.summary)}`);
  $("test").textContent = `Run a test of ${TEST_SECONDS} s`;
  test = null;
});

$("again").addEventListener("click", () => location.reload());
$("hang-up").addEventListener("click", () => room.close());

$("copy-diagnostics").addEventListener("click", async () => {
  await look();
  const server = location.origin;
  const browser = navigator.userAgent;
  const text = diagnostics({ server, browser, state: words(), history, stats, channel });
  try {
    await navigator.clipboard.writeText(text);
    const button = $("copy-diagnostics");
    button.textContent = "Copied";
    announce("The diagnostics were copied.");
    setTimeout(() => (button.textContent = "Copy diagnostics"), 2000);
  } catch {
    $("copy-text").value = text;
    $("copy-dialog").showModal();
    $("copy-text").select();
  }
});

addEventListener("pageshow", (event) => event.persisted && location.reload());
addEventListener("hashchange", () => location.reload());
setInterval(() => {
  look();
  if (stage === "waiting" && performance.now() - since >= WAIT_AT_MOST * 1000) {
    room.close();
    const minutes = WAIT_AT_MOST / 60;
    enterStage("ended", new IcePunchError("nobody-there", `Nobody came within ${minutes} minutes.`));
  } else if (stage === "waiting") {
    show();
  }
}, LOOK_EVERY);

show();
enter();
