// Joins the parts of the page: state comes in, is drawn in the next frame, and selections go round.
// All drawing of a second happens in one frame, which is measured as `trama-frame`.

import { LOGIN, whenSessionEnds } from "./api.js";
import { announce, command, h } from "./dom.js";
import { Head } from "./head.js";
import { listenToKeys } from "./keys.js";
import { List } from "./list.js";
import { Model } from "./model.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { matches, parse } from "./search.js";
import { Stream } from "./stream.js";
import { Strip } from "./strip.js";
import { themeButton } from "./theme.js";
import { Tip } from "./tip.js";
import { Trends } from "./trend.js";
import { count } from "./words.js";

/** From this number of ports on, the list comes first. */
const LIST_FIRST = 200;

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 860px)");

const model = new Model();
const trends = new Trends();
const main = $("main");

const page = {
  list: null,
  picture: null,
  view: null,
  query: null,
  returnTo: null,

  boards() {
    return page.picture.shown ? page.picture.boards() : page.list.boards();
  },

  show(view) {
    page.view = view;
    $("view-picture").setAttribute("aria-pressed", String(view === "picture"));
    $("view-list").setAttribute("aria-pressed", String(view === "list"));
    page.picture.element.hidden = view !== "picture";
    page.list.element.hidden = view !== "list";
    page.layOut();
  },

  toggleView() {
    page.show(page.view === "list" ? "picture" : "list");
    page.focusMain();
  },

  layOut() {
    if (!model.ready) return;
    if (page.picture.shown) page.picture.layOut();
    else page.list.layOut();
  },

  focusMain() {
    const port = main.querySelector('.port[tabindex="0"]');
    if (page.view === "list") page.list.grid.focus();
    else (port ?? main).focus();
  },

  search(text) {
    $("search").value = text;
    const query = parse(text);
    page.picture.search(query);
    page.list.search(query);
    page.query = query;
    page.countMatches();
  },

  countMatches() {
    const { query } = page;
    $("search").classList.toggle("counted", query !== null);
    let fits = 0;
    for (const port of model.ports.values()) if (matches(port, query)) fits += 1;
    const found = query === null ? "" : `${count(fits)} of ${count(model.ports.size)}`;
    if ($("found").firstChild?.textContent === found) return;
    $("found").replaceChildren(...(found ? [found, h("span", { class: "sr" }, " ports match")] : []));
  },

  /** Goes from the search to the first port that fits. */
  enterMatches() {
    if (page.view === "list") page.list.grid.focus();
    else {
      for (const board of page.picture.boards()) {
        const name = board.order().find((port) => !board.views.get(port).faded);
        if (name !== undefined) return board.focus(name) ?? true;
      }
    }
    return true;
  },

  choose(selection, gone) {
    if (narrow.matches && selection !== null && panel.selection === null) {
      page.returnTo = document.activeElement;
    }
    panel.show(selection, gone);
    const port = selection?.kind === "port" ? selection.name : null;
    page.picture.select(port);
    page.list.select(port);
    page.cover();
    const hash = selection ? `#${selection.kind}:${encodeURIComponent(selection.name)}` : location.pathname;
    history.replaceState(null, "", hash);
  },

  chooseOrRead(selection) {
    const again = panel.selection?.kind === selection.kind && panel.selection?.name === selection.name;
    if (again) panel.focus();
    else page.choose(selection);
  },

  close() {
    if (panel.selection === null) return false;
    const inside = $("panel").contains(document.activeElement);
    page.choose(null);
    if (inside || document.activeElement === document.body) page.focusBack();
    page.returnTo = null;
    return true;
  },

  /** Focuses what opened the panel, or the main part. */
  focusBack() {
    if (page.returnTo?.isConnected) page.returnTo.focus();
    else page.focusMain();
  },

  /** On a narrow screen the panel covers all, and what is behind it cannot be reached. */
  cover() {
    const open = panel.selection !== null;
    document.body.classList.toggle("open", open);
    const covered = open && narrow.matches;
    for (const id of ["head", "main", "strip"]) $(id).inert = covered;
    if (covered) panel.focus();
  },
};

const KINDS = new Map([["port", "Port"], ["network", "Network"], ["worker", "Worker"]]);

const actions = {
  choose: (selection) => (selection === null ? page.close() : page.choose(selection)),
  gone({ kind, name }) {
    const text = `${KINDS.get(kind)} ${name} was removed.`;
    announce(text);
    page.choose(null, text);
  },
};

