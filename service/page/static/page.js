/** The page: a query comes in, both orders of its shortlist come out. */

import { get, key, post, Problem } from "./api.js";
import { focusResult, prepareBoard, showBoard } from "./board.js";
import { limitsOf, listCollections, prepareCollections, showCollections } from "./collections.js";
import { byId } from "./dom.js";
import { prepareDrop } from "./drop.js";
import { closeMatches, prepareMatches, showMatches } from "./matches.js";
import { markPicked, pickedInSight, preparePicks, showCount, showImages, showSampleQueries } from "./picks.js";
import { addressOf, fileQuery, sampleQuery, storedQuery } from "./queries.js";
import { tile } from "./tiles.js";
import { showTimes } from "./times.js";
import { detailsOf, verdictOf } from "./verdict.js";
import { watchCollections } from "./watch.js";

/** @type {any} */
let about = null;
/** @type {import("./collections.js").Collection[]} */
let collections = [];
/** @type {import("./collections.js").Collection | null} */
let current = null;
/** @type {import("./queries.js").Query | null} */
let query = null;
/** @type {import("./board.js").Result[]} in the new order */
let results = [];
/** @type {import("./board.js").Result | null} */
let opened = null;
let noExtraction = false;
let visit = 0;
let running = new AbortController();
/** The browser's address of the picture that was dropped last. */
let dropped = "";

async function start() {
  prepareCollections((name) => { location.hash = addressOf({ collection: name }); });
  preparePicks((id) => { location.hash = addressOfPick(id); }, show);
  prepareBoard((result) => void open(result));
  prepareMatches(
    (by) => {
      const next = opened && results[opened.after + by];
      if (next) void open(next);
    },
    () => {
      const asked = opened;
      opened = null;
      closeMatches();
      if (asked && current) location.hash = addressOf({ collection: current.name, image: asked.id });
    },
    () => {
      if (opened) focusResult(opened.id);
    },
  );
  prepareDrop(() => Boolean(about && !noExtraction && current), takeFile);
  // Once the picture has taken room from the picks, the one that was picked stays in sight.
  byId("chosen-image").addEventListener("load", pickedInSight, true);
  window.addEventListener("hashchange", () => void fromAddress());
  byId("size").addEventListener("change", () => void run());
  byId("dismiss").addEventListener("click", hideProblem);
  byId("again").addEventListener("click", again);
  byId("ask-form").addEventListener("submit", () => {
    key.set(byId("key").value.trim());
    again();
  });
  await load();
}

function again() {
  hideProblem();
  if (about && current && query) void run();
  else void load();
}

async function load() {
  try {
    [about, collections] = [await get("page/about"), await listCollections()];
  } catch (error) {
    show(error);
    return;
  }
  byId("model").textContent = `model ${about.model}`;
  void askOfExtraction();
  await fromAddress();
  watchCollections(collections, (changed) => void takeUp(changed));
}

/** Images have come or gone. @param {import("./collections.js").Collection[]} changed */
async function takeUp(changed) {
  collections = changed;
  current = collections.find(({ name }) => name === current?.name) ?? current;
  if (!current) {
    await load();
    return;
  }
  showCollections(collections, current.name);
  if (current.name !== about.sample) showCount(current);
}

/** Nobody waits for this: the extractor takes seconds to start. */
async function askOfExtraction() {
  const { problem } = await get("page/extraction").catch(() => ({ problem: null }));
  noExtraction = problem !== null;
  note("no-extraction", problem && `Own images cannot be used here: ${problem}.`);
  byId("drop-text").hidden = noExtraction;
}

/** A look is named in the address, so that it can be passed on. */
async function fromAddress() {
  const mine = visit += 1;
  const asked = new URLSearchParams(location.hash.slice(1));
  const name = asked.get("collection");
  const target = collections.find((one) => one.name === name || one.aliases.includes(name ?? ""))
    ?? (name ? null : collections.find((one) => one.name === about.sample) ?? collections[0]);
  byId("nothing").hidden = collections.length > 0;
  byId("query").hidden = !collections.length;
  if (name && !target && collections.length) {
    if (!current) showCollections(collections, undefined);
    show(new Problem("no_collection", "There is no such collection", `“${name}” is not there, or has no images yet. Choose another one.`));
  }
  byId("query-title").hidden = byId("drop").hidden = byId("empty").hidden = !(current ?? target);
  if (query) byId("empty").hidden = true;
  try {
    if (target && target !== current) await choose(target);
    const picked = current && await queryFrom(asked);
    // The address may have changed again meanwhile.
    if (mine === visit) await take(picked);
  } catch (error) {
    show(error);
  }
}

