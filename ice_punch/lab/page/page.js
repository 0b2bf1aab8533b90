/* The heat map's keys, and the picture below it: opening, choosing, zooming. */

const byId = (id) => document.getElementById(id);
const cells = [...document.querySelectorAll("button.cell")];
const LARGEST = 24000;

const view = {
  timeline: null,
  cell: null,
  drawn: null,
  zoom: 1,
  cut: true,
  hidden: new Set(),
  chosen: null,
};

function isHidden(item) {
  return !item.mark && view.hidden.has(item.kind);
}

function items() {
  const { arrows, marks } = view.timeline;
  return [...arrows, ...marks].filter((item) => !isHidden(item)).sort((one, other) => one.at - other.at);
}

function elementOf(item) {
  return (item.mark ? view.drawn.marks : view.drawn.arrows)[item.index];
}

/* The nearest item that is shown, at most `reach` pixels away. */
function itemAt(event, reach) {
  const box = view.drawn.picture.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let nearest = null;
  let least = reach;
  for (const [item, line] of view.drawn.lines) {
    const away = isHidden(item) ? Infinity : distance(item, line, x, y);
    if (away < least) [nearest, least] = [item, away];
  }
  return nearest;
}

function itemOf(target) {
  const group = target instanceof Element ? target.closest(".item") : null;
  if (!group) return null;
  const { arrow, mark } = group.dataset;
  return arrow === undefined ? view.timeline.marks[mark] : view.timeline.arrows[arrow];
}

/* Drawing. */

function roomHeight() {
  return Math.max(320, Math.min(innerHeight * 0.72, 820));
}

/* At zoom 1 every packet has a dozen pixels, and nothing is smaller than the room there is. */
function perSecond() {
  const { timeline, cut, zoom } = view;
  const fixed = fixedHeight(timeline, cut);
  const active = activeSeconds(timeline, cut);
  const wanted = Math.min(3600, Math.max(timeline.arrows.length * 13, roomHeight() - 80 - fixed));
  return Math.min(wanted * zoom, LARGEST - fixed) / active;
}

function draw(width) {
  const scroll = byId("scroll");
  const focused = scroll.contains(document.activeElement);
  view.drawn = drawPicture(view.timeline, width || scroll.clientWidth, view.cut, perSecond());
  scroll.replaceChildren(view.drawn.heading, view.drawn.picture);
  hide();
  show(view.chosen);
  if (focused && view.chosen) elementOf(view.chosen).focus({ preventScroll: true });
}

function hide() {
  for (const arrow of view.timeline.arrows) {
    elementOf(arrow).classList.toggle("away", view.hidden.has(arrow.kind));
  }
  const [first] = items();
  if (first && !view.chosen) elementOf(first).setAttribute("tabindex", "0");
}

/* Changes the scale of time and keeps the moment at `y` of the window where it is. */
function zoomTo(zoom, y) {
  const scroll = byId("scroll");
  const box = scroll.getBoundingClientRect();
  const top = view.drawn.heading.getBoundingClientRect().height;
  const inside = (y === undefined ? box.top + box.height / 2 : y) - box.top;
  const moment = view.drawn.scale.time(scroll.scrollTop + inside - top);
  const active = activeSeconds(view.timeline, view.cut);
  view.zoom = Math.min(64, Math.max(0.02, zoom));
  if (perSecond() * active < 60) view.zoom = (view.zoom * 60) / (perSecond() * active);
  draw();
  scroll.scrollTop = view.drawn.scale.y(moment) + top - inside;
}

function fit() {
  const { timeline, cut } = view;
  view.zoom = 1;
  const least = 80;
  const height = Math.max(least, roomHeight() - 84 - fixedHeight(timeline, cut));
  zoomTo(height / (perSecond() * activeSeconds(timeline, cut)));
  byId("scroll").scrollTop = 0;
}

/* Choosing. */