/** Remembers what has the focus; the function returned moves the focus on if that was removed. */
function keepFocus() {
  const held = document.activeElement;
  const board = held.portName !== undefined && page.boards().find((one) => one.element.contains(held));
  const place = board && board.places.get(held.portName);
  const wasInPanel = $("panel").contains(held);
  const { selection } = panel;
  return () => {
    if (held.isConnected) return;
    if (wasInPanel && selection === panel.selection) panel.focus();
    else if (wasInPanel) page.focusBack();
    else if (board) followPort(held.portName, board, place);
    else page.focusMain();
  };
}

/** Focuses a port that hangs on another network now, or the next one if it was removed. */
function followPort(name, board, place) {
  const home = page.boards().find((one) => one.views.has(name));
  if (home) return home.focus(name);
  announce(`Port ${name} was removed.`);
  if (board.element.isConnected && board.views.size) board.focus(board.heir(place));
  else page.focusMain();
}

page.picture = new Picture(model, actions.choose);
page.list = new List(model, trends, actions.choose);
main.append(page.picture.element, page.list.element);
const panel = new Panel($("panel"), model, actions);
const strip = new Strip($("strip"), model, actions.choose);
const tip = new Tip($("tip"), model);

/** What the next frame draws. Changes that come while the page is hidden are joined to a whole. */
let pending = null;
let frames = 0;

function draw(touched) {
  if (pending === null) requestAnimationFrame(frame);
  pending = pending === null ? touched : { ...whole(), attention: true };
}

const whole = () => ({
  full: true, ports: new Set(model.ports.keys()), networks: new Set(model.networks.keys()),
  moved: new Set(), rates: [], edges: [], events: null,
});

function frame() {
  const began = performance.now();
  const touched = pending;
  pending = null;
  const restoreFocus = keepFocus();
  if (page.view === null) {
    page.show(narrow.matches || model.ports.size >= LIST_FIRST ? "list" : "picture");
    chooseFromAddress();
    $("waiting").hidden = true;
  } else {
    page.picture.update(touched);
    page.list.update(touched);
  }
  head.update();
  if (page.query !== null) page.countMatches();
  strip.update(touched);
  panel.update(touched);
  tip.update();
  restoreFocus();
  performance.measure("trama-frame", { start: began });
  // The browser keeps all of them.
  frames += 1;
  if (frames % 600 === 0) performance.clearMeasures("trama-frame");
}

function chooseFromAddress() {
  const [, kind, written] = /^#(port|network|worker):(.*)$/.exec(location.hash) ?? [];
  if (!kind) return;
  let name = written;
  try {
    name = decodeURIComponent(written);
  } catch {
    // Written by hand: it names nothing then.
  }
  const selection = { kind, name };
  if (panel.exists(selection)) page.choose(selection);
}

/** A daemon of another version has another page: loads it, once for each version. */
function reloadFor(version) {
  try {
    if (sessionStorage.getItem("reloaded-for") === version) return;
    sessionStorage.setItem("reloaded-for", version);
  } catch {
    return;
  }
  location.reload();
}

const stream = new Stream({
  state(view) {
    if (model.ready && view.version && view.version !== model.version) reloadFor(view.version);
    draw(model.load(view));
  },
  change(change) {
    const touched = model.apply(change);
    if (model.silence === null) trends.note(model.ports);
    draw(touched);
  },
  contact(contact) {
    if (!contact.lost) $("ended").hidden = true;
    head.contact(contact);
  },
  ended: () => ($("ended").hidden = false),
});
const head = new Head(model, stream, actions.choose);

whenSessionEnds((ended) => ($("ended").hidden = !ended));
$("login").replaceChildren(command(LOGIN));
themeButton($("theme"), () => panel.recolour());
$("view-picture").addEventListener("click", () => page.show("picture"));
$("view-list").addEventListener("click", () => page.show("list"));
$("search").addEventListener("input", (event) => page.search(event.target.value));
main.addEventListener("click", (event) => {
  const port = event.target.closest(".port");
  if (port) actions.choose({ kind: "port", name: port.portName });
});
new ResizeObserver(() => requestAnimationFrame(() => page.layOut())).observe(main);
narrow.addEventListener("change", () => {
  page.cover();
  page.layOut();
});
listenToKeys(page);
stream.start();
