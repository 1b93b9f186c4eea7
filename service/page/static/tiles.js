/** An image as a square: its picture, or a plain tile with its id where there is none. */

import { showPicture } from "./api.js";
import { make } from "./dom.js";

/**
 * @typedef {object} Shown
 * @property {string} id
 * @property {string | null} label
 * @property {string | null} picture
 */

/** @param {Shown} shown @param {string} alt */
export function tile(shown, alt) {
  const plain = () => make("span", { class: "plain-tile", "aria-hidden": alt === "" ? "true" : null }, shown.id);
  if (!shown.picture) return plain();
  const picture = make("img", { alt, loading: "lazy", draggable: "false" });
  // A thumbnail may have gone since it was listed; another site may not answer.
  picture.addEventListener("error", () => picture.replaceWith(plain()));
  void showPicture(picture, shown.picture);
  return picture;
}
