// A line graph in SVG, drawn anew with every reading.

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 480;
const HEIGHT = 120;
const LEFT = 44;
const BOTTOM = 18;
const TOP = 8;

/** The smallest 1, 2 or 5 times a power of ten that is not less than `value`. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

/** Points of a polyline for readings of { t, value } in a graph of `seconds` and `top`. */
export function points(readings, seconds, top) {
  const x = (t) => LEFT + (Math.min(t, seconds) / seconds) * (WIDTH - LEFT - 4);
  const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
  return readings.map(({ t, value }) => `${x(t).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
}

/** Draw `readings` into the `svg`; `unit` goes to the axis, `className` to the line. */
export function draw(svg, readings, { seconds, unit, className }) {
  const top = roundUp(Math.max(0, ...readings.map((reading) => reading.value)));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const base = HEIGHT - BOTTOM;
  svg.replaceChildren(
    line(LEFT, TOP, WIDTH - 4, TOP, "grid"),
    line(LEFT, (TOP + base) / 2, WIDTH - 4, (TOP + base) / 2, "grid"),
    line(LEFT, base, WIDTH - 4, base, "axis"),
    label(LEFT - 6, TOP + 4, String(Number(top.toPrecision(2))), "end"),
    label(LEFT - 6, (TOP + base) / 2 + 4, unit, "end"),
    label(LEFT - 6, base + 3, "0", "end"),
    label(WIDTH - 4, HEIGHT - 4, `${seconds} s`, "end"),
    element("polyline", { points: points(readings, seconds, top), class: className }),
  );
}

function line(x1, y1, x2, y2, className) {
  return element("line", { x1, y1, x2, y2, class: className });
}

function label(x, y, text, anchor) {
  const node = element("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function element(name, attributes) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
