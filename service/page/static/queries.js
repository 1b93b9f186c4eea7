/** What can be searched with: an image of a collection, a query of the sample, a file. */

import { get, post, Problem, withQuery } from "./api.js";
import { readable } from "./tiles.js";

const EXTRACT_MS = 60_000;

/**
 * @typedef {object} Query
 * @property {string} id
 * @property {string} name
 * @property {string | null} label
 * @property {string | null} picture
 * @property {string | null} without the image that is left out of the results: the query itself
 * @property {string | null} address what names it in the page's address; null of a file
 * @property {any} [described] query, keypoints: kept, as a second look needs no second extraction
 * @property {(signal: AbortSignal) => Promise<any>} describe
 */

/** @param {string} collection @param {string} id @returns {Promise<Query>} */
export async function storedQuery(collection, id, signal) {
  const image = await get(withQuery("page/image", { collection, id }), signal);
  return {
    ...image, name: readable(id), without: id, address: addressOf({ collection, image: id }),
    described: image, describe: async () => image,
  };
}

/** @param {string} collection @param {import("./tiles.js").PageImage} image @returns {Query} */
export function sampleQuery(collection, image) {
  return {
    ...image, name: nameOf(image.id), without: null,
    address: addressOf({ collection, query: image.id }),
    describe: (signal) => get(withQuery("page/sample/query", { id: image.id }), signal),
  };
}

/** @param {File} file @param {string} url where the browser has it @param {number} maxBytes @returns {Query} */
export function fileQuery(file, url, maxBytes) {
  return {
    id: file.name || "pasted image", name: file.name || "pasted image", label: null, picture: url,
    without: null, address: null,
    describe: (signal) => {
      if (file.size > maxBytes) {
        const mega = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
        throw new Problem("payload_too_large", "This image is too large", `${file.name} has ${mega(file.size)}; the service takes ${mega(maxBytes)}. Make it smaller and drop it again.`, false);
      }
      return post(withQuery("extract", { timeout_ms: EXTRACT_MS }), file, signal);
    },
  };
}

/** @param {Record<string, string>} parts */
export function addressOf(parts) {
  return `#${new URLSearchParams(parts)}`;
}

/** `retina-1.jpg` is `retina 1` to a person. @param {string} id */
function nameOf(id) {
  return id.replace(/\.\w+$/, "").replaceAll(/[-_]/g, " ");
}
