// The panel at the right: shows what is selected, a port, a network or a worker.
// It keeps the parts between updates, so that focus and open forms survive each second.

import { h } from "./dom.js";
import { NetworkPanel } from "./netpanel.js";
import { PortPanel } from "./portpanel.js";
import { WorkerPanel } from "./workerpanel.js";

const KINDS = new Map([["port", PortPanel], ["network", NetworkPanel], ["worker", WorkerPanel]]);

/** `gone`: what is said of a selection that was removed. */
function hint(gone) {
  const key = (name, what) => [h("dt", {}, h("kbd", {}, name)), h("dd", {}, what)];
  return h("div", {},
    h("div", { class: "phead" },
      h("h2", { tabindex: "-1" }, "Nothing selected"),
      gone ? h("div", { class: "state warnish" }, gone) : "",
      h("p", {}, "Choose a port or a network in the picture or in the list.")),
    h("section", {}, h("h3", {}, "Keys"), h("dl", { class: "kv keys" },
      ...key("/", "search"), ...key("← →", "ports of a network"), ...key("↑ ↓", "rows and networks"),
      ...key("Enter", "select, and again to read the panel"), ...key("l", "picture or list"),
      ...key("Esc", "clear the search, then close the panel"))));
}

export class Panel {
  #content = null;
  selection = null;

  constructor(element, model, actions) {
    this.element = element;
    this.model = model;
    this.actions = actions;
    this.show(null);
  }

  /** Whether the selected thing exists. */
  exists(selection) {
    if (selection === null) return true;
    if (selection.kind === "port") return this.model.ports.has(selection.name);
    if (selection.kind === "network") return this.model.networks.has(selection.name);
    return this.model.workers.some((worker) => String(worker.id) === selection.name);
  }

  show(selection, gone = "") {
    this.#content?.close?.();
    this.selection = selection;
    const kind = selection && this.exists(selection) ? KINDS.get(selection.kind) : null;
    this.#content = kind ? new kind(this.model, selection.name, this.actions) : null;
    this.element.replaceChildren(this.#content ? this.#content.element : hint(gone));
    this.element.scrollTop = 0;
    this.#content?.update(null);
    this.#content?.opened?.();
  }

  update(touched) {
    if (this.selection === null) return;
    if (!this.exists(this.selection)) {
      if (this.#content) this.actions.gone(this.selection);
      return;
    }
    if (!this.#content || (touched.full && this.#content.write !== this.model.write)) {
      this.show(this.selection);
    } else this.#content.update(touched);
  }

  /** Moves the focus to the heading. */
  focus() {
    this.element.querySelector("h2")?.focus();
  }

  /** Opens the form that explains a frame. */
  explain() {
    this.#content?.openExplain?.();
  }

  /** Draws charts in the colours of the theme. */
  recolour() {
    this.#content?.chart?.recolour();
  }
}
