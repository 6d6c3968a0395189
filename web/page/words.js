// Numbers and states in words, the same in the picture, the list and the panel.
// Three digits, SI prefixes, bits; rx comes from the guest and tx goes to it.

const PREFIXES = ["", "k", "M", "G", "T"];

/** A rate with three digits: `6.24 G`, with a unit `6.24 Gb/s`. */
export function si(value, unit = "") {
  if (!(value >= 1)) return unit ? "0 " + unit : "0";
  let prefix = 0;
  while (value >= 999.5 && prefix < PREFIXES.length - 1) {
    value /= 1000;
    prefix += 1;
  }
  const digits = value >= 99.5 || prefix === 0 ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits)} ${PREFIXES[prefix]}${unit}`.trimEnd();
}

/** A count: `1 184`, `18.9 k`, `1.48 M`. */
export function count(value) {
  if (value >= 1e9) return (value / 1e9).toFixed(2) + " G";
  if (value >= 1e6) return (value / 1e6).toFixed(2) + " M";
  if (value >= 1e4) return (value / 1e3).toFixed(value >= 1e5 ? 0 : 1) + " k";
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** `1 port`, `2 ports`. */
export const several = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** The width of a stroke, in pixels: 1 Mb/s 2.2, 100 Mb/s 4.5, 10 Gb/s 6.8. */
export const width = (bps) => (bps < 1e5 ? 1 : Math.min(7, 1 + 1.15 * Math.log10(bps / 1e5)));

/** The part of a bar that a rate fills: 1 kb/s nothing, 20 Gb/s all. */
export const logPart = (bps) => (bps < 1e3 ? 0 : Math.min(1, Math.log10(bps / 1e3) / 7.3));

/** Seconds as people say them. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  if (s >= 36000) return `${Math.floor(s / 3600)} h`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  if (s >= 60) return `${Math.floor(s / 60)} min`;
  return `${s} s`;
}

/** The drops of a port in the last minute, without those that are no trouble. */
export function perMinute(port) {
  let sum = 0;
  for (const drop of port.drops) if (!drop.expected) sum += drop.minute;
  return sum;
}

/** The reason for most of them, `null` without any. */
export function worstReason(port) {
  let worst = null;
  for (const drop of port.drops) if (!drop.expected && drop.minute > (worst?.minute ?? 0)) worst = drop;
  return worst?.reason ?? null;
}

/** Fewer drops than this in a minute are amber, more are red. */
const FEW_DROPS = 100;

/** The tone of a number of drops a minute, the same in the picture, the list and the overview. */
export const dropTone = (drops) => (drops === 0 ? "" : drops < FEW_DROPS ? "warn" : "bad");

/** Less than this in both directions is idle, in bit/s. */
export const IDLE = 1000;

export const isIdle = (rate) => rate.rx_bps + rate.tx_bps < IDLE;

const STATES = new Map([
  ["up", { word: "up", glyph: "", tone: "" }],
  ["waiting", { word: "no VMM yet", glyph: "◌", tone: "dim" }],
  ["cable", { word: "cable out", glyph: "⊣", tone: "dim" }],
  ["blocked", { word: "blocked", glyph: "■", tone: "bad" }],
  ["not-running", { word: "does not run", glyph: "×", tone: "warn" }],
]);

/** The state of a port that runs on no network: it has no line that its cable could be out of. */
const DETACHED = { word: "not attached", glyph: "–", tone: "dim" };

/** The word, glyph and tone of a port's state. One that is unknown is shown as it is. */
export function stateOf(port) {
  if (port.state === "cable" && port.network === null) return DETACHED;
  return STATES.get(port.state) ?? { word: String(port.state), glyph: "?", tone: "warn" };
}

/** Whether a port carries a VLAN. A trunk without a list carries all. */
export const carries = (port, vlan) =>
  port.tag === vlan ||
  (port.vlan_mode !== "access" && (!port.trunks.length || port.trunks.includes(vlan)));

/** What a port carries, short: `10`, `trunk 10,20`, `30, 10,20`. */
export function vlanText(port) {
  const trunks = port.trunks.join(",");
  if (port.vlan_mode === "access") return port.tag == null ? "–" : String(port.tag);
  if (port.vlan_mode === "trunk") return trunks ? "trunk " + trunks : "all";
  return [port.tag ?? "native", trunks].filter((part) => part !== "").join(", ");
}

/** What a port carries, in full. */
export function vlanSentence(port) {
  const trunks = port.trunks.length ? "trunk of " + port.trunks.join(", ") : "trunk of all";
  if (port.vlan_mode === "access") {
    return port.tag == null ? "access, untagged" : `access, tag ${port.tag}`;
  }
  if (port.vlan_mode === "trunk") return trunks;
  return `${port.vlan_mode ?? "unknown"}, tag ${port.tag ?? "none"}, ${trunks}`;
}

/** Whether a port leads to another host. */
export const isTunnel = (port) => port.type === "vxlan";

/** Where a tunnel leads: `10.9.0.2`, of the peer `10.9.0.2:4789 VNI 5`. */
const remoteOf = (port) => "→ " + port.peer.replace(/:\d+ VNI \d+$/, "");

/** What a mirror copies, and where to: `what enters from vm1, to ids`. */
export function mirrorWords({ all, from, to, vlans, output_port: port, output_vlan: vlan }) {
  const parts = [
    all ? "what enters from any port" : from.length ? "what enters from " + from.join(", ") : "",
    to.length ? "what leaves to " + to.join(", ") : "",
  ].filter(Boolean);
  const what = parts.join(" and ") || "all frames";
  const of = vlans.length ? ` of VLAN ${vlans.join(", ")}` : "";
  return `${what}${of}, to ${port ?? "VLAN " + vlan}`;
}

/** The address to show for a port: of a lease, else its MAC address; of a tunnel the other host's. */
export function addressOf(port) {
  if (isTunnel(port) && port.peer) return remoteOf(port);
  return port.addresses[0]?.address ?? port.mac ?? "";
}

const ADDRESS_STATES = new Map([
  ["bound", "lease"],
  ["static", "without DHCP"],
  ["offered", "offered"],
  ["idle", "idle lease"],
  ["conflict", "conflict: used without its lease"],
]);

/** What an address is: `lease, web, 11 h left`. */
export function addressWords(address, now = Date.now() / 1000) {
  const words = [ADDRESS_STATES.get(address.state) ?? address.state];
  if (address.name) words.push(address.name);
  if (address.until != null && (address.state === "bound" || address.state === "offered")) {
    const left = address.until - now;
    words.push(left > 0 ? duration(left) + " left" : "ended");
  }
  return words.join(", ");
}

/** All that the eye sees of a port, in a sentence. */
export function summary(port) {
  const parts = [port.name, port.network, stateOf(port).word].filter(Boolean);
  if (port.error) parts.push(plain(port.error));
  if (addressOf(port)) parts.push(addressOf(port));
  if (vlanText(port) !== "–") parts.push("VLAN " + vlanText(port));
  parts.push("to guest " + si(port.rate.tx_bps, "b/s"), "from guest " + si(port.rate.rx_bps, "b/s"));
  const drops = perMinute(port);
  if (drops) parts.push(count(drops) + " drops in the last minute");
  return parts.join(", ");
}

/** A text without the numbers of the system's errors, whose names it has as well. */
export const unnumbered = (text) => String(text).replace(/ \(os error \d+\)/g, "");

/** A text without the marks around its code either, for places that have one font. */
export const plain = (text) => unnumbered(text).replaceAll("`", "");

/** The text without the path that it begins with: where there is little room, the cause counts. */
export const cause = (text) => plain(text).replace(/^\/\S+: /, "");

/** What a text says of the cause, without where it was seen: for places that say where. */
export function briefly(text) {
  const [first, ...rest] = plain(text).split("; ");
  return [first.slice(first.lastIndexOf(": ") + 1).trim(), ...rest].join("; ");
}

/** Words with a capital and a full stop. */
export function sentence(text) {
  const trimmed = String(text).trim();
  const end = /[.!?…]$/.test(trimmed) ? "" : ".";
  return trimmed && trimmed[0].toUpperCase() + trimmed.slice(1) + end;
}

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;

/** A command line that a shell takes as these words. */
export const shell = (words) =>
  words.map((w) => (PLAIN.test(w) ? w : `'${String(w).replaceAll("'", "'\\''")}'`)).join(" ");
