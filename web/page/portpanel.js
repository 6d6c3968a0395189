// The panel of a port: state and remedy, rates, drops, addresses, settings, forwards, flows, shell.
// Parts that change each second are written in place; lists are built again when they differ.

import { captureForm } from "./capture.js";
import { Chart } from "./chart.js";
import { command, h, pair, prose, say, show } from "./dom.js";
import { DropsSection } from "./drops.js";
import { FlowsSection } from "./flows.js";
import { ForwardList } from "./forwards.js";
import { modeClass, swatch } from "./network.js";
import { panelHead, section } from "./panelparts.js";
import { PortChanges } from "./portchanges.js";
import { addressWords, isTunnel, sentence, shell, si, stateOf, vlanSentence } from "./words.js";

export class PortPanel {
  #keys = new Map();

  constructor(model, name, actions) {
    this.model = model;
    this.name = name;
    this.write = model.write;
    this.#head(actions);
    this.chart = new Chart({ port: name });
    this.drops = new DropsSection(model, name);
    this.addresses = h("dl", { class: "kv wide" });
    this.addressSection = section("Addresses", null, this.addresses);
    this.settings = h("dl", { class: "kv" });
    this.forwards = new ForwardList(model, (forward) => forward.port === name || this.#leadsHere(forward));
    this.forwardSection = section("Forwards", null, this.forwards.element);
    this.flows = new FlowsSection(() => ({ network: this.port?.network, port: name }));
    this.changes = model.write ? new PortChanges(model, name) : null;
    this.shell = h("div", {});
    this.element = h("div", {},
      this.head, h("section", {}, this.rates, this.chart.element), this.drops.element,
      this.addressSection, section("Settings", null, this.settings),
      this.forwardSection, this.flows.element, this.changes?.element ?? "",
      section("The same in a shell", null, this.shell));
    this.chart.onCursor = (values) => this.#showRates(values);
  }

  #head(actions) {
    this.where = h("p", { class: "where" });
    this.state = h("div", { class: "state" });
    const explain = h("button", { type: "button", class: "btn" }, "Explain a frame");
    explain.addEventListener("click", () => this.openExplain());
    const capture = captureForm(this.name);
    const acts = h("div", { class: "acts" }, ...capture.parts, explain);
    this.head = panelHead(this.name, actions, this.where, this.state, acts, capture.told);
    const fact = () => ({ big: h("span", {}), little: h("small", {}) });
    this.to = fact();
    this.from = fact();
    const far = isTunnel(this.port) ? "other host" : "guest";
    const dd = ({ big, little }) => h("dd", {}, big, little);
    this.rates = h("dl", { class: "rates" },
      h("div", {}, h("dt", {}, `To ${far} ↓`), dd(this.to)),
      h("div", {}, h("dt", {}, `From ${far} ↑`), dd(this.from)));
    this.link = (network) => {
      const button = h("button", { type: "button", class: "link" }, network);
      button.addEventListener("click", () => actions.choose({ kind: "network", name: network }));
      return button;
    };
  }

  get port() {
    return this.model.ports.get(this.name);
  }

  openExplain() {
    this.drops.openExplain();
  }

  opened() {
    this.chart.load();
    this.flows.start();
  }

  close() {
    this.chart.close();
    this.flows.stop();
  }

