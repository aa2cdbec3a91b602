// The timeline under a film: what the memory's slots hold, where an answer looked, scores and replies.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, LEFT = 4, RIGHT = 596, ROW = 9, CURVE = 44;
const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2"];

function made(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

export function clock(seconds, fine = false) {
  if (fine) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export class Timeline {
  // `seek` is called with the second that was clicked.
  constructor(place, seek) {
    this.place = place;
    this.seek = seek;
    this.clear(0);
  }

  clear(duration_s) {
    this.duration_s = duration_s;
    this.explained = null;
    this.moments = [];
    this.draw();
  }

  x(second) {
    return LEFT + (RIGHT - LEFT) * Math.min(1, second / (this.duration_s || 1));
  }

  explain(explained) {
    this.explained = explained;
    this.duration_s ||= explained.times_s.at(-1) || 0;
    this.draw();
  }

  moment(moment) {
    this.moments.push(moment);
    this.duration_s = Math.max(this.duration_s, moment.time_s ?? 0);
    this.draw();
  }

  at(second) {
    this.line?.setAttribute("transform", `translate(${this.x(second)} 0)`);
  }

  draw() {
    this.place.replaceChildren();
    this.line = null;
    if (!this.duration_s) return;
    const svg = made("svg", { viewBox: "0 0 600 20", role: "img", "aria-label": "timeline of the film" });
    let y = 4;
    if (this.explained) y = this.drawSlots(svg, y);
    if (this.moments.length) y = this.drawScores(svg, y);
    made("rect", { x: LEFT, y, width: RIGHT - LEFT, height: 2, fill: "var(--line)" }, svg);
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      const text = made("text", { x: LEFT + share * (RIGHT - LEFT), y: y + 14, "text-anchor": anchor }, svg);
      text.textContent = clock(share * this.duration_s, this.duration_s < 20);
    }
    this.line = made("line", { x1: 0, x2: 0, y1: 0, y2: y, stroke: "var(--ink)", "stroke-width": 1.5 }, svg);
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${y + 18}`);
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      this.seek(Math.max(0, Math.min(1, (x - LEFT) / (RIGHT - LEFT))) * this.duration_s);
    });
    this.place.append(svg);
  }

  drawSlots(svg, y) {
    const { times_s, slots, attention } = this.explained;
    const ends = times_s.map((t, n) => (n + 1 < times_s.length ? times_s[n + 1] : this.duration_s));
    slots.forEach((row, slot) => {
      row.forEach((share, frame) => {
        if (share < 0.01) return;
        const x = this.x(times_s[frame]);
        const width = Math.max(1.5, this.x(ends[frame]) - x - 0.7);
        const bar = made("rect", { x, y, width, height: ROW - 2, fill: COLOURS[slot % COLOURS.length], opacity: 0.15 + 0.85 * share }, svg);
        made("title", {}, bar).textContent = `slot ${slot + 1} holds ${Math.round(100 * share)} % of the frame at ${clock(times_s[frame])}`;
      });
      y += ROW;
    });
    const most = Math.max(...attention, 1e-9);
    attention.forEach((share, frame) => {
      const x = this.x(times_s[frame]), height = (CURVE * share) / most;
      const width = Math.max(1.5, this.x(ends[frame]) - x - 0.7);
      const bar = made("rect", { x, y: y + 4 + CURVE - height, width, height, fill: "var(--accent)", class: "looked" }, svg);
      made("title", {}, bar).textContent = `${Math.round(100 * share)} % of what was looked at, at ${clock(times_s[frame])}`;
    });
    return y + CURVE + 8;
  }

  drawScores(svg, y) {
    const scored = this.moments.filter((moment) => Object.keys(moment.scores).length);
    const names = [...new Set(scored.flatMap((moment) => Object.keys(moment.scores)))];
    names.forEach((name, number) => {
      const points = scored.map((m) => `${this.x(m.time_s ?? 0)},${y + CURVE * (1 - (m.scores[name] ?? 0))}`);
      const line = made("polyline", { points: points.join(" "), fill: "none", stroke: COLOURS[number], "stroke-width": 1.5 }, svg);
      made("title", {}, line).textContent = name;
    });
    for (const moment of this.moments.filter((m) => m.reply)) {
      const dot = made("circle", { cx: this.x(moment.time_s ?? 0), cy: y + 5, r: 4, fill: "var(--accent)", class: "reply" }, svg);
      made("title", {}, dot).textContent = `${clock(moment.time_s ?? 0)} ${moment.reply}`;
    }
    return y + CURVE + 6;
  }
}
