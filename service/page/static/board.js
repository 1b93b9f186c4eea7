/** Both orders of a shortlist side by side, and what moved between them. */

import { byId, make } from "./dom.js";
import { arrowKeys, setStop } from "./keys.js";
import { directionOf, lightMove, prepareMoves, showMoves } from "./moves.js";
import { readable, tile } from "./tiles.js";

/**
 * @typedef {object} Result
 * @property {string} id
 * @property {string | null} label
 * @property {string | null} picture
 * @property {number} before place in the first stage's order, from 0
 * @property {number} after place in the new order
 * @property {number | null} cosine null where the first stage is by ids
 * @property {number} score the re-ranker's
 * @property {boolean | null} right whether it has the query's label; null where nobody knows
 */

export const FIRST = 10;
const lists = { before: byId("first"), after: byId("second") };

/** @param {(result: Result) => void} open */
export function prepareBoard(open) {
  prepareMoves(light);
  for (const list of Object.values(lists)) {
    arrowKeys(list);
    list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) open(button.result);
    });
    for (const name of ["pointerover", "focusin"]) {
      list.addEventListener(name, (event) => light(event.target.closest("button")?.dataset.id ?? null));
    }
    for (const name of ["pointerleave", "focusout"]) list.addEventListener(name, () => light(null));
  }
}

/** @param {Result[]} results */
export function showBoard(results) {
  for (const [side, list] of Object.entries(lists)) {
    const inOrder = [...results].sort((a, b) => a[side] - b[side]);
    const cards = inOrder.map((result) => card(result, side));
    if (cards.length > FIRST) cards[FIRST - 1].classList.add("tenth");
    list.replaceChildren(...cards);
    setStop(list);
  }
  showMoves(results);
}

/** Focus a result in the new order. @param {string} id */
export function focusResult(id) {
  lists.after.querySelector(`button[data-id="${CSS.escape(id)}"]`)?.focus();
}

/** @param {Result} result */
export function moveInWords(result) {
  const by = result.before - result.after;
  if (by === 0) return "in the same place as before";
  return by > 0 ? `up ${by}` : `down ${-by}`;
}

function card(result, side) {
  const score = side === "before" ? result.cosine : result.score;
  const button = make(
    "button",
    { type: "button", class: "card", "data-id": result.id, title: result.label ? `${readable(result.id)} (${result.label})` : readable(result.id) },
    make("span", { class: "picture" }, tile(result, readable(result.id)), ...(result.right ? signAndWords("right-mark", "✓", ", right") : [])),
    make(
      "span", { class: "line" },
      make("span", { class: "rank" }, unseen(", rank "), String(1 + result[side])),
      ...(side === "after" ? signAndWords(directionOf(result), arrow(result), `, ${moveInWords(result)}`) : []),
    ),
    score === null ? null : make("span", { class: "score" }, unseen(side === "before" ? ", cosine " : ", score "), score.toFixed(3)),
  );
  button.result = result;
  return make("li", {}, button);
}

/** A sign for the eye and words for the ear. */
function signAndWords(kind, sign, words) {
  return [make("span", { class: kind, "aria-hidden": "true" }, sign), unseen(words)];
}

function unseen(words) {
  return make("span", { class: "away" }, words);
}

function arrow(result) {
  const by = result.before - result.after;
  if (by === 0) return "=";
  return by > 0 ? `▲ ${by}` : `▼ ${-by}`;
}

/** @param {string | null} id */
function light(id) {
  for (const list of Object.values(lists)) {
    for (const button of list.querySelectorAll("button")) button.classList.toggle("on", button.dataset.id === id);
  }
  lightMove(id);
}
