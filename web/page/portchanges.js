// Changes of a port: its network, its cable, its VLAN tag. Each is a proposal first.
// Without `web-write` of the daemon this section does not exist.

import { h, say } from "./dom.js";
import { section } from "./panelparts.js";
import { Proposal } from "./proposal.js";

/** An empty value in the choice of networks. No network has an empty name. */
const NONE = "";

export class PortChanges {
  #networks = "";
  #shown = null;

  constructor(model, name) {
    this.model = model;
    this.name = name;
    this.proposal = new Proposal();
    this.network = h("select", {});
    this.tag = h("input", { inputmode: "numeric", placeholder: "none: all VLANs", autocomplete: "off" });
    this.cable = h("button", { type: "button", class: "btn" });
    this.cable.addEventListener("click", () => this.#pull());
    this.element = section("Change", null,
      this.#form("Network", this.network, "Move", () => this.#move()),
      this.#form("VLAN tag", this.tag, "Set", () => this.#setTag()),
      h("div", { class: "acts" }, this.cable), this.proposal.element);
  }

  #form(label, field, verb, act) {
    const button = h("button", { type: "submit", class: "btn" }, verb);
    const form = h("form", { class: "change" }, h("label", {}, label, field), button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      act();
    });
    return form;
  }

  update(port) {
    const names = [...this.model.networks.keys()];
    const key = JSON.stringify(names);
    if (key !== this.#networks) {
      const chosen = this.network.value;
      const option = (name) => h("option", { value: name }, name === NONE ? "Not attached" : name);
      this.network.replaceChildren(...names.map(option), option(NONE));
      if (this.#networks) this.network.value = chosen;
      this.#networks = key;
    }
    // The fields follow the port, but not over what the reader has just chosen.
    const now = JSON.stringify([port.network, port.tag]);
    if (now !== this.#shown) {
      this.network.value = port.network ?? NONE;
      this.tag.value = port.tag ?? "";
      this.#shown = now;
    }
    say(this.cable, port.cable ? "Pull the cable" : "Plug the cable in");
  }

  #move() {
    const network = this.network.value;
    if (network === NONE) {
      return this.proposal.open(`Take ${this.name} off its network`, [["clear", "Port", this.name, "network"]]);
    }
    this.proposal.open(`Move ${this.name} to ${network}`, [["set", "Port", this.name, "network=" + network]]);
  }

  #setTag() {
    const tag = this.tag.value.trim();
    const words = tag === "" ? ["clear", "Port", this.name, "tag"] : ["set", "Port", this.name, "tag=" + tag];
    this.proposal.open(tag === "" ? `Take the tag from ${this.name}, which is a trunk of all VLANs then` : `Give ${this.name} the tag ${tag}`, [words]);
  }

  #pull() {
    const up = !this.model.ports.get(this.name).cable;
    const title = up ? `Plug the cable of ${this.name} in` : `Pull the cable of ${this.name}`;
    this.proposal.open(title, [["link", this.name, up ? "up" : "down"]]);
  }
}
