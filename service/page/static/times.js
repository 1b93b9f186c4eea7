/** Time by stage, as a bar and in figures. */

import { byId, make } from "./dom.js";

/**
 * @param {number | undefined} extraction milliseconds; a sample query needs none
 * @param {number} first the first stage's
 * @param {{decode: number, fetch: number, queue: number, inference: number, total: number}} rerank
 */
export function showTimes(extraction, first, rerank) {
  const { decode, fetch, queue, inference, total } = rerank;
  const rest = Math.max(0, total - decode - fetch - queue - inference);
  const stages = [
    ["extraction", "Extraction", extraction],
    ["first-stage", "First stage", first],
    ["decode", "Decode", decode],
    ["fetch", "Fetch", fetch],
    ["queue", "Queue", queue],
    ["inference", "Inference", inference],
    ["other", "Rest", rest],
  ].filter(([, , ms]) => ms !== undefined);
  const all = stages.reduce((sum, [, , ms]) => sum + ms, 0);
  byId("bar").replaceChildren(...stages.map(([name, , ms]) => {
    const part = make("span", { class: `t-${name}` });
    part.style.flexGrow = String(ms / all);
    return part;
  }));
  byId("stages").replaceChildren(
    ...stages.map(([name, label, ms]) => figure(label, ms, make("span", { class: `swatch t-${name}`, "aria-hidden": "true" }))),
    figure("Together", all, null),
  );
}

function figure(label, ms, swatch) {
  const text = ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0);
  return make("div", {}, make("dt", {}, swatch, label), make("dd", {}, `${text} ms`));
}
