/** What the page asks the service, and its errors in words for a person. */

const KEY = "locore-api-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** An error that can be shown: a title, a sentence, and whether trying again may help. */
export class Problem extends Error {
  /** @param {string} code @param {string} title @param {string} text @param {boolean} again */
  constructor(code, title, text, again = true) {
    super(title);
    this.code = code;
    this.title = title;
    this.text = text;
    this.again = again;
  }
}

/** @returns {Promise<Response>} @param {string} path @param {RequestInit} options */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(
      "unreachable", "The service does not answer", "It may have been stopped. Is it still running?",
    );
  }
  if (response.ok) return response;
  throw problemOf(response, (await response.json().catch(() => null))?.error);
}

/** @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/** @param {string} path @param {object | Blob} body @param {AbortSignal} [signal] */
export async function post(path, body, signal) {
  const raw = body instanceof Blob;
  // The browser knows a file's type by its name alone; the service looks into it.
  const type = raw ? "image/*" : "application/json";
  const sent = raw ? body : JSON.stringify(body);
  const headers = { "Content-Type": type };
  return (await ask(path, { method: "POST", body: sent, headers, signal })).json();
}

const pictures = new Map();

/**
 * Show a picture: a path of the service, for which `<img>` alone cannot send the key, or another
 * site's URL, which is never sent it.
 * @param {HTMLImageElement} image @param {string} path
 */
export async function showPicture(image, path) {
  image.dataset.path = path;
  if (!key.get() || /^[a-z]+:/.test(path)) {
    image.src = path;
    return;
  }
  if (!pictures.has(path)) {
    const download = ask(path).then((response) => response.blob()).then(URL.createObjectURL);
    pictures.set(path, download);
    download.catch(() => pictures.delete(path));
  }
  const url = await pictures.get(path).catch(() => "");
  // The same element may have been given another picture in the meantime.
  if (image.dataset.path === path) image.src = url;
}

/** @param {string} path @param {Record<string, string | number | null | undefined>} parameters */
export function withQuery(path, parameters) {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  return `${path}?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}`;
}

/** @param {Response} response @param {any} error */
function problemOf(response, error) {
  const code = error?.code ?? "unknown";
  const wait = Number(response.headers.get("Retry-After"));
  const soon = wait > 0 ? `Try again in ${wait} second${wait === 1 ? "" : "s"}.` : "Try again soon.";
  const request = response.headers.get("X-Request-ID");
  const message = error?.message ?? `HTTP ${response.status}`;
  switch (code) {
    case "unauthorized":
      return new Problem(code, "This service asks for a key", "The key is missing or wrong.");
    case "gallery_ids_missing":
      return new Problem(
        code, "These images are not there any more",
        "The collection has changed since it was searched. Search again.",
      );
    case "descriptor_dim_mismatch":
      return new Problem(
        code, "This picture does not go with the collection",
        `The collection’s descriptors have another length, so they come from another extractor than the service’s. ${sentence(message)}`, false,
      );
    case "too_many_images_to_search":
      return new Problem(
        code, "This collection is too large for the page",
        `${sentence(message)} Your own index gives the shortlist then, and POST /rerank takes it.`, false,
      );
    case "not_an_image":
      return new Problem(
        code, "This file is not an image that can be read",
        "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and JPEG 2000 can be. Is the file whole, and not a document?", false,
      );
    case "payload_too_large":
      return new Problem(
        code, "This image is too large", `${sentence(message)} Make it smaller and drop it again.`, false,
      );
    case "no_extractor":
      return new Problem(code, "Images cannot be extracted here", sentence(message), false);
    case "overloaded":
      return new Problem(code, "The service is busy", soon);
    case "not_ready":
    case "shutting_down":
    case "store_unavailable":
      return new Problem(code, "The service is not ready", `${sentence(message)} ${soon}`);
    case "deadline_exceeded":
      return new Problem(code, "This took too long", "The service gave up. Try again, or take a shorter shortlist.");
    default:
      return new Problem(
        code, response.status >= 500 ? "Something went wrong in the service" : "The service refused this",
        `${sentence(message)}${request ? ` In its log: request ${request}.` : ""}`,
      );
  }
}

/** @param {string} text */
export function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
