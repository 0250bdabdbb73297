// What narrows a search: conditions on fields, the values of facets, and the order by a field.
// The search page loads this with the first search of an index that has fields.

import { filterOf, state } from "./address.js";
import { acts, likeOf, shown, tellLike } from "./answer.js";
import { index, isNumeric, isSortable, labelOf, tellOf } from "./collection.js";
import { $, button, make } from "./nodes.js";
import { cut } from "./text.js";
import { addWords, count, say, wordsIn } from "./words.js";

addWords({
  zh: {
    ascending: "{name}：从低到高", descending: "{name}：从高到低", newest: "{name}：从新到旧", oldest: "{name}：从旧到新",
    relevance: "相关度", more_values: "更多", fewer_values: "收起", facet_counts: "数字：含有任一词的文档数", from: "从", to: "到",
    any: "不限", remove: "去掉 {what}", fold: "筛选",
  },
  en: {
    ascending: "{name}: lowest first", descending: "{name}: highest first", newest: "{name}: newest first",
    oldest: "{name}: oldest first", relevance: "relevance", more_values: "more", fewer_values: "fewer",
    facet_counts: "Counts: documents with any of the words", from: "from", to: "to", any: "any",
    remove: "Remove {what}", fold: "Filters",
  },
});

/** Offer orders: by relevance, and by each number and date, in both directions. */
function fillSort() {
  const fields = Object.entries(index.fields ?? {}).filter(([, field]) => isSortable(field));
  const orders = fields.flatMap(([name, { type }]) => [[`-${name}`, type === "date" ? "newest" : "descending"], [name, type === "date" ? "oldest" : "ascending"]].map(([order, how]) => [order, say(how, { name: labelOf(name) })]));
  $("sort").hidden = !orders.length;
  $("sort").querySelector("select").replaceChildren(...[["", say("relevance")], ...orders].map(([value, text]) => make("option", { value, selected: value === state.sort }, text)));
}

/** Offer the orders, make a form of the declared fields, and list the conditions that hold, each with a button that
 *  removes it. */
export function fillFilters() {
  fillSort();
  const [filter, fields] = [filterOf(), Object.entries(index.fields ?? {})];
  const open = document.activeElement?.name;
  const isFacet = (name, field) => index.facets?.includes(name) && !isNumeric(field) && field.type !== "date";
  const others = fields.filter(([name, field]) => !isFacet(name, field)); // a facet's values are chosen there
  $("filters").hidden = !others.length;
  $("filters").lastElementChild.replaceChildren(...others.map(([name, field]) => filterInput(name, field, filter[name])));
  if (open) $("filters").querySelector(`[name="${CSS.escape(open)}"]`)?.focus();
  const like = likeOf() && make("li", {}, tellLike(), " ", button({ "aria-label": say("remove", { what: tellLike() }), onclick: () => acts.searchLike("") }, "×"));
  $("chips").replaceChildren(...(like ? [like] : []), ...Object.entries(filter).map(([name, condition]) => {
    const told = tellCondition(name, condition);
    const remove = () => setFilter(name, undefined);
    return make("li", { "data-field": name }, told, " ", button({ "aria-label": say("remove", { what: told }), onclick: remove }, "×"));
  }));
}

/** Return the conditions in words. */
export const tellFilters = () => Object.entries(filterOf()).map(([name, condition]) => tellCondition(name, condition)).join(", ");

const SIGNS = { gte: "≥", lte: "≤", gt: ">", lt: "<", in: "∈", ne: "≠" };

function tellCondition(name, condition) {
  if (!condition || typeof condition !== "object") return `${labelOf(name)} = ${cut(tellOf(name, condition), SHOWN)}`;
  if (Array.isArray(condition)) return tellCondition(name, { in: condition });
  return Object.entries(condition).map(([sign, value]) => `${labelOf(name)} ${SIGNS[sign] ?? sign} ${cut(tellOf(name, value), SHOWN)}`).join(", ");
}

const nameWithUnit = (name) => labelOf(name) + (index.fields?.[name]?.unit ? ` (${index.fields[name].unit})` : "");

/** Make the input of a field: a range of numbers or dates, a list of values, yes or no, else a text. */
function filterInput(name, field, value) {
  const choices = field.type === "boolean" ? [["true", say("yes")], ["false", say("no")]] : field.values?.map((one) => [one, cut(String(one), SHOWN)]);
  if ((isNumeric(field) || field.type === "date") && !choices) {
    const ends = ["gte", "lte"].map((end) => {
      const label = `${labelOf(name)} ${say(end === "gte" ? "from" : "to")}`;
      const change = ({ target }) => {
        const now = { ...(Array.isArray(value) || typeof value !== "object" ? {} : value), [end]: isNumeric(field) ? target.valueAsNumber : target.value };
        if (!target.value) delete now[end];
        setFilter(name, Object.keys(now).length ? now : undefined);
      };
      return make("input", { type: isNumeric(field) ? "number" : "date", step: isNumeric(field) && "any", name: `${name}.${end}`, "aria-label": label, placeholder: field[end === "gte" ? "min" : "max"], value: value?.[end] ?? "", onchange: change });
    });
    return make("span", { class: "range" }, make("span", {}, nameWithUnit(name)), ends[0], "–", ends[1]);
  }
  const change = (event) => {
    const text = event.target.value;
    setFilter(name, text === "" ? undefined : field.type === "boolean" ? text === "true" : isNumeric(field) ? Number(text) : text);
  };
  const plain = value === undefined || typeof value === "object" ? "" : String(value);
  const input = choices
    ? make("select", { name, onchange: change }, ...[["", say("any")], ...choices].map(([one, text]) => make("option", { value: one, selected: String(one) === plain }, text)))
    : make("input", { name, value: plain, onchange: change });
  return make("label", {}, make("span", {}, labelOf(name)), " ", input);
}

