/** The images that a person can pick as the query: the sample's queries, or a collection's images. */

import { get, withQuery } from "./api.js";
import { inFigures } from "./collections.js";
import { byId, make } from "./dom.js";
import { arrowKeys, setStop } from "./keys.js";
import { readable, tile } from "./tiles.js";

const AT_A_TIME = 60;
const list = byId("picks");
const more = byId("more");
const start = byId("start");

/** @type {{collection: string, next: string | null} | null} the collection that is shown; null for the sample */
let listing = null;
let newest = 0;

/** @param {(id: string) => void} picked @param {(error: unknown) => void} failed */
export function preparePicks(picked, failed) {
  arrowKeys(list);
  list.addEventListener("click", (event) => {
    const id = event.target.closest("button")?.dataset.id;
    if (id) picked(id);
  });
  more.addEventListener("click", () => {
    if (listing?.next) void append({ after: listing.next }).catch(failed);
  });
  byId("start-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const from = start.value.trim();
    list.replaceChildren();
    void append(from ? { start: from } : {}).catch(failed);
  });
}

/** @param {import("./tiles.js").PageImage[]} queries */
export function showSampleQueries(queries) {
  newest += 1;
  listing = null;
  title(`Or pick one of ${queries.length} sample queries`);
  list.replaceChildren(...queries.map(item));
  setStop(list);
  more.hidden = byId("start-form").hidden = true;
}

/** @param {import("./collections.js").Collection} collection */
export async function showImages(collection) {
  listing = { collection: collection.name, next: null };
  list.replaceChildren();
  more.hidden = true;
  start.value = "";
  showCount(collection);
  await append({});
}

/** Of the collection whose images are shown; those that have come meanwhile are behind "More". @param {import("./collections.js").Collection} collection */
export function showCount({ name, count }) {
  if (listing?.collection !== name) return;
  title(count === 1 ? "Or pick its one image" : `Or pick one of its ${inFigures(count)} images`);
  byId("start-form").hidden = count <= AT_A_TIME;
  const ids = list.querySelectorAll("button");
  if (listing.next || !ids.length || start.value || ids.length >= count) return;
  listing.next = ids[ids.length - 1].dataset.id;
  more.hidden = false;
}

/** @param {string | null} id */
export function markPicked(id) {
  for (const button of list.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.id === id));
  }
}

export function pickedInSight() {
  list.querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** @param {{after?: string, start?: string}} from */
async function append(from) {
  const mine = newest += 1;
  const collection = listing?.collection;
  const page = await get(withQuery("page/images", { collection, limit: AT_A_TIME, ...from }));
  if (mine !== newest || !listing) return;
  const items = page.images.map(item);
  const stop = list.querySelector('[tabindex="0"]');
  list.append(...items);
  setStop(list, stop ?? undefined);
  if (!list.children.length) list.append(make("li", { class: "none" }, "No id comes after this."));
  listing.next = page.next;
  more.hidden = !page.next;
  if (from.after) items[0]?.querySelector("button").focus();
}

function item(image) {
  const name = image.label ? `${readable(image.id)}, ${image.label}` : readable(image.id);
  return make("li", {}, make(
    "button", { type: "button", "data-id": image.id, title: name, "aria-label": name, "aria-pressed": "false" }, tile(image, ""),
  ));
}

function title(text) {
  byId("picks-title").textContent = text;
  byId("picks-title").hidden = !text;
}
