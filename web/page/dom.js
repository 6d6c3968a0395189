// Makes and changes elements. What the daemon says only ever becomes text: nothing here parses
// markup, and an attribute or text is written only if it differs, so idle parts cost nothing.

import { unnumbered } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** An HTML element; attributes that begin with `on` are listeners. */
export const h = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const s = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** A text node, to be changed by [`write`]. */
export const text = (value = "") => document.createTextNode(value);

/** Changes a text node. */
export function write(node, value) {
  const next = String(value);
  if (node.data !== next) node.data = next;
}

/** Changes the text of an element that holds nothing else. */
export function say(element, value) {
  const next = String(value);
  if (element.textContent !== next) element.textContent = next;
}

/** A text of which what stands between backticks is code. */
export const prose = (value) =>
  unnumbered(value).split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

/** Announces a text to screen readers. */
export const announce = (value) => say(document.getElementById("said"), value);

/** Sets an attribute; `null` removes it. */
export function attr(element, name, value) {
  if (value == null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const next = String(value);
    if (element.getAttribute(name) !== next) element.setAttribute(name, next);
  }
}

/** Shows or hides an element, HTML or SVG. */
export function show(element, shown) {
  if (element instanceof SVGElement) attr(element, "display", shown ? null : "none");
  else if (element.hidden === shown) element.hidden = !shown;
}

/**
 * Gives `parent` one child for each item, in order. A child that stays keeps its focus, since it is
 * neither made again nor moved without need. `known` maps keys to children between calls.
 */
export function keyed(parent, known, items, key, make, change) {
  const seen = new Set();
  let next = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    if (seen.has(name)) continue;
    seen.add(name);
    let part = known.get(name);
    if (!part) known.set(name, (part = make(item)));
    change?.(part, item);
    if (part.element === next) next = next.nextSibling;
    else parent.insertBefore(part.element, next);
  }
  for (const [name, part] of known) {
    if (seen.has(name)) continue;
    part.element.remove();
    known.delete(name);
  }
}

/** A button that copies a text. */
function copyButton(value) {
  const button = h("button", { type: "button", class: "copy", "aria-label": "Copy " + value }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(value)) ? "Copied" : "Select and copy";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

async function copy(value) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    // Without TLS only loopback has a clipboard; a text field serves the others.
    const field = h("textarea", { readonly: true, class: "sr" });
    field.value = value;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** A command line with its copy button. */
export const command = (line) => h("div", { class: "cmd" }, h("code", {}, line), copyButton(line));

/** A definition list's pair. */
export const pair = (term, ...value) => [h("dt", {}, term), h("dd", {}, ...value)];
