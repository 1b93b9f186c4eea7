/** The page: a query comes in, both orders of its shortlist come out. */

import { get, key, pictureOf, post, Problem, sentence, showPicture } from "./api.js";
import { focusResult, prepareBoard, showBoard } from "./board.js";
import { byId, make } from "./dom.js";
import { arrowKeys, setStop } from "./keys.js";
import { closeMatches, prepareMatches, showMatches } from "./matches.js";
import { showTimes } from "./times.js";

/**
 * @typedef {object} Query
 * @property {string} name
 * @property {(image: HTMLImageElement) => void} show
 * @property {(signal: AbortSignal) => Promise<any>} describe the service's answer: query, keypoints
 * @property {Set<string> | null} relevant ids that are right, where that is known
 * @property {any} [described] kept: a second look needs no second extraction
 */

/** @type {any} */
let about = null;
/** @type {Query | null} */
let query = null;
/** @type {import("./board.js").Result[]} in the new order */
let results = [];
/** @type {import("./board.js").Result | null} */
let opened = null;
let running = new AbortController();
/** The browser's address of the picture that was dropped last. */
let dropped = "";

async function start() {
  prepareBoard((result) => void open(result));
  prepareMatches(
    (by) => {
      const next = opened && results[opened.after + by];
      if (next) void open(next);
    },
    () => {
      if (opened) focusResult(opened.id);
    },
  );
  prepareDrop();
  arrowKeys(byId("samples"));
  byId("samples").addEventListener("click", (event) => {
    const id = event.target.closest("button")?.dataset.id;
    if (id) location.hash = id;
  });
  window.addEventListener("hashchange", fromAddress);
  byId("size").addEventListener("change", () => void run());
  byId("dismiss").addEventListener("click", () => hideProblem());
  byId("again").addEventListener("click", () => {
    hideProblem();
    if (about) void run();
    else void load();
  });
  byId("ask-form").addEventListener("submit", () => {
    key.set(byId("key").value.trim());
    hideProblem();
    void (about ? run() : load());
  });
  await load();
}

async function load() {
  try {
    about = await get("page/about");
  } catch (error) {
    show(error);
    return;
  }
  byId("model").textContent = `model ${about.model}`;
  const samples = byId("samples");
  samples.replaceChildren(...about.queries.map(({ id }) => {
    const picture = make("img", { alt: "", loading: "lazy", draggable: "false" });
    void showPicture(picture, pictureOf("queries", id));
    const name = nameOf(id);
    return make("li", {}, make(
      "button", { type: "button", "data-id": id, title: name, "aria-label": name, "aria-pressed": "false" }, picture,
    ));
  }));
  setStop(samples);
  byId("samples-title").textContent = `Or pick one of ${about.queries.length} samples`;
  byId("samples-title").hidden = Boolean(about.no_sample);
  note("no-sample", about.no_sample && `${sentence(about.no_sample)} This page searches the sample collection only, which “locore serve --sample” makes. Other collections answer through the API.`);
  note("no-extraction", about.no_extraction && `Own images cannot be used here: ${about.no_extraction}.`);
  byId("drop-text").hidden = Boolean(about.no_extraction);
  byId("empty").hidden = Boolean(about.no_sample);
  fromAddress();
}

/** A sample is named in the address, so that a look at it can be passed on. */
function fromAddress() {
  const id = decodeURIComponent(location.hash.slice(1));
  const known = about?.queries.find((sample) => sample.id === id);
  if (!known) return;
  take({
    name: nameOf(id),
    show: (image) => void showPicture(image, pictureOf("queries", id)),
    describe: (signal) => get(`page/sample/descriptors/${encodeURIComponent(id)}`, signal),
    relevant: new Set(known.relevant),
  }, id);
}

/** @param {File} file */
function takeFile(file) {
  if (about?.no_extraction || about?.no_sample) return;
  URL.revokeObjectURL(dropped);
  const url = dropped = URL.createObjectURL(file);
  history.replaceState(null, "", location.pathname);
  take({
    name: file.name || "pasted image",
    show: (image) => { image.src = url; },
    describe: (signal) => {
      const most = about?.max_upload_bytes ?? Infinity;
      if (file.size > most) {
        const mega = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
        throw new Problem("payload_too_large", "This image is too large", `${file.name} has ${mega(file.size)}; the service takes ${mega(most)}. Make it smaller and drop it again.`, false);
      }
      return post("page/extract", file, signal);
    },
    relevant: null,
  }, null);
}

