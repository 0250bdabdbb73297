// The settings of a search, which stand in the address.

import { kept, localStorageOf } from "./server.js";

// null: the server's own number, which `GET /v1/index` says.
export const DEFAULTS = { q: "", use: "", fusion: "", recall: null, rank_top: null, top_k: null, from: null, filter: "{}", min: 0, stage: "", open: "", literal: "", group_by: "", sort: "", how: "", like: "" };
export const state = { ...DEFAULTS };
const LONG = 4000; // characters of an address that servers and people take; a longer query stays in the history alone
const SETTLED = 2000; // milliseconds after which what was typed is an entry of the history, which stays
let settling = 0; // the timer of the entry

/** Return the settings of the address; what is none of them is left at its default. */
export function readAddress() {
  const given = new URLSearchParams(location.search);
  if (history.state?.q) given.set("q", history.state.q);
  DEFAULTS.how = kept(localStorageOf, "how") ?? "";
  const read = { ...DEFAULTS };
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = given.get(name);
    if (value === null) continue;
    if (typeof usual === "string") read[name] = value;
    else if (value !== "" && Number(value) >= 0 && Number(value) < Infinity) read[name] = Number(value);
  }
  read.min = Math.min(read.min, 1);
  try {
    const filter = JSON.parse(read.filter);
    if (!filter || typeof filter !== "object" || Array.isArray(filter)) read.filter = DEFAULTS.filter;
  } catch {
    read.filter = DEFAULTS.filter;
  }
  return read;
}

/** Keep the settings in the address: `typed` entries replace each other, `chosen` ones do not, `same` adds none. */
export function remember(how) {
  const address = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) if (state[name] !== usual) address.set(name, state[name]);
  const given = new URLSearchParams(location.search).get("lang");
  if (given) address.set("lang", given);
  const entry = { scroll: how === "same" ? history.state?.scroll : 0, typed: how === "typed" || (how === "same" && Boolean(history.state?.typed)) };
  if (String(address).length > LONG) {
    address.delete("q");
    entry.q = state.q;
  }
  const next = `?${address}`;
  const isNew = (next !== (location.search || "?") || entry.q !== history.state?.q) && !(how === "same" || (how === "typed" && history.state?.typed));
  history[isNew ? "pushState" : "replaceState"](entry, "", next === "?" ? location.pathname : next);
  clearTimeout(settling);
  if (entry.typed) settling = setTimeout(() => history.replaceState({ ...history.state, typed: false }, ""), SETTLED);
}

/** Return the filter: an object without a prototype, since a field may have the name of anything in one. */
export const filterOf = () => Object.assign(Object.create(null), JSON.parse(state.filter));
