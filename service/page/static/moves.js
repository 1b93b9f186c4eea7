/** All that moved, at a glance: a line for each image from its place before to that after. */

import { byId, shape } from "./dom.js";

const [WIDTH, HEIGHT] = [1000, 100];
const drawing = byId("moves");

/** @param {import("./board.js").Result[]} results @param {(id: string | null) => void} light */
export function prepareMoves(light) {
  drawing.addEventListener("pointerover", (event) => light(event.target.dataset.id ?? null));
  drawing.addEventListener("pointerleave", () => light(null));
}

/** @param {import("./board.js").Result[]} results */
export function showMoves(results) {
  const step = WIDTH / results.length;
  const at = (place) => ((place + 0.5) * step).toFixed(1);
  // What is right is drawn last, on top.
  const inOrder = [...results].sort((a, b) => Number(a.right) - Number(b.right));
  drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  drawing.replaceChildren(...inOrder.map((result) => shape("path", {
    class: `${directionOf(result)}${result.right ? " right" : ""}`,
    "data-id": result.id,
    d: `M${at(result.before)} 0C${at(result.before)} 50 ${at(result.after)} 50 ${at(result.after)} ${HEIGHT}`,
  })));
}

/** @param {string | null} id */
export function lightMove(id) {
  drawing.classList.toggle("lit", id !== null);
  for (const path of drawing.children) path.classList.toggle("on", path.dataset.id === id);
  // Last in the drawing is on top.
  const lit = drawing.querySelector(".on");
  if (lit && lit !== drawing.lastElementChild) drawing.append(lit);
}

/** @param {{before: number, after: number}} result */
export function directionOf({ before, after }) {
  if (before === after) return "same";
  return before > after ? "up" : "down";
}
