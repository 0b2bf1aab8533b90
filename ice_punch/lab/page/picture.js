/* Draws a timeline as SVG: time runs down, lanes stand side by side. */

const SVG = "http://www.w3.org/2000/svg";
const AXIS = 46;
const WIDE = 760;
const LEAST_LANE = 30;

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* Where the lanes stand: `x` of each, the panels of the three places, the width of it all. */
function arrange(timeline, width) {
  const wide = width >= WIDE;
  const margin = wide ? Math.min(150, width * 0.15) : 10;
  const groups = SIDES.map((side) => (
    { side, lanes: timeline.lanes.filter((lane) => lane.side === side) }))
    .filter((group) => group.lanes.length);
  const gap = wide ? 0.85 : 0.55;
  const units = groups.reduce((sum, group) => sum + group.lanes.length, 0) + gap * (groups.length - 1);
  const unit = Math.max(LEAST_LANE, (width - AXIS - 2 * margin) / Math.max(1, units));
  const x = new Map();
  let left = AXIS + margin;
  for (const group of groups) {
    group.left = left;
    group.lanes.forEach((lane, number) => x.set(lane, left + unit * (number + 0.5)));
    group.right = left + unit * group.lanes.length;
    left = group.right + gap * unit;
  }
  const right = groups.length ? groups[groups.length - 1].right : left;
  return {
    wide, margin, groups, unit,
    gap: gap * unit,
    ways: new Map(),
    lines: new Map(),
    lanes: timeline.lanes.map((lane) => x.get(lane)),
    right,
    width: Math.max(width, right + margin),
    group: (side) => groups.find((group) => group.side === side),
    groupAt: (at) => groups.find((group) => group.left <= at && at <= group.right),
  };
}

/* Where an arrow begins and ends. What came from outside of the picture, or went to nobody, begins or
   ends between the panels; so does what was dropped, at the edge of the place that dropped it. Arrows
   that would cover each other are drawn side by side. */
function ends(arrow, layout, scale) {
  const middle = (AXIS + layout.right) / 2;
  const beside = (at) => {
    const group = layout.groupAt(at);
    if (!group) return middle;
    return at < middle ? group.right + layout.gap / 2 : group.left - layout.gap / 2;
  };
  let from = layout.lanes[arrow.source];
  let to = layout.lanes[arrow.target];
  if (from === undefined) from = to === undefined ? middle : beside(to);
  const toNobody = to === undefined;
  if (toNobody) to = beside(from);
  if (arrow.dropped && !(toNobody && !arrow.droppedAt)) {
    const group = arrow.droppedAt && layout.group(arrow.droppedAt);
    if (!group) to = (from + to) / 2;
    else if (from < group.left) to = group.left;
    else if (from > group.right) to = group.right;
    else to = from < middle ? group.right : group.left;
  }
  const y1 = scale.y(arrow.at);
  const y2 = arrow.end === null ? y1 : scale.y(arrow.end);
  const way = [from, to, y1, y2].map(Math.round).join();
  const beneath = layout.ways.get(way) || 0;
  layout.ways.set(way, beneath + 1);
  return { x1: from, y1: y1 + beneath * 6, x2: to, y2: y2 + beneath * 6 };
}

/* How far a point is from what is drawn of an item. Crosses are sought more often than the lines that
   run past them. */
function distance(item, line, x, y) {
  const { x1, y1, x2, y2 } = line;
  const [dx, dy] = [x2 - x1, y2 - y1];
  const along = ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1);
  const part = Math.min(1, Math.max(0, along));
  const toLine = Math.hypot(x - x1 - part * dx, y - y1 - part * dy);
  return item.dropped ? Math.min(toLine, Math.hypot(x - x2, y - y2) - 5) : toLine;
}

/* Rectangles that are taken, so that no text covers another. */
class Room {
  constructor() {
    this.taken = [];
  }

  take(left, top, width, height) {
    const free = this.taken.every(([l, t, w, h]) => (
      left >= l + w || left + width <= l || top >= t + h || top + height <= t));
    if (free) this.taken.push([left, top, width, height]);
    return free;
  }
}

