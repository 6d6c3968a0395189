// Where each port of a network stands: pure functions from slots to pixels, without a document.
// The same state gives the same picture, and a port keeps its place while the page is open.

import { carries } from "./words.js";

/** Sizes in pixels. */
export const SIZE = {
  pad: 20, slot: 104, box: 96, boxHeight: 38, stem: 30, lane: 14, chip: 66, cell: 11, pitch: 13,
  bus: 28, gap: 16, gateWidth: 90, under: 18, note: 14,
};

/** How far the names of VLANs and of blocks reach; the longest is `VLAN 4094`. */
const LABEL = 60;

/** The columns at the right: the gateway, the host's rail and the LAN's. */
export const columns = (width) => ({
  end: width - 252, gate: width - 236, host: width - 108, lan: width - 30,
});

/** How large the ports of a network are drawn. */
export const tierOf = (ports) => (ports <= 14 ? "card" : ports <= 64 ? "chip" : "cell");

/** Slots of a group of ports: one is given once, and a new port takes the first hole. */
export class Slots {
  #at = new Map();

  /** Assigns the slots; `given`: ports have slots of their own, which the daemon keeps. */
  update(ports, given) {
    const names = new Set(ports.map((port) => port.name));
    for (const name of this.#at.keys()) if (!names.has(name)) this.#at.delete(name);
    const rest = [];
    if (given) this.#at.clear();
    const taken = new Set(this.#at.values());
    for (const port of ports) {
      const own = given && Number.isInteger(port.slot) && port.slot >= 0 && !taken.has(port.slot);
      if (own) {
        this.#at.set(port.name, port.slot);
        taken.add(port.slot);
      } else if (!this.#at.has(port.name)) rest.push(port);
    }
    let hole = 0;
    for (const port of rest) {
      while (taken.has(hole)) hole += 1;
      this.#at.set(port.name, hole);
      taken.add(hole);
    }
    return this.#at;
  }
}

/** Leaves out rows without any port; a row once used stays, so that nothing moves up. */
export class Rows {
  #used = new Set();
  #per = 0;

  /** The shown row of each used one. */
  update(slots, per) {
    if (per !== this.#per) this.#used.clear();
    this.#per = per;
    for (const slot of slots.values()) this.#used.add(Math.floor(slot / per));
    return new Map([...this.#used].sort((a, b) => a - b).map((row, shown) => [row, shown]));
  }
}

/** The VLANs of a network's lanes. They are chosen when its first port is drawn: a lane more would
    move all below it. A later VLAN takes the lane of one that has gone, or has none. */
export class Lanes {
  #vlans = null;

  update(vlans, hasPorts) {
    if (this.#vlans === null) {
      if (hasPorts) this.#vlans = [...vlans];
      return vlans;
    }
    const fresh = vlans.filter((vlan) => !this.#vlans.includes(vlan));
    const keep = (vlan) => (vlans.includes(vlan) || !fresh.length ? vlan : fresh.shift());
    return (this.#vlans = this.#vlans.map(keep));
  }
}

/** The last column that is used in each row. */
function lastColumns(slots, rows, per) {
  const last = Array(rows.size).fill(-1);
  for (const slot of slots.values()) {
    const row = rows.get(Math.floor(slot / per));
    last[row] = Math.max(last[row], slot % per);
  }
  return last;
}

function carriedText(port) {
  if (port.tag != null) return "VLAN " + port.tag;
  return port.trunks.length ? "VLAN " + port.trunks.join(", ") : "all VLANs";
}

/** How many rows there are up to the last that has a port. */
const filled = (last) => last.findLastIndex((column) => column >= 0) + 1;

/** Cards: one row on the line and its lanes, further rows on a branch of the line. */
export function layCards({ network, ports, width, slots, rowsOf, lanesOf }) {
  const { end } = columns(width);
  const lanes = lanesOf.update(network?.vlans ?? [], ports.length > 0);
  const indent = lanes.length ? 56 : 0;
  const left = SIZE.pad + indent;
  const per = Math.max(1, Math.floor((end - left + 8) / SIZE.slot));
  const places = slots.update(ports, network !== null);
  const rows = rowsOf.update(places, per);
  const bus = SIZE.bus;
  const laneY = (i) => bus + 15 + i * SIZE.lane;
  const comb = lanes.length ? laneY(lanes.length - 1) : network ? bus : 0;
  const stem = network ? SIZE.stem : SIZE.bus;
  // Between two rows: a card's badge above the branch, and below it what the next card carries.
  const branchStem = SIZE.stem + (lanes.length ? SIZE.note : 4);
  const rowHeight = SIZE.boxHeight + SIZE.under + branchStem;
  const top = (row) => comb + stem + row * rowHeight;
  const branch = (row) => top(row) - branchStem;
  const at = new Map();
  for (const port of ports) {
    const slot = places.get(port.name);
    const row = rows.get(Math.floor(slot / per));
    const y = top(row);
    const x = left + (slot % per) * SIZE.slot;
    at.set(port.name, { x, y, ...hang(port, row, y) });
  }
  function hang(port, row, y) {
    if (!network) return { stem: 0, dots: [], note: null, vlan: null };
    const vlans = lanes.filter((vlan) => carries(port, vlan));
    const isTold = [port.tag ?? [], port.trunks].flat().every((vlan) => lanes.includes(vlan));
    const vlan = isTold ? null : carriedText(port);
    if (row > 0) {
      const note = vlans.length ? carriedText(port) : null;
      const dots = [{ y: branch(row) - y, full: true }];
      return { stem: y - branch(row), dots, note, vlan: note ? null : vlan };
    }
    if (!vlans.length) {
      return { stem: y - bus, dots: [{ y: bus - y, full: true }], note: null, vlan };
    }
    const dots = vlans.map((v) => ({ y: laneY(lanes.indexOf(v)) - y, full: port.tag === v }));
    return { stem: y - laneY(lanes.indexOf(vlans[0])), dots, note: null, vlan };
  }
  const lines = lanes.map((_, i) => `M${SIZE.pad + LABEL} ${laneY(i)}H${end}`);
  const last = lastColumns(places, rows, per);
  for (let row = 1; network && row < filled(last); row += 1) {
    const from = row === 1 ? bus : branch(row - 1);
    const to = left + Math.max(0, last[row]) * SIZE.slot + 14;
    lines.push(`M${SIZE.pad - 9} ${from}V${branch(row)}H${to}`);
  }
  const labels = lanes.map((vlan, i) => ({ x: SIZE.pad, y: laneY(i) + 4, text: "VLAN " + vlan }));
  const start = rows.size > 1 ? SIZE.pad - 9 : SIZE.pad;
  const bottom = top(Math.max(0, rows.size - 1)) + SIZE.boxHeight + (network ? 0 : 8);
  return { at, lines, labels, start, bottom: ports.length ? bottom : bus + 20 };
}

/** The name of the block that a port belongs to, where networks with VLANs are drawn in blocks. */
function blockOf(port) {
  if (port.vlan_mode === "access" && port.tag != null) return "VLAN " + port.tag;
  return port.vlan_mode !== "access" ? "trunks" : "untagged";
}

/** The ports in blocks, in the order of the VLANs. A network without VLANs is one block, and stays
    one; a block that was drawn keeps its place, and later ones follow at the end. */
function blocksOf(network, ports, groups) {
  const vlans = network?.vlans ?? [];
  if (groups.size ? groups.has("") : !vlans.length) return new Map([["", ports]]);
  const names = [...groups.keys(), ...vlans.map((vlan) => "VLAN " + vlan)];
  const blocks = new Map(names.map((name) => [name, []]));
  for (const port of ports) {
    const name = blockOf(port);
    if (!blocks.has(name)) blocks.set(name, []);
    blocks.get(name).push(port);
  }
  return new Map([...blocks].filter(([name, members]) => members.length || groups.has(name)));
}

/** Chips and cells: blocks of rows, each block with its name at the left. */
export function layBlocks({ network, ports, width, tier, groups }) {
  const { end } = columns(width);
  const blocks = blocksOf(network, ports, groups);
  const named = !blocks.has("");
  const left = SIZE.pad + (named ? LABEL : 0);
  const chip = tier === "chip";
  const pitch = chip ? SIZE.chip : SIZE.pitch;
  const rowHeight = chip ? 27 : SIZE.pitch;
  const inset = chip ? 6 : 0;
  const per = Math.max(1, Math.floor((end - left - inset) / pitch));
  const at = new Map();
  const lines = [];
  const labels = [];
  let top = named ? SIZE.bus + 14 : SIZE.bus;
  for (const [name, members] of blocks) {
    if (!groups.has(name)) groups.set(name, { slots: new Slots(), rows: new Rows() });
    const group = groups.get(name);
    const places = group.slots.update(members, !named && network !== null);
    const rows = group.rows.update(places, per);
    const last = lastColumns(places, rows, per);
    if (named) labels.push({ x: SIZE.pad, y: top + 4, text: name });
    if (network && chip) {
      for (let row = named ? 0 : 1; row < filled(last); row += 1) {
        const y = top + row * rowHeight;
        const from = row ? y - rowHeight : y;
        lines.push(`M${left} ${from}V${y}H${row === 0 ? end : left + Math.max(0, last[row]) * pitch + 16}`);
      }
    } else if (network && named) lines.push(`M${left} ${top}H${end}`);
    const first = top + 7;
    for (const port of members) {
      const slot = places.get(port.name);
      const y = first + rows.get(Math.floor(slot / per)) * rowHeight;
      at.set(port.name, { x: left + inset + (slot % per) * pitch, y, stem: 7, dots: [], note: null, vlan: null });
    }
    top = first + (rows.size - 1) * rowHeight + (chip ? 16 : SIZE.pitch) + 9;
  }
  return { at, lines, labels, start: SIZE.pad, bottom: top - 9 };
}

/** Cells without a line: the overview above the list. */
export function layOverview({ ports, width, slots, rowsOf }) {
  const per = Math.max(1, Math.floor(width / SIZE.pitch));
  const places = slots.update(ports, true);
  const rows = rowsOf.update(places, per);
  const at = new Map();
  for (const port of ports) {
    const slot = places.get(port.name);
    const y = rows.get(Math.floor(slot / per)) * SIZE.pitch;
    at.set(port.name, { x: (slot % per) * SIZE.pitch, y, stem: 0, dots: [], note: null, vlan: null });
  }
  return { at, bottom: Math.max(1, rows.size) * SIZE.pitch };
}
