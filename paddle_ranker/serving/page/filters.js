// What narrows a search: conditions on fields, the values of facets, and the order by a field.
// The search page loads this with the first search of an index that has fields.

import { filterOf, state } from "./address.js";
import { acts, countValues, likeOf, shown, tellLike } from "./answer.js";
import { index, isNumeric, isSortable, labelOf, nameWithUnit, tellOf } from "./collection.js";
import { $, button, make } from "./nodes.js";
import { cut, VALUE } from "./text.js";
import { count, dateText, say, wordsIn } from "./words.js";

/** Offer orders: by relevance, or of a list without a query its own, and by each number and date, in both directions. */
function fillSort() {
  const fields = Object.entries(index.fields ?? {}).filter(([, field]) => isSortable(field));
  const orders = fields.flatMap(([name, { type }]) => [[`-${name}`, type === "date" ? "newest" : "descending"], [name, type === "date" ? "oldest" : "ascending"]].map(([order, how]) => [order, say(how, { name: labelOf(name) })]));
  const isList = shown?.isFirst;
  const own = isList && fields.some(([, { type }]) => type === "date") ? [] : [["", say(isList ? "own_order" : "relevance")]];
  const chosen = state.sort || (isList && shown.answer.sort?.[0]) || "";
  $("sort").hidden = !orders.length;
  $("sort").querySelector("select").replaceChildren(...[...own, ...orders].map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}

let form = null; // filter_form.js, once somebody opens the form
$("filters").addEventListener("toggle", async () => {
  form ??= await import("./filter_form.js").catch(() => null);
  fillFilters();
});

/** Offer the orders, make a form of the declared fields, and list the conditions that hold, each with a button that
 *  removes it. */
export function fillFilters() {
  fillSort();
  const [filter, fields] = [filterOf(), Object.entries(index.fields ?? {})];
  const open = document.activeElement?.name;
  const counted = [...(index.facets ?? []), ...(index.more_facets ?? [])];
  const isFacet = (name, field) => counted.includes(name) && !isNumeric(field) && field.type !== "date";
  const others = fields.filter(([name, field]) => !isFacet(name, field)); // a facet's values are chosen there
  $("filters").hidden = !others.length;
  fillChips(filter);
  if (form && !$("filters").hidden) $("filters").lastElementChild.replaceChildren(...others.map(([name, field]) => form.filterInput(name, field, filter[name], setFilter)));
  if (open) $("filters").querySelector(`[name="${CSS.escape(open)}"]`)?.focus();
}

/** List the conditions that hold, value by value. A click removes one, or Delete where the focus is, which then goes to
 *  the next one. */
function fillChips(filter) {
  const place = [...$("chips").children].findIndex((chip) => chip.contains(document.activeElement));
  const chip = (told, remove) => make("li", {}, told, " ", button({ "aria-label": say("remove", { what: told }), onclick: remove, onkeydown: (event) => ["Delete", "Backspace"].includes(event.key) && (event.preventDefault(), remove()) }, "×"));
  const chips = Object.entries(filter).flatMap(([name, condition]) => {
    const values = Array.isArray(condition) && condition.length ? condition : [condition];
    return values.map((value) => chip(tellCondition(name, value), () => setFilter(name, oneOf(values.filter((one) => one !== value)))));
  });
  if (likeOf()) chips.unshift(chip(tellLike(), () => acts.searchLike("")));
  if (chips.length > 1) chips.push(make("li", { class: "all" }, button({ onclick: () => ((state.filter = "{}"), acts.search("chosen")) }, say("clear"))));
  $("chips").replaceChildren(...chips);
  if (place >= 0) (chips[Math.min(place, chips.length - 1)]?.querySelector("button") ?? $("query")).focus();
}

/** Return the condition of some values: one alone, several as a list, none as undefined. */
const oneOf = (values) => (values.length > 1 ? values : values[0]);

/** Return the conditions in words. */
export const tellFilters = () => Object.entries(filterOf()).map(([name, condition]) => tellCondition(name, condition)).join(", ");

const SIGNS = { gte: "≥", lte: "≤", gt: ">", lt: "<", in: "∈", ne: "≠" };

function tellCondition(name, condition) {
  if (!condition || typeof condition !== "object") return `${labelOf(name)} = ${cut(tellOf(name, condition), VALUE)}`;
  if (Array.isArray(condition)) return tellCondition(name, { in: condition });
  return Object.entries(condition).map(([sign, value]) => `${labelOf(name)} ${SIGNS[sign] ?? sign} ${cut(tellOf(name, value), VALUE)}`).join(", ");
}

/** Return whether values are counted among the documents that are shown. */
const isCounted = () => Boolean(shown?.answer.facets);

function setFilter(name, condition) {
  const filter = filterOf();
  if (condition === undefined) delete filter[name];
  else filter[name] = condition;
  state.filter = JSON.stringify(filter);
  setTimeout(acts.search, 0, "chosen"); // it makes the fields anew: by then the one that Tab goes to has the focus
}

const PAUSE = 200; // milliseconds after the last letter, before the server looks for values
const FACETS = 6; // values of a facet that are shown, until more are asked for
const SEARCHED = 12; // values; a facet that has more gets a field to look through them
const FOLDED = 3; // facets; more of them are folded up where the window is narrow, unless a value is chosen
let finding = 0; // the timer of a search for values
let isFolded = true;
let hasMore = false; // whether the facets are asked for that one search has no room for
let counted = { facets: {}, more: {}, found: {} }; // of the answer that is drawn; found: values with what was typed
const typed = new Map(); // by facet: what its values must contain
const unfolded = new Set(); // facets all of whose values are shown
const sameJson = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Draw the values of the facets with their counts: a click filters by one more, or takes that back. */
export function drawFacets(facets) {
  counted = { facets: facets ?? {}, more: {}, found: {} };
  typed.clear();
  fillSort();
  drawGroups();
  if (hasMore) countMore();
}

/** Count the values of further facets, as many at a time as a search takes. */
async function countMore() {
  const [mine, names, most] = [counted, index.more_facets ?? [], index.limits?.facets ?? 1];
  for (let at = 0; at < names.length && isCounted(); at += most) {
    const found = await countValues(names.slice(at, at + most)).catch(() => null);
    if (mine !== counted || !hasMore || !found) return;
    Object.assign(counted.more, found);
    drawGroups();
  }
}

function drawGroups() {
  const focused = $("facets").contains(document.activeElement) && document.activeElement;
  const groups = Object.entries({ ...counted.facets, ...(hasMore && counted.more) }).map(([name, values]) => drawGroup(name, values)).filter(Boolean);
  const isShut = isFolded && groups.length > FOLDED && !groups.some((group) => group.querySelector("[aria-pressed=true]"));
  const fold = () => {
    isFolded = !isFolded;
    drawGroups();
    $("fold").focus();
  };
  const more = () => {
    hasMore = !hasMore;
    drawGroups();
    $("more-facets").focus();
    if (hasMore) countMore();
  };
  const others = isCounted() ? index.more_facets?.length : 0;
  $("side").classList.toggle("is-folded", isShut);
  $("facets").replaceChildren(groups.length > FOLDED ? button({ id: "fold", "aria-expanded": String(!isShut), onclick: fold }, say("fold")) : "", ...groups,
    others ? button({ id: "more-facets", class: "unfold", "aria-expanded": String(hasMore), onclick: more }, say(hasMore ? "fewer_facets" : "more_facets", { n: count(others) })) : "",
    groups.length && shown?.answer.total !== undefined && wordsIn(shown.query).length > 1 ? make("p", { class: "quiet" }, say("facet_counts")) : "");
  if (!focused) return;
  const same = focused.name ? `[name="${CSS.escape(focused.name)}"]` : focused.id && `#${focused.id}`;
  if (same) $("facets").querySelector(same)?.focus();
}

/** Draw a facet: its name, a field to look through many values, and the values; null where there is nothing to choose. */
function drawGroup(name, values) {
  const chosen = [filterOf()[name] ?? []].flat();
  if (values.length < 2 && !chosen.length) return null;
  const isChosen = (value) => chosen.some((one) => sameJson(one, value));
  const choose = (value) => {
    const rest = chosen.filter((one) => typeof one !== "object" && !sameJson(one, value));
    setFilter(name, oneOf(isChosen(value) ? rest : typeof value === "object" ? [value] : [...rest, value]));
  };
  const isCut = values.length >= (index.limits?.facet_values ?? Infinity);
  const group = make("div", { role: "group", "aria-label": labelOf(name) }, make("span", { class: "quiet" }, nameWithUnit(name)));
  const isOpen = unfolded.has(name);
  const fill = () => {
    const part = typed.get(name);
    const found = part ? counted.found[name] ?? values.filter(({ value }) => plain(tellValue(value, index.fields?.[name])).includes(plain(part))) : values;
    const seen = found.filter(({ value }, place) => isOpen || place < FACETS || isChosen(value));
    for (const old of group.querySelectorAll("button")) old.remove();
    group.append(...seen.map(({ value, count: n }) => button({ "aria-pressed": String(isChosen(value)), onclick: () => choose(value) }, make("span", {}, tellValue(value, index.fields?.[name])), " ", make("span", { class: "quiet" }, count(n)))));
    if (values.length > FACETS && (isOpen || seen.length < values.length)) group.append(button({ class: "unfold", "aria-expanded": String(isOpen), onclick: unfold }, say(isOpen ? "fewer_values" : "more_values")));
    if (part) $("saved").textContent = say("values_found", { n: count(seen.length) });
  };
  const unfold = () => {
    unfolded[isOpen ? "delete" : "add"](name);
    typed.delete(name);
    drawGroups();
    $("facets").querySelector(`[aria-label="${CSS.escape(labelOf(name))}"] .unfold`)?.focus();
  };
  const find = ({ target }) => {
    const [mine, part] = [counted, target.value.trim()];
    clearTimeout(finding);
    typed.set(name, part);
    delete counted.found[name];
    fill();
    if (!part || !isCut) return;
    finding = setTimeout(async () => {
      const found = await countValues([name], { [name]: part }).catch(() => null);
      if (mine !== counted || typed.get(name) !== part || !found) return;
      counted.found[name] = found[name];
      fill();
    }, PAUSE);
  };
  if (isOpen && values.length > SEARCHED) group.append(make("input", { type: "search", class: "find", name: `find.${name}`, "aria-label": say("find_value", { name: labelOf(name) }), placeholder: say("find_value", { name: labelOf(name) }), value: typed.get(name) ?? "", oninput: find }));
  fill();
  return group;
}

/** Return a text without case, width and accents. */
const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

const yearOf = (end) => Number(/^(\d{4})(?:-01-01|$)/.exec(end)?.[1] ?? NaN);
const tellEnd = (end) => (typeof end === "number" ? count(end) : dateText(String(end).slice(0, 10)));

/** Return a value of a facet in words: a range of whole numbers or years by its first and last. */
function tellValue(value, field) {
  if (typeof value === "boolean") return say(value ? "yes" : "no");
  if (!value || typeof value !== "object") return cut(String(value), VALUE);
  const years = [value.gte, value.lt].map(yearOf);
  const [from, to] = years.every(Number.isFinite) ? years : [value.gte ?? value.gt, value.lt ?? value.lte];
  if (from === undefined || to === undefined) return from === undefined ? `< ${tellEnd(to)}` : `≥ ${tellEnd(from)}`;
  const last = value.lt !== undefined && (field?.type === "integer" || from === years[0]) ? to - 1 : to;
  return last === from ? tellEnd(from) : `${tellEnd(from)} – ${tellEnd(last)}`;
}