function setFilter(name, condition) {
  const filter = filterOf();
  if (condition === undefined) delete filter[name];
  else filter[name] = condition;
  state.filter = JSON.stringify(filter);
  setTimeout(acts.search, 0, "chosen"); // it makes the fields anew: by then the one that Tab goes to has the focus
}

const SHOWN = 80; // code points of a value
const FACETS = 6; // values of a facet that are shown, until more are asked for
const FOLDED = 3; // facets; more of them are folded up where the window is narrow, unless a value is chosen
let isFolded = true;
const unfolded = new Set(); // facets all of whose values are shown
const sameJson = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Draw the values of the facets with their counts: a click filters by one more, or takes that back. */
export function drawFacets(facets) {
  const filter = filterOf();
  const drawn = Object.entries(facets ?? {}).map(([name, values]) => {
    const chosen = [filter[name] ?? []].flat();
    const isChosen = (value) => chosen.some((one) => sameJson(one, value));
    const choose = (value) => {
      const rest = chosen.filter((one) => typeof one !== "object" && !sameJson(one, value));
      const next = isChosen(value) ? rest : typeof value === "object" ? [value] : [...rest, value];
      setFilter(name, next.length > 1 ? next : next[0]);
    };
    const seen = values.filter(({ value }, place) => unfolded.has(name) || place < FACETS || isChosen(value));
    if (values.length < 2 && !chosen.length) return "";
    // What is chosen here needs no second mark among the conditions.
    for (const chip of $("chips").children) if (chip.dataset.field === name) chip.hidden = chosen.every((one) => seen.some(({ value }) => sameJson(one, value)));
    const unfold = () => {
      unfolded[unfolded.has(name) ? "delete" : "add"](name);
      drawFacets(facets);
      $("facets").querySelector(`[aria-label="${CSS.escape(labelOf(name))}"] .unfold`)?.focus();
    };
    const more = (seen.length < values.length || unfolded.has(name)) && values.length > FACETS;
    return make("div", { role: "group", "aria-label": labelOf(name) }, make("span", { class: "quiet" }, nameWithUnit(name)), ...seen.map(({ value, count: n }) =>
      button({ "aria-pressed": String(isChosen(value)), onclick: () => choose(value) }, make("span", {}, tellValue(value, index.fields?.[name])), " ", make("span", { class: "quiet" }, count(n)))),
      more ? button({ class: "unfold", "aria-expanded": String(unfolded.has(name)), onclick: unfold }, say(unfolded.has(name) ? "fewer_values" : "more_values")) : "");
  });
  const [groups, isAny] = [drawn.filter(Boolean), drawn.some(Boolean)];
  const isShut = isFolded && groups.length > FOLDED && !groups.some((group) => group.querySelector("[aria-pressed=true]"));
  const fold = () => {
    isFolded = !isFolded;
    drawFacets(facets);
    $("fold").focus();
  };
  $("side").classList.toggle("is-folded", isShut);
  $("facets").replaceChildren(groups.length > FOLDED ? button({ id: "fold", "aria-expanded": String(!isShut), onclick: fold }, say("fold")) : "", ...groups, isAny && shown?.answer.total !== undefined && wordsIn(shown.query).length > 1 ? make("p", { class: "quiet" }, say("facet_counts")) : "");
}

const yearOf = (end) => Number(/^(\d{4})(?:-01-01|$)/.exec(end)?.[1] ?? NaN);
const tellEnd = (end) => (typeof end === "number" ? count(end) : String(end).slice(0, 10));

/** Return a value of a facet in words: a range of whole numbers or years by its first and last. */
function tellValue(value, field) {
  if (typeof value === "boolean") return say(value ? "yes" : "no");
  if (!value || typeof value !== "object") return cut(String(value), SHOWN);
  const years = [value.gte, value.lt].map(yearOf);
  const [from, to] = years.every(Number.isFinite) ? years : [value.gte ?? value.gt, value.lt ?? value.lte];
  if (from === undefined || to === undefined) return from === undefined ? `< ${tellEnd(to)}` : `≥ ${tellEnd(from)}`;
  const last = value.lt !== undefined && (field?.type === "integer" || from === years[0]) ? to - 1 : to;
  return last === from ? tellEnd(from) : `${tellEnd(from)} – ${tellEnd(last)}`;
}
