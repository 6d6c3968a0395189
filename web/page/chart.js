// Ten minutes of a port or a worker, drawn by uPlot: to the guest above, from it below,
// drops as red ticks. It is one grey; the arrow keys read it second by second.

import uPlot from "./uplot.js";
import { get } from "./api.js";
import { h, say } from "./dom.js";
import { count, duration, sentence, si } from "./words.js";

const LENGTH = 600;
const HEIGHT = 118;
/** The parts of the height above and below the middle. */
const ABOVE = 0.56;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The next round number. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1000)));
  return [1, 1.5, 2, 3, 5, 7, 10].map((n) => n * power).find((n) => n >= value) ?? value;
}

const peak = (values) => values.reduce((most, value) => Math.max(most, value ?? 0), 0);

export class Chart {
  hasCursor = false;
  onCursor = () => {};
  #plot = null;
  #resize = null;
  #at = null;

  /** `query`: what `/v1/history` is asked for. */
  constructor(query) {
    this.query = query;
    this.worker = "worker" in query;
    this.time = [];
    this.rows = this.worker ? [[]] : [[], [], []];
    const label = "Ten minutes, one point a second";
    this.box = h("div", { class: "chart", role: "slider", tabindex: "0", "aria-label": label });
    this.box.setAttribute("aria-valuemin", -LENGTH);
    this.box.setAttribute("aria-valuemax", 0);
    this.box.setAttribute("aria-valuenow", 0);
    this.top = h("span", {});
    this.low = h("span", {});
    this.note = h("p", { class: "dim", role: "status" });
    const axis = h("p", { class: "axis", "aria-hidden": "true" },
      h("span", {}, "−10 min"), h("span", {}, "−5 min"), h("span", {}, "now"));
    this.element = h("div", { class: this.worker ? "chartbox one" : "chartbox" },
      h("p", { class: "top", "aria-hidden": "true" }, this.top), this.box,
      h("p", { class: "low", "aria-hidden": "true" }, this.low), axis, this.note);
    this.box.addEventListener("keydown", (event) => this.#keydown(event));
    this.box.addEventListener("blur", () => this.#leave());
  }

  /** Asks for the last ten minutes. */
  async load() {
    try {
      this.#take(await get("history", this.query));
      say(this.note, "");
    } catch (error) {
      say(this.note, sentence(error.message));
    }
    if (this.closed) return;
    if (this.#plot) this.#plot.setData(this.#data());
    else this.#build();
    this.#describe();
  }

  /** Takes what is known of the last minutes. A web process that has just begun knows less than
      the page: what is older stays, and so does the second by which the page, which counts by
      itself, may be ahead. Seconds that neither has seen are a gap. */
  #take(past) {
    const series = this.worker ? [past.busy] : [past.tx, past.rx, past.drops];
    const { length } = series[0];
    const first = past.end - length + 1;
    const older = this.time.findLastIndex((second) => second < first) + 1;
    const gap = older ? Math.min(LENGTH, first - this.time[older - 1] - 1) : 0;
    this.end = past.end;
    const newer = this.time.filter((second) => second <= past.end).length;
    const joined = (old, fresh, unseen) =>
      [...old.slice(0, older), ...Array.from({ length: gap }, unseen), ...fresh, ...old.slice(newer)]
        .slice(-LENGTH);
    const seconds = Array.from({ length }, (_, i) => first + i);
    this.rows = series.map((fresh, row) => joined(this.rows[row], fresh, () => null));
    this.time = joined(this.time, seconds, (_, i) => first - gap + i);
  }

  #build() {
    if (!this.box.isConnected) return;
    const axes = [{ show: false }, { show: false }, { show: false }];
    const line = { width: 1.25, points: { show: false } };
    const series = this.worker
      ? [{}, { ...line, scale: "busy" }]
      : [{}, { ...line, scale: "tx" }, { ...line, scale: "rx" }];
    const half = (most, part) => [-most * (1 - part) / part, most];
    const scales = this.worker
      ? { x: { time: false, range: () => this.#span() }, busy: { range: [0, 1] } }
      : {
        x: { time: false, range: () => this.#span() },
        tx: { range: () => half(this.most.tx, ABOVE) },
        rx: { range: () => half(this.most.rx, 1 - ABOVE).map((v) => -v).reverse() },
      };
    const shade = { stroke: () => colour("--flow"), fill: () => colour("--flow-soft") };
    for (const one of series.slice(1)) Object.assign(one, shade, { fillTo: 0 });
    this.#plot = new uPlot({
      width: this.box.clientWidth, height: HEIGHT, padding: [2, 0, this.worker ? 2 : 14, 0],
      legend: { show: false }, axes, series, scales,
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      hooks: {
        drawClear: [(u) => this.#grid(u)],
        draw: [(u) => this.#drops(u)],
        setCursor: [(u) => this.#cursor(u)],
      },
    }, this.#data(), this.box);
    this.#resize = new ResizeObserver(() => {
      this.#plot.setSize({ width: this.box.clientWidth, height: HEIGHT });
    });
    this.#resize.observe(this.box);
  }

  #span() {
    const end = this.time.at(-1) ?? 0;
    return [end - LENGTH + 1, end];
  }

  #data() {
    this.most = { tx: nice(peak(this.rows[0])), rx: nice(peak(this.rows[1] ?? [])) };
    say(this.top, this.worker ? "100 %" : "↓ " + si(this.most.tx, "b/s"));
    say(this.low, this.worker ? "" : "↑ " + si(this.most.rx, "b/s"));
    if (this.worker) return [this.time, this.rows[0]];
    return [this.time, this.rows[0], this.rows[1].map((value) => value && -value)];
  }

  #grid({ ctx, bbox }) {
    const { left, top, width, height } = bbox;
    const line = (x1, y1, x2, y2, name) => {
      ctx.strokeStyle = colour(name);
      ctx.beginPath();
      ctx.moveTo(x1, y1);
      ctx.lineTo(x2, y2);
      ctx.stroke();
    };
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    line(left, top, left + width, top, "--line");
    line(left, top + height, left + width, top + height, "--line");
    line(left + width / 2, top, left + width / 2, top + height, "--line");
    const middle = top + height * (this.worker ? 1 : ABOVE);
    line(left, middle, left + width, middle, "--line-strong");
    ctx.restore();
  }

  #drops(u) {
    const drops = this.rows[2];
    const most = drops ? peak(drops) : 0;
    if (!most) return;
    const { ctx, bbox } = u;
    const floor = bbox.top + bbox.height + 12 * devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour("--bad");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    drops.forEach((value, i) => {
      if (!value) return;
      const x = u.valToPos(this.time[i], "x", true);
      ctx.moveTo(x, floor);
      ctx.lineTo(x, floor - (2 + (7 * value) / most) * devicePixelRatio);
    });
    ctx.stroke();
    ctx.restore();
  }