  #leadsHere(forward) {
    const at = String(forward.guest ?? "");
    return this.port?.addresses.some((one) => at.startsWith(one.address + ":")) ?? false;
  }

  /** Whether a part is to be built again: its data differ from the last ones. */
  #differs(part, data) {
    const key = JSON.stringify(data);
    if (this.#keys.get(part) === key) return false;
    this.#keys.set(part, key);
    return true;
  }

  update(touched) {
    const { port } = this;
    const network = this.model.networks.get(port.network) ?? null;
    this.#stateOf(port, network);
    this.chart.add(port, touched, this.model.silence !== null);
    if (!this.chart.hasCursor) this.#showRates(null);
    this.drops.update(port);
    this.#addresses(port);
    this.#settings(port, network);
    this.forwards.update(network);
    show(this.forwardSection, this.forwards.length > 0);
    this.flows.update(network);
    this.changes?.update(port, network);
    this.#shell(port);
  }

  #stateOf(port, network) {
    const state = stateOf(port);
    if (this.#differs("where", [port.network, network?.mode, port.type, state.word])) {
      this.where.className = "where " + modeClass(network);
      const home = port.network === null ? [] : [this.link(port.network), ", "];
      this.where.replaceChildren(swatch(network), ...home, `${port.type}, ${state.word}`);
    }
    if (this.#differs("state", [port.state, port.error])) {
      show(this.state, port.state === "blocked" || port.state === "not-running" || Boolean(port.error));
      this.state.className = port.state === "blocked" ? "state" : "state warnish";
      const error = port.error ? prose(" " + sentence(port.error)) : [];
      this.state.replaceChildren(h("b", {}, sentence(state.word)), ...error);
    }
  }

  #showRates(values) {
    const { rate } = this.port;
    const at = values ?? { tx: rate.tx_bps, rx: rate.rx_bps };
    say(this.to.big, si(at.tx, "b/s"));
    say(this.from.big, si(at.rx, "b/s"));
    say(this.to.little, values ? values.ago : si(rate.tx_pps, "pps"));
    say(this.from.little, values ? values.ago : si(rate.rx_pps, "pps"));
  }

  #addresses(port) {
    show(this.addressSection, !isTunnel(port));
    const minute = Math.floor(Date.now() / 60000);
    if (!this.#differs("addresses", [port.addresses, port.mac, minute])) return;
    const rows = port.addresses.map((one) => pair(one.address, addressWords(one)));
    if (port.mac) rows.push([h("dt", { class: "mono" }, port.mac), h("dd", {}, "MAC address")]);
    this.addresses.replaceChildren(...(rows.length ? rows.flat() : pair("None known", "")));
  }

  #settings(port, network) {
    const { name, network: home, mac, spoof, promiscuous, queues, path, ifname, netns, peer, storms } = port;
    const shown = [name, home, mac, spoof, promiscuous, queues, path, ifname, netns, peer, storms,
      port.vlan_mode, port.tag, port.trunks, port.ephemeral, port.ofport, network?.mtu, network?.worker,
      network?.mirrors];
    if (!this.#differs("settings", shown)) return;
    const rows = [pair("VLAN", vlanSentence(port))];
    if (spoof != null) rows.push(pair("Source", `spoof ${spoof}, promiscuous ${promiscuous ?? "deny"}`));
    if (ifname) rows.push(pair("Device", h("code", {}, ifname), netns ? " in " + netns : ""));
    if (path) rows.push(pair(isTunnel(port) ? "Local" : "Socket", h("code", {}, path)));
    if (peer) rows.push(pair(isTunnel(port) ? "Leads to" : "Peer", peer));
    rows.push(pair("Queues", this.#queues(port, network)));
    if (port.ofport != null) rows.push(pair("Number", String(port.ofport)));
    if (storms.length) rows.push(pair("Storms", "limits now: " + storms.join(", ")));
    const mirrors = (network?.mirrors ?? []).filter((one) => one.output_port === name);
    if (mirrors.length) rows.push(pair("Mirror", "only gets the copies of " + mirrors.map((one) => one.name).join(", ")));
    if (port.ephemeral) rows.push(pair("Kept", "in no file: it ends with the daemon or its connection"));
    this.settings.replaceChildren(...rows.flat());
  }

  #queues(port, network) {
    const parts = [port.queues ?? 1];
    if (network?.mtu != null) parts.push("MTU " + network.mtu);
    if (network?.worker != null) parts.push("worker " + network.worker);
    return parts.join(", ");
  }

  #shell(port) {
    if (!this.#differs("shell", [port.cable, port.network])) return;
    const { name } = this;
    const lines = [["counters", name], ["tcpdump", name, "--drops"], ["list", "Interface", name]];
    if (!port.cable) lines.push(["link", name, "up"]);
    this.shell.replaceChildren(...lines.map((words) => command(shell(["tramactl", ...words]))));
  }
}
