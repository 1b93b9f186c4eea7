/** Both orders of a shortlist, one above the other, and lines between an image's two places. */

import { pictureOf, showPicture } from "./api.js";
import { byId, make, shape } from "./dom.js";
import { arrowKeys, setStop } from "./keys.js";

/**
 * @typedef {object} Result
 * @property {string} id
 * @property {number} before place in the first stage's order, from 0
 * @property {number} after place in the new order
 * @property {number} cosine
 * @property {number} score the re-ranker's
 * @property {boolean | null} right whether it shows the query's subject; null where nobody knows
 */

const HEIGHT = 96;
const board = byId("board");
const strips = { before: byId("first"), after: byId("second") };
const moves = byId("moves");

/** @param {(result: Result) => void} open */
export function prepareBoard(open) {
  for (const [side, strip] of Object.entries(strips)) {
    const other = side === "before" ? strips.after : strips.before;
    const towards = side === "before" ? "ArrowDown" : "ArrowUp";
    arrowKeys(strip, (button, pressed) => (pressed === towards ? cardOf(other, button.dataset.id) : null));
    strip.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) open(button.result);
    });
    for (const name of ["pointerover", "focusin"]) {
      strip.addEventListener(name, (event) => {
        const button = event.target.closest("button");
        if (button) light(button.dataset.id);
      });
    }
    for (const name of ["pointerleave", "focusout"]) strip.addEventListener(name, () => light(null));
  }
  new ResizeObserver(drawMoves).observe(strips.before);
}

/** @param {Result[]} results in the first stage's order */
export function showBoard(results) {
  const after = [...results].sort((a, b) => a.after - b.after);
  strips.before.replaceChildren(...results.map((result) => card(result, "before")));
  strips.after.replaceChildren(...after.map((result) => card(result, "after")));
  for (const strip of Object.values(strips)) setStop(strip);
  moves.replaceChildren(
    ...results.map((result) => shape("path", { class: direction(result), "data-id": result.id })),
  );
  board.scrollLeft = 0;
  drawMoves();
}

/** Focus a result in the new order. @param {string} id */
export function focusResult(id) {
  cardOf(strips.after, id)?.focus();
}

/** @param {Result} result */
export function moveInWords(result) {
  const by = result.before - result.after;
  if (by === 0) return "stayed";
  return by > 0 ? `up ${by}` : `down ${-by}`;
}

function card(result, side) {
  const picture = make("img", { alt: result.id, loading: "lazy", draggable: "false" });
  void showPicture(picture, pictureOf("gallery", result.id));
  const score = (side === "before" ? result.cosine : result.score).toFixed(3);
  const button = make(
    "button",
    { type: "button", class: "card", "data-id": result.id, title: result.id },
    make("span", { class: "picture" }, picture, ...(result.right ? said("right-mark", "✓", ", shows the query’s subject") : [])),
    make(
      "span", { class: "line" },
      make("span", { class: "rank" }, unseen(", rank "), String(1 + result[side])),
      ...(side === "after" ? said(direction(result), arrow(result), `, ${moveInWords(result)}`) : []),
    ),
    make("span", { class: "score" }, unseen(side === "before" ? ", cosine " : ", score "), score),
  );
  button.result = result;
  return make("li", {}, button);
}

/** A sign for the eye and words for the ear. */
function said(kind, sign, words) {
  return [make("span", { class: kind, "aria-hidden": "true" }, sign), unseen(words)];
}

function unseen(words) {
  return make("span", { class: "away" }, words);
}

function direction(result) {
  const by = result.before - result.after;
  if (by === 0) return "same";
  return by > 0 ? "up" : "down";
}

function arrow(result) {
  const by = result.before - result.after;
  if (by === 0) return "=";
  return by > 0 ? `▲ ${by}` : `▼ ${-by}`;
}

function drawMoves() {
  const first = strips.before.firstElementChild;
  if (!first) return;
  const second = first.nextElementSibling ?? first;
  const step = second.offsetLeft - first.offsetLeft || first.offsetWidth;
  const middle = first.offsetWidth / 2;
  const width = strips.before.scrollWidth;
  moves.setAttribute("width", width);
  moves.setAttribute("height", HEIGHT);
  moves.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const places = new Map([...strips.before.querySelectorAll("button")].map((b) => [b.dataset.id, b.result]));
  for (const path of moves.children) {
    const { before, after } = places.get(path.dataset.id);
    const [from, to] = [before * step + middle, after * step + middle];
    path.setAttribute("d", `M${from} 2C${from} ${HEIGHT / 2} ${to} ${HEIGHT / 2} ${to} ${HEIGHT - 2}`);
  }
}

function light(id) {
  board.classList.toggle("lit", id !== null);
  for (const marked of board.querySelectorAll("[data-lit]")) delete marked.dataset.lit;
  if (id === null) return;
  for (const element of board.querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) element.dataset.lit = "";
  // Last in the drawing is on top.
  const path = moves.querySelector("[data-lit]");
  if (path) moves.append(path);
}

function cardOf(strip, id) {
  return strip.querySelector(`button[data-id="${CSS.escape(id)}"]`);
}
