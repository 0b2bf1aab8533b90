// Trickled candidates as RFC 8840 section 4.4 writes them.

const MAX_LINES = 512;
const MAX_CANDIDATES = 128;

/** The ICE credentials, and the mid, of the first media section in SDP or in a fragment. */
export function credentials(sdp) {
  const value = (name) => new RegExp(`^a=${name}:(.*?)\\r?$`, "m").exec(sdp)?.[1] ?? null;
  return { ufrag: value("ice-ufrag"), pwd: value("ice-pwd"), mid: value("mid") };
}

/** A fragment of all candidates so far. `candidates` are `candidate:...` strings. */
export function writeFragment({ ufrag, pwd, mid, candidates, ended }) {
  const lines = ["m=audio 9 RTP/AVP 0", `a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`, `a=mid:${mid}`];
  for (const candidate of candidates.slice(0, MAX_CANDIDATES)) lines.push(`a=${candidate}`);
  if (ended) lines.push("a=end-of-candidates");
  return lines.join("\r\n") + "\r\n";
}

/** What `writeFragment` was given. Unknown lines are ignored; throws a `SyntaxError`. */
export function readFragment(text) {
  const lines = String(text).split(/\r?\n/, MAX_LINES);
  const { ufrag, pwd, mid } = credentials(text);
  if (!ufrag || !pwd) throw new SyntaxError("a fragment has ice-ufrag and ice-pwd");
  const candidates = lines
    .filter((line) => line.startsWith("a=candidate:"))
    .slice(0, MAX_CANDIDATES)
    .map((line) => line.slice(2));
  return { ufrag, pwd, mid, candidates, ended: lines.includes("a=end-of-candidates") };
}

/** By what a candidate is known again when a later fragment repeats it. */
export function identity(candidate) {
  const [, component, transport, , address, port] = candidate.split(" ");
  return [component, transport?.toLowerCase(), address, port].join(" ");
}