const HEADS = {
  check: "M0 0L-10 -4.5L-10 4.5Z",
  nomination: "M1 0L-12 -6.5L-8.5 0L-12 6.5Z",
  answer: "M-9 -4.5L0 0L-9 4.5",
  error: "M-9 -4.5L0 0L-9 4.5",
  query: "M0 0L-8 -3.5L-8 3.5Z",
  indication: "M-9 -4.5L0 0L-9 4.5",
  turn: "M0 -4L-8 -4L-8 4L0 4Z",
  data: "M0 0A4.5 4.5 0 1 1 -9 0A4.5 4.5 0 1 1 0 0Z",
  stream: "M0 0L-10 -4.5L-10 4.5Z",
  icmp: "M0 0L-5 -5L-10 0L-5 5Z",
};

/* A sample or the real thing: the line, and its head or its cross. */
function stroke(kind, dropped, { x1, y1, x2, y2 }) {
  const path = `M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}`;
  const parts = [svg("path", { class: "line", d: path })];
  if (kind === "nomination") parts.push(svg("path", { class: "core", d: path }));
  const turn = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
  const place = `translate(${x2.toFixed(1)} ${y2.toFixed(1)})`;
  if (dropped) {
    parts.push(svg("path", { class: "cross", d: "M-5 -5L5 5M5 -5L-5 5", transform: place }));
  } else {
    const head = { class: "head", d: HEADS[kind], transform: `${place} rotate(${turn.toFixed(1)})` };
    parts.push(svg("path", head));
  }
  return parts;
}

function drawArrow(arrow, layout, scale, room) {
  const line = ends(arrow, layout, scale);
  layout.lines.set(arrow, line);
  const open = arrow.end === null && !arrow.dropped;
  const group = svg("g", {
    class: `item arrow ${arrow.kind}${arrow.dropped ? " dropped" : ""}${open ? " open" : ""}`,
    "data-arrow": arrow.index,
    role: "img",
    tabindex: -1,
    "aria-label": spoken(arrow, layout.timeline),
  });
  group.append(svg("path", { class: "hit", d: `M${line.x1} ${line.y1}L${line.x2} ${line.y2}` }));
  group.append(...stroke(arrow.kind, arrow.dropped, line));
  group.append(svg("circle", { class: "tail", cx: line.x1, cy: line.y1, r: 2.2 }));
  const texts = [];
  if (arrow.dropped) texts.push(dropText(arrow, line, layout, room));
  if (layout.wide) texts.push(kindText(arrow, line, room));
  else if (arrow.attempt > 1) texts.push(attemptText(arrow, line, room));
  group.append(...texts.filter(Boolean));
  return group;
}

/* `filtered by nat-b`, beside the cross. */
function dropText(arrow, line, layout, room) {
  const words = arrow.by && layout.wide ? `${arrow.dropped} by ${arrow.by}` : arrow.dropped;
  const shown = words.length > 34 ? `${words.slice(0, 33)}…` : words;
  const size = shown.length * 5.9;
  const leftwards = line.x2 < line.x1;
  const inside = (at) => at >= AXIS && at + size <= layout.width;
  for (const [dx, dy] of [[0, 4], [0, 15], [0, -8]]) {
    const beside = leftwards ? line.x2 - 9 - size : line.x2 + 9;
    const other = leftwards ? line.x2 + 9 : line.x2 - 9 - size;
    for (const left of [beside, other]) {
      const top = line.y2 + dy;
      if (inside(left) && room.take(left, top - 9, size, 11)) {
        return svg("text", { class: "why", x: (left + dx).toFixed(1), y: top.toFixed(1) }, shown);
      }
    }
  }
  return null;
}

