// The cells of each network above the list: where trouble is among a thousand ports.
// It is limited to a third of the height, and scrolls beyond.

import { attr, h, s, say, show } from "./dom.js";
import { Board } from "./board.js";
import { troubleOf } from "./edge.js";
import { DETACHED, homeOf } from "./model.js";
import { Rows, Slots, layOverview } from "./layout.js";
import { modeClass, swatch } from "./network.js";
import { briefly, count, dropTone, perMinute, plain, several, si } from "./words.js";

class Row {
  #slots = new Slots();
  #rows = new Rows();

  constructor(name, network, onChoose) {
    this.name = name;
    const title = name === DETACHED ? "Not attached" : name;
    const label = network
      ? h("button", { type: "button", class: "netname", title: name }, name)
      : h("span", {}, title);
    if (network) label.addEventListener("click", () => onChoose({ kind: "network", name }));
    this.board = new Board(title);
    this.svg = s("svg", { role: "group", "aria-label": title });
    this.mode = h("span", { class: "dim" });
    this.sum = h("span", {});
    this.drops = h("span", {});
    const who = h("div", { class: "who" }, swatch(network), label, " ", this.mode);
    this.trouble = h("span", { class: "warn" });
    const sum = h("div", { class: "sum" }, this.sum, this.drops, this.trouble);
    this.element = h("div", { class: "overrow " + modeClass(network) }, who, this.svg, sum);
  }

  layOut(network, ports, width) {
    say(this.mode, network?.mode ?? "");
    const plan = layOverview({ ports, width, slots: this.#slots, rowsOf: this.#rows });
    this.board.put(ports, plan.at, "cell", false);
    if (ports.length && !this.board.element.parentNode) this.svg.append(this.board.element);
    if (!ports.length) this.board.element.remove();
    attr(this.svg, "width", width);
    attr(this.svg, "height", plan.bottom);
    this.summarize(network, ports);
  }

  summarize(network, ports) {
    let rate = 0;
    let drops = 0;
    let worst = 0;
    for (const port of ports) {
      rate += port.rate.rx_bps;
      const own = perMinute(port);
      drops += own;
      worst = Math.max(worst, own);
    }
    const trouble = network && troubleOf(network);
    show(this.trouble, Boolean(trouble));
    show(this.sum, !trouble);
    say(this.trouble, trouble ? "× " + briefly(trouble) : "");
    attr(this.trouble, "title", trouble ? plain(trouble) : null);
    say(this.sum, `${several(ports.length, "port")}, ${si(rate, "b/s")}`);
    show(this.drops, drops > 0);
    // The worst port decides, as its own cell does: a sum over many ports would soon be red.
    attr(this.drops, "class", dropTone(worst));
    say(this.drops, drops ? `, ▾ ${count(drops)}/min` : "");
  }
}

export class Overview {
  #rows = new Map();
  #selected = null;

  constructor(model, onChoose) {
    this.model = model;
    this.onChoose = onChoose;
    this.element = h("div", { class: "over" });
  }

  boards() {
    return [...this.#rows.values()].map((row) => row.board);
  }

  layOut(width) {
    const homes = this.model.homes();
    for (const [name, row] of this.#rows) {
      if (homes.includes(name)) continue;
      row.element.remove();
      this.#rows.delete(name);
    }
    homes.forEach((name, i) => {
      const network = this.model.networks.get(name) ?? null;
      if (!this.#rows.has(name)) this.#rows.set(name, new Row(name, network, this.onChoose));
      const row = this.#rows.get(name);
      if (this.element.children[i] !== row.element) {
        this.element.insertBefore(row.element, this.element.children[i] ?? null);
      }
      row.layOut(network, this.model.portsOf(name), width);
    });
    this.select(this.#selected);
  }

  update(touched) {
    for (const name of touched.ports) {
      const port = this.model.ports.get(name);
      if (port) this.#view(port)?.update(port);
    }
    for (const port of touched.rates) this.#view(port)?.rates(port);
    for (const [name, row] of this.#rows) {
      row.summarize(this.model.networks.get(name) ?? null, this.model.membersOf(name));
      row.board.describeSome();
    }
  }

  #view(port) {
    return this.#rows.get(homeOf(port))?.board.views.get(port.name);
  }

  select(name) {
    const mark = (which, on) => {
      const port = this.model.ports.get(which);
      if (port) this.#view(port)?.select(on);
    };
    mark(this.#selected, false);
    this.#selected = name;
    mark(name, true);
  }
}
