// The head: name of the host, figures of all ports, workers, and whether there is contact.
// Contact is the one live region; its clock ticks outside of it.

import { announce, attr, h, keyed, say, show } from "./dom.js";
import { count, duration, perMinute, plain, sentence, several, si } from "./words.js";

const $ = (id) => document.getElementById(id);

const attention = (n) => (n === 0 ? "" : n === 1 ? "1 needs attention" : `${n} need attention`);

export class Head {
  #workers = new Map();
  #contact = null;
  #announced = "";

  constructor(model, stream, onChoose) {
    this.model = model;
    this.onChoose = onChoose;
    this.stream = stream;
    $("retry").addEventListener("click", () => stream.retry());
    setInterval(() => this.#tick(), 1000);
  }

  update() {
    const { model } = this;
    let [up, rate, frames, drops] = [0, 0, 0, 0];
    for (const port of model.ports.values()) {
      if (port.state === "up") up += 1;
      rate += port.rate.rx_bps;
      frames += port.rate.rx_pps;
      drops += perMinute(port);
    }
    say($("hostname"), model.host);
    document.title = model.host ? `trama · ${model.host}` : "trama";
    say($("up"), count(up));
    say($("of"), ` of ${several(model.ports.size, "port")} up`);
    say($("rate"), si(rate, "b/s"));
    say($("frames"), " " + si(frames, "pps"));
    say($("drops"), count(drops));
    attr($("drops").parentNode, "class", drops > 1000 ? "bad" : null);
    say($("needs"), attention(model.attention.length));
    show($("needs"), model.attention.length > 0);
    keyed($("workers"), this.#workers, model.workers, (worker) => String(worker.id),
      (worker) => this.#worker(worker), (part, worker) => say(part.figure, `${Math.round(100 * worker.busy)} %`));
    if (model.silence !== null) this.#tick();
  }

  #worker(worker) {
    const figure = h("b", {});
    const element = h("button", { type: "button", "aria-label": `Worker ${worker.id}` }, figure);
    element.addEventListener("click", () => this.onChoose({ kind: "worker", name: String(worker.id) }));
    return { element, figure };
  }

  /** Announces a text once for each change. In between, other parts announce theirs. */
  #announce(text) {
    if (text === this.#announced) return;
    this.#announced = text;
    announce(text);
  }

  /** Shows whether there is contact. */
  contact(contact) {
    this.#contact = contact;
    this.#tick();
  }

  #tick() {
    const contact = this.#contact;
    const silence = this.model.silence;
    const lost = contact !== null && (contact.lost || silence !== null);
    document.body.classList.toggle("lost", lost);
    if (contact === null) return;
    if (!lost) {
      this.silentSince = null;
      say($("contact"), "live");
      this.#announce(this.wasLost ? "Contact again." : "");
      $("lost").hidden = true;
      return;
    }
    this.silentSince ??= contact.lost ? contact.since : performance.now();
    this.wasLost = true;
    const now = performance.now();
    const seconds = duration((now - this.silentSince) / 1000);
    const next = contact.lost && contact.next !== null ? Math.ceil((contact.next - now) / 1000) : null;
    const when = next === null ? "" : next > 0 ? `, next try in ${next} s` : ", trying now";
    say($("contact"), `no contact for ${seconds}${when}`);
    say($("why"), sentence(plain((contact.lost ? contact.why : silence) ?? "")));
    // It is read aloud, so it has nothing that counts.
    this.#announce(contact.lost ? "No contact." : "No contact: tramad does not answer.");
    $("retry").hidden = !contact.lost;
    $("lost").hidden = false;
  }
}
