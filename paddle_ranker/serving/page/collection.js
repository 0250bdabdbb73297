// The index, as `GET /v1/index` describes it, and how the settings are read against it.

import { state } from "./address.js";
import { count, dateText, language, languageOf, quantity, say } from "./words.js";

export const index = {}; // what GET /v1/index says
export const CHOICES = { recall: [20, 50, 100, 200, 500], rank_top: [0, 10, 20, 50, 100], top_k: [10, 20, 50, 100] };

/** Return a stage's name; a vector field may have that of any text of the page. */
export const nameOf = (stage) => (["words", "vectors", "fused", "ranked"].includes(stage) ? say(stage) : stage);

/** Return the names of the searchers, once the index is known. */
export const searchers = () => index.searchers ?? ["words", "vectors"];

/** Return what is searched by: of what was chosen, that which the index has; all if that is nothing. */
export function searchedBy() {
  const chosen = searchers().filter((name) => state.use.split(",").includes(name));
  return chosen.length ? chosen : searchers();
}

/** Return how lists become one: what was chosen, else the server's own way. */
export const fusionOf = () => state.fusion || index.fusion || "weighted";

const NAMES = { recall: ["depth", "depth"], rank_top: ["rank_top", "pairs"], top_k: ["top_k", "hits"] }; // as default, as limit

/** Return the largest number that the server takes for a setting. */
const limitOf = (name) => (name === "rank_top" && index.ranker === null ? 0 : index.limits?.[NAMES[name][1]] ?? Infinity);

/** Return the server's own number for a setting, undefined until it is known. */
export const defaultOf = (name) => (index.defaults ? Math.min(index.defaults[NAMES[name][0]], limitOf(name)) : undefined);

/** Return the number of a setting: what was chosen, else the server's own. */
export const numberOf = (name) => state[name] ?? defaultOf(name);

export const isSortable = (field) => Boolean(field) && (isNumeric(field) || field.type === "date") && !field.list;

/** Return settings of an address without what the index does not have; a number above its limit is the limit. */
export function fitted(settings) {
  const own = (names, name) => (names === undefined || names.includes(name) ? name : "");
  const fit = { ...settings, fusion: own(index.fusions, settings.fusion) };
  fit.sort = !index.fields || isSortable(own(Object.keys(index.fields), fit.sort.replace(/^-/, "")) && index.fields[fit.sort.replace(/^-/, "")]) ? fit.sort : "";
  if (fit.from !== null) fit.from = Math.min(Math.floor(fit.from), (index.limits?.sorted ?? Infinity) - (fit.top_k ?? defaultOf("top_k") ?? 0)) || null;
  for (const name of Object.keys(NAMES)) {
    if (fit[name] === null) continue;
    fit[name] = Math.min(Math.floor(fit[name]), limitOf(name));
    if (fit[name] === defaultOf(name) || (!fit[name] && name !== "rank_top")) fit[name] = null;
  }
  return fit;
}

/** Return the numbers to choose from, as far as the server's limits allow them. */
export const choicesOf = (name) => CHOICES[name].filter((value) => value <= limitOf(name));

export const isNumeric = (field) => ["number", "integer", "float"].includes(field?.type);

/** Return a field's name as people read it. */
export const labelOf = (name) => index.fields?.[name]?.label || name;

export const nameWithUnit = (name) => labelOf(name) + (index.fields?.[name]?.unit ? ` (${index.fields[name].unit})` : "");

export const isNumber = (name, value) => typeof value === "string" && value && isNumeric(index.fields?.[name]) && Number.isFinite(Number(value));

/** Return a value of a field as people read it, with its unit. Tables have numbers as texts. */
export function tellOf(name, value) {
  if (Array.isArray(value)) return value.map((one) => tellOf(name, one)).join(", ");
  if (isNumber(name, value)) return tellOf(name, Number(value));
  if (typeof value === "boolean") return say(value ? "yes" : "no");
  const { type, unit } = index.fields?.[name] ?? {};
  if (typeof value === "number") return unit ? quantity(value, unit) : count(value);
  return type === "date" ? dateText(String(value)) : String(value);
}

const isWeb = (value) => /^https?:[/][/]/i.test(value) && URL.canParse(value);

/** Return the first address of the web among the values of a document's fields of a type, else null. */
function addressOf(fields, type) {
  const names = Object.keys(index.fields ?? {}).filter((name) => index.fields[name].type === type);
  return names.flatMap((name) => fields?.[name] ?? []).find(isWeb) ?? null;
}

/** Return the address that a document's title leads to: of a field of type `url`, else of the field `url`. */
export const linkOf = (fields) => addressOf(fields, "url") ?? (isWeb(fields?.url) ? fields.url : null);

/** Return the address of a document's picture, if the server's policy lets the page load it, else null. */
export function pictureOf(fields) {
  const address = addressOf(fields, "picture-url");
  if (!address) return null;
  const { origin, protocol, host } = new URL(address);
  const allows = (source) => {
    const [scheme, name] = source.split("//");
    return protocol === scheme && (!name || (name.startsWith("*.") ? host.endsWith(name.slice(1)) : host === name));
  };
  return origin === location.origin || (document.documentElement.dataset.pictures ?? "").split(" ").some(allows) ? address : null;
}

/** Return whether a field holds addresses, which are no text to read. */
export const isAddress = (name) => ["url", "picture-url"].includes(index.fields?.[name]?.type);

/** Return examples of queries: those in the visitor's language, where there are any. */
export function examples() {
  const all = index.examples ?? [];
  const own = all.filter((one) => (languageOf(one) === "zh") === (language === "zh"));
  return own.length ? own : all;
}
