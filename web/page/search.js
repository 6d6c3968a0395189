// What a search means: words that all must fit a port, some of them with a prefix.
// `vlan:10`, `net:lab`, `mac:52:54`, `drops`, `down`; anything else is looked for in names.

import { carries, perMinute } from "./words.js";

/** Returns the words of a search, or `null` if it is empty. */
export function parse(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? words.map(test) : null;
}

const has = (value, part) => String(value ?? "").toLowerCase().includes(part);

function test(word) {
  if (word === "drops") return (port) => perMinute(port) > 0;
  if (word === "down") return (port) => port.state !== "up";
  const [, prefix, rest] = /^(vlan|net|mac):(.*)$/.exec(word) ?? [];
  if (prefix === "vlan") {
    const vlan = Number(rest);
    return (port) => rest === "" || carries(port, vlan);
  }
  if (prefix === "net") return (port) => has(port.network, rest);
  if (prefix === "mac") return (port) => has(port.mac, rest);
  // Two letters are in many MAC addresses: only what looks like a part of one is looked for there.
  const mac = word.includes(":");
  return (port) =>
    has(port.name, word) || has(port.network, word) || (mac && has(port.mac, word)) ||
    port.addresses.some((address) => has(address.address, word) || has(address.name, word));
}

/** Whether a port fits a search. */
export const matches = (port, query) => query === null || query.every((fits) => fits(port));
