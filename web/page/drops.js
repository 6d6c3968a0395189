// Drops of a port by reason: what happened and what to do, the last frame, and what `explain` says.
// Reasons are keyed, so a figure that changes each second moves no focus.

import { attr, command, h, keyed, prose, s, say, show } from "./dom.js";
import { ExplainForm, explainLast } from "./explain.js";
import { count, duration, shell } from "./words.js";

class Reason {
  constructor(reason, port, onExplained) {
    this.name = reason;
    this.port = port;
    this.figures = h("span", {});
    this.bar = s("rect", { class: "fill", height: 3, rx: 1 });
    this.share = s("svg", { class: "share", "aria-hidden": "true" }, this.bar);
    this.remedy = h("p", {});
    this.when = h("em", {});
    this.frame = h("span", {});
    this.last = h("div", { class: "last" }, this.when, h("br"), this.frame);
    this.answer = h("div", { role: "status" });
    this.button = h("button", { type: "button", class: "btn small" }, "Explain this frame");
    this.button.setAttribute("aria-label", "Explain the last frame dropped for " + reason);
    this.button.addEventListener("click", () => onExplained(this));
    this.shell = command(shell(["tramactl", "explain", "--last", port, reason]));
    this.element = h("div", { class: "reason" },
      h("div", { class: "top" }, h("code", {}, reason), this.figures), this.share, this.remedy,
      this.last, h("div", { class: "acts" }, this.button), this.answer, this.shell);
  }

  update(drop, remedy, sum) {
    say(this.figures, `${count(drop.minute)}/min, ${count(drop.total)} in all`);
    attr(this.bar, "width", `${sum ? Math.max(1, (100 * drop.minute) / sum).toFixed(0) : 0}%`);
    if (this.shown !== remedy) this.remedy.replaceChildren(...prose(remedy ?? ""));
    this.shown = remedy;
    const last = drop.last;
    for (const part of [this.last, this.button, this.shell]) show(part, Boolean(last));
    if (!last) return;
    const ago = (Date.now() - last.at) / 1000;
    say(this.when, `last, ${ago < 1 ? "now" : duration(ago) + " ago"}, ${last.length ?? "?"} bytes`);
    say(this.frame, last.text ?? "");
  }
}

export class DropsSection {
  #reasons = new Map();
  #order = [];

  constructor(model, port) {
    this.model = model;
    this.name = port;
    this.total = h("span", {});
    this.list = h("div", {});
    this.form = new ExplainForm(port);
    this.element = h("section", {}, h("h3", {}, "Drops", this.total), this.list, this.form.element);
  }

  update(port) {
    const sum = port.drops.reduce((all, drop) => all + drop.minute, 0);
    say(this.total, sum ? count(sum) + " in the last minute" : "none in the last minute");
    keyed(this.list, this.#reasons, this.#inOrder(port.drops), (drop) => drop.reason,
      (drop) => new Reason(drop.reason, this.name, (reason) => explainLast(reason, this.name)),
      (reason, drop) => reason.update(drop, this.model.reasons.get(drop.reason), sum));
    this.form.suggest(port);
  }

  /** The most of the last minute come first when the panel opens; later ones follow at the end,
      since sorting again would move what is being read. */
  #inOrder(drops) {
    const known = new Map(drops.map((drop) => [drop.reason, drop]));
    const fresh = drops.filter((drop) => !this.#order.includes(drop.reason));
    this.#order.push(...fresh.sort((a, b) => b.minute - a.minute).map((drop) => drop.reason));
    return this.#order.map((reason) => known.get(reason)).filter(Boolean);
  }

  openExplain() {
    this.form.open();
  }
}
