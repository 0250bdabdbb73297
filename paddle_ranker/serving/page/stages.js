// How results were found: a column for each list before the last, lines between them, and tabs where there is no room.
// The search page loads this when somebody asks.

import { remember, state } from "./address.js";
import { ARROWS, foundBy, isOut, keyOf, movement, rankIn, shown, titleOf } from "./answer.js";
import { chooseStage, finish, follow, place, positions, sideOf, STEP, still } from "./board.js";
import { nameOf } from "./collection.js";
import { $, button, loadStyles, make } from "./nodes.js";
import { codePoints, joined } from "./text.js";
import { count, languageOf, say, time } from "./words.js";

await loadStyles("stages.css");

const SVG = "http://www.w3.org/2000/svg";
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

function drawItem(hit, stage) {
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

/** Return where the documents of columns belong: below each other, or beside the rows of their ranks; `listed`: where those
 *  are, from the top of the board. */
export function spotsOf(columns, listed, origin) {
  const spots = [];
  for (const list of columns.flatMap((column) => [...column.querySelectorAll("ol")])) {
    const { stage } = list.closest("[data-stage]").dataset;
    const [found, above] = [foundBy(stage), list.getBoundingClientRect().top - origin.top];
    const spotOf = ({ id }, y) => ({ stage, id, list, node: shown.items.get(keyOf(stage, id)), y });
    if (shown.answer.feeds.includes(stage)) spots.push(...found.slice(0, list.children.length).map((hit, place) => spotOf(hit, above + STEP * (place + 0.5))));
    else {
      let further = $("results").getBoundingClientRect().bottom - origin.top + STEP;
      for (const hit of found) {
        const y = listed[rankIn(hit, stage) - 1] ?? (further += STEP);
        spots.push({ ...spotOf(hit, y), top: y - above - STEP / 2 });
      }
    }
  }
  return spots;
}

/** Make the documents in columns and the lines that are not there yet: first what the window shows, then the rest. */
export function drawNodes() {
  const { spots, paths, items, hits, isWhole } = shown;
  const isSeen = (one, other) => isWhole || sideOf(one) * sideOf(other) !== 1; // a line may pass the window
  const added = new Map();
  for (const spot of spots) {
    if (spot.node || (!isWhole && sideOf(spot.y) > 0)) continue; // what is further up comes first, as in the list
    spot.node = drawItem(hits.get(spot.id), spot.stage);
    items.set(keyOf(spot.stage, spot.id), spot.node);
    added.set(spot.list, [...(added.get(spot.list) ?? []), spot]);
  }
  const lines = paths.filter((path) => !path.node && (isSeen(path.from.y, path.to.y) || isSeen(path.from.now, path.to.now)));
  for (const path of lines) {
    path.node = document.createElementNS(SVG, "path");
    path.node.setAttribute("class", path.kind);
    path.node.dataset.id = path.id;
  }
  for (const [list, own] of added) list.append(...own.map(({ node }) => node));
  if (lines.length) $("lines").append(...paths.flatMap(({ node }) => node ?? []));
  for (const { node, top } of spots) if (node && top !== undefined) node.style.top = `${top.toFixed(1)}px`;
  for (const spot of [...added.values()].flat()) place(spot);
  lines.forEach(bend);
}

export function bend({ node, from, to, start, end }) {
  const [middle, one, two] = [(start + end) / 2, from.now.toFixed(1), to.now.toFixed(1)];
  node?.setAttribute("d", `M${start} ${one}C${middle} ${one} ${middle} ${two} ${end} ${two}`);
}

function reveal(id) {
  finish();
  shown.rows.get(id).scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}
