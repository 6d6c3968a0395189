// The strip below the picture: what needs attention, worst first, and the events, newest first.
// Events are no live region: there are too many of them.

import { h, keyed, say } from "./dom.js";

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

export class Strip {
  #lines = new Map();
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
  }

  update(touched) {
    if (touched.full || touched.attention) this.#attention();
    if (touched.full) this.#all();
    else for (const event of touched.events) this.#add(event);
  }

  #attention() {
    const list = this.model.attention;
    say(this.total, list.length ? ` ${list.length}` : " nothing");
    // There may be several of a kind: forwards that wait, for example.
    const numbers = new Map();
    const key = (line) => {
      const kind = JSON.stringify([line.object, line.kind]);
      numbers.set(kind, (numbers.get(kind) ?? 0) + 1);
      return `${kind} ${numbers.get(kind)}`;
    };
    keyed(this.lines, this.#lines, list, key, (line) => this.#line(line), (row, line) => {
      say(row.text, line.text);
      row.element.title = line.text;
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
    const words = textOf(event);
    const place = event.port ?? event.network ?? "";
    this.events.prepend(h("li", { class: "row", title: words },
      h("time", { class: "tm", datetime: event.time }, clock), h("span", { class: "w" }, place),
      h("span", { class: event.type === "drop" ? "k bad" : "k" }, event.type ?? ""),
      h("span", { class: "x" }, words)));
    while (this.events.children.length > KEPT) this.events.lastChild.remove();
  }
}
