// A capture of a port: it is read here and saved as a file when it is over.
// A request of the page, not a link: a link shows neither a refusal nor the end. The frames are
// kept in memory, so there is a limit; `tramactl tcpdump` has none.

import { startCapture } from "./api.js";
import { announce, attr, h, say } from "./dom.js";
import { sentence, shell, si } from "./words.js";

const SECONDS = [10, 30, 60, 300, 600];
/** The most bytes that are kept. */
const LIMIT = 256 << 20;

/** The captures that run, by port: one goes on while another port is looked at. */
const running = new Map();

function save(port, pieces) {
  const address = URL.createObjectURL(new Blob(pieces, { type: "application/x-pcapng" }));
  // As the web process names it.
  const name = port.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, 64) + ".pcapng";
  h("a", { href: address, download: name }).click();
  // Not at once: the browser may still be reading it.
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

class Capture {
  text = "";
  bad = false;
  /** Called when the text or the end has changed. */
  onChange = () => {};
  #abort = new AbortController();
  #pieces = [];
  #size = 0;

  constructor(port) {
    this.port = port;
  }

  async run(seconds, words) {
    running.set(this.port, this);
    this.#tell(`Capturing for ${words} …`);
    let end;
    try {
      end = await this.#read(await startCapture(this.port, seconds, this.#abort.signal));
    } catch (error) {
      end = this.#abort.signal.aborted ? "Stopped" : sentence(error.message);
      this.bad = !this.#abort.signal.aborted;
    }
    running.delete(this.port);
    if (this.#size) save(this.port, this.#pieces);
    const saved = this.#size ? `${si(this.#size, "B")} saved` : "nothing saved";
    // A refusal has a reason and needs no figure.
    this.#tell(this.bad ? end + (this.#size ? ` ${sentence(saved)}` : "") : `${end}: ${saved}.`);
  }

  stop() {
    this.#abort.abort();
  }

  async #read(response) {
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw this.#abort.signal.aborted ? error : new Error("the connection broke during the capture");
      });
      if (done) return "The capture is over";
      this.#pieces.push(value);
      this.#size += value.length;
      if (this.#size < LIMIT) continue;
      void reader.cancel();
      const line = shell(["tramactl", "tcpdump", this.port, "-w", "trama.pcapng"]);
      return `The capture was ended at the limit of the page (${line} has none)`;
    }
  }

  #tell(text) {
    this.text = text;
    // Another port may be shown by now.
    if (!this.onChange()) announce(`${this.port}: ${text}`);
  }
}

/** The button, the choice of seconds, and what is told of the capture. */
export function captureForm(port) {
  const told = h("p", { class: "told", role: "status" });
  const choice = h("select", { class: "btn", "aria-label": "Seconds to capture" },
    ...SECONDS.map((s) => h("option", { value: s }, s < 120 ? `${s} s` : `${s / 60} min`)));
  choice.value = "30";
  const button = h("button", { type: "button", class: "btn" });
  const show = (capture) => {
    say(button, running.has(port) ? "Stop" : "Capture");
    attr(told, "class", capture?.bad ? "told bad" : "told");
    say(told, capture?.text ?? "");
    return told.isConnected;
  };
  const follow = (capture) => {
    if (capture) capture.onChange = () => show(capture);
    show(capture);
  };
  button.addEventListener("click", () => {
    if (running.has(port)) return running.get(port).stop();
    const capture = new Capture(port);
    follow(capture);
    void capture.run(choice.value, choice.selectedOptions[0].text);
  });
  follow(running.get(port));
  return { parts: [h("span", { class: "join" }, button, choice)], told };
}
