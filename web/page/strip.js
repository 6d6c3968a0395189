// The strip below the picture: what needs attention, worst first, and the events, newest first.
// Events are no live region: there are too many of them.

import { h, keyed, say } from "./dom.js";
import { cause, plain } from "./words.js";

const GLYPHS = new Map([
  ["blocked", "■"], ["down", "×"], ["waiting", "◌"], ["gateway", "×"],
  ["drops", "!"], ["forward", "!"], ["pool", "!"],
]);
const TYPES = ["flow", "drop", "dns", "dhcp", "link", "policy", "config", "lost"];
const KEPT = 200;

/** The kind and name in `port:vm1`. A name may have colons. */
function objectOf(text) {
  const colon = String(text).indexOf(":");
  return { kind: text.slice(0, colon), name: text.slice(colon + 1) };
}

/** The text of an event without its time, place and type, which have columns of their own. */
const LINE = /^\d\d:\d\d:\d\d(?:\.\d+)?\s+\S+\s+([a-z]+)\s+/;
const textOf = (event) => {
  const line = String(event.line ?? event.detail ?? event.reason ?? "");
  return LINE.exec(line)?.[1] === event.type ? line.replace(LINE, "") : line;
};

/** Lines with keys. There may be several of a kind: forwards that wait, for example. */
function withKeys(list) {
  const numbers = new Map();
  return list.map((line) => {
    const kind = JSON.stringify([line.object, line.kind]);
    numbers.set(kind, (numbers.get(kind) ?? 0) + 1);
    return { key: `${kind} ${numbers.get(kind)}`, line, over: false };
  });
}

/** The lines in the order that is shown: what is over keeps its place, what is new comes last. */
function inHeldOrder(shown, lines) {
  const now = new Map(lines.map((one) => [one.key, one]));
  const held = new Set(shown.map(({ key }) => key));
  const kept = shown.map((old) => now.get(old.key) ?? { ...old, over: true });
  return kept.concat(lines.filter(({ key }) => !held.has(key)));
}

export class Strip {
  #lines = new Map();
  #shown = [];
  #pointed = false;
  #type = "";
  #seen = -Infinity;

  constructor(element, model, onChoose) {
    this.model = model;
    this.onChoose = onChoose;
    this.total = h("span", {});
    this.lines = h("div", { class: "lines" });
    const attention = h("section", { id: "attention", tabindex: "0", "aria-labelledby": "attention-title" },
      h("h2", { id: "attention-title" }, "Needs attention", this.total), this.lines);
    this.events = h("ol", { class: "events" });
    const choice = h("select", { "aria-label": "Type of events" }, h("option", { value: "" }, "all"),
      ...TYPES.map((type) => h("option", { value: type }, type)));
    choice.addEventListener("change", () => {
      this.#type = choice.value;
      this.#all();
    });
    const events = h("section", { id: "events", tabindex: "0", "aria-labelledby": "events-title" },
      h("h2", { id: "events-title" }, "Events ", h("span", {}, "newest first, UTC"), choice), this.events);
    element.replaceChildren(attention, events);
    this.#holdOrder();
  }

  update(touched) {
    if (touched.full || touched.attention) this.#attention();
    if (touched.full) this.#all();
    else for (const event of touched.events) this.#add(event);
  }

  /** Lines do not move under the pointer or the focus: they are put in order when both leave. */
  #holdOrder() {
    const point = (event) => {
      this.#pointed = event.type === "pointerenter" && event.pointerType !== "touch";
      this.#attention();
    };
    this.lines.addEventListener("pointerenter", point);
    this.lines.addEventListener("pointerleave", point);
    // The focus has not arrived elsewhere yet.
    this.lines.addEventListener("focusout", () => requestAnimationFrame(() => this.#attention()));
  }

  #attention() {
    say(this.total, this.model.attention.length ? ` ${this.model.attention.length}` : " nothing");
    const lines = withKeys(this.model.attention);
    const held = this.#pointed || this.lines.contains(document.activeElement);
    this.#shown = held ? inHeldOrder(this.#shown, lines) : lines;
    const make = ({ line }) => this.#line(line);
    keyed(this.lines, this.#lines, this.#shown, ({ key }) => key, make, (row, { line, over }) => {
      say(row.text, over ? "no longer" : cause(line.text));
      row.element.title = over ? "" : plain(line.text);
      row.element.classList.toggle("past", over);
      row.glyph.className = "g " + (line.severity === "bad" ? "bad" : "warn");
    });
  }

  #line(line) {
    const object = objectOf(line.object);
    const glyph = h("span", { class: "g", "aria-hidden": "true" }, GLYPHS.get(line.kind) ?? "!");
    const words = h("span", { class: "x" });
    const name = h("span", { class: "w" }, object.name);
    const element = h("button", { type: "button", class: "row" }, glyph, name, words);
    element.addEventListener("click", () => this.onChoose(object));
    return { element, glyph, text: words };
  }

  #all() {
    this.#seen = -Infinity;
    this.events.replaceChildren();
    for (const event of this.model.events) this.#add(event);
  }

  #add(event) {
    // After a reconnect some may come twice.
    if (event.id != null && event.id <= this.#seen) return;
    this.#seen = event.id ?? this.#seen;
    if (this.#type && event.type !== this.#type) return;
    // In UTC, as in the log and in `tramactl observe`.
    const clock = /T(\d\d:\d\d:\d\d)/.exec(event.time)?.[1] ?? String(event.time ?? "");
    const words = plain(textOf(event));
    const place = event.port ?? event.network ?? "";
    this.events.prepend(h("li", { class: "row", title: words },
      h("time", { class: "tm", datetime: event.time }, clock), h("span", { class: "w" }, place),
      h("span", { class: event.type === "drop" ? "k bad" : "k" }, event.type ?? ""),
      h("span", { class: "x" }, words)));
    while (this.events.children.length > KEPT) this.events.lastChild.remove();
  }
}
