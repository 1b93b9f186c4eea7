/** The dialog that shows which local descriptors of the query and of a result match. */

import { moveInWords } from "./board.js";
import { byId, make, shape } from "./dom.js";
import { arrowKeys, setStop } from "./keys.js";
import { readable, tile } from "./tiles.js";

/**
 * @typedef {object} Match
 * @property {[number, number] | null} query x and y, fractions of the picture; null where they are
 *   not known
 * @property {[number, number] | null} gallery
 * @property {number} cosine
 */

const dialog = byId("matches");
const stage = byId("stage");
const lines = byId("lines");
const pairs = byId("pairs");
const least = byId("least");
const frames = { query: byId("matches-query"), gallery: byId("matches-result") };

/** @type {Match[]} */
let matches = [];

/** @param {(by: number) => void} step @param {() => void} search @param {() => void} closed */
export function prepareMatches(step, search, closed) {
  byId("search-with").addEventListener("click", search);
  byId("matches-close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  dialog.addEventListener("close", closed);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target === least || event.target.closest(".pairs")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  arrowKeys(pairs);
  for (const name of ["pointerover", "focusin"]) {
    pairs.addEventListener(name, (event) => light(event.target.closest("button")?.dataset.place));
  }
  for (const name of ["pointerleave", "focusout"]) pairs.addEventListener(name, () => light());
  least.addEventListener("input", draw);
  // A load does not bubble, but it can be caught on its way down.
  stage.addEventListener("load", draw, true);
  new ResizeObserver(draw).observe(stage);
}

/**
 * @param {import("./board.js").Result} result
 * @param {import("./tiles.js").PageImage} query
 * @param {Promise<Match[]>} coming
 * @param {{first: boolean, last: boolean}} ends
 */
export async function showMatches(result, query, coming, ends) {
  const name = readable(result.id);
  matches = [];
  dialog.dataset.id = result.id;
  byId("matches-title").textContent = name;
  byId("matches-text").textContent = "Looking for matches …";
  byId("matches-result-name").textContent = result.label ? `${name} (${result.label})` : name;
  byId("previous").disabled = ends.first;
  byId("next").disabled = ends.last;
  frames.query.replaceChildren(tile(query, "The query"));
  frames.gallery.replaceChildren(tile(result, `The result ${name}`));
  if (!dialog.open) dialog.showModal();
  draw();
  const answer = await coming;
  // Another result may have been opened meanwhile.
  if (dialog.dataset.id !== result.id) return;
  matches = answer;
  const move = result.before === result.after ? moveInWords(result) : `${moveInWords(result)} from ${result.before + 1}`;
  const cosine = result.cosine === null ? "" : `, cosine of the globals ${result.cosine.toFixed(3)}`;
  const unplaced = matches.length && !placed(matches[0])
    ? " Where these descriptors lie in the pictures is not known, so there are no lines." : "";
  byId("matches-text").textContent = `Rank ${result.after + 1}, ${move}. Score ${result.score.toFixed(3)}${cosine}.${unplaced}`;
  draw();
}

export function closeMatches() {
  dialog.close();
}

function draw() {
  const floor = Number(least.value);
  byId("least-value").textContent = floor.toFixed(2);
  const visible = matches.filter((match) => match.cosine >= floor);
  const box = stage.getBoundingClientRect();
  lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const places = { query: pictureBox(frames.query), gallery: pictureBox(frames.gallery) };
  const at = (side, [x, y]) => [
    places[side].left - box.left + x * places[side].width,
    places[side].top - box.top + y * places[side].height,
  ];
  // The strongest are drawn last, on top.
  lines.replaceChildren(
    ...visible.flatMap((match, place) => (
      placed(match) ? [drawn(at("query", match.query), at("gallery", match.gallery), match.cosine, place)] : []
    )).reverse(),
  );
  pairs.replaceChildren(
    ...visible.map((match, place) => make("li", {}, make(
      "button",
      { type: "button", "data-place": place, "aria-label": `Match ${place + 1}, cosine ${match.cosine.toFixed(2)}` },
      swatch(match.cosine), match.cosine.toFixed(2),
    ))),
  );
  setStop(pairs);
  const none = matches.length ? "No match is as strong as this." : "";
  if (!visible.length) pairs.append(make("li", { class: "none" }, none));
}

/** @param {Match} match */
function placed(match) {
  return match.query !== null && match.gallery !== null;
}

/** Where the picture itself is: a tall one leaves room beside it in its element. */
function pictureBox(frame) {
  const image = frame.querySelector("img");
  const box = (image ?? frame).getBoundingClientRect();
  if (!image?.naturalWidth) return box;
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
}

function drawn([x1, y1], [x2, y2], cosine, place) {
  const group = shape("g", { "data-place": place, class: strength(cosine) });
  for (const name of ["halo", "core"]) {
    group.append(
      shape("line", { class: name, x1, y1, x2, y2 }),
      shape("circle", { class: name, cx: x1, cy: y1, r: 4 }),
      shape("circle", { class: name, cx: x2, cy: y2, r: 4 }),
    );
  }
  return group;
}

function swatch(cosine) {
  return make("span", { class: `swatch ${strength(cosine)}`, "aria-hidden": "true" });
}

/** One of four classes, s1 (weak) to s4. @param {number} cosine */
function strength(cosine) {
  return `s${1 + [0.5, 0.65, 0.8].filter((bound) => cosine >= bound).length}`;
}

/** @param {string} [place] */
function light(place) {
  lines.classList.toggle("lit", place !== undefined);
  for (const group of lines.children) group.classList.toggle("on", group.dataset.place === place);
}