/* The kind, along the line, where there is room. */
function kindText(arrow, line, room) {
  const words = arrow.attempt > 1 ? `${arrow.kind}, ${ordinal(arrow.attempt)}` : arrow.kind;
  const size = words.length * 5.6;
  const dx = line.x2 - line.x1;
  const dy = line.y2 - line.y1;
  const length = Math.hypot(dx, dy);
  if (length < size + 36) return null;
  const angle = Math.atan2(dy, dx);
  const steep = Math.abs(Math.sin(angle));
  for (const along of [0.2, 0.34, 0.48, 0.62]) {
    const at = Math.max(along, (size / 2 + 12) / length);
    const x = line.x1 + dx * at;
    const y = line.y1 + dy * at;
    const box = [size * Math.abs(Math.cos(angle)) + 8, size * steep + 11];
    if (!room.take(x - box[0] / 2, y - box[1] / 2 - 5, box[0], box[1])) continue;
    let turn = (angle * 180) / Math.PI;
    if (Math.abs(turn) > 90) turn += turn > 0 ? -180 : 180;
    return svg("text", {
      class: "kind",
      "text-anchor": "middle",
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${turn.toFixed(1)})`,
      dy: -4,
    }, words);
  }
  return null;
}

function attemptText(arrow, line, room) {
  const words = ordinal(arrow.attempt);
  const left = line.x2 < line.x1 ? line.x1 + 4 : line.x1 - 18;
  if (!room.take(left, line.y1 - 8, 18, 10)) return null;
  return svg("text", { class: "kind", x: left, y: line.y1 + 3 }, words);
}

/* A change of state: a bar across the place, and the words beside it where there is a margin. */
function drawMark(mark, layout, scale, room) {
  const group = layout.group(mark.side) || { left: AXIS, right: layout.right };
  const y = scale.y(mark.at);
  const mood = mark.good === null ? "neutral" : mark.good ? "good" : "bad";
  const element = svg("g", {
    class: `item mark ${mood}`,
    "data-mark": mark.index,
    role: "img",
    tabindex: -1,
    "aria-label": `${ms(mark.at)} ms, ${mark.side}: ${mark.text}`,
  });
  const outer = mark.side === "b" ? group.right : group.left;
  layout.lines.set(mark, { x1: group.left, y1: y, x2: group.right, y2: y });
  element.append(
    svg("path", { class: "hit", d: `M${group.left} ${y}H${group.right}` }),
    svg("path", { class: "bar", d: `M${group.left} ${y}H${group.right}` }),
    svg("circle", { class: "seal", cx: outer, cy: y, r: 7 }),
    svg("path", { class: "sign", d: SIGNS[mood], transform: `translate(${outer} ${y})` }),
  );
  if (layout.wide && mark.side !== "server") {
    element.append(...marginWords(mark, layout, outer, y, room));
  } else {
    const words = shorten(mark.text.split(":")[0], Math.max(11, Math.floor((group.right - group.left - 12) / 6.4)));
    const size = words.length * 6.4;
    const toLeft = mark.side !== "b";
    const x = toLeft ? outer + 11 : outer - 11;
    if (words && room.take(toLeft ? x : x - size, y - 13, size, 11)) {
      element.append(svg("text", { class: "words", x, y: y - 4, "text-anchor": toLeft ? "start" : "end" }, words));
    }
  }
  return element;
}

const SIGNS = {
  good: "M-3.5 0L-1 3L3.5 -3",
  bad: "M-3 -3L3 3M3 -3L-3 3",
  neutral: "M-2.5 0H2.5",
};

function marginWords(mark, layout, outer, y, room) {
  const perLine = Math.floor((layout.margin - 22) / 6.4);
  const all = wrap(mark.text, perLine);
  const lines = all.slice(0, 3);
  if (all.length > 3) lines[2] = shorten(`${lines[2]} …`, perLine);
  const toLeft = mark.side === "a";
  const x = toLeft ? outer - 14 : outer + 14;
  const height = lines.length * 13;
  let top = y - 9;
  for (let tries = 0; tries < 12; tries++, top += 6) {
    if (room.take(toLeft ? outer - layout.margin : outer, top, layout.margin, height)) break;
  }
  const anchor = toLeft ? "end" : "start";
  return lines.map((words, number) => svg("text", {
    class: "words", x, y: top + 12 + number * 13, "text-anchor": anchor,
  }, words));
}

function wrap(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (last && last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines.map((line) => shorten(line, width));
}

function shorten(text, width) {
  if (text.length <= width) return text;
  return width < 3 ? "" : `${text.slice(0, width - 1)}…`;
}

/* The names of the lanes, which stay when the picture scrolls. */
function drawHeading(timeline, layout) {
  const tall = layout.unit >= 58;
  const height = tall ? 80 : 46;
  const heading = svg("svg", {
    class: "heading", width: layout.width, height, "aria-hidden": "true", viewBox: `0 0 ${layout.width} ${height}`,
  });
  heading.append(svg("text", { class: "unit", x: AXIS - 8, y: height - 8, "text-anchor": "end" }, "ms"));
  for (const group of layout.groups) {
    const name = group.side === "server" ? "servers" : `peer ${group.side}`;
    const middle = (group.left + group.right) / 2;
    const fits = group.right - group.left > name.length * 6.4;
    heading.append(svg("path", {
      class: `roof ${group.side}`, d: `M${group.left + 3} 22H${group.right - 3}`,
    }));
    heading.append(svg("text", { class: "place", x: middle, y: 15, "text-anchor": "middle" },
      fits ? name : group.side[0]));
  }
  timeline.lanes.forEach((lane, number) => {
    const x = layout.lanes[number];
    heading.append(svg("text", { class: "tag", x, y: 38, "text-anchor": "middle" }, lane.tag));
    if (!tall) return;
    const alone = layout.group(lane.side).lanes.length === 1;
    const room = Math.floor((layout.unit * (alone ? 1.7 : 0.98)) / 5.2);
    laneWords(lane.label).forEach((words, line) => heading.append(svg("text", {
      class: "lane", x, y: 50 + line * 11.5, "text-anchor": "middle",
    }, shorten(words, room))));
  });
  heading.append(svg("path", { class: "floor", d: `M0 ${height - 0.5}H${layout.width}` }));
  return heading;
}

/* `host 10.1.0.2:50000` in three lines; what comes after a comma stands in the list of lanes. */
function laneWords(label) {
  const [first] = label.split(", ");
  const match = /^(.*?) ?(\S+)(:\d+)$/.exec(first);
  return match ? match.slice(1) : wrap(first, 14).slice(0, 3);
}

function drawGrid(timeline, layout, scale) {
  const grid = svg("g", { class: "grid", "aria-hidden": "true" });
  for (const group of layout.groups) {
    grid.append(svg("rect", {
      class: `panel ${group.side}`, x: group.left, y: 0,
      width: group.right - group.left, height: scale.height, rx: 8,
    }));
  }
  for (const { time, y } of scale.ticks(52)) {
    const digits = Number.isInteger(Math.round(time * 1e6) / 1e3) ? 0 : 1;
    grid.append(
      svg("path", { class: "tick", d: `M${AXIS} ${y}H${layout.width}` }),
      svg("text", { class: "time", x: AXIS - 8, y: y + 3.5, "text-anchor": "end" }, (time * 1000).toFixed(digits)),
    );
  }
  for (const x of layout.lanes) {
    grid.append(svg("path", { class: "rail", d: `M${x} 0V${scale.height}` }));
  }
  for (const stretch of scale.stretches.filter((one) => one.silent)) {
    grid.append(...drawCut(stretch, layout));
  }
  return grid;
}

/* Torn paper. */
function drawCut({ begin, end, top, bottom }, layout) {
  const tooth = 7;
  const edge = (y, lift) => {
    const points = [];
    for (let x = 0, up = 0; x <= layout.width + tooth; x += tooth, up = 1 - up) {
      points.push(`${x} ${y + (up ? lift : 0)}`);
    }
    return points;
  };
  const upper = edge(top - EDGE + 2, 3);
  const lower = edge(bottom + EDGE - 2, -3).reverse();
  const words = `${lasting(end - begin)} of silence`;
  return [
    svg("path", { class: "torn", d: `M${upper.join("L")}L${lower.join("L")}Z` }),
    svg("text", {
      class: "silence", x: (AXIS + layout.right) / 2, y: (top + bottom) / 2 + 4, "text-anchor": "middle",
    }, words),
  ];
}

/* The whole picture, and what is needed to find one's way in it. */
function drawPicture(timeline, width, cut, perSecond) {
  const layout = arrange(timeline, width);
  layout.timeline = timeline;
  const scale = new Scale(timeline, cut, perSecond);
  const room = new Room();
  const picture = svg("svg", {
    class: "picture", width: layout.width, height: scale.height, role: "group",
    viewBox: `0 0 ${layout.width} ${scale.height}`,
    "aria-label": `${timeline.arrows.length} packets and ${timeline.marks.length} changes of state in time`,
  });
  picture.append(drawGrid(timeline, layout, scale));
  const marks = timeline.marks.map((mark) => drawMark(mark, layout, scale, room));
  const arrows = timeline.arrows.map((arrow) => drawArrow(arrow, layout, scale, room));
  picture.append(svg("g", { class: "arrows" }, ...arrows));
  picture.append(svg("g", { class: "marks" }, ...marks));
  const cursor = svg("g", { class: "cursor", "aria-hidden": "true" },
    svg("path", { d: `M${AXIS} 0H${layout.width}` }),
    svg("text", { x: AXIS - 8, y: 3.5, "text-anchor": "end" }));
  picture.append(cursor);
  return { picture, heading: drawHeading(timeline, layout), arrows, marks, lines: layout.lines, scale, cursor };
}
