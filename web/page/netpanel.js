// The panel of a network: what is wrong, forwards, settings, ports with drops or not up, leases,
// flows, and the same in a shell.

import { command, h, keyed, pair, prose, say, show } from "./dom.js";
import { commandIn } from "./edge.js";
import { FlowsSection } from "./flows.js";
import { ForwardEditor } from "./forwards.js";
import { modeClass, swatch } from "./network.js";
import { panelHead, section } from "./panelparts.js";
import { addressWords, count, mirrorWords, perMinute, sentence, several, shell, si, stateOf,
  worstReason } from "./words.js";

const SHOWN = 40;
const isNat = (network) => String(network.mode).startsWith("nat");

export class NetworkPanel {
  #keys = new Map();
  #dropping = new Map();
  #dropOrder = [];
  #off = new Map();

  constructor(model, name, actions) {
    this.model = model;
    this.name = name;
    this.write = model.write;
    this.actions = actions;
    this.where = h("p", { class: "where" });
    this.state = h("div", { class: "state warnish" });
    this.head = panelHead(name, actions, this.where, this.state);
    this.to = h("span", {});
    this.from = h("span", {});
    const rates = h("dl", { class: "rates" },
      h("div", {}, h("dt", {}, "Leaves →"), h("dd", {}, this.to)),
      h("div", {}, h("dt", {}, "Comes ←"), h("dd", {}, this.from)));
    this.edge = h("section", {}, rates);
    this.forwards = new ForwardEditor(model, name);
    this.forwardSection = section("Forwards", null, this.forwards.element);
    this.settings = h("dl", { class: "kv" });
    this.drops = h("dl", { class: "kv wide" });
    this.none = h("p", { class: "dim" }, "None.");
    this.mirrors = h("dl", { class: "kv" });
    this.mirrorSection = section("Mirrors", null, this.mirrors);
    this.off = h("dl", { class: "kv wide" });
    this.leases = h("dl", { class: "kv wide" });
    this.leaseNote = h("span", {});
    this.offSection = section("Not up", null, this.off);
    this.leaseSection = section("Leases and names", this.leaseNote, this.leases);
    this.flows = new FlowsSection(() => ({ network: name }));
    this.shell = h("div", {});
    this.element = h("div", {}, this.head, this.edge, this.forwardSection,
      section("Settings", null, this.settings), this.mirrorSection,
      section("Ports with drops", h("span", {}, "last minute"), this.drops, this.none), this.offSection,
      this.leaseSection, this.flows.element, section("The same in a shell", null, this.shell));
  }

  opened() {
    this.flows.start();
  }

  close() {
    this.flows.stop();
  }

  #differs(part, data) {
    const key = JSON.stringify(data);
    if (this.#keys.get(part) === key) return false;
    this.#keys.set(part, key);
    return true;
  }

  update() {
    const network = this.model.networks.get(this.name);
    const ports = this.model.portsOf(this.name);
    this.#where(network, ports);
    this.#trouble(network);
    show(this.edge, network.mode !== "internal");
    say(this.to, si(network.edge[0], "b/s"));
    say(this.from, si(network.edge[1], "b/s"));
    show(this.forwardSection, isNat(network) || network.forwards.length > 0);
    this.forwards.update(network);
    this.#settings(network);
    this.#mirrors(network);
    this.#ports(ports);
    this.#leases(ports, network);
    this.flows.update(network);
    this.#shell(network);
  }

  #where(network, ports) {
    if (!this.#differs("where", [network.mode, ports.length, network.worker])) return;
    this.where.className = "where " + modeClass(network);
    const worker = network.worker == null ? "" : `, worker ${network.worker}`;
    this.where.replaceChildren(swatch(network), `${network.mode}, ${several(ports.length, "port")}${worker}`);
  }

  #trouble(network) {
    const { gateway, uplink } = network;
    const wrong = [];
    if (uplink && uplink.running !== true) {
      const then = " Ports of the network reach each other; it is joined again when it is up.";
      wrong.push(["The uplink does not run.", network.error, then]);
    }
    if (gateway?.up === false) wrong.push(["The gateway does not run.", gateway.last_error]);
    if (gateway?.lease_error) wrong.push(["Leases are not kept.", gateway.lease_error]);
    if (network.error && uplink?.running !== false) {
      wrong.push(["The network does not run as stored.", network.error]);
    }
    if (!this.#differs("trouble", wrong)) return;
    show(this.state, wrong.length > 0);
    const parts = wrong.flatMap(([what, why, then]) => [
      h("p", {}, h("b", {}, what), ...(why ? prose(" " + sentence(why)) : []), then ?? ""),
      commandIn(why) ? command(commandIn(why)) : "",
    ]);
    this.state.replaceChildren(...parts);
  }

