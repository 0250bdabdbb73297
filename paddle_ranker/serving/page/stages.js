// How results were found: a column for each list before the last, lines between them, and tabs where there is no room.
// The search page loads this when somebody asks.

import { remember, state } from "./address.js";
import { ARROWS, foundBy, isOut, keyOf, movement, rankIn, shown, titleOf } from "./answer.js";
import { chooseStage, follow, positions, reveal } from "./board.js";
import { nameOf } from "./collection.js";
import { $, button, make } from "./nodes.js";
import { codePoints, joined } from "./text.js";
import { addWords, count, languageOf, say, time } from "./words.js";

addWords({
  zh: {
    about_words: "只看共有的词，结果排第几", about_vectors: "只看意思，结果排第几", about_fused: "几路结果合成一份",
    about_ranked: "模型逐篇读过，重新排列", legend_up: "排序后上升", legend_down: "下降", legend_same: "不变",
    legend_new: "进入前 {n} 位", legend_out: "移出前 {n} 位",
  },
  en: {
    about_words: "the results’ ranks by words", about_vectors: "the results’ ranks by meaning",
    about_fused: "all lists made one", about_ranked: "read by a model and put in order",
    legend_up: "raised by ranking", legend_down: "lowered", legend_same: "unchanged",
    legend_new: "entered the first {n}", legend_out: "left the first {n}",
  },
});

const STAGES = ["words", "vectors", "fused", "ranked"]; // others are vector fields
const SHOWN_OF_FEED = 10; // documents of a searcher's column, which is short

/** Draw what belongs to an answer: the legend, tabs, and the columns before the list. */
export function drawStages(answer) {
  drawLegend(answer);
  drawTabs(answer);
  drawColumns(answer);
}

function drawLegend(answer) {
  const kinds = answer.isRanked ? ["up", "down", "same", "new", ...(answer.docs.length > answer.hits.length ? ["out"] : [])] : [];
  $("legend").hidden = false;
  $("legend").replaceChildren(...kinds.map((kind) => make("span", { class: kind }, make("i", { "aria-hidden": "true" }), make("span", { class: `mark ${kind}`, "aria-hidden": "true" }, ARROWS[kind]), " ", say(`legend_${kind}`, { n: count(answer.hits.length) }))));
}

/** Return the milliseconds of a column's stage, in words. */
function timeOf(stage, took = {}) {
  const parts = { vectors: [took.encode, took.vectors], fused: [took.fuse, took.features ?? 0], ranked: [took.rank] }[stage] ?? [took[stage]];
  return parts.every(Number.isFinite) ? time(parts.reduce((sum, part) => sum + part, 0)) : "";
}

/** Return a stage's name, its time, and in a few words what it does. */
export const headOf = (stage, answer) => [nameOf(stage), " ", make("span", { class: "quiet" }, timeOf(stage, answer.took_ms)), make("span", { class: "about" }, STAGES.includes(stage) ? say(`about_${stage}`) : "")];

function drawTabs(answer) {
  $("tabs").hidden = answer.stages.length < 2;
  $("tabs").replaceChildren(...answer.stages.map((stage) =>
    button({ role: "tab", id: `tab-${stage}`, "aria-controls": "results", "data-stage": stage, onclick: () => chooseTab(stage) },
      nameOf(stage), make("span", { class: "quiet" }, timeOf(stage, answer.took_ms)))));
}

function chooseTab(stage) {
  state.stage = stage === shown.answer.last ? "" : stage;
  remember("same");
  chooseStage(positions());
}

/** Draw the columns before the list: the searchers' below each other, since they feed one list, and that list.
 *  Its documents stand beside the rows of their ranks, where `layOut` puts them. */
function drawColumns(answer) {
  const head = (stage) => make("div", { class: "head" }, make("h2", {}, ...headOf(stage, answer)));
  const columns = [];
  if (answer.feeds.length) {
    columns.push(make("div", { class: "column feeds" }, ...answer.feeds.map((stage) => {
      const found = foundBy(stage);
      const items = found.slice(0, SHOWN_OF_FEED).map((hit) => {
        shown.items.set(keyOf(stage, hit.id), drawItem(hit, stage));
        return shown.items.get(keyOf(stage, hit.id));
      });
      const more = found.length > items.length && make("p", { class: "quiet others" }, say("others", { n: count(found.length - items.length) }));
      return make("section", { "data-stage": stage, "aria-label": nameOf(stage) }, head(stage), make("ol", {}, ...items), more);
    })));
  }
  if (answer.isRanked) {
    columns.push(make("section", { class: "column base", "data-stage": answer.base, "aria-label": nameOf(answer.base) }, head(answer.base), make("ol")));
  }
  $("board").dataset.columns = columns.length;
  $("lines").before(...columns);
}

export function drawItem(hit, stage) {
  const name = shown.names.get(hit.id).item;
  const text = `${name ? `${name} · ` : ""}${titleOf(hit) || joined(codePoints(hit.text).slice(0, 60))}`; // more than the column has room for
  // Reached by mouse and by screen readers; by keyboard the rows of the list do the same.
  const item = button({ tabindex: "-1", title: text, onclick: () => (follow(shown.followed === hit.id ? null : hit.id), reveal(hit.id)) },
    make("b", {}, count(rankIn(hit, stage))), " ", make("span", { lang: languageOf(text), dir: "auto" }, text));
  return make("li", { "data-id": hit.id, value: rankIn(hit, stage), class: shown.isWhole && "is-later" }, item);
}

/** Return the lines: from each searcher's column to the list that they feed, never between searchers; and from that list
 *  to the ranked one, by how a document moved. */
export function findPaths(columns, origin) {
  const byPlace = new Map(shown.spots.map((spot) => [keyOf(spot.stage, spot.id), spot]));
  const { feeds, base, last, isRanked, docs } = shown.answer;
  const sides = [...columns, $("answer")].map((column) => column.getBoundingClientRect()).map((box) => [box.left - origin.left, box.right - origin.left]);
  const paths = [];
  const add = (hit, from, to, place, kind) => {
    if (from && to) paths.push({ id: hit.id, from, to, start: sides[place][1] + 4, end: sides[place + 1][0] - (place + 2 === sides.length ? 14 : 4), kind });
  };
  for (const hit of columns.length ? docs : []) {
    const middle = byPlace.get(keyOf(base, hit.id));
    for (const stage of feeds) add(hit, byPlace.get(keyOf(stage, hit.id)), middle, 0, "feed");
    if (isRanked) add(hit, middle, byPlace.get(keyOf(last, hit.id)), columns.length - 1, isOut(hit) ? "out" : movement(rankIn(hit, base), rankIn(hit, last)));
  }
  return paths;
}
