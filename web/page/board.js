// The ports of one network as a listbox: keeps a view for each port, and one tab stop.
// The picture and the overview above the list both use it.

import { s } from "./dom.js";
import { viewOf } from "./ports.js";

export class Board {
  views = new Map();
  places = new Map();
  #turn = 0;

  constructor(label) {
    this.element = s("g", { role: "listbox", "aria-label": label, "aria-orientation": "horizontal" });
    this.current = null;
  }

  /** Gives each port its view and place. */
  put(ports, places, tier, hollow) {
    const before = this.places.get(this.current);
    this.places = places;
    const fresh = [];
    for (const port of ports) {
      let view = this.views.get(port.name);
      if (!view) {
        view = viewOf(port, tier, hollow);
        view.moveTo(places.get(port.name));
        view.update(port);
        this.views.set(port.name, view);
        fresh.push(view.element);
        continue;
      }
      if (!samePlace(view.place, places.get(port.name))) view.moveTo(places.get(port.name));
      // While the picture is hidden it follows nothing.
      view.update(port);
    }
    this.element.append(...fresh);
    for (const [name, view] of this.views) {
      if (places.has(name)) continue;
      view.element.remove();
      this.views.delete(name);
    }
    if (!this.views.has(this.current)) this.current = this.heir(before);
    this.setCurrent(this.current);
  }

  /** The port that follows one that has gone from a place: the nearest in its row, or the first. */
  heir(place) {
    const names = this.order();
    if (!place || !names.length) return names[0] ?? null;
    const row = names.filter((name) => this.places.get(name).y === place.y);
    return this.#nearest(row.length ? row : names, place.x);
  }

  /** Brings a few labels up to date, so that all are within ten seconds. */
  describeSome() {
    this.#turn = (this.#turn + 1) % 10;
    let i = 0;
    for (const view of this.views.values()) {
      if (i % 10 === this.#turn && view.element !== document.activeElement) view.describe();
      i += 1;
    }
  }

  /** The names by row and column. */
  order() {
    const key = (name) => this.places.get(name);
    return [...this.views.keys()].sort((a, b) => key(a).y - key(b).y || key(a).x - key(b).x);
  }

  setCurrent(name) {
    this.views.get(this.current)?.element.setAttribute("tabindex", "-1");
    this.current = name;
    this.views.get(name)?.element.setAttribute("tabindex", "0");
  }

  focus(name) {
    this.setCurrent(name);
    const view = this.views.get(name);
    view?.describe();
    view?.element.focus();
  }

  /** Focuses the port nearest to a column, in the first row or the last. */
  enter(x, last) {
    const names = this.order();
    if (!names.length) return false;
    const row = this.places.get(last ? names.at(-1) : names[0]).y;
    this.focus(this.#nearest(names.filter((name) => this.places.get(name).y === row), x));
    return true;
  }

  #nearest(names, x) {
    const away = (name) => Math.abs(this.places.get(name).x - x);
    return names.reduce((best, name) => (away(name) < away(best) ? name : best));
  }

  /** Moves the focus by a key; returns false if the board ends there. */
  move(key, name) {
    const names = this.order();
    const here = this.places.get(name);
    const i = names.indexOf(name);
    if (key === "Home") return this.#go(names[0]);
    if (key === "End") return this.#go(names.at(-1));
    if (key === "ArrowRight") return this.#go(names[i + 1]);
    if (key === "ArrowLeft") return this.#go(names[i - 1]);
    const down = key === "ArrowDown";
    const beyond = names.filter((n) => {
      const y = this.places.get(n).y;
      return down ? y > here.y : y < here.y;
    });
    if (!beyond.length) return false;
    const row = this.places.get(down ? beyond[0] : beyond.at(-1)).y;
    return this.#go(this.#nearest(beyond.filter((n) => this.places.get(n).y === row), here.x));
  }

  #go(name) {
    if (name !== undefined) this.focus(name);
    return true;
  }
}

const samePlace = (a, b) =>
  a.x === b.x && a.y === b.y && a.stem === b.stem && a.note === b.note && a.vlan === b.vlan &&
  a.dots.length === b.dots.length && a.dots.every((dot, i) => dot.y === b.dots[i].y && dot.full === b.dots[i].full);
