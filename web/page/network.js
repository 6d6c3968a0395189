// One network of the picture: its heading, its line with lanes, its edge, and its ports.
// Each network is an SVG of its own, so a change in one repaints no other.

import { attr, h, s, say } from "./dom.js";
import { Board } from "./board.js";
import { Strokes, drawEdge, staysInside } from "./edge.js";
import { DETACHED } from "./model.js";
import { Lanes, Rows, SIZE, Slots, columns, layBlocks, layCards, tierOf } from "./layout.js";
import { several, si } from "./words.js";

/** The class that gives a mode its colour. */
export const modeClass = (network) => "m-" + (network?.mode ?? "none");

/** The short line of a mode's colour that stands before names. */
export const swatch = (network) =>
  h("i", { class: network?.mode === "nat" ? "swatch hollow" : "swatch", "aria-hidden": "true" });

/** Facts of a network in a line, its traffic last but for what never changes. */
function facts(network, ports) {
  let rate = 0;
  for (const port of ports) rate += port.rate.rx_bps;
  const parts = [
    network.subnets.join(", "),
    network.mtu && network.mtu !== 1500 ? "MTU " + network.mtu : "",
    several(ports.length, "port"),
    si(rate, "b/s"),
    network.mode === "nat" ? "each port alone, with its own gateway" : "",
  ];
  return parts.filter(Boolean).join(" · ");
}

export class NetworkView {
  #slots = new Slots();
  #rows = new Rows();
  #groups = new Map();
  #lanes = new Lanes();
  #strokes = new Strokes();
  #tier = null;
  #bottom = 0;

  constructor(name, onChoose) {
    this.name = name;
    this.detached = name === DETACHED;
    const title = this.detached ? "Not attached" : name;
    this.board = new Board(title);
    this.mode = h("span", { class: "mode" });
    this.facts = h("span", { class: "facts" });
    const label = this.detached ? title : h("button", { type: "button", class: "netname", title: name }, name);
    if (!this.detached) label.addEventListener("click", () => onChoose(name));
    this.heading = h("h2", {}, label, this.mode, this.facts);
    this.line = s("g", { "aria-hidden": "true" });
    this.edge = s("g", { class: "edge", "aria-hidden": "true" });
    if (!this.detached) this.edge.addEventListener("click", () => onChoose(name));
    this.svg = s("svg", { role: "group", "aria-label": title }, this.line, this.edge);
    this.element = h("section", {}, this.heading, this.svg);
  }

  /** Shows a network of which anything may differ. Its size of ports was chosen at first. */
  layOut(network, ports, width) {
    this.network = network;
    this.width = width;
    // A line that grows over a limit keeps its size until the page is loaded again: nothing jumps.
    this.#tier ??= tierOf(ports.length);
    attr(this.element, "class", "net " + modeClass(network));
    say(this.mode, network?.mode ?? "");
    const given = {
      network, ports, width, tier: this.#tier,
      slots: this.#slots, rowsOf: this.#rows, groups: this.#groups, lanesOf: this.#lanes,
    };
    const plan = this.#tier === "card" ? layCards(given) : layBlocks(given);
    this.#drawLine(plan);
    this.#bottom = plan.bottom;
    this.board.put(ports, plan.at, this.#tier, network?.mode === "nat");
    if (ports.length && !this.board.element.parentNode) this.svg.append(this.board.element);
    if (!ports.length) this.board.element.remove();
    this.drawEdge();
    this.summarize(ports);
  }

  #drawLine(plan) {
    this.line.replaceChildren();
    const network = this.network;
    if (network) {
      const at = columns(this.width);
      const inside = staysInside(network) && !network.gateway;
      const end = inside ? at.end : at.gate;
      const y = SIZE.bus;
      const d = network.mode === "nat"
        ? `M${plan.start} ${y - 2.5}H${end}M${plan.start} ${y + 2.5}H${end}`
        : `M${plan.start} ${y}H${end}${inside ? `M${end} ${y - 6}v12` : ""}`;
      this.line.append(s("path", { class: network.mode === "nat" ? "bus hollow" : "bus", d }));
    }
    for (const d of plan.lines) this.line.append(s("path", { class: "lane", d }));
    for (const { x, y, text } of plan.labels) this.line.append(s("text", { class: "small", x, y }, text));
  }

  /** Shows a network of which the line is as it was. */
  change(network) {
    if (this.network === network) return;
    this.network = network;
    this.drawEdge();
  }

  /** Draws the edge again: it is a dozen elements, and changes with leases and flows. */
  drawEdge() {
    if (!this.network) return this.#resize(0);
    const { parts, stroke, lowest } = drawEdge(this.network, this.width);
    this.stroke = stroke;
    this.edge.replaceChildren(...(stroke ? [this.#strokes.element] : []), ...parts);
    this.edges();
    this.#resize(lowest);
  }

  #resize(lowest) {
    // The edge never makes a network lower than it was: networks below would jump.
    this.lowest = Math.max(this.lowest ?? 0, lowest);
    attr(this.svg, "width", this.width);
    attr(this.svg, "height", Math.max(this.#bottom, this.lowest) + SIZE.gap);
  }

  /** Draws what leaves and comes now. */
  edges() {
    const { stroke } = this;
    if (stroke) this.#strokes.draw(stroke.x1, stroke.x2, SIZE.bus, this.network.edge, stroke.off);
  }

  summarize(ports) {
    say(this.facts, this.network ? facts(this.network, ports) : several(ports.length, "port"));
  }
}
