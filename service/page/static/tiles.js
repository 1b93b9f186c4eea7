/** An image as a square: its picture, or a plain tile with its id where there is none. */

import { showPicture } from "./api.js";
import { make } from "./dom.js";

/**
 * @typedef {object} PageImage
 * @property {string} id
 * @property {string | null} label
 * @property {string | null} picture
 */

/** An id as its file is called: characters that no id has are in it as `=` and their bytes in hex. @param {string} id */
export function readable(id) {
  return id.replaceAll(/(?:=[0-9A-F]{2})+/g, (bytes) => {
    try {
      return decodeURIComponent(bytes.replaceAll("=", "%"));
    } catch {
      return bytes; // no UTF-8
    }
  });
}

/** @param {PageImage} image @param {string} alt */
export function tile(image, alt) {
  const plain = () => make("span", { class: "plain-tile", "aria-hidden": alt === "" ? "true" : null }, readable(image.id));
  if (!image.picture) return plain();
  const picture = make("img", { alt, loading: "lazy", draggable: "false" });
  // A thumbnail may have gone since it was listed; another site may not answer.
  picture.addEventListener("error", () => picture.replaceWith(plain()));
  void showPicture(picture, image.picture);
  return picture;
}