/** @param {URLSearchParams} asked */
async function queryFrom(asked) {
  const [image, name] = [asked.get("image"), asked.get("query")];
  if (image) return storedQuery(current.name, image);
  const known = name && current.name === about.sample && about.queries.find(({ id }) => id === name);
  return known ? sampleQuery(about.sample, known) : null;
}

/** @param {import("./collections.js").Collection} collection */
async function choose(collection) {
  current = collection;
  showCollections(collections, collection.name);
  note("collection-note", limitsOf(collection, about.max_images));
  const own = query && query.address === null;
  if (!own) clear();
  if (collection.name === about.sample && about.queries.length) showSampleQueries(about.queries);
  else await showImages(collection);
  if (own) void run();
}

function clear() {
  running.abort();
  query = null;
  byId("chosen").hidden = byId("outcome").hidden = true;
  byId("empty").hidden = !collections.length;
  byId("results").removeAttribute("aria-busy");
  hideProblem();
}

/** @param {string} id */
function addressOfPick(id) {
  const ofSample = current.name === about.sample && about.queries.some((one) => one.id === id);
  return addressOf({ collection: current.name, [ofSample ? "query" : "image"]: id });
}

/** @param {File} file */
function takeFile(file) {
  URL.revokeObjectURL(dropped);
  dropped = URL.createObjectURL(file);
  history.replaceState(null, "", addressOf({ collection: current.name }));
  void take(fileQuery(file, dropped, about.max_upload_bytes));
}

/** @param {import("./queries.js").Query | null} picked */
async function take(picked) {
  if (!picked) return;
  query = picked;
  markPicked(picked.address === null ? null : picked.id);
  byId("chosen").hidden = false;
  byId("chosen-name").textContent = picked.name;
  byId("chosen-label").textContent = labelBeside(picked);
  byId("chosen-image").replaceChildren(tile(picked, `The query ${picked.name}`));
  await run();
}

/** The label, unless the name says it already. @param {import("./queries.js").Query} picked */
function labelBeside({ name, label }) {
  const plain = (text) => text.toLowerCase().replaceAll(/[-_ ]/g, " ");
  return label !== null && !plain(name).includes(plain(label)) ? label : "";
}

/** First stage, then re-ranking; a newer run ends an older one. */
async function run() {
  if (!query || !current) return;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const [asked, collection] = [query, current.name];
  hideProblem();
  byId("results").setAttribute("aria-busy", "true");
  say(`Re-ranking for ${asked.name} …`);
  try {
    asked.described ??= await asked.describe(signal);
    const top = Number(byId("size").value);
    const descriptors = asked.described.query;
    const first = await post("page/shortlist", { collection, query: descriptors, top, without: asked.without }, signal);
    if (!first.results.length) throw new Problem("nothing", "There is nothing to search in", "The collection has no other image than this one.", false);
    const scores = first.results.map(({ score }) => score);
    const ranked = await post("rerank", {
      collection: first.collection,
      query: descriptors,
      gallery_ids: first.results.map(({ id }) => id),
      ...(first.order === "globals" ? { global_scores: scores } : {}),
    }, signal);
    showOutcome(asked, first, ranked);
  } catch (error) {
    if (!signal.aborted) show(error);
  } finally {
    if (!signal.aborted) byId("results").removeAttribute("aria-busy");
  }
}

function showOutcome(asked, first, ranked) {
  const knows = asked.label !== null;
  results = ranked.results.map(({ index, relevance_score: score }, after) => {
    const { id, label, picture, score: cosine } = first.results[index];
    return { id, label, picture, before: index, after, score, cosine, right: knows ? label === asked.label : null };
  });
  byId("empty").hidden = true;
  byId("outcome").hidden = false;
  byId("outcome").classList.toggle("unknown", !knows);
  byId("verdict").replaceChildren(...verdictOf(results, asked.label));
  byId("details").textContent = detailsOf(results, asked.label, first);
  byId("first-order").textContent = first.order === "globals" ? "by cosine of the globals" : "by id";
  showBoard(results);
  showTimes(asked.described.ms, first.ms, ranked.timings_ms);
  say(`${byId("verdict").textContent} ${ranked.results.length} images re-ranked in ${Math.round(ranked.timings_ms.total)} milliseconds.`);
}

/** @param {import("./board.js").Result} result */
async function open(result) {
  opened = result;
  const asked = query;
  if (!asked || !current) return;
  const { query: descriptors, keypoints } = asked.described;
  const coming = post("page/matches", { collection: current.name, query: descriptors, keypoints, id: result.id });
  try {
    await showMatches(
      result, asked, coming.then((found) => found.matches),
      { first: result.after === 0, last: result.after === results.length - 1 },
    );
  } catch (error) {
    closeMatches();
    show(error);
  }
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

void start();
