/* Words for what the picture shows: the panel, the keys, the table. */

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function laneName(timeline, number) {
  const lane = timeline.lanes[number];
  return lane ? `${lane.tag} ${lane.label}` : "outside of the picture";
}

function laneTag(timeline, number) {
  const lane = timeline.lanes[number];
  return lane ? lane.tag : "–";
}

function what(arrow) {
  return arrow.attempt > 1 ? `${arrow.kind}, sent for the ${ordinal(arrow.attempt)} time` : arrow.kind;
}

function fate(arrow) {
  if (arrow.dropped) {
    const where = arrow.by ? ` by ${arrow.by}` : "";
    const when = arrow.end === null ? "" : ` at ${ms(arrow.end)} ms`;
    return `dropped${where}: ${arrow.dropped}${when}`;
  }
  return arrow.end === null ? "still under way at the end" : `arrived at ${ms(arrow.end)} ms`;
}

function spoken(arrow, timeline) {
  const way = `${laneTag(timeline, arrow.source)} to ${laneTag(timeline, arrow.target)}`;
  return `${ms(arrow.at)} ms, ${what(arrow)}, ${way}, ${fate(arrow)}`;
}

function row(name, ...value) {
  return value.length ? [element("dt", null, name), element("dd", null, ...value)] : [];
}

function arrowDetails(arrow, timeline, choose) {
  const list = element("dl", null,
    ...row("from", laneName(timeline, arrow.source)),
    ...row("to", arrow.target < 0 && arrow.dropped ? "nobody" : laneName(timeline, arrow.target)),
    ...row("sent", `${ms(arrow.at)} ms`));
  if (arrow.end !== null && !arrow.dropped) {
    list.append(...row("arrived", `${ms(arrow.end)} ms, after ${ms(arrow.end - arrow.at)} ms`));
  } else if (!arrow.dropped) {
    list.append(...row("arrived", "not before the end of the picture"));
  }
  const parts = [
    element("h3", { class: `kind-name ${arrow.kind}` }, sample(arrow.kind, arrow.dropped), what(arrow)),
    element("p", { class: "label" }, arrow.label),
  ];
  if (arrow.dropped) {
    const meaning = DATA.explanations[arrow.dropped];
    parts.push(element("p", { class: "fate" },
      element("strong", null, arrow.dropped),
      arrow.by ? ` by ${arrow.by}` : "",
      arrow.end === null ? "" : ` at ${ms(arrow.end)} ms`,
      meaning ? element("span", { class: "meaning" }, meaning) : null));
  }
  parts.push(list, ...transactionDetails(arrow, timeline, choose));
  return parts;
}

/* The resends and the answers of the same transaction, to jump to. */
function transactionDetails(arrow, timeline, choose) {
  if (!arrow.transaction) return [];
  const same = timeline.arrows.filter((other) => other.transaction === arrow.transaction);
  const items = same.map((other) => {
    const text = `${ms(other.at)} ${other.kind}${other.attempt > 1 ? `, ${ordinal(other.attempt)}` : ""}`;
    const jump = element("button", { type: "button", onclick: () => choose(other) },
      text, other.dropped ? element("span", { class: "lost" }, ` ✕ ${other.dropped}`) : null);
    if (other === arrow) jump.setAttribute("aria-current", "true");
    return element("li", null, jump);
  });
  return [
    element("h4", null, "Transaction ", element("code", null, shorten(arrow.transaction, 24))),
    element("ol", { class: "transaction" }, ...items),
  ];
}

function markDetails(mark) {
  const mood = mark.good === null ? "neutral" : mark.good ? "good" : "bad";
  const who = mark.side === "server" ? "server" : `peer ${mark.side}`;
  return [
    element("h3", { class: `mark-name ${mood}` }, who),
    element("p", { class: "label" }, mark.text),
    element("dl", null, ...row("at", `${ms(mark.at)} ms`)),
  ];
}

function noDetails(timeline) {
  const dropped = timeline.arrows.filter((arrow) => arrow.dropped).length;
  return [
    element("h3", null, `${timeline.arrows.length} packets`),
    element("p", null, `${dropped} dropped, in ${lasting(timeline.length)}. Point at one, tap it, or step `
      + "through them with the arrow keys."),
  ];
}

function sample(kind, dropped) {
  return svg("svg", { class: "sample", width: 44, height: 16, viewBox: "0 0 44 16", "aria-hidden": "true" },
    svg("g", { class: `arrow ${kind}${dropped ? " dropped" : ""}` },
      ...stroke(kind, dropped, { x1: 2, y1: 8, x2: dropped ? 36 : 42, y2: 8 })));
}

/* One switch for each kind in the picture. */
function kindSwitches(timeline, hidden, changed) {
  return DATA.kinds.filter((kind) => timeline.arrows.some((arrow) => arrow.kind === kind)).map((kind) => {
    const count = timeline.arrows.filter((arrow) => arrow.kind === kind).length;
    const box = element("input", { type: "checkbox", "data-kind": kind });
    box.checked = !hidden.has(kind);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(kind);
      else hidden.add(kind);
      changed();
    });
    return element("label", { class: "kind-switch" }, box, sample(kind, false), kind,
      element("span", { class: "count" }, String(count)));
  }).concat(timeline.arrows.some((arrow) => arrow.dropped) ? [
    element("p", { class: "kind-switch dropped" }, sample("check", true), "dropped",
      element("span", { class: "count" }, String(timeline.arrows.filter((arrow) => arrow.dropped).length))),
  ] : []);
}

function laneList(timeline) {
  return timeline.lanes.flatMap((lane) => [element("dt", null, lane.tag), element("dd", null, lane.label)]);
}

function packetTable(timeline) {
  const heading = element("tr", null,
    ...["sent, ms", "ended, ms", "from", "to", "kind", "what", "fate"].map((name) => (
      element("th", { scope: "col" }, name))));
  const body = timeline.arrows.map((arrow) => element("tr", arrow.dropped ? { class: "dropped" } : null,
    element("td", null, ms(arrow.at)),
    element("td", null, arrow.end === null ? "–" : ms(arrow.end)),
    element("td", null, laneName(timeline, arrow.source)),
    element("td", null, laneName(timeline, arrow.target)),
    element("td", null, arrow.attempt > 1 ? `${arrow.kind}, ${ordinal(arrow.attempt)}` : arrow.kind),
    element("td", null, arrow.label),
    element("td", null, fate(arrow))));
  return element("table", null,
    element("caption", null, "Packets in the order sent"),
    element("thead", null, heading),
    element("tbody", null, ...body));
}