/** @param {Query} taken @param {string | null} sample */
function take(taken, sample) {
  query = taken;
  for (const button of byId("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.id === sample));
  }
  byId("chosen").hidden = false;
  byId("chosen-name").textContent = taken.name;
  const picture = byId("chosen-image");
  picture.alt = `The query ${taken.name}`;
  taken.show(picture);
  void run();
}

/** First stage, then re-ranking; a newer run ends an older one. */
async function run() {
  if (!query) return;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = query;
  hideProblem();
  byId("results").setAttribute("aria-busy", "true");
  say(`Re-ranking for ${asked.name} …`);
  try {
    asked.described ??= await asked.describe(signal);
    const top = Number(byId("size").value);
    const first = await post("page/shortlist", { query: asked.described.query, top }, signal);
    const ranked = await post("rerank", {
      collection: first.collection,
      query: asked.described.query,
      gallery_ids: first.results.map(({ id }) => id),
      global_scores: first.results.map(({ score }) => score),
    }, signal);
    showOutcome(asked, first, ranked);
  } catch (error) {
    if (!signal.aborted) show(error);
  } finally {
    if (!signal.aborted) byId("results").removeAttribute("aria-busy");
  }
}

function showOutcome(asked, first, ranked) {
  results = ranked.results.map(({ id, index, relevance_score: score }, after) => ({
    id, before: index, after, score,
    cosine: first.results[index].score,
    right: asked.relevant ? asked.relevant.has(id) : null,
  }));
  byId("empty").hidden = true;
  byId("outcome").hidden = false;
  byId("outcome").classList.toggle("unknown", !asked.relevant);
  const verdict = inWords(asked, first);
  byId("verdict").replaceChildren(...verdict);
  showBoard([...results].sort((a, b) => a.before - b.before));
  showTimes(asked.described.ms, first.ms, ranked.timings_ms);
  say(`${byId("verdict").textContent} ${ranked.results.length} images re-ranked in ${Math.round(ranked.timings_ms.total)} milliseconds.`);
}

/** What has changed, in a sentence. */
function inWords(asked, first) {
  const moved = results.filter((result) => result.before !== result.after).length;
  const all = `${results.length} of ${first.images} images`;
  if (!asked.relevant) return [`${moved} of the ${results.length} nearest images moved.`];
  const right = asked.relevant.size;
  const among = (side) => results.filter((result) => result[side] < right && result.right).length;
  return [
    "Right among the first ", `${right}: `, make("strong", {}, String(among("before"))), " before, ",
    make("strong", { class: among("after") > among("before") ? "up" : "" }, String(among("after"))),
    " after re-ranking. ", make("span", { class: "muted" }, `${all} in the shortlist.`),
  ];
}

/** @param {import("./board.js").Result} result */
async function open(result) {
  opened = result;
  const asked = query;
  if (!asked) return;
  const { query: descriptors, keypoints } = asked.described;
  const coming = post("page/matches", { query: descriptors, keypoints, id: result.id });
  try {
    await showMatches(
      result, asked.show, coming.then((found) => found.matches),
      { first: result.after === 0, last: result.after === results.length - 1 },
    );
  } catch (error) {
    closeMatches();
    show(error);
  }
}

function prepareDrop() {
  const over = byId("over");
  const withFiles = (event) => event.dataTransfer?.types.includes("Files") && !about?.no_extraction && !about?.no_sample;
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
    if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
  window.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) takeFile(file);
  });
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) takeFile(file);
    event.target.value = ""; // the same file can be chosen again
  });
  byId("chosen-image").addEventListener("error", () => byId("chosen").classList.add("unseen"));
  byId("chosen-image").addEventListener("load", () => {
    byId("chosen").classList.remove("unseen");
    // The picture has taken room from the samples: the one that was picked stays in sight.
    byId("samples").querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

function show(error) {
  const problem = error instanceof Problem
    ? error
    : new Problem("page", "The page has a defect", String(error?.message ?? error));
  if (!(error instanceof Problem)) console.error(error);
  if (problem.code === "unauthorized") {
    byId("key").value = "";
    byId("ask-title").textContent = key.get() ? "That key is not the right one" : problem.title;
    if (!byId("ask").open) byId("ask").showModal();
  }
  byId("problem-title").textContent = problem.title;
  byId("problem-text").textContent = problem.text;
  byId("again").hidden = !problem.again;
  byId("problem").hidden = false;
  say("");
}

function hideProblem() {
  byId("problem").hidden = true;
}

function note(id, text) {
  byId(id).hidden = !text;
  byId(id).textContent = text ?? "";
}

function say(text) {
  byId("status").textContent = text;
}

/** `retina-1.jpg` is `retina 1` to a person. @param {string} id */
function nameOf(id) {
  return id.replace(/\.\w+$/, "").replaceAll(/[-_]/g, " ");
}

void start();
