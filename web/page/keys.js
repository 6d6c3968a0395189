// The keyboard: search, arrows in the picture and in the list, the views, and closing.
// Keys of one letter do nothing while a text is typed.

const $ = (id) => document.getElementById(id);

/** `page`: view(), boards(), list, search(text), toggleView(), choose(), close(), readPanel(). */
export function listenToKeys(page) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    const done = event.key === "Escape" ? escape(page) : press(page, event);
    if (done) event.preventDefault();
  });
}

function escape(page) {
  if ($("search").value) {
    page.search("");
    return true;
  }
  return page.close();
}

function press(page, event) {
  const { target, key } = event;
  if (target.matches("input, select, textarea")) {
    if (target.id === "search" && (key === "Enter" || key === "ArrowDown")) return page.enterMatches();
    return false;
  }
  if (key === "/") {
    $("search").focus();
    $("search").select();
    return true;
  }
  if (key === "l") {
    page.toggleView();
    return true;
  }
  const port = target.closest(".port");
  if (port) return atPort(page, key, port.portName, port);
  if (target === page.list.grid) return atList(page, key);
  return false;
}

function atPort(page, key, name, element) {
  if (key === "Enter" || key === " ") {
    page.chooseOrRead({ kind: "port", name });
    return true;
  }
  const boards = page.boards();
  const at = boards.findIndex((board) => board.element.contains(element));
  const board = boards[at];
  if (!board || !/^(Arrow(Up|Down|Left|Right)|Home|End)$/.test(key)) return false;
  if (board.move(key, name)) return true;
  const step = key === "ArrowDown" ? 1 : -1;
  const x = board.places.get(name).x;
  for (let next = at + step; boards[next]; next += step) {
    if (boards[next].enter(x, step < 0)) break;
  }
  return true;
}

function atList(page, key) {
  const name = page.list.current;
  if ((key === "Enter" || key === " ") && name !== null) {
    page.chooseOrRead({ kind: "port", name });
    return true;
  }
  return page.list.move(key);
}
