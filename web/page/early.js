// Sets the chosen colours before anything is drawn, so that the page does not flash.
// No module: those run after the first paint.

"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage may be forbidden: the system's colours serve.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
