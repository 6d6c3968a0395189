// `explain`: what the switch would do with a frame. The form is filled with the last dropped one.
// The fields follow the port's drops until the reader writes in them.

import { command, h, pair } from "./dom.js";
import { post } from "./api.js";
import { plain, sentence, shell } from "./words.js";

const MAC = /^([0-9a-f]{1,2}:){5}[0-9a-f]{1,2}$/i;

function mac(text, what) {
  if (!MAC.test(text)) throw new Error(`${what} is not a MAC address: write it like 52:54:00:00:00:01`);
  return text.split(":").map((byte) => Number.parseInt(byte, 16));
}

const written = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");

function number(text, what, least, most) {
  if (text === "") return null;
  const value = Number(text);
  const fits = Number.isInteger(value) && value >= least && value <= most;
  if (!fits) throw new Error(`${what} is a number from ${least} to ${most}`);
  return value;
}

/** What an answer says, step by step; the last is the verdict. */
function rendering(answer) {
  const said = (step) => (step.about === "verdict" ? h("b", {}, plain(step.text)) : plain(step.text));
  return h("dl", { class: "kv steps" }, ...(answer.steps ?? []).flatMap((step) => pair(step.about, said(step))));
}

async function ask(port, frame, into) {
  into.replaceChildren("Asking …");
  try {
    into.replaceChildren(rendering(await post("explain", { port, frame })));
  } catch (error) {
    into.replaceChildren(h("p", { class: "bad" }, sentence(error.message)));
  }
}

/** Explains the last frame that was dropped for a reason. */
export const explainLast = (reason, port) =>
  ask(port, { last: { reason: reason.name } }, reason.answer);

const FIELDS = [
  ["src", "Source", "the port's own"], ["dst", "Destination", "ff:ff:ff:ff:ff:ff"],
  ["vlan", "VLAN", "untagged"], ["len", "Bytes", "60"],
  ["from", "IP source", "none"], ["to", "IP destination", "none"], ["port", "L4 port", "0"],
];

export class ExplainForm {
  #touched = false;
  #key = "";
  #ethertype = null;

  constructor(port) {
    this.port = port;
    this.fields = new Map();
    const labels = FIELDS.map(([key, label, placeholder]) => {
      const input = h("input", { name: key, placeholder, autocomplete: "off", spellcheck: "false" });
      this.fields.set(key, input);
      return h("label", {}, label, input);
    });
    this.protocol = h("select", { name: "protocol" },
      ...["tcp", "udp", "icmp"].map((name) => h("option", { value: name }, name)));
    labels.push(h("label", {}, "Protocol", this.protocol));
    const go = h("button", { type: "submit", class: "btn" }, "Explain");
    const form = h("form", {}, ...labels, go);
    form.addEventListener("input", () => this.#change());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.shell = h("div", {});
    this.answer = h("div", { role: "status" });
    const summary = h("summary", {}, "Explain a frame");
    this.element = h("details", { class: "explain" }, summary, form, this.shell, this.answer);
  }

  /** Fills in the last dropped frame of the port, or one to its neighbours. */
  suggest(port) {
    // What is being read does not change.
    if (this.#touched || (this.element.open && this.#key)) return;
    const last = port.drops.reduce((a, d) => (d.last && d.last.at > (a?.at ?? 0) ? d.last : a), null);
    const frame = last?.frame;
    const key = `${JSON.stringify(frame)}|${port.mac}`;
    if (key === this.#key) return;
    this.#key = key;
    this.#ethertype = frame?.ethertype ?? null;
    this.#set("src", frame?.src ? written(frame.src) : port.mac ?? "");
    this.#set("dst", frame ? written(frame.dst) : "ff:ff:ff:ff:ff:ff");
    this.#set("vlan", frame?.vlan ?? "");
    this.#set("len", frame?.len ?? "");
    this.#set("from", frame?.packet?.from ?? "");
    this.#set("to", frame?.packet?.to ?? "");
    this.#set("port", frame?.packet?.port ?? "");
    this.protocol.value = frame?.packet?.protocol ?? "tcp";
    this.#line();
  }

  open() {
    this.element.open = true;
    this.element.scrollIntoView({ block: "center" });
    this.fields.get("src").focus();
  }

  #set(field, value) {
    this.fields.get(field).value = value;
  }

  #value(field) {
    return this.fields.get(field).value.trim();
  }

  #change() {
    this.#touched = true;
    this.#line();
  }

  /** Shows the command that asks the same. */
  #line() {
    const words = ["tramactl", "explain", this.port, "dst=" + this.#value("dst")];
    for (const key of ["src", "vlan", "len"]) if (this.#value(key)) words.push(`${key}=${this.#value(key)}`);
    const ethertype = this.#value("from") ? null : this.#ethertype;
    if (ethertype !== null) words.push(`type=0x${ethertype.toString(16).padStart(4, "0")}`);
    if (this.#value("from") && this.#value("to")) {
      words.push(`ip=${this.#value("from")}>${this.#value("to")}`, "proto=" + this.protocol.value);
      if (this.#value("port")) words.push("port=" + this.#value("port"));
    }
    this.shell.replaceChildren(command(shell(words)));
  }

  #ask() {
    try {
      void ask(this.port, { described: this.#described() }, this.answer);
    } catch (error) {
      this.answer.replaceChildren(h("p", { class: "bad" }, sentence(error.message)));
    }
  }

  #described() {
    const src = this.#value("src");
    return {
      dst: mac(this.#value("dst"), "the destination"),
      src: src ? mac(src, "the source") : null,
      vlan: number(this.#value("vlan"), "the VLAN", 0, 4094),
      len: number(this.#value("len"), "the length", 14, 65535),
      ethertype: this.#value("from") ? null : this.#ethertype,
      packet: this.#packet(),
    };
  }

  #packet() {
    const [from, to] = [this.#value("from"), this.#value("to")];
    if (!from && !to) return null;
    if (!from || !to) throw new Error("a packet has an IP source and an IP destination: give both or none");
    const port = number(this.#value("port"), "the L4 port", 0, 65535) ?? 0;
    return { from, to, protocol: this.protocol.value, port };
  }
}
