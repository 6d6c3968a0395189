// Ten minutes of each port for the list: 40 bytes a port, each the highest rate of 15 seconds.
// The page keeps them itself, so a line begins when the page was opened.

import { logPart } from "./words.js";

const POINTS = 40;
const STEP = 15000;

export class Trends {
  #rings = new Map();
  #peaks = new Map();
  #next = performance.now() + STEP;
  /** The number of points that are known. */
  length = 0;
  /** How often a point was added. */
  points = 0;
  #head = 0;

  /** Notes the rates of a second; returns whether a point was added. */
  note(ports) {
    for (const port of ports.values()) {
      const rate = port.rate.tx_bps;
      if (rate > (this.#peaks.get(port.name) ?? -1)) this.#peaks.set(port.name, rate);
    }
    if (performance.now() < this.#next) return false;
    this.#next = performance.now() + STEP;
    this.points += 1;
    this.#head = (this.#head + 1) % POINTS;
    this.length = Math.min(POINTS, this.length + 1);
    for (const name of this.#rings.keys()) if (!ports.has(name)) this.#rings.delete(name);
    for (const name of ports.keys()) {
      let ring = this.#rings.get(name);
      if (!ring) this.#rings.set(name, (ring = new Uint8Array(POINTS)));
      ring[this.#head] = Math.round(255 * logPart(this.#peaks.get(name) ?? 0));
    }
    this.#peaks.clear();
    return true;
  }

  /** The path of a port in a box, its end at the right. */
  path(name, width, height) {
    const ring = this.#rings.get(name);
    if (!ring || this.length < 2) return "";
    const step = width / (POINTS - 1);
    let path = "";
    for (let i = POINTS - this.length; i < POINTS; i += 1) {
      const value = ring[(this.#head + 1 + i) % POINTS] / 255;
      path += `${path ? "L" : "M"}${(i * step).toFixed(1)} ${(height - 1 - value * (height - 3)).toFixed(1)}`;
    }
    return path;
  }
}
