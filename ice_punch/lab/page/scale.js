/* Reads the data of the page, and turns times into heights. Times are seconds from here on. */

const SIDES = ["a", "server", "b"];
const CUT_HEIGHT = 28;
const PADDING = 14;
/* Around each stretch, so that what is at its ends is not at the torn edge. */
const EDGE = 7;

const DATA = JSON.parse(document.getElementById("data").textContent);

function decode(number) {
  const raw = DATA.timelines[number];
  if (!raw) return null;
  const text = (index) => DATA.strings[index];
  return {
    title: raw.title,
    length: raw.length / 1e6,
    lanes: raw.lanes.map(([tag, side, label]) => ({ tag, side: SIDES[side], label })),
    arrows: raw.arrows.map((row, index) => {
      const [sent, took, source, target, kind, label, dropped, by, side, transaction, attempt] = row;
      return {
        index,
        at: sent / 1e6,
        end: took < 0 ? null : (sent + took) / 1e6,
        source,
        target,
        kind: DATA.kinds[kind],
        label: text(label),
        dropped: text(dropped),
        by: text(by),
        droppedAt: SIDES[side] || null,
        transaction: text(transaction),
        attempt,
      };
    }),
    marks: raw.marks.map(([at, side, words, good], index) => (
      { index, at: at / 1e6, side: SIDES[side], text: words, good, mark: true })),
    silences: raw.silences.map(([begin, end]) => [begin / 1e6, end / 1e6]),
  };
}

/* Stretches of time, one below the other. A silence that is cut out has the same height whatever
   its length. */
class Scale {
  constructor(timeline, cut, perSecond) {
    this.perSecond = perSecond;
    this.stretches = [];
    let height = PADDING - EDGE;
    const add = (begin, end, silent) => {
      const size = silent ? CUT_HEIGHT - 2 * EDGE : (end - begin) * perSecond;
      this.stretches.push({ begin, end, silent, top: height + EDGE, bottom: height + EDGE + size });
      height += size + 2 * EDGE;
    };
    let since = 0;
    for (const [begin, end] of cut ? timeline.silences : []) {
      if (begin > since || this.stretches.length) add(since, begin, false);
      add(begin, end, true);
      since = end;
    }
    add(since, Math.max(timeline.length, since), false);
    this.height = height + PADDING - EDGE;
  }

  y(time) {
    const stretch = this.stretches.find((one) => !one.silent && one.begin <= time && time <= one.end)
      || this.stretches.find((one) => time <= one.end) || this.stretches[this.stretches.length - 1];
    const part = (time - stretch.begin) / (stretch.end - stretch.begin || 1);
    return stretch.top + Math.min(1, Math.max(0, part)) * (stretch.bottom - stretch.top);
  }

  time(y) {
    const last = this.stretches[this.stretches.length - 1];
    const stretch = this.stretches.find((one) => y <= one.bottom) || last;
    const part = (y - stretch.top) / (stretch.bottom - stretch.top || 1);
    return stretch.begin + Math.min(1, Math.max(0, part)) * (stretch.end - stretch.begin);
  }

  /* Round times, far enough apart to be read. */
  ticks(apart) {
    const least = apart / this.perSecond;
    const power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
    const found = [];
    for (const stretch of this.stretches.filter((one) => !one.silent)) {
      for (let n = Math.ceil(stretch.begin / step - 1e-9); n * step <= stretch.end + 1e-9; n++) {
        found.push({ time: n * step, y: this.y(n * step) });
      }
    }
    return found;
  }
}

/* The seconds that are drawn. */
function activeSeconds(timeline, cut) {
  const silent = cut ? timeline.silences.reduce((sum, [begin, end]) => sum + end - begin, 0) : 0;
  return Math.max(timeline.length - silent, 1e-4);
}

/* What the picture needs beside them. */
function fixedHeight(timeline, cut) {
  const cuts = cut ? timeline.silences.length : 0;
  return 2 * (PADDING - EDGE) + cuts * CUT_HEIGHT + (cuts + 1) * 2 * EDGE;
}

function ms(seconds) {
  return (seconds * 1000).toFixed(1);
}

function lasting(seconds) {
  return seconds < 0.9995 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

function ordinal(number) {
  const tens = number % 100;
  const ending = tens > 10 && tens < 14 ? "th" : ["th", "st", "nd", "rd"][number % 10] || "th";
  return `${number}${ending}`;
}
