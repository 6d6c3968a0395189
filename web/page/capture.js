// Starts a capture: a link to a file that the browser saves while it is written.
// A link, not a request of the page: a capture of minutes need not fit into memory.

import { h } from "./dom.js";
import { captureOf } from "./api.js";

const SECONDS = [10, 30, 60, 300, 600];

/** The link, the choice of seconds, and what is told when it starts. */
export function captureForm(port) {
  const told = h("p", { class: "told", role: "status" });
  const choice = h("select", { class: "btn", "aria-label": "Seconds to capture" },
    ...SECONDS.map((s) => h("option", { value: s }, s < 120 ? `${s} s` : `${s / 60} min`)));
  choice.value = "30";
  const link = h("a", { class: "btn", download: "" }, "Capture");
  const set = () => link.setAttribute("href", captureOf(port, choice.value));
  choice.addEventListener("change", set);
  set();
  link.addEventListener("click", () => {
    told.textContent = `Asked for ${choice.selectedOptions[0].text}. The browser saves them; if it cannot, see tramactl tcpdump ${port}.`;
  });
  const group = h("span", { class: "join" }, link, choice);
  return { parts: [group], told };
}
