// The list of ports: a grid that only has the rows in view, however many ports there are.
// It is sorted when it is asked to, and not again by itself: rows do not jump.

import { announce, attr, h, say, show } from "./dom.js";
import { COLUMNS, ListRow } from "./listrow.js";
import { DETACHED, homeOf } from "./model.js";
import { Overview } from "./overview.js";
import { noNetworks } from "./picture.js";
import { matches } from "./search.js";
import { count, perMinute } from "./words.js";

const EXTRA = 6;
const narrow = matchMedia("(max-width: 860px)");
const ONLY = new Map([
  ["drops", (port) => perMinute(port) > 0],
  ["down", (port) => port.state !== "up"],
]);

export class List {
  #rows = [];
  #names = [];
  #order = [];
  #sort = { key: null, back: false };
  #only = null;
  #query = null;
  #selected = null;
  /** The port that the arrow keys start from. */
  current = null;

  constructor(model, trends, onChoose) {
    this.model = model;
    this.trends = trends;
    this.onChoose = onChoose;
    this.overview = new Overview(model, onChoose);
    this.total = h("span", { role: "status" });
    this.chips = new Map([...ONLY.keys()].map((key) => [key, this.#chip(key)]));
    this.heads = COLUMNS.map((column) => this.#head(column));
    this.header = h("div", { role: "row", class: "thead", "aria-rowindex": 1 }, ...this.heads);
    this.inner = h("div", { class: "tbody", role: "rowgroup" });
    this.grid = h("div", {
      role: "grid", class: "grid", tabindex: "0", "aria-label": "Ports", "aria-colcount": COLUMNS.length,
    }, h("div", { role: "rowgroup", class: "theadbox" }, this.header), this.inner);
    this.head = h("div", { class: "listhead" }, this.total, ...this.chips.values());
    this.empty = noNetworks();
    this.element = h("div", { class: "list", hidden: true }, this.overview.element, this.head, this.grid, this.empty);
    this.inner.addEventListener("click", (event) => {
      const row = event.target.closest(".tr");
      if (row) this.choose(row.portName);
    });
    for (const scroller of [window, document.getElementById("main")]) {
      scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    }
  }

  get shown() {
    return !this.element.hidden;
  }

  boards() {
    return this.overview.boards();
  }

  #chip(key) {
    const chip = h("button", { type: "button", class: "chip", "aria-pressed": "false" });
    chip.addEventListener("click", () => {
      this.#only = this.#only === key ? null : key;
      for (const [name, one] of this.chips) attr(one, "aria-pressed", name === this.#only);
      this.#filter();
    });
    return chip;
  }

  #head(column) {
    const button = h("button", { type: "button" }, column.title);
    button.addEventListener("click", () => this.#sortBy(column.key));
    return h("div", { role: "columnheader", class: "th " + (column.kind ?? "") }, button);
  }

  #sortBy(key) {
    const back = this.#sort.key === key && !this.#sort.back;
    this.#sort = { key, back };
    COLUMNS.forEach((column, i) => {
      const here = column.key === key;
      const rises = Boolean(column.rises) !== back;
      attr(this.heads[i], "aria-sort", here ? (rises ? "ascending" : "descending") : null);
      say(this.heads[i].firstChild, column.title + (here ? (rises ? " ↑" : " ↓") : ""));
    });
    this.#arrange();
  }

  /** Puts all ports in order. */
  #arrange() {
    const homes = [...this.model.networks.keys(), DETACHED];
    const ports = homes.flatMap((home) => this.model.portsOf(home));
    const column = COLUMNS.find(({ key }) => key === this.#sort.key);
    if (column) ports.sort((a, b) => (this.#sort.back ? -1 : 1) * column.order(a, b));
    this.#order = ports.map((port) => port.name);
    this.#filter();
  }

  #filter() {
    const only = ONLY.get(this.#only);
    const fits = (port) => port && matches(port, this.#query) && (!only || only(port));
    this.#names = this.#order.filter((name) => fits(this.model.ports.get(name)));
    if (!this.#names.includes(this.current)) this.current = this.#names[0] ?? null;
    attr(this.grid, "aria-rowcount", this.#names.length + 1);
    this.#counts();
    this.#draw();
  }

  #counts() {
    const none = !this.model.homes().length;
    show(this.empty, none);
    for (const part of [this.overview.element, this.head, this.grid]) show(part, !none);
    say(this.total, `${count(this.#names.length)} of ${count(this.model.ports.size)} ports`);
    let [drops, down] = [0, 0];
    for (const port of this.model.ports.values()) {
      if (port.drops.length && perMinute(port)) drops += 1;
      if (port.state !== "up") down += 1;
    }
    say(this.chips.get("drops"), `${count(drops)} with drops`);
    say(this.chips.get("down"), `${count(down)} not up`);
  }

  search(query) {
    this.#query = query;
    if (this.shown) this.#filter();
  }

  /** Lays out all; done when the list is shown, or its width changes. */
  layOut() {
    const main = this.element.parentNode;
    this.overview.layOut(narrow.matches ? main.clientWidth - 30 : Math.max(200, main.clientWidth - 400));
    this.#arrange();
  }

  update(touched) {
    if (!this.shown) return;
    if (touched.full || touched.moved.size) {
      this.overview.layOut(Number(this.overview.element.querySelector("svg")?.getAttribute("width")) || 200);
      this.#merge();
    }
    // Cells and rows are drawn in two frames: neither holds up keys or scrolling for long.
    requestAnimationFrame(() => this.shown && this.overview.update(touched));
    this.#counts();
    this.#draw();
  }

  /** Makes the next row the current one if its port was removed. */
  #moveOn() {
    const isThere = (name) => this.model.ports.has(name);
    if (this.current === null || isThere(this.current)) return;
    if (document.activeElement === this.grid) announce(`Port ${this.current} was removed.`);
    const at = this.#names.indexOf(this.current);
    this.current = this.#names.slice(at + 1).find(isThere) ?? this.#names.findLast(isThere) ?? null;
  }

  /** Takes in new ports at the end, unless the order is that of the networks. */
  #merge() {
    this.#moveOn();
    if (this.#sort.key === null) return this.#arrange();
    const known = new Set(this.#order);
    const fresh = [...this.model.ports.keys()].filter((name) => !known.has(name));
    this.#order = this.#order.filter((name) => this.model.ports.has(name)).concat(fresh);
    this.#filter();
  }

  /** Binds the rows that are in view. */
  #draw() {
    if (!this.shown) return;
    const height = narrow.matches ? 44 : 28;
    this.inner.style.height = this.#names.length * height + "px";
    const top = this.inner.getBoundingClientRect().top;
    const view = document.getElementById("main").getBoundingClientRect();
    const from = Math.max(0, Math.floor((Math.max(0, view.top) - top) / height) - EXTRA);
    const bottom = Math.min(innerHeight, view.bottom);
    const to = Math.min(this.#names.length, Math.ceil((bottom - top) / height) + EXTRA);
    const wanted = Math.max(0, to - from);
    while (this.#rows.length < wanted) {
      const row = new ListRow("row-" + this.#rows.length);
      this.#rows.push(row);
      this.inner.append(row.element);
    }
    let active = null;
    this.#rows.forEach((row, i) => {
      const name = this.#names[from + i];
      row.element.hidden = i >= wanted;
      if (i >= wanted) return;
      const port = this.model.ports.get(name);
      row.bind(port, this.model.networks.get(homeOf(port)), from + i, this.trends);
      row.element.style.transform = `translateY(${(from + i) * height}px)`;
      attr(row.element, "aria-selected", name === this.#selected);
      row.element.classList.toggle("current", name === this.current);
      if (name === this.current) active = row.element.id;
    });
    attr(this.grid, "aria-activedescendant", active);
  }

  select(name) {
    this.#selected = name;
    if (name !== null && this.#names.includes(name)) this.current = name;
    this.overview.select(name);
    this.#draw();
  }

  choose(name) {
    this.current = name;
    this.onChoose({ kind: "port", name });
  }

  /** Moves the current row by a key; returns false if it is not one of these. */
  move(key) {
    const page = Math.max(1, this.#rows.length - 2 * EXTRA - 2);
    const steps = new Map([
      ["ArrowDown", 1], ["ArrowUp", -1], ["PageDown", page], ["PageUp", -page],
      ["Home", -Infinity], ["End", Infinity],
    ]);
    if (!steps.has(key) || !this.#names.length) return false;
    const at = this.#names.indexOf(this.current) + steps.get(key);
    const index = Math.max(0, Math.min(this.#names.length - 1, at));
    this.current = this.#names[index];
    this.#reveal(index);
    this.#draw();
    return true;
  }

  #reveal(index) {
    const height = narrow.matches ? 44 : 28;
    const main = document.getElementById("main");
    const scroller = narrow.matches ? document.scrollingElement : main;
    const head = this.header.getBoundingClientRect().bottom;
    const view = main.getBoundingClientRect();
    const y = this.inner.getBoundingClientRect().top + index * height;
    const bottom = Math.min(innerHeight, view.bottom);
    if (y < head) scroller.scrollTop -= head - y;
    else if (y + height > bottom) scroller.scrollTop += y + height - bottom;
  }
}