  /** Adds the rates of this second. */
  add(source, touched, silent) {
    if (touched === null) return;
    // A daemon that does not answer has no rates. After a gap the seconds in between are asked for.
    if (silent) return void (this.gap = true);
    if (touched.full || this.gap) {
      this.gap = false;
      this.total = undefined;
      return void this.load();
    }
    if (this.end === undefined) return;
    this.time.push((this.time.at(-1) ?? this.end) + 1);
    if (this.worker) this.rows[0].push(source.busy);
    else {
      this.rows[0].push(source.rate.tx_bps);
      this.rows[1].push(source.rate.rx_bps);
      const sum = source.drops.reduce((all, drop) => all + (drop.total ?? 0), 0);
      this.rows[2].push(this.total === undefined ? 0 : Math.max(0, sum - this.total));
      this.total = sum;
    }
    for (const row of [this.time, ...this.rows]) if (row.length > LENGTH) row.shift();
    this.#plot?.setData(this.#data());
    this.#describe();
  }

  #describe() {
    if (this.hasCursor) return;
    const most = this.worker
      ? `busy up to ${Math.round(100 * peak(this.rows[0]))} %`
      : `to guest up to ${si(peak(this.rows[0]), "b/s")}, from guest up to ${si(peak(this.rows[1]), "b/s")}`;
    this.box.setAttribute("aria-valuetext", this.time.length ? "the last ten minutes: " + most : "no points yet");
  }

  #cursor(u) {
    const at = u.cursor.idx;
    this.hasCursor = at != null && (u.cursor.left ?? -1) >= 0;
    this.onCursor(this.hasCursor ? this.#values(at) : null);
  }

  #values(at) {
    const ago = duration(this.time.at(-1) - this.time[at]) + " ago";
    if (this.worker) return { busy: this.rows[0][at], ago };
    return { tx: this.rows[0][at], rx: this.rows[1][at], drops: this.rows[2][at], ago };
  }

  #keydown(event) {
    const steps = new Map([["ArrowLeft", -1], ["ArrowRight", 1], ["PageUp", -60], ["PageDown", 60],
      ["Home", -Infinity], ["End", Infinity]]);
    const step = steps.get(event.key);
    if (step === undefined || !this.time.length || !this.#plot) return;
    event.preventDefault();
    event.stopPropagation();
    const last = this.time.length - 1;
    this.#at = Math.max(0, Math.min(last, (this.#at ?? last) + step));
    this.#plot.setCursor({ left: this.#plot.valToPos(this.time[this.#at], "x"), top: 1 });
    const v = this.#values(this.#at);
    const said = this.worker ? `busy ${Math.round(v.busy * 100)} %`
      : `to guest ${si(v.tx, "b/s")}, from guest ${si(v.rx, "b/s")}, ${count(v.drops)} drops`;
    this.box.setAttribute("aria-valuenow", this.#at - last);
    this.box.setAttribute("aria-valuetext", `${v.ago}: ${said}`);
  }

  #leave() {
    this.#at = null;
    this.#plot?.setCursor({ left: -10, top: -10 });
    this.#describe();
  }

  recolour() {
    this.#plot?.redraw(false);
  }

  close() {
    this.closed = true;
    this.#resize?.disconnect();
    this.#plot?.destroy();
  }
}