/* Shows the item in the panel and in the picture, without choosing it. */
function show(item) {
  const { picture } = view.drawn;
  picture.classList.toggle("focusing", Boolean(item && !item.mark));
  for (const one of picture.querySelectorAll(".same, .chosen")) one.classList.remove("same", "chosen");
  if (item) elementOf(item).classList.add("chosen");
  if (item && item.transaction) {
    view.timeline.arrows.filter((arrow) => arrow.transaction === item.transaction)
      .forEach((arrow) => elementOf(arrow).classList.add("same"));
  }
  const words = !item ? noDetails(view.timeline)
    : item.mark ? markDetails(item) : arrowDetails(item, view.timeline, choose);
  byId("details").replaceChildren(...words);
  byId("details").classList.toggle("filled", Boolean(item));
}

function choose(item) {
  view.chosen = item;
  for (const one of view.drawn.picture.querySelectorAll("[tabindex='0']")) one.setAttribute("tabindex", "-1");
  const first = item || items()[0];
  if (first) elementOf(first).setAttribute("tabindex", "0");
  show(item);
  if (!item) return;
  const target = elementOf(item);
  target.focus({ preventScroll: true });
  reveal(item);
}

/* Scrolls the picture, and nothing else, until the item is in it. */
function reveal(item) {
  const scroll = byId("scroll");
  const top = view.drawn.heading.getBoundingClientRect().height;
  const y = view.drawn.scale.y(item.at);
  const seen = scroll.clientHeight - top;
  if (y < scroll.scrollTop + 30 || y > scroll.scrollTop + seen - 50) scroll.scrollTop = y - seen / 3;
}

function step(from, by) {
  const all = items();
  if (!all.length) return;
  const at = from ? all.indexOf(from) : -1;
  choose(all[Math.min(all.length - 1, Math.max(0, at + by))]);
}

/* Opening. */

function open(timeline, title, told) {
  view.timeline = timeline;
  view.zoom = 1;
  view.chosen = null;
  byId("timeline").hidden = false;
  byId("timeline-title").textContent = title;
  byId("told").textContent = told;
  byId("nothing").hidden = Boolean(timeline);
  byId("stage").hidden = byId("table").hidden = !timeline;
  if (!timeline) return;
  byId("kinds").replaceChildren(...kindSwitches(timeline, view.hidden, () => {
    if (view.chosen && isHidden(view.chosen)) view.chosen = null;
    hide();
    show(view.chosen);
  }));
  byId("lanes").replaceChildren(...laneList(timeline));
  byId("table").querySelector("div").replaceChildren(packetTable(timeline));
  draw();
  byId("scroll").scrollTop = 0;
}

function openCell(index) {
  const { name, told, verdict } = DATA.cells[index];
  view.cell = cells[index];
  cells.forEach((cell, number) => {
    cell.tabIndex = number === index ? 0 : -1;
    if (number === index) cell.setAttribute("aria-current", "true");
    else cell.removeAttribute("aria-current");
  });
  byId("verdict").className = `cell ${verdict}`;
  byId("verdict").textContent = verdict[0].toUpperCase();
  open(decode(index), name, told);
  byId("timeline-title").scrollIntoView({ block: "start" });
}

function close() {
  byId("timeline").hidden = true;
  view.timeline = null;
  history.replaceState(null, "", location.pathname + location.search);
  if (view.cell) {
    view.cell.removeAttribute("aria-current");
    view.cell.focus();
  }
}

function followAddress() {
  const match = /^#cell=(\d+),(\d+)$/.exec(location.hash);
  if (!match) return;
  const index = DATA.cells.findIndex((cell) => cell.cell === `${match[1]},${match[2]}`);
  if (index >= 0) openCell(index);
}

