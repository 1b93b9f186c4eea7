/** Pictures of one's own: dropped, pasted or chosen as files. */

import { byId } from "./dom.js";

/** @param {() => boolean} possible @param {(file: File) => void} onFile */
export function prepareDrop(possible, onFile) {
  const over = byId("over");
  const withFiles = (event) => event.dataTransfer?.types.includes("Files") && possible();
  const take = (file) => {
    if (file && possible()) onFile(file);
  };
  window.addEventListener("dragover", (event) => {
    if (!withFiles(event)) return;
    event.preventDefault();
    over.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over.hidden = true;
  });
  window.addEventListener("drop", (event) => {
    over.hidden = true;
    if (!withFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  window.addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
  byId("file").addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // the same file can be chosen again
  });
}
