// Forwards: ports of the host that lead to guests, and whether they listen.
// With `web-write` they can be added and deleted, each as a proposal first.

import { h, keyed, say } from "./dom.js";
import { isActive } from "./edge.js";
import { Proposal } from "./proposal.js";
import { plain } from "./words.js";

class Row {
  constructor(forward, onDelete) {
    this.status = h("span", {});
    this.ends = h("p", {});
    const top = h("div", {}, h("b", {}, forward.name), this.status);
    this.element = h("div", { class: "fw" }, top, this.ends);
    if (!onDelete) return;
    const label = "Delete the forward " + forward.name;
    const button = h("button", { type: "button", class: "btn small", "aria-label": label }, "Delete");
    button.addEventListener("click", () => onDelete(forward));
    this.element.append(button);
  }

  update(forward) {
    const active = isActive(forward);
    say(this.status, active ? "listens" : plain(forward.status).replace(/^pending:/, "waits:"));
    this.status.className = active ? "faint" : "warn";
    const client = forward.client ? ", " + forward.client : "";
    say(this.ends, `${forward.protocol} ${forward.host} → ${forward.guest}${client}`);
  }
}

export class ForwardList {
  #rows = new Map();
  length = 0;

  constructor(model, fits, onDelete = null) {
    this.model = model;
    this.fits = fits;
    this.onDelete = onDelete;
    this.element = h("div", {});
  }

  update(network) {
    const shown = (network?.forwards ?? []).filter(this.fits);
    this.length = shown.length;
    const key = (forward) => JSON.stringify([forward.port, forward.name]);
    keyed(this.element, this.#rows, shown, key, (forward) => new Row(forward, this.onDelete),
      (row, forward) => row.update(forward));
  }
}

/** Where the rule of a forward stands: on its port, else on the network. */
const placeOf = (forward, network) => forward.port ?? network;

const FIELDS = [
  ["name", "Name", "web"], ["host", "Host address", "all"], ["hostPort", "Host port", "8080"],
  ["guest", "Guest address", ""], ["guestPort", "Guest port", "80"],
];

/** The forwards of a network, with what changes them. */
export class ForwardEditor {
  constructor(model, name) {
    this.model = model;
    this.name = name;
    this.proposal = new Proposal();
    const remove = model.write ? (forward) => this.#remove(forward) : null;
    this.list = new ForwardList(model, () => true, remove);
    this.none = h("p", { class: "dim" }, "None.");
    this.element = h("div", {}, this.list.element, this.none);
    if (model.write) this.element.append(this.#form(), this.proposal.element);
  }

  #form() {
    this.fields = new Map();
    const labels = FIELDS.map(([key, label, placeholder]) => {
      const field = h("input", { name: key, placeholder, autocomplete: "off", spellcheck: "false" });
      this.fields.set(key, field);
      return h("label", {}, label, field);
    });
    for (const key of ["hostPort", "guestPort"]) this.fields.get(key).required = true;
    this.protocol = h("select", {}, h("option", {}, "tcp"), h("option", {}, "udp"));
    this.place = h("select", {});
    this.placeLabel = h("label", {}, "On", this.place);
    const go = h("button", { type: "submit", class: "btn" }, "Add");
    const form = h("form", {}, h("label", {}, "Protocol", this.protocol), ...labels, this.placeLabel, go);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
    return h("details", { class: "explain" }, h("summary", {}, "Add a forward"), form);
  }

  update(network) {
    this.list.update(network);
    this.none.hidden = this.list.length > 0;
    if (!this.model.write) return;
    // On a network of mode `nat` each port is alone, so a rule stands on a port.
    const own = network.mode === "nat" ? [] : [this.name];
    const names = own.concat(this.model.portsOf(this.name).map((port) => port.name));
    const key = JSON.stringify(names);
    if (key === this.placesShown) return;
    this.placesShown = key;
    const chosen = this.place.value;
    this.place.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) this.place.value = chosen;
  }

  #add() {
    const value = (key) => this.fields.get(key).value.trim();
    const ends = ["host", "hostPort", "guest", "guestPort"].map(value);
    const rule = [value("name"), this.protocol.value, ...ends];
    const words = ["forward", "add", this.place.value, rule.join(",")];
    this.proposal.open(`Add a forward of ${this.place.value}`, [words], () => {
      for (const field of this.fields.values()) field.value = "";
    });
  }

  #remove(forward) {
    const words = ["forward", "del", placeOf(forward, this.name), forward.name];
    this.proposal.open(`Delete the forward ${forward.name}`, [words]);
  }
}
