// Draws one port: as a card, a chip or a cell. Each is built once; later only attributes and texts
// that differ are written, so a second in which nothing happens costs nothing.

import { attr, s, show, text, write } from "./dom.js";
import { BADGE, NAME, SMALL, fitAddress, fitEnd, fitMiddle, measure } from "./fit.js";
import { SIZE } from "./layout.js";
import { IDLE, addressOf, count, dropTone, isIdle, logPart, perMinute, plain, si, stateOf,
  summary, width } from "./words.js";

const CLASSES = new Map([
  ["up", ""], ["waiting", "wait"], ["cable", "cable"], ["blocked", "blocked"], ["not-running", "off"],
]);

const classOf = (port) => CLASSES.get(port.state) ?? "off";

/** What all three have: the element that is an option, its ring, its label. */
class PortView {
  constructor(port, kind, boxWidth, boxHeight, around) {
    this.name = port.name;
    this.kind = kind;
    this.ring = s("rect", {
      class: "ring", x: -around, y: -around, rx: 5,
      width: boxWidth + 2 * around, height: boxHeight + 2 * around,
    });
    this.element = s("g", { role: "option", tabindex: "-1", "aria-selected": "false" }, this.ring);
    this.element.portName = port.name;
  }

  /** Moves to a place. */
  moveTo(place) {
    this.place = place;
    attr(this.element, "transform", `translate(${place.x},${place.y})`);
  }

  /** Shows a port of which anything may differ. */
  update(port) {
    this.port = port;
    attr(this.element, "class", `port ${this.kind} ${classOf(port)}${this.faded ? " faded" : ""}`);
    this.describe();
  }

  /** Says all that the eye sees. It is not done each second: a reader would never end. */
  describe() {
    attr(this.element, "aria-label", summary(this.port));
  }

  select(selected) {
    attr(this.element, "aria-selected", selected);
  }

  fade(faded) {
    if (this.faded === faded) return;
    this.faded = faded;
    this.element.classList.toggle("faded", faded);
  }
}

/** The reason in few words: what stands behind the path or name at the beginning. */
const shortError = (error) => plain(error).replace(/^\S+: /, "");

class Card extends PortView {
  constructor(port, hollow) {
    super(port, "card", SIZE.box, SIZE.boxHeight, 3);
    this.hollow = hollow;
    this.to = s("line", { class: "stem" });
    this.from = s("line", { class: "stem from" });
    this.other = s("path", { class: "stem other" });
    this.bar = s("path", { class: "stem bar" });
    this.dots = s("g", {});
    [this.first, this.second, this.title, this.corner, this.line] = [0, 0, 0, 0, 0].map(() => text());
    this.firstText = s("text", { class: "small", x: 27, y: -17 }, this.first);
    this.secondText = s("text", { class: "small", x: 27, y: -5 }, this.second);
    this.lineText = s("text", { class: "small", x: 9, y: 31 }, this.line);
    this.note = text();
    this.element.append(
      this.to, this.from, this.other, this.bar, this.dots,
      s("text", { class: "small note", x: 23 }, this.note), this.firstText, this.secondText,
      s("rect", { class: "box", width: SIZE.box, height: SIZE.boxHeight, rx: 4 }),
      s("text", { class: "name", x: 9, y: 16 }, this.title),
      s("text", { class: "small faint", x: SIZE.box - 8, y: 16, "text-anchor": "end" }, this.corner),
      this.lineText,
    );
  }

  moveTo(place) {
    super.moveTo(place);
    const top = -place.stem;
    for (const line of [this.to, this.from]) {
      attr(line, "y1", top);
      attr(line, "y2", 0);
    }
    this.dots.replaceChildren(...place.dots.map((dot) => this.#dot(dot)));
    // Below the branch: above it is the badge of another card.
    write(this.note, fitEnd(place.note ?? "", SMALL, SIZE.slot - 25));
    attr(this.note.parentNode, "y", top + 13);
    if (this.port) this.#stem(this.port);
  }

  #dot(dot) {
    if (this.hollow) return s("rect", { class: "node", x: 9, y: dot.y - 5, width: 10, height: 10, rx: 2 });
    return s("circle", { class: dot.full ? "node full" : "node", cx: 14, cy: dot.y, r: 4 });
  }

  update(port) {
    super.update(port);
    const room = SIZE.box - 17;
    write(this.title, fitMiddle(port.name, NAME, room));
    // The type stands beside the name if there is room: the name matters more.
    // A VLAN that has no lane does, or it takes the place of the address.
    const { vlan } = this.place;
    const beside = vlan ?? (port.type === "vhost-user" ? "" : String(port.type ?? ""));
    const fits = measure(port.name, NAME) + 8 + measure(beside, SMALL) <= room;
    write(this.corner, fits ? beside : "");
    const tone = port.error ? stateOf(port).tone || "warn" : "";
    attr(this.lineText, "class", "small " + tone);
    const address = (!fits && vlan) || addressOf(port) || (port.trunks.length ? "trunk" : "–");
    const line = port.error ? fitEnd(shortError(port.error), SMALL, SIZE.box - 17)
      : fitAddress(address, SMALL, SIZE.box - 17);
    write(this.line, line);
    this.#badge(perMinute(port));
    this.#stem(port);
  }

  rates(port) {
    this.#stem(port);
  }

  #stem(port) {
    const flows = port.state === "up" && !isIdle(port.rate) && this.place.stem > 0;
    show(this.to, flows);
    show(this.from, flows);
    show(this.other, !flows && this.place.stem > 0);
    show(this.bar, port.state === "blocked" && this.place.stem > 0);
    if (flows) this.#strokes(port.rate);
    else this.#still(port);
  }

