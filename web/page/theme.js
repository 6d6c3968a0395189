// Dark and light: as the system has it, until the button chooses otherwise.
// The choice is kept in the browser; choosing the system's colours forgets it.

const dark = matchMedia("(prefers-color-scheme: dark)");

const system = () => (dark.matches ? "dark" : "light");
const current = () => document.documentElement.dataset.theme ?? system();

function keep(theme) {
  try {
    if (theme === system()) localStorage.removeItem("theme");
    else localStorage.setItem("theme", theme);
  } catch {
    // Storage may be forbidden: the choice lasts as long as the page.
  }
}

/** Makes the button switch; `changed()` is called after each switch. */
export function themeButton(button, changed) {
  const label = () => {
    const other = current() === "dark" ? "Light" : "Dark";
    button.textContent = other;
    button.setAttribute("aria-label", `${other} colours`);
  };
  button.addEventListener("click", () => {
    const next = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    keep(next);
    label();
    changed();
  });
  dark.addEventListener("change", () => {
    label();
    changed();
  });
  label();
}
