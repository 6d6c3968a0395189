// One row of the list. Rows are few and are given other ports while the list scrolls.
// Names of columns are here, too, with what the list is sorted by.

import { attr, h, s, say, show, text, write } from "./dom.js";
import { modeClass } from "./network.js";
import { addressOf, cause, count, dropTone, isIdle, logPart, perMinute, plain, si, stateOf, vlanText,
  worstReason } from "./words.js";

const byNumber = (value) => (a, b) => value(b) - value(a);
// Made when it is first asked for: it takes 10 ms, which the first paint has no use for.
let collator = null;
const byText = (value) => (a, b) => {
  collator ??= new Intl.Collator("en", { numeric: true });
  return collator.compare(value(a), value(b));
};

/** By drops; of ports with as many, those that do not run come first. */
function byTrouble(a, b) {
  const off = (port) => (port.state === "not-running" ? 1 : 0);
  return perMinute(b) - perMinute(a) || off(b) - off(a);
}

/** The columns: title, class, and an order, the most wanted first. Texts and VLANs rise in it, and
    figures fall. */
export const COLUMNS = [
  { key: "name", title: "Port", rises: true, order: byText((port) => port.name) },
  { key: "network", title: "Network", kind: "wide", rises: true, order: byText((port) => port.network ?? "\uffff") },
  { key: "vlan", title: "VLAN", kind: "wide", rises: true, order: (a, b) => (a.tag ?? 9999) - (b.tag ?? 9999) },
  { key: "address", title: "Address", kind: "wide", rises: true, order: byText((port) => addressOf(port) || "\uffff") },
  { key: "to", title: "To guest", kind: "num", order: byNumber((port) => port.rate.tx_bps) },
  { key: "from", title: "From guest", kind: "num wide", order: byNumber((port) => port.rate.rx_bps) },
  { key: "trend", title: "10 minutes", kind: "wide", order: byNumber((port) => port.rate.tx_bps) },
  { key: "drops", title: "Drops/min", kind: "num", order: byTrouble },
];

const TREND = { width: 88, height: 18 };

/** A cell with a rate and its bar. */
class Figure {
  constructor(kind) {
    this.bar = s("rect", { class: "bar", y: 0, height: 7 });
    this.word = text();
    const svg = s("svg", { class: "barbox", width: 34, height: 7, "aria-hidden": "true" }, this.bar);
    this.element = h("div", { role: "gridcell", class: "td " + kind }, svg, h("span", {}, this.word));
  }

  show(bps) {
    write(this.word, si(bps, bps >= 1 ? "b/s" : ""));
    attr(this.bar, "width", bps >= 1 ? Math.max(1, Math.round(34 * logPart(bps))) : 0);
  }
}

export class ListRow {
  constructor(id) {
    const cell = (kind, ...inside) => h("div", { role: "gridcell", class: "td " + kind }, ...inside);
    [this.name, this.sub, this.network, this.vlan, this.address, this.reason] = [0, 0, 0, 0, 0, 0].map(() => text());
    this.subLine = h("span", { class: "sub" }, this.sub);
    this.swatch = h("i", { class: "swatch", "aria-hidden": "true" });
    this.to = new Figure("num");
    this.from = new Figure("num wide");
    this.trend = s("path", { class: "curve" });
    const base = s("path", { class: "rule", d: `M0 ${TREND.height - 0.5}H${TREND.width}` });
    this.trendBox = cell("wide", s("svg", { ...TREND, "aria-hidden": "true" }, base, this.trend));
    this.why = cell("why", this.reason);
    this.dropName = h("span", { class: "wide" });
    this.dropCount = h("b", {});
    // The name gives way to the number, which is always whole.
    this.drops = cell("num drops", this.dropName, " ", this.dropCount);
    this.element = h("div", { role: "row", class: "tr", id },
      cell("first", h("b", {}, this.name), this.subLine), cell("wide", this.swatch, this.network),
      cell("wide", this.vlan), cell("wide", this.address),
      this.to.element, this.from.element, this.trendBox, this.why, this.drops);
  }

  /** Shows a port at a place of the list. */
  bind(port, network, index, trends) {
    // A port that has changed is another object, so most seconds only rates are written.
    const key = this.port === port && this.home === network && this.index === index;
    const drawn = trends.points;
    if (key && this.drawn === drawn) return this.rates(port);
    Object.assign(this, { port, home: network, index, drawn });
    this.element.portName = port.name;
    attr(this.element, "aria-rowindex", index + 2);
    write(this.name, port.name);
    attr(this.element, "title", port.error ? plain(port.error) : null);
    attr(this.swatch, "class", network?.mode === "nat" ? "swatch hollow" : "swatch");
    write(this.network, port.network ?? "not attached");
    write(this.vlan, vlanText(port));
    write(this.address, addressOf(port) || "–");
    const state = stateOf(port);
    const up = port.state === "up";
    const tone = up ? "" : state.tone;
    attr(this.element, "class", `tr ${modeClass(network)}${up ? "" : " down"}`);
    const word = up ? "" : `${state.glyph} ${state.word}${port.error ? ": " + cause(port.error) : ""}`;
    write(this.reason, word);
    attr(this.why, "class", "td why " + tone);
    write(this.sub, up ? `${port.network ?? "not attached"}  ${addressOf(port)}` : word);
    attr(this.subLine, "class", "sub " + tone);
    for (const part of [this.to.element, this.from.element, this.trendBox]) show(part, up);
    show(this.why, !up);
    this.#drops(port);
    this.rates(port);
    attr(this.trend, "d", up ? trends.path(port.name, TREND.width, TREND.height) || null : null);
  }

  #drops(port) {
    const drops = perMinute(port);
    say(this.dropName, worstReason(port) ?? "");
    say(this.dropCount, count(drops));
    attr(this.drops, "class", drops ? "td num drops " + dropTone(drops) : "td num drops none");
  }

  rates(port) {
    if (port.state !== "up") return;
    this.to.show(port.rate.tx_bps);
    this.from.show(port.rate.rx_bps);
    attr(this.element, "data-idle", isIdle(port.rate) ? "" : null);
  }
}
