// What all panels are made of: the head with its name, and sections.
// A file of its own, because the panel and its contents both need it.

import { h } from "./dom.js";

/** The head of each panel: name, subtitle, and a button that closes it. */
export function panelHead(title, actions, ...parts) {
  const close = h("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => actions.choose(null));
  return h("div", { class: "phead" }, close, h("h2", { tabindex: "-1" }, title), ...parts);
}

/** A section with a heading and a note beside it. */
export function section(title, note, ...parts) {
  return h("section", {}, h("h3", {}, title, note), ...parts);
}
