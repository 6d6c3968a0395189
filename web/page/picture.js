// The picture: all networks below one another, and the rails of the host and the LAN behind them.
// It is built once; a change touches the networks and ports that it names.

import { attr, command, h, s, show } from "./dom.js";
import { NetworkView } from "./network.js";
import { columns } from "./layout.js";
import { homeOf } from "./model.js";
import { matches } from "./search.js";

/** As in picture.css: what the panel leaves of 861 px. Below, the picture scrolls sideways. */
const LEAST_WIDTH = 540;
const TOP = 24;

/** What is shown without networks, in the picture and in the list. */
export const noNetworks = () =>
  h("div", { class: "empty", hidden: true }, h("p", {}, "No networks yet. Add one:"), command("tramactl add-br lab"));

export class Picture {
  networks = new Map();
  #rails = s("svg", { class: "rails", "aria-hidden": "true" });
  #selected = null;
  #query = null;
  #width = 0;

  constructor(model, onChoose) {
    this.model = model;
    this.onChoose = onChoose;
    this.inner = h("div", { class: "networks" });
    this.empty = noNetworks();
    this.element = h("div", { class: "picture", hidden: true }, this.#rails, this.inner, this.empty);
  }

  get shown() {
    return !this.element.hidden;
  }

  /** The listboxes, in the order of the networks. */
  boards() {
    return [...this.networks.values()].map((view) => view.board);
  }

  /** Lays out all; done when the picture is shown, or its width changes. */
  layOut() {
    const width = Math.max(LEAST_WIDTH, this.element.parentNode.clientWidth);
    if (width !== this.#width) this.#drawRails(width);
    this.#width = width;
    const homes = this.model.homes();
    const gone = new Set(this.networks.keys());
    for (const name of homes) {
      gone.delete(name);
      if (!this.networks.has(name)) {
        const view = new NetworkView(name, (network) => this.onChoose({ kind: "network", name: network }));
        this.networks.set(name, view);
      }
      this.#layNetwork(name);
    }
    for (const name of gone) {
      this.networks.get(name).element.remove();
      this.networks.delete(name);
    }
    // Order: as the daemon has it, and what is not attached last.
    homes.forEach((name, i) => {
      const { element } = this.networks.get(name);
      if (this.inner.children[i] !== element) this.inner.insertBefore(element, this.inner.children[i] ?? null);
    });
    show(this.empty, !homes.length);
    this.select(this.#selected);
  }

  #layNetwork(name) {
    const view = this.networks.get(name);
    view.layOut(this.model.networks.get(name) ?? null, this.model.portsOf(name), this.#width);
    for (const [port, one] of view.board.views) one.fade(this.#isFaded(port));
  }

  #drawRails(width) {
    const { host, lan } = columns(width);
    attr(this.#rails, "width", width);
    const label = (x, word) => s("text", { class: "small", x, y: 18, "text-anchor": "middle" }, word);
    const rail = (x) => s("line", { class: "rail", x1: x + 0.5, x2: x + 0.5, y1: TOP + 2, y2: "100%" });
    this.#rails.replaceChildren(label(host, "host"), label(lan, "LAN"), rail(host), rail(lan));
  }

  /** Shows a change. */
  update(touched) {
    if (!this.shown) return;
    const structure = touched.full || [...touched.moved].some((name) => this.#isNew(name));
    if (structure) this.layOut();
    else for (const name of touched.moved) this.#layNetwork(name);
    // A port that was moved has a new view.
    if (touched.moved.size) this.select(this.#selected);
    for (const name of touched.networks) {
      const network = this.model.networks.get(name);
      if (network) this.networks.get(name)?.change(network);
    }
    for (const name of touched.ports) this.#portView(name)?.update(this.model.ports.get(name));
    for (const port of touched.rates) {
      if (!touched.ports.has(port.name)) this.#portView(port.name)?.rates(port);
    }
    for (const network of touched.edges) this.networks.get(network.name)?.edges();
    for (const [name, view] of this.networks) {
      view.summarize(this.model.membersOf(name));
      view.board.describeSome();
    }
    if (this.#query && touched.ports.size) this.search(this.#query);
  }

  #isNew(name) {
    const wanted = this.model.homes().includes(name);
    return wanted !== this.networks.has(name);
  }

  #portView(name) {
    const port = this.model.ports.get(name);
    return port && this.networks.get(homeOf(port))?.board.views.get(name);
  }

  select(port) {
    this.#portView(this.#selected)?.select(false);
    this.#selected = port;
    this.#portView(port)?.select(true);
  }

  search(query) {
    this.#query = query;
    for (const { board } of this.networks.values()) {
      for (const [name, view] of board.views) view.fade(this.#isFaded(name));
    }
  }

  #isFaded(name) {
    const port = this.model.ports.get(name);
    return this.#query !== null && !(port && matches(port, this.#query));
  }
}
