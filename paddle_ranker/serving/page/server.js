// Requests to the server: the key, refusals, and what a browser keeps.

/** A refusal or failure of the server: `kind` says how to tell it, `status` is HTTP's, `retryAfter` is in
 *  seconds, `type` and `field` are the server's name for the reason and the part of the request that it is about. */
export class Failure extends Error {
  constructor(kind, message = "", status = 0, retryAfter = 0, { error_type: type = "", field = "" } = {}) {
    super(message);
    Object.assign(this, { kind, status, retryAfter, type, field });
  }
}

export const localStorageOf = () => localStorage;
const sessionStorageOf = () => sessionStorage;

/** Return what a storage keeps under a name, and keep `value` there if it is given; some browsers keep nothing. */
export function kept(storageOf, name, value) {
  try {
    if (value !== undefined) storageOf().setItem(name, value);
    return storageOf().getItem(name);
  } catch {
    return null;
  }
}

/** Return the server's key, which stays until the tab is closed. */
const keptKey = (given) => kept(sessionStorageOf, "key", given);

/** Try a key with the next requests. */
export const tryKey = (key) => (triedKey = key);

/** Return whether a key was given, right or wrong. */
export const hasKey = () => Boolean(triedKey ?? keptKey());

let triedKey = null; // one that was typed, until an answer shows that it is right: only then it is kept

/** Ask the server; return the JSON of its answer. Throws `Failure`, or an `AbortError` where `signal` ends it. */
export async function ask(path, { method = "GET", body, signal, keepalive } = {}) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const key = triedKey ?? keptKey();
  if (/[^ -~]/.test(key ?? "")) throw new Failure("needs_key"); // no header can hold it: an IME was on
  if (key) headers["X-API-Key"] = key;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, keepalive, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("gone");
  }
  const content = await response.text().then(JSON.parse).catch((error) => { // sooner there than `json()`
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && content !== null) {
    if (key && key === triedKey) (keptKey(key), (triedKey = null));
    return content;
  }
  const kinds = { 401: "needs_key", 404: "refused", 429: "busy", 502: "gone", 503: "busy", 504: "busy" };
  const kind = response.ok ? "unread" : kinds[response.status] ?? (response.status < 500 ? "refused" : "failed");
  throw new Failure(kind, content?.message ?? "", response.status, Number(response.headers.get("Retry-After")) || 0, content ?? {});
}

/** Tell the log of an event; where nothing is logged, nothing is sent. Returns whether it was taken. */
export async function sendFeedback(index, content) {
  if (!index.logging) return false;
  await ask("v1/feedback", { method: "POST", body: content, keepalive: true });
  return true;
}
