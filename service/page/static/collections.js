/** The collections that there are, and what the page can do with each. */

import { get, withQuery } from "./api.js";
import { byId, make } from "./dom.js";

/**
 * @typedef {object} Collection
 * @property {string} name
 * @property {number} count
 * @property {{local: number, global: number | null} | null} sizes
 * @property {string[]} aliases
 */

const MOST_LISTED = 2000;
const select = byId("collection");

/** @returns {Promise<Collection[]>} those that have images, by name */
export async function listCollections() {
  const collections = [];
  let cursor = null;
  do {
    const page = await get(withQuery("collections", { limit: 500, cursor }));
    collections.push(...page.collections.filter(({ count }) => count > 0));
    cursor = page.next_cursor;
  } while (cursor && collections.length < MOST_LISTED);
  return collections;
}

/** @param {(name: string) => void} chosen */
export function prepareCollections(chosen) {
  select.addEventListener("change", () => chosen(select.value));
}

/** @param {Collection[]} collections @param {string | undefined} current */
export function showCollections(collections, current) {
  const none = current === undefined ? [make("option", { value: "" }, "Choose one")] : [];
  const options = collections.map((one) => make("option", { value: one.name, selected: one.name === current }, inWords(one)));
  select.replaceChildren(...none, ...options);
  select.disabled = none.length + options.length < 2;
}

function inWords({ name, count, aliases }) {
  const also = aliases.length ? `, also ${aliases.join(", ")}` : "";
  return `${name} (${inFigures(count)} ${count === 1 ? "image" : "images"}${also})`;
}

/** What a first stage cannot do here, in a sentence. @param {Collection} collection @param {number} most */
export function limitsOf(collection, most) {
  if (collection.count > most) {
    return `This collection has ${inFigures(collection.count)} images. The page searches up to ${inFigures(most)}: above that your own index gives the shortlist, and POST /rerank takes it.`;
  }
  if (!collection.sizes?.global) {
    return "These images have no globals, so the page has no first stage for them. It re-ranks the first images by their ids instead.";
  }
  return null;
}

/** @param {number} count */
export function inFigures(count) {
  return count.toLocaleString("en");
}
