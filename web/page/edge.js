// The right side of a network: its gateway or uplink, and how far its line reaches.
// Where a line ends is the answer to who reaches whom: inside, the host's rail or the LAN's.

import { attr, s } from "./dom.js";
import { NAME, SMALL, fitEnd, fitMiddle } from "./fit.js";
import { SIZE, columns } from "./layout.js";
import { briefly, count, several, width } from "./words.js";

/** Whether a gateway of the network leads out of the host. */
const isNat = (network) => String(network.mode).startsWith("nat");

/** The command to run that a text has between backticks. What only shows something, as `ip link`
    does, or is no command is a part of the sentence. */
export const commandIn = (text) => /`((?:tramactl|ip link set) [^`]+)`/.exec(text ?? "")?.[1] ?? null;

/** The two strokes of what leaves and comes, and a dashed one for what does not run. */
export class Strokes {
  constructor() {
    this.to = s("line", { class: "stem" });
    this.from = s("line", { class: "stem from" });
    this.element = s("g", {}, this.to, this.from);
  }

  draw(x1, x2, y, [to, from], off) {
    attr(this.from, "display", off ? "none" : null);
    attr(this.to, "class", off ? "stem off" : "stem");
    const wide = off ? 1.5 : width(to);
    this.#line(this.to, x1, x2, off ? y : y - 0.75 - wide / 2, wide);
    this.#line(this.from, x1, x2, y + 0.75 + width(from) / 2, width(from));
  }

  #line(line, x1, x2, y, wide) {
    attr(line, "x1", x1);
    attr(line, "x2", x2);
    attr(line, "y1", y.toFixed(1));
    attr(line, "y2", y.toFixed(1));
    attr(line, "stroke-width", wide.toFixed(1));
  }
}

const small = (x, y, value, kind = "", anchor = "start") =>
  s("text", { class: "small " + kind, x, y, "text-anchor": anchor }, value);

const dot = (x, y, kind = "node full") => s("circle", { class: kind, cx: x, cy: y, r: 4.5 });

function gate(at, y, title, line, off) {
  const middle = at + SIZE.gateWidth / 2;
  return s("g", { class: off ? "gate off" : "gate" },
    s("rect", { x: at, y: y - 16, width: SIZE.gateWidth, height: 32, rx: 4 }),
    s("text", { class: "name", x: middle, y: y - 2, "text-anchor": "middle" },
      fitMiddle(title, NAME, SIZE.gateWidth - 10)),
    small(middle, y + 11, fitMiddle(line, SMALL, SIZE.gateWidth - 8), off ? "warn" : "faint", "middle"));
}

/** What is wrong at the edge: a command if the text has one, else its beginning. */
function troubleText(text, at, y, room) {
  const command = commandIn(text);
  const shown = fitEnd(command ?? briefly(text), SMALL, command ? room * 0.86 : room);
  return s("text", { class: (command ? "mono" : "small") + " warn halo", x: at, y }, shown);
}

/** Draws the edge of a network; returns where the strokes run, and how far down it reaches. */
export function drawEdge(network, totalWidth) {
  const at = columns(totalWidth);
  const y = SIZE.bus;
  const room = totalWidth - at.gate - 6;
  const parts = [];
  let lowest = y + 22;
  const below = (part, line) => {
    parts.push(part);
    lowest = Math.max(lowest, line + 6);
  };
  if (network.mode === "bridged") {
    const stroke = bridged(network, at, y, parts);
    const error = troubleOf(network);
    if (error) below(troubleText(error, at.gate, y + 31, room), y + 31);
    else if (network.mac_entries != null) {
      below(small(at.gate, y + 31, several(network.mac_entries, "MAC")), y + 31);
    }
    return { parts, stroke, lowest };
  }
  const inside = staysInside(network);
  if (inside && !network.gateway) parts.push(small(at.end + 12, y + 4, "stays inside", "faint"));
  const stroke = inside ? null : outside(network, at, y, parts);
  const gateway = network.gateway;
  if (inside && gateway) parts.push(gateBox(gateway, at, y), cap(at, y));
  const wrong = troubleOf(network);
  if (wrong) below(troubleText(wrong, at.gate, y + 31, room), y + 31);
  let line = y + (wrong ? 45 : 31);
  if (inside && gateway) {
    below(small(at.gate, line, "stays inside", "faint"), line);
    line += 14;
  }
  if (gateway) gatewayLines(network, gateway, at, line, below);
  forwardLines(network, at, line, below);
  return { parts, stroke, lowest };
}

/** Whether a network ends in a cap: neither the host nor the LAN is reached. */
export const staysInside = (network) => network.mode === "internal" && !network.host_addresses.length;

/** The cap of a line, behind its gateway. */
function cap(at, y) {
  const from = at.gate + SIZE.gateWidth;
  return s("path", { class: "bus", d: `M${from} ${y}h10m0 -6v12` });
}

/** What is wrong with a network; `null` if nothing is. */
export function troubleOf(network) {
  const { gateway, uplink } = network;
  if (uplink && uplink.running !== true) return network.error ?? "the uplink does not run";
  if (!gateway) return network.error ?? null;
  if (gateway.up === false) return gateway.last_error ?? network.error ?? "the gateway does not run";
  return network.error ?? gateway.lease_error ?? null;
}

function gateBox(gateway, at, y) {
  const off = gateway?.up === false;
  const title = (gateway?.count ?? 1) > 1 ? `${count(gateway.count)} gateways` : "gateway";
  return gate(at.gate, y, title, off ? "does not run" : gateway?.addresses?.[0] ?? "", off);
}

function bridged(network, at, y, parts) {
  const uplink = network.uplink;
  const runs = uplink?.running === true;
  if (runs) parts.push(dot(at.host, y));
  parts.push(gate(at.gate, y, uplink?.ifname ?? "no uplink", runs ? "uplink" : "does not run", !runs));
  parts.push(dot(at.lan, y, runs ? "node full" : "node off"));
  return { x1: at.gate, x2: at.lan, off: !runs };
}

function outside(network, at, y, parts) {
  const gateway = network.gateway;
  const off = gateway ? gateway.up === false : Boolean(network.error) && isNat(network);
  const lan = isNat(network);
  const last = lan ? at.lan - 9 : at.host;
  parts.push(dot(at.host, y, off ? "node off" : "node full"));
  if (lan) parts.push(s("path", { class: off ? "arrow off" : "arrow", d: `M${at.lan - 11} ${y - 6}l9 6l-9 6z` }));
  if (gateway || lan) parts.push(gateBox(gateway, at, y));
  const own = network.host_addresses[0];
  if (own && !lan) {
    const word = fitMiddle(String(own).replace(/\/\d+$/, ""), SMALL, 96);
    parts.push(small(at.host + 8, y + 17, word, "halo"));
  }
  return { x1: gateway || lan ? at.gate : at.end, x2: last, off };
}

function gatewayLines(network, gateway, at, y, below) {
  let line = y;
  if (gateway.pool) {
    below(small(at.gate, line, `${count(gateway.leases ?? 0)} of ${count(gateway.pool)} leases`), line);
    line += 14;
  }
  if (!isNat(network)) return;
  const flows = gateway.flows ?? {};
  const sum = (flows.tcp ?? 0) + (flows.udp ?? 0) + (flows.icmp ?? 0);
  below(small(at.gate, line, several(sum, "flow")), line);
}

/** A forward that listens. */
export const isActive = (forward) => forward.status === "listening";

function forwardLines(network, at, y, below) {
  if (!network.forwards.length) return;
  const waits = network.forwards.filter((forward) => !isActive(forward)).length;
  const x = at.host + 40;
  below(small(x, y, several(network.forwards.length, "forward"), "halo", "middle"), y);
  const word = `${waits} ${waits === 1 ? "waits" : "wait"}`;
  if (waits) below(small(x, y + 14, word, "warn halo", "middle"), y + 14);
}