  #strokes(rate) {
    const to = width(rate.tx_bps);
    const from = width(rate.rx_bps);
    this.#stroke(this.to, to, 14 - 0.75 - to / 2);
    this.#stroke(this.from, from, 14 + 0.75 + from / 2);
    write(this.first, "↓ " + si(rate.tx_bps));
    write(this.second, "↑ " + si(rate.rx_bps));
    attr(this.secondText, "class", "small");
  }

  #stroke(line, thick, x) {
    attr(line, "stroke-width", thick.toFixed(1));
    attr(line, "x1", x.toFixed(1));
    attr(line, "x2", x.toFixed(1));
  }

  #still(port) {
    const top = -this.place.stem;
    const gap = port.state === "cable" ? `M14 ${top}V-20M14 -8V0M9 -20h10M9 -8h10` : `M14 ${top}V0`;
    attr(this.other, "d", gap);
    attr(this.bar, "d", "M6 -14h16");
    write(this.first, "");
    const word = port.state === "up" ? "idle" : stateOf(port).word;
    write(this.second, this.place.stem > 0 ? word : "");
    attr(this.secondText, "class", "small " + (stateOf(port).tone || "faint"));
  }

  #badge(drops) {
    if (!this.badge) {
      if (!drops) return;
      this.badgeText = text();
      this.badgeBox = s("rect", { y: SIZE.boxHeight - 3, height: 15, rx: 3 });
      this.badgeWord = s("text", { y: SIZE.boxHeight + 8.5, "text-anchor": "middle" }, this.badgeText);
      this.badge = s("g", {}, this.badgeBox, this.badgeWord);
      this.element.append(this.badge);
    }
    show(this.badge, drops > 0);
    if (!drops) return;
    const word = `▾ ${count(drops)}/min`;
    const wide = Math.ceil(measure(word, BADGE)) + 10;
    write(this.badgeText, word);
    attr(this.badge, "class", dropTone(drops) === "warn" ? "badge few" : "badge");
    attr(this.badgeBox, "x", SIZE.box - wide);
    attr(this.badgeBox, "width", wide);
    attr(this.badgeWord, "x", SIZE.box - wide / 2);
  }
}

class Chip extends PortView {
  constructor(port) {
    super(port, "chip", SIZE.chip - 6, 16, 2);
    this.stem = s("path", { class: "stem", d: "M10 -7V0" });
    this.box = s("rect", { class: "box", width: SIZE.chip - 6, height: 16, rx: 3 });
    this.title = text();
    this.mark = s("text", { class: "small", x: SIZE.chip - 10, y: 12, "text-anchor": "end" }, "▾");
    this.element.append(this.stem, this.box, s("text", { class: "small", x: 5, y: 12 }, this.title), this.mark);
  }

  update(port) {
    super.update(port);
    const drops = perMinute(port);
    const tone = dropTone(drops);
    attr(this.box, "class", drops ? "box " + tone : "box");
    show(this.mark, drops > 0);
    attr(this.mark, "class", "small " + tone);
    write(this.title, fitMiddle(port.name, SMALL, SIZE.chip - (drops ? 26 : 16)));
    this.rates(port);
  }

  rates(port) {
    const flows = port.state === "up" && !isIdle(port.rate);
    const kind = port.state === "up" ? "" : " other";
    attr(this.stem, "class", "stem" + (flows ? "" : " idle") + kind);
    attr(this.stem, "stroke-width", flows ? width(port.rate.tx_bps + port.rate.rx_bps).toFixed(1) : null);
    show(this.stem, port.network !== null);
  }
}

/** The steps of a cell's bar: changes of less than one are not drawn. */
const STEPS = 2 * (SIZE.cell - 2);

class Cell extends PortView {
  constructor(port) {
    super(port, "cell", SIZE.cell, SIZE.cell, 2);
    this.fill = s("rect", { class: "fill", x: 1, width: SIZE.cell - 2 });
    this.element.append(
      s("rect", { class: "box", x: 0.5, y: 0.5, width: SIZE.cell - 1, height: SIZE.cell - 1, rx: 1.5 }),
      this.fill,
    );
    this.level = -1;
  }

  update(port) {
    super.update(port);
    const tone = dropTone(perMinute(port));
    if (tone && !this.corner) {
      this.corner = s("path", { d: "M4 0h7v7z" });
      this.element.append(this.corner);
    }
    if (this.corner) {
      show(this.corner, tone !== "");
      attr(this.corner, "class", "corner " + tone);
    }
    const off = classOf(port) === "off";
    if (off && !this.cross) {
      this.cross = s("path", { class: "cross", d: "M3 3l5 5m0 -5l-5 5" });
      this.element.append(this.cross);
    }
    if (this.cross) show(this.cross, off);
    this.rates(port);
  }

  rates(port) {
    const rate = port.state === "up" ? Math.max(port.rate.tx_bps, port.rate.rx_bps) : 0;
    const level = rate <= IDLE ? 0 : Math.max(2, Math.round(STEPS * logPart(rate)));
    if (level === this.level) return;
    this.level = level;
    attr(this.fill, "height", level / 2);
    attr(this.fill, "y", SIZE.cell - 1 - level / 2);
  }
}

/** Makes the view of a port for a tier. */
export function viewOf(port, tier, hollow) {
  if (tier === "card") return new Card(port, hollow);
  return tier === "chip" ? new Chip(port) : new Cell(port);
}
