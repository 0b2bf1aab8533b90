// What getStats() knows of candidates and checks, the same for every browser.

const KINDS = { host: "host", srflx: "server reflexive", prflx: "peer reflexive", relay: "relayed" };

/** { candidates, pairs, path } of an `RTCStatsReport`, or of any map of such objects. */
export function readStats(report) {
  const all = [...report.values()];
  const byId = new Map(all.map((entry) => [entry.id, entry]));
  const selected = selectedPair(all, byId);
  const pairs = all
    .filter((entry) => entry.type === "candidate-pair")
    .map((pair) => readPair(pair, byId, pair === selected))
    .sort((a, b) => Number(b.selected) - Number(a.selected) || b.priority - a.priority);
  const candidates = all
    .filter((entry) => /^(local|remote)-candidate$/.test(entry.type))
    .map(readCandidate)
    .sort((a, b) => a.side.localeCompare(b.side) || b.priority - a.priority);
  const path = pairs.find((pair) => pair.selected);
  return { candidates, pairs, path: path ? pathOf(path) : null };
}

function selectedPair(all, byId) {
  for (const entry of all) {
    const pair = entry.type === "transport" && byId.get(entry.selectedCandidatePairId);
    if (pair) return pair;
  }
  const pairs = all.filter((entry) => entry.type === "candidate-pair");
  return (
    pairs.find((pair) => pair.selected) ??
    pairs.find((pair) => pair.nominated && pair.state === "succeeded")
  );
}

function readCandidate(entry) {
  const type = entry.candidateType ?? "";
  return {
    id: entry.id,
    side: entry.type === "local-candidate" ? "here" : "there",
    type,
    kind: KINDS[type] ?? type,
    address: entry.address || entry.ip || null,
    port: entry.port ?? null,
    protocol: entry.protocol ?? "",
    relayProtocol: entry.relayProtocol ?? null,
    url: entry.url ?? null,
    priority: entry.priority ?? 0,
  };
}

function readPair(pair, byId, selected) {
  const side = (id) => (byId.get(id) ? readCandidate(byId.get(id)) : null);
  return {
    id: pair.id,
    local: side(pair.localCandidateId),
    remote: side(pair.remoteCandidateId),
    state: pair.state ?? "",
    nominated: Boolean(pair.nominated),
    selected,
    rtt: pair.state === "succeeded" ? (pair.currentRoundTripTime ?? null) : null,
    bytesSent: pair.bytesSent ?? 0,
    bytesReceived: pair.bytesReceived ?? 0,
    priority: pair.priority ?? 0,
  };
}

function pathOf(pair) {
  const relayed = [pair.local, pair.remote].some((candidate) => candidate?.type === "relay");
  const { local, remote, rtt } = pair;
  return { kind: relayed ? "relayed" : "direct", local, remote, rtt };
}

/** `address:port` of a candidate, or what the browser hides. */
export function endpoint(candidate) {
  if (!candidate?.address || candidate.address === "(redacted)") return "hidden by the browser";
  const address = candidate.address.includes(":") ? `[${candidate.address}]` : candidate.address;
  return `${address}:${candidate.port}`;
}
