// The tip at a port of the picture: state, full error, rates and frames.
// It also shows at the port that has the keyboard's focus: cells have no names to see.

import { h, say } from "./dom.js";
import { addressOf, count, perMinute, plain, si, stateOf, vlanText } from "./words.js";

export class Tip {
  #of = null;

  constructor(element, model) {
    this.element = element;
    this.model = model;
    const at = (event) => event.target.closest?.(".port");
    document.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch") this.#show(at(event) ?? null);
    });
    document.addEventListener("focusin", (event) => {
      const port = at(event);
      this.#show(port?.matches(":focus-visible") ? port : null);
    });
    document.addEventListener("scroll", () => this.hide(), { capture: true, passive: true });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
    this.title = h("b", {});
    this.state = h("span", {});
    this.rates = h("div", {});
    this.more = h("div", {});
    element.append(this.title, " ", this.state, this.rates, this.more);
  }

  hide() {
    this.#show(null);
  }

  #show(target) {
    this.#of = target;
    this.element.hidden = target === null;
    if (target === null) return;
    this.update();
    const box = target.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const below = box.bottom + 8 + height <= innerHeight;
    this.element.style.left = Math.max(4, Math.min(box.left, innerWidth - width - 8)) + "px";
    this.element.style.top = (below ? box.bottom + 8 : box.top - height - 8) + "px";
  }

  update() {
    const port = this.#of && this.model.ports.get(this.#of.portName);
    if (!port) return this.#of && this.hide();
    say(this.title, port.name);
    say(this.state, stateOf(port).word + (port.error ? ": " + plain(port.error) : ""));
    const { rate } = port;
    const way = (arrow, bps, pps) => `${arrow} ${si(bps, "b/s")} ${si(pps, "pps")}`;
    const [to, from] = [way("↓", rate.tx_bps, rate.tx_pps), way("↑", rate.rx_bps, rate.rx_pps)];
    say(this.rates, `${to}  ${from}`);
    const drops = perMinute(port);
    const vlan = vlanText(port);
    const more = [addressOf(port), vlan === "–" ? "" : "VLAN " + vlan,
      drops ? count(drops) + " drops/min" : ""];
    say(this.more, more.filter(Boolean).join(", "));
  }
}
