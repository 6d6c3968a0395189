// A change before it is made: the command that does the same, what the daemon would do, and after
// it what the daemon has answered. Nothing is changed until "Do it" is pressed, and it cannot be
// pressed when the daemon refuses the change or has nothing to change.

import { post } from "./api.js";
import { command, h } from "./dom.js";
import { plain, sentence, shell } from "./words.js";

const list = (title, lines, kind = "") =>
  lines.length
    ? [h("p", { class: kind }, title), h("ul", { class: kind }, ...lines.map((line) => h("li", {}, plain(line))))]
    : [];

const notRunning = (item) => {
  if (typeof item === "string") return item;
  return `${item.kind} ${item.name} ${item.runs ? "runs, but" : "does not run:"} ${item.reason}`;
};

/** What the daemon has answered. */
function answered(answer, done) {
  const off = (answer.not_running ?? []).map(notRunning);
  return [
    ...list(done ? "Done:" : "It would:", answer.steps ?? []),
    answer.steps?.length ? "" : h("p", {}, done ? "Done. There was nothing to change." : "Nothing would change."),
    ...list("Warnings:", answer.warnings ?? [], "warn"),
    ...list("Stored, but not running:", off, "warn"),
  ];
}

export class Proposal {
  #turn = 0;

  constructor() {
    this.line = h("div", {});
    this.said = h("div", { role: "status", class: "said" });
    this.go = h("button", { type: "button", class: "btn go" }, "Do it");
    this.cancel = h("button", { type: "button", class: "btn" }, "Cancel");
    this.go.addEventListener("click", () => this.#isOff() || this.#send(false));
    this.cancel.addEventListener("click", () => this.close());
    const escape = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      this.close();
    };
    const acts = h("div", { class: "acts" }, this.go, this.cancel);
    this.title = h("b", {});
    this.element = h("div", { class: "proposal", hidden: true, role: "group", onkeydown: escape },
      h("p", {}, this.title), this.line, this.said, acts);
  }

  /** Shows a change; `after()` is called when it was made. */
  open(title, commands, after = () => {}) {
    this.commands = commands;
    this.after = after;
    this.back = document.activeElement;
    this.title.textContent = title;
    this.element.setAttribute("aria-label", title);
    const line = commands.map((words) => shell(words)).join(" -- ");
    this.line.replaceChildren(command("tramactl " + line));
    this.go.hidden = false;
    this.cancel.textContent = "Cancel";
    this.element.hidden = false;
    this.go.focus();
    this.element.scrollIntoView({ block: "nearest" });
    void this.#send(true);
  }

  close() {
    // What was sent is answered, and that is shown.
    if (this.sending) return;
    this.#turn += 1;
    this.element.hidden = true;
    if (this.back?.isConnected) this.back.focus();
  }

  async #send(dry) {
    const turn = (this.#turn += 1);
    this.said.replaceChildren(dry ? "Asking the daemon what it would do …" : "The daemon does it …");
    // It is on while the daemon is asked: a reader who knows the command need not wait.
    this.#setOff(!dry);
    this.sending = !dry;
    try {
      const answer = await post("transaction", { commands: this.commands, dry_run: dry });
      if (turn !== this.#turn) return;
      this.said.replaceChildren(...answered(answer, !dry));
      this.element.scrollIntoView({ block: "nearest" });
      if (dry) this.#setOff(!answer.steps?.length);
      else this.#made();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.said.replaceChildren(h("p", { class: "bad" }, sentence(error.message)));
      // What failed when it was done may be tried again.
      this.#setOff(dry);
    } finally {
      if (turn === this.#turn) this.sending = false;
    }
  }

  #isOff() {
    return this.go.getAttribute("aria-disabled") === "true";
  }

  /** Not `disabled`: the button keeps the focus. */
  #setOff(off) {
    this.go.setAttribute("aria-disabled", String(off));
  }

  /** Leaves the answer to be read, and closed. */
  #made() {
    this.cancel.textContent = "Close";
    if (this.back?.isConnected) this.back.focus();
    else this.cancel.focus();
    this.go.hidden = true;
    this.after();
  }
}
