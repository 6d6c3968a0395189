// The panel of a worker: how busy it is, ten minutes of that, and the networks that it serves.

import { Chart } from "./chart.js";
import { h, say } from "./dom.js";
import { modeClass, swatch } from "./network.js";
import { panelHead, section } from "./panelparts.js";
import { several } from "./words.js";

export class WorkerPanel {
  #shown = "";

  constructor(model, id, actions) {
    this.model = model;
    this.id = id;
    this.actions = actions;
    this.write = model.write;
    this.busy = h("span", {});
    this.ago = h("small", {});
    this.chart = new Chart({ worker: id });
    this.chart.onCursor = (values) => this.#show(values);
    this.networks = h("ul", { class: "plain" });
    const figure = h("dd", {}, this.busy, this.ago);
    const rates = h("dl", { class: "rates" }, h("div", {}, h("dt", {}, "Busy"), figure));
    const what = "A thread that moves frames. Above 90 % it is the limit of its networks.";
    this.element = h("div", {},
      panelHead("Worker " + id, actions, h("p", {}, what)),
      h("section", {}, rates, this.chart.element), section("Networks", null, this.networks));
  }

  get worker() {
    return this.model.workers.find((worker) => String(worker.id) === this.id);
  }

  opened() {
    this.chart.load();
  }

  close() {
    this.chart.close();
  }

  update(touched) {
    this.chart.add(this.worker, touched, this.model.silence !== null);
    if (!this.chart.hasCursor) this.#show(null);
    const served = [...this.model.networks.values()].filter((network) => String(network.worker) === this.id);
    const key = JSON.stringify(served.map((network) => [network.name, network.mode]));
    if (key === this.#shown) return;
    this.#shown = key;
    this.networks.replaceChildren(...served.map((network) => this.#item(network)));
    if (!served.length) this.networks.append(h("li", { class: "dim" }, "None now."));
  }

  #item(network) {
    const button = h("button", { type: "button", class: "link" }, network.name);
    button.addEventListener("click", () => this.actions.choose({ kind: "network", name: network.name }));
    const ports = several(this.model.membersOf(network.name).length, "port");
    return h("li", { class: modeClass(network) }, swatch(network), button, h("span", { class: "faint" }, " " + ports));
  }

  #show(values) {
    say(this.busy, `${Math.round(100 * (values?.busy ?? this.worker.busy))} %`);
    say(this.ago, values?.ago ?? "");
  }
}
