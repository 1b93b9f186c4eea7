/** Looks for images that come while a person looks, as those of `locore serve --images`. */

import { listCollections } from "./collections.js";

const EVERY_MS = 3000;
const QUIET_LOOKS = 20;

let timer = 0;

/**
 * Looks again while there is nothing or something has changed of late, and when the person comes
 * back to the page.
 * @param {import("./collections.js").Collection[]} known
 * @param {(collections: import("./collections.js").Collection[]) => void} changed
 */
export function watchCollections(known, changed) {
  let quiet = 0;
  const later = () => {
    clearTimeout(timer);
    if (document.hidden || (known.length && quiet >= QUIET_LOOKS)) return;
    timer = setTimeout(() => void look(), EVERY_MS);
  };
  const look = async () => {
    // One that fails is as one that finds the same: what the person asks for says what is wrong.
    const collections = await listCollections().catch(() => known);
    quiet = JSON.stringify(collections) === JSON.stringify(known) ? quiet + 1 : 0;
    if (!quiet) changed(known = collections);
    later();
  };
  document.onvisibilitychange = () => {
    quiet = 0;
    later();
  };
  later();
}
