/** What re-ranking has changed, in sentences. */

import { FIRST } from "./board.js";
import { inFigures } from "./collections.js";
import { make } from "./dom.js";
import { directionOf } from "./moves.js";

/**
 * @param {import("./board.js").Result[]} results
 * @param {string | null} label the query's
 * @returns {(Node | string)[]}
 */
export function verdictOf(results, label) {
  const known = label !== null && results.some((result) => result.label !== null);
  if (!known) return moved(results);
  const first = Math.min(FIRST, results.length);
  const right = (side) => results.filter((result) => result[side] < first && result.right).length;
  const [before, after] = [right("before"), right("after")];
  const kind = after > before ? "up" : after < before ? "down" : "";
  return [
    `Right among the first ${first === 10 ? "ten" : first}: `,
    make("span", { class: "together" }, make("strong", {}, String(before)), " before,"), " ",
    make("span", { class: "together" }, make("strong", { class: kind }, String(after)), " after re-ranking."),
  ];
}

/**
 * @param {import("./board.js").Result[]} results
 * @param {string | null} label
 * @param {{images: number, searched: number, order: string}} first the first stage's answer
 */
export function detailsOf(results, label, first) {
  const right = results.filter((result) => result.right).length;
  const shortlist = `${results.length} of ${inFigures(first.images)} images`;
  const parts = [
    label === null
      ? `The shortlist has ${shortlist}.`
      : `The shortlist has ${shortlist}; ${right} of them ${right === 1 ? "is" : "are"} labelled “${label}”.`,
  ];
  if (label !== null) parts.push(...moved(results));
  if (first.order === "ids") parts.push("There are no globals to search by: these are the first images by their ids.");
  else if (first.searched < first.images) {
    parts.push(`${inFigures(first.images - first.searched)} images have no global and are left out.`);
  }
  return parts.join(" ");
}

function moved(results) {
  const count = (kind) => results.filter((result) => directionOf(result) === kind).length;
  return [`${count("up")} moved up, ${count("down")} down, ${count("same")} stayed.`];
}
