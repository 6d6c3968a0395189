// Shortens texts to a width in pixels, so that no name or address leaves its box.
// Widths are measured once for each character and font, in a canvas that is never drawn.

const FAMILY =
  '-apple-system,BlinkMacSystemFont,"Segoe UI",Roboto,"Noto Sans",Cantarell,Ubuntu,' +
  '"Liberation Sans","Helvetica Neue",Arial,sans-serif';

/** The fonts of the picture, as style.css has them. */
export const NAME = `600 12.5px ${FAMILY}`;
export const SMALL = `11px ${FAMILY}`;
export const BADGE = `650 11px ${FAMILY}`;

const canvas = document.createElement("canvas").getContext("2d");
const widths = new Map();

function ofFont(font) {
  let known = widths.get(font);
  if (!known) widths.set(font, (known = new Map()));
  return known;
}

/** The width of a text. Kerning is left out: it only makes texts narrower. */
export function measure(value, font) {
  const known = ofFont(font);
  let sum = 0;
  for (const character of value) {
    let one = known.get(character);
    if (one === undefined) {
      canvas.font = font;
      one = canvas.measureText(character).width;
      known.set(character, one);
    }
    sum += one;
  }
  return sum;
}

/** The text, or its beginning and its end with `…` between them. */
export function fitMiddle(value, font, room) {
  if (measure(value, font) <= room) return value;
  const characters = [...value];
  for (let keep = characters.length - 1; keep > 1; keep -= 1) {
    const head = Math.ceil(keep / 2);
    const short = characters.slice(0, head).join("") + "…" + characters.slice(head - keep).join("");
    if (measure(short, font) <= room) return short;
  }
  return "…";
}

const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i;

/** An address, shortened. Of a MAC address the end is kept: the beginning is the maker's. */
export function fitAddress(value, font, room) {
  if (MAC.test(value) && measure(value, font) > room) return "…" + value.slice(-8);
  return fitMiddle(value, font, room);
}

/** The text, or its beginning with `…`. */
export function fitEnd(value, font, room) {
  if (measure(value, font) <= room) return value;
  let sum = measure("…", font);
  let short = "";
  for (const character of value) {
    sum += measure(character, font);
    if (sum > room) break;
    short += character;
  }
  return short.trimEnd() + "…";
}