function setUpCells() {
  const columns = document.querySelectorAll(".heat thead th").length;
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  cells.forEach((cell, index) => {
    cell.addEventListener("click", () => {
      const address = `#cell=${cell.dataset.cell}`;
      if (location.hash === address) openCell(index);
      else location.hash = address;
    });
    cell.addEventListener("focus", () => light(index, true));
    cell.addEventListener("blur", () => light(index, false));
    cell.addEventListener("pointerenter", () => light(index, true));
    cell.addEventListener("pointerleave", () => light(index, false));
    cell.addEventListener("keydown", (event) => {
      let to = null;
      if (event.key === "Home") to = index - (index % columns);
      else if (event.key === "End") to = index - (index % columns) + columns - 1;
      else if (event.key === "ArrowLeft" && index % columns === 0) to = index;
      else if (event.key === "ArrowRight" && index % columns === columns - 1) to = index;
      else if (event.key in moves) to = index + moves[event.key];
      if (to === null) return;
      event.preventDefault();
      if (!cells[to]) return;
      cell.tabIndex = -1;
      cells[to].tabIndex = 0;
      cells[to].focus();
    });
  });

  function light(index, on) {
    const headings = document.querySelectorAll(".heat thead th");
    const rows = document.querySelectorAll(".heat tbody th");
    headings[index % columns].classList.toggle("lit", on);
    rows[Math.floor(index / columns)].classList.toggle("lit", on);
  }
}

function setUpPicture() {
  const scroll = byId("scroll");
  let pointed = null;
  const point = (item) => {
    if (item === pointed) return;
    pointed = item;
    view.drawn.picture.classList.toggle("pointing", Boolean(item));
    show(item || view.chosen);
  };
  scroll.addEventListener("pointerleave", () => {
    point(null);
    view.drawn.cursor.classList.remove("on");
  });
  scroll.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    const { cursor, picture, scale } = view.drawn;
    point(itemAt(event, 8));
    const y = event.clientY - picture.getBoundingClientRect().top;
    cursor.classList.toggle("on", y >= 0);
    cursor.setAttribute("transform", `translate(0 ${y.toFixed(1)})`);
    cursor.querySelector("text").textContent = ms(scale.time(y));
  });
  scroll.addEventListener("click", (event) => {
    choose(event.detail ? itemAt(event, event.pointerType === "touch" ? 18 : 8) : itemOf(event.target));
  });
  scroll.addEventListener("focusin", (event) => {
    const item = itemOf(event.target);
    if (item && item !== view.chosen) choose(item);
  });
  scroll.addEventListener("keydown", (event) => {
    const item = itemOf(event.target);
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) step(item, steps[event.key]);
    else if (event.key === "Home") step(null, 1);
    else if (event.key === "End") step(null, Infinity);
    else if (event.key === "+" || event.key === "=") zoomTo(view.zoom * 1.5);
    else if (event.key === "-") zoomTo(view.zoom / 1.5);
    else if (event.key === "0") fit();
    else if (event.key === "Escape" && view.chosen) choose(null);
    else if (event.key === "Escape" && view.cell) close();
    else return;
    event.preventDefault();
  });
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomTo(view.zoom * Math.exp(-event.deltaY * 0.003), event.clientY);
  }, { passive: false });
  byId("zoom-in").addEventListener("click", () => zoomTo(view.zoom * 1.5));
  byId("zoom-out").addEventListener("click", () => zoomTo(view.zoom / 1.5));
  byId("zoom-fit").addEventListener("click", fit);
  byId("cut").addEventListener("change", (event) => {
    view.cut = event.target.checked;
    view.zoom = 1;
    draw();
  });
  byId("close").addEventListener("click", close);
  byId("close").hidden = !cells.length;
  let width = 0;
  new ResizeObserver(() => {
    if (!view.timeline || scroll.clientWidth === width) return;
    width = scroll.clientWidth;
    draw();
  }).observe(scroll);
  addEventListener("beforeprint", () => view.timeline && draw(800));
  addEventListener("afterprint", () => view.timeline && draw());
}

setUpPicture();
if (cells.length) {
  setUpCells();
  addEventListener("hashchange", followAddress);
  followAddress();
} else {
  open(decode(0), "Timeline", "");
}
