// The flows through a network's NAT, asked for every five seconds while the panel is open.
// They are no part of the state: a gateway may have tens of thousands.

import { get } from "./api.js";
import { h, keyed, say, show } from "./dom.js";
import { count, duration, sentence, si } from "./words.js";

const EVERY = 5000;
const SHOWN = 50;

class Row {
  constructor(flow, withPort) {
    this.ends = h("span", { class: "faint" });
    this.figures = h("dd", {});
    const port = withPort && flow.port ? flow.port + ", " : "";
    this.way = `${port}${flow.protocol} from ${flow.guest ?? ""}`;
    const peer = h("dt", {}, flow.remote ?? "");
    this.element = h("div", { class: "flow" }, peer, this.figures, h("dd", { class: "more" }, this.ends));
  }

  update(flow) {
    say(this.figures, `${si(flow.bytes_down ?? 0, "B")} in, ${si(flow.bytes_up ?? 0, "B")} out`);
    const parts = [this.way, String(flow.state ?? "").toLowerCase()];
    if (flow.idle_s > 5) parts.push(`idle for ${duration(flow.idle_s)}`);
    say(this.ends, parts.filter(Boolean).join(", "));
  }
}

const isNat = (network) => String(network?.mode).startsWith("nat");

export class FlowsSection {
  #rows = new Map();
  #timer = 0;
  #wanted = false;
  #open = false;

  /** `of()`: the network and, if only its flows are wanted, the port. */
  constructor(of) {
    this.make = (flow) => new Row(flow, !this.of().port);
    this.of = of;
    this.note = h("span", {});
    this.list = h("dl", { class: "flows" });
    this.problem = h("p", { class: "dim" });
    this.element = h("section", { hidden: true }, h("h3", {}, "Flows out", this.note), this.problem, this.list);
  }

  start() {
    this.#open = true;
    void this.#load();
  }

  stop() {
    this.#open = false;
    clearTimeout(this.#timer);
  }

  update(network) {
    const wanted = isNat(network);
    show(this.element, wanted);
    const began = wanted && !this.#wanted;
    this.#wanted = wanted;
    if (began && this.#open) void this.#load();
  }

  async #load() {
    clearTimeout(this.#timer);
    if (!this.#open) return;
    if (this.#wanted && !document.hidden) await this.#ask();
    clearTimeout(this.#timer);
    if (this.#open) this.#timer = setTimeout(() => this.#load(), EVERY);
  }

  async #ask() {
    try {
      this.#show(await get("flows", this.of()));
    } catch (error) {
      say(this.problem, sentence(error.message));
      show(this.problem, true);
    }
  }

  #show({ flows, total, unanswered }) {
    // Those that have moved most come first. The order is asked for again every five seconds only.
    const shown = flows.slice(0, SHOWN);
    say(this.note, total > shown.length ? `${shown.length} of ${count(total)}` : count(total));
    const silent = unanswered.length ? `No answer from the gateway of ${unanswered.join(", ")}.` : "";
    say(this.problem, silent || (total ? "" : "None now."));
    show(this.problem, Boolean(silent) || !total);
    const key = (flow) => [flow.network, flow.port, flow.protocol, flow.guest, flow.remote].join(" ");
    keyed(this.list, this.#rows, shown, key, this.make, (row, flow) => row.update(flow));
  }
}