  #settings(network) {
    const { subnets, mtu, vlans, mac_entries: macs, uplink, gateway, host_addresses: own } = network;
    if (!this.#differs("settings", [subnets, mtu, vlans, macs, uplink, gateway, own])) return;
    const rows = [];
    if (subnets.length) rows.push(pair("Subnet", subnets.join(", ")));
    if (own.length) rows.push(pair("Host", own.join(", ")));
    if (mtu != null) rows.push(pair("MTU", String(mtu)));
    if (vlans.length) rows.push(pair("VLANs", vlans.join(", ")));
    if (macs != null) rows.push(pair("MACs", count(macs) + " known"));
    if (uplink) rows.push(pair("Uplink", `${uplink.ifname}${uplink.running ? ", runs" : ", does not run"}`));
    if (gateway) rows.push(...this.#gateway(gateway, network));
    this.settings.replaceChildren(...rows.flat());
  }

  #mirrors({ mirrors }) {
    if (!this.#differs("mirrors", mirrors)) return;
    show(this.mirrorSection, mirrors.length > 0);
    this.mirrors.replaceChildren(...mirrors.flatMap((one) => pair(one.name, mirrorWords(one))));
  }

  #gateway(gateway, network) {
    const each = gateway.count > 1 ? `, one for each of ${several(gateway.count, "port")}` : "";
    const rows = [pair("Gateway", (gateway.addresses ?? []).join(", ") + each)];
    if (gateway.pool != null) rows.push(pair("Leases", `${count(gateway.leases ?? 0)} of ${count(gateway.pool)}`));
    const { tcp = 0, udp = 0, icmp = 0 } = gateway.flows ?? {};
    if (isNat(network)) rows.push(pair("Flows", `${count(tcp)} tcp, ${count(udp)} udp, ${count(icmp)} icmp`));
    if (gateway.restarts) rows.push(pair("Restarts", count(gateway.restarts)));
    return rows;
  }

  #link(name) {
    const button = h("button", { type: "button", class: "link" }, name);
    button.addEventListener("click", () => this.actions.choose({ kind: "port", name }));
    const figure = h("dd", {});
    return { element: h("div", {}, h("dt", {}, button), figure), figure };
  }

  #ports(ports) {
    const dropping = this.#dropsInOrder(ports);
    const name = (port) => port.name;
    const make = (port) => this.#link(port.name);
    show(this.none, dropping.length === 0);
    keyed(this.drops, this.#dropping, dropping, name, make, (row, port) => {
      say(row.figure, `${worstReason(port) ?? "no longer"} ${count(perMinute(port))}`);
    });
    const off = ports.filter((port) => port.state !== "up").slice(0, SHOWN);
    show(this.offSection, off.length > 0);
    keyed(this.off, this.#off, off, name, make, (row, port) => say(row.figure, stateOf(port).word));
  }

  /** The worst come first when the panel opens. Later ones follow at the end, and what is over keeps
      its place: nothing moves while it is read. */
  #dropsInOrder(ports) {
    const known = new Map(ports.map((port) => [port.name, port]));
    const fresh = ports.filter((port) => perMinute(port) && !this.#dropOrder.includes(port.name));
    fresh.sort((a, b) => perMinute(b) - perMinute(a));
    this.#dropOrder.push(...fresh.map((port) => port.name));
    return this.#dropOrder.map((name) => known.get(name)).filter(Boolean).slice(0, SHOWN);
  }

  #leases(ports, network) {
    const leases = ports.flatMap((port) => port.addresses.map((address) => ({ port: port.name, address })));
    show(this.leaseSection, leases.length > 0);
    const minute = Math.floor(Date.now() / 60000);
    const shown = leases.slice(0, 5 * SHOWN);
    if (!this.#differs("leases", [shown, minute])) return;
    const pool = network.gateway?.pool;
    say(this.leaseNote, pool ? `${count(network.gateway.leases ?? 0)} of ${count(pool)}` : "");
    const row = ({ port, address }) => [
      h("dt", {}, address.address), h("dd", {}, `${addressWords({ ...address, name: address.name || port })}`),
    ];
    this.leases.replaceChildren(...shown.flatMap(row));
  }

  #shell(network) {
    if (!this.#differs("shell", [network.mode, Boolean(network.gateway)])) return;
    const { name } = this;
    const lines = [["list", "Bridge", name], ["--names", "fdb/show", name]];
    lines.push(["tcpdump", name, "-w", "trama.pcapng"]);
    if (network.gateway) lines.push(["leases", this.name]);
    if (isNat(network)) lines.push(["forward", "list", this.name], ["flows", this.name]);
    this.shell.replaceChildren(...lines.map((words) => command(shell(["tramactl", ...words]))));
  }
}
