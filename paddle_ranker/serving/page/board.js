// The list and what stands beside it: where everything is, and how it moves there.

import { state } from "./address.js";
import { foundBy, isOut, keyOf, rankIn, shown } from "./answer.js";
import { send } from "./machine.js";
import { $, make } from "./nodes.js";
import { drawMoved, fillRow, fitTexts, ROW, visibleRows } from "./rows.js";
import { count, say, wholePercent } from "./words.js";

export const parts = { filters: null, stages: null, why: null }; // filters.js, stages.js and why.js, once they are loaded

/** Return what draws how results were found, where somebody asked for that. */
const stagesPart = () => (state.how ? parts.stages : null);

const SOME = 20; // rows that are filled in one go, further down

/** Return how many rows there are down to the window's end, at the most. */
export const roomForRows = () => Math.max(1, Math.ceil((innerHeight - $("results").getBoundingClientRect().top) / ROW) + 1);

/** Make the rows of the list. The first ones, down to the window's end, are filled at once. */
export function drawRows({ docs, hits }) {
  for (const { id } of docs) {
    shown.rows.set(id, make("li", { "data-id": id }));
    shown.bare.add(id);
  }
  for (const { id } of hits.slice(0, shown.first)) fillRow(id);
}

/** Put the rows into the list, in the order of its stage; until all are filled, the first ones and room for the rest. */
function listRows() {
  const { answer, rows, stage, isWhole, first } = shown;
  const all = visibleRows();
  $("results").replaceChildren(...all.slice(0, isWhole ? Infinity : first));
  $("results").style.paddingBottom = all.length > first && !isWhole ? `${(all.length - first) * ROW}px` : "";
  const out = stage === answer.last ? answer.docs.filter(isOut) : [];
  $("out").hidden = !out.length || !state.how;
  $("out").firstElementChild.textContent = say("out", { n: count(answer.hits.length) });
  if (isWhole || answer.hits.length <= first) out.forEach(({ id }) => fillRow(id));
  $("out").lastElementChild.replaceChildren(...out.map(({ id }) => rows.get(id)));
}

/** Fill some of the rows that are empty yet, and then more, and then the rest; what is seen is drawn by now. */
export function fillRest(drawn) {
  if (drawn !== shown) return;
  [...drawn.bare].slice(0, SOME).forEach(fillRow);
  if (drawn.bare.size) setTimeout(fillRest, 0, drawn);
  else finish();
}

/** Draw all that is not there yet: rows, and what is further down in the columns. */
export function finish() {
  if (shown.isWhole) return;
  shown.isWhole = true;
  [...shown.bare].forEach(fillRow);
  const there = $("results").children.length;
  $("results").append(...visibleRows().slice(there));
  $("results").style.paddingBottom = "";
  fitTexts();
  drawCut();
  stagesPart()?.drawNodes();
  markFollowed();
  send("whole");
}

/** Mark the rows below the least probability, and draw the line above them. */
export function drawCut() {
  const rows = visibleRows();
  const least = $("cut").hidden ? 0 : state.min;
  const passes = (row) => least === 0 || (shown.hits.get(row.dataset.id).probability ?? 1) >= least;
  const passed = rows.filter(passes);
  for (const row of rows) row.classList.toggle("is-below", !passes(row));
  const told = wholePercent(least);
  const place = rows.indexOf(passed.at(-1)) + 1;
  const next = rows[place];
  $("passed").textContent = least ? say("passed", { percent: told, n: count(passed.length), total: count(rows.length) }) : say("all");
  $("least").setAttribute("aria-valuetext", least ? told : say("all"));
  $("line").hidden = !least;
  if (!least) return;
  const list = $("results");
  $("line").style.top = `${next?.isConnected ? next.offsetTop : list.offsetTop + (next ? place * ROW : list.offsetHeight)}px`;
}

export const narrow = matchMedia("(max-width: 63.99em)");
export const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Draw how the answer was found, where somebody asked; what was drawn of the one before goes. */
export function drawStages(answer) {
  for (const old of document.querySelectorAll("#board > .column")) old.remove();
  $("tabs").replaceChildren();
  $("tabs").hidden = true;
  $("board").dataset.columns = 0;
  $("board").classList.toggle("is-ranked", answer.isRanked);
  stagesPart()?.drawStages(answer);
}

/** Order the list by the stage that is chosen, which is the last one where all have columns. */
export function chooseStage(before) {
  const { answer, rows } = shown;
  const stage = narrow.matches && state.how && answer.stages.includes(state.stage) ? state.stage : answer.last;
  for (const tab of $("tabs").children) {
    const isChosen = tab.dataset.stage === stage;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
  }
  if (stage !== shown.stage) {
    shown.stage = stage;
    for (const { id } of foundBy(stage).slice(0, shown.first)) fillRow(id);
    for (const [id, row] of rows) {
      if (shown.bare.has(id)) continue;
      row.querySelector(".place").textContent = count(rankIn(shown.hits.get(id), stage) ?? 0);
      row.querySelector(".moved").replaceChildren(...drawMoved(shown.hits.get(id), stage));
    }
  }
  $("last").replaceChildren(...(stagesPart()?.headOf(stage, answer) ?? [make("span", { class: "unseen" }, say("results"))]));
  listRows();
  fitTexts();
  layOut(before);
}

const MOTION = 200; // milliseconds in which things move to their new places
export const STEP = 26; // pixels between documents of a column that do not stand beside a row
const MIDDLE = 24; // pixels from the top of a row to the middle of its first line
let moving = 0; // the animation frame that is asked for; 0: nothing moves
let laidOut = ""; // the size of the list for which all was laid out

/** Return where everything is drawn now, by column and document. */
export const positions = () => new Map(shown?.spots.map((spot) => [keyOf(spot.stage, spot.id), spot.now]));

/** Measure where everything belongs, draw what the window shows of it, and move what was elsewhere `before`. */
function layOut(before) {
  cancelAnimationFrame(moving);
  moving = 0;
  laidOut = sizeOfList();
  const board = $("board");
  const { answer } = shown;
  const rows = [...visibleRows(), ...$("out").lastElementChild.children];
  for (const row of rows) row.style.transform = "";
  const origin = board.getBoundingClientRect();
  const topOf = (node) => node.getBoundingClientRect().top - origin.top;
  let next = topOf($("results"));
  const middles = rows.map((row) => { // not of what is in a row: it may not be laid out, or not be in the list yet
    const top = row.isConnected ? topOf(row) : next;
    next = top + ROW;
    return top + MIDDLE;
  });
  const listed = middles.slice(0, rows.length - $("out").lastElementChild.children.length);
  const spots = rows.map((row, place) => ({ stage: answer.last, id: row.dataset.id, node: row, y: middles[place] }));
  const columns = stagesPart() ? [...board.querySelectorAll(":scope > .column")].filter((column) => column.offsetParent !== null) : [];
  const further = columns.length ? parts.stages.spotsOf(columns, listed, origin) : [];
  spots.push(...further);
  shown.top = -origin.top; // of the window, on the board
  shown.spots = spots;
  for (const spot of spots) {
    const was = before?.get(keyOf(spot.stage, spot.id)) ?? spot.y;
    spot.now = spot.from = sideOf(was) === 0 || sideOf(spot.y) === 0 ? was : spot.y; // nobody sees what moves elsewhere
  }
  $("lines").replaceChildren();
  shown.paths = columns.length ? parts.stages.findPaths(columns, origin) : [];
  board.style.minHeight = columns.length ? `${Math.max(0, ...further.map(({ y }) => y)) + 2 * STEP}px` : "";
  drawCut();
  stagesPart()?.drawNodes();
  markFollowed();
  const isMoving = ({ from, y }) => from !== y;
  const moved = still.matches ? [] : spots.filter(isMoving);
  if (!moved.length) return paint(0, spots, shown.paths);
  const bent = shown.paths.filter(({ from, to }) => isMoving(from) || isMoving(to));
  paint(1, spots, shown.paths);
  const began = performance.now();
  const frame = (now) => {
    const left = Math.min(1, Math.max(0, 1 - (now - began) / MOTION)) ** 3; // a busy browser's frame may be older than `began`
    paint(left, moved, bent);
    moving = left ? requestAnimationFrame(frame) : 0;
  };
  return (moving = requestAnimationFrame(frame));
}

/** Return where a height of the board is: -1 above the window, 0 in it, 1 below it. */
export const sideOf = (y) => (y < shown.top - STEP ? -1 : y > shown.top + innerHeight + STEP ? 1 : 0);

/** Lay out anew if the list has another size or place by now; what is seen is drawn first, rows further down change
 *  after that. */
export function layOutAgain() {
  if (shown?.isSeen && shown.answer.hits.length && laidOut !== sizeOfList()) layOut(moving ? positions() : undefined);
}

function sizeOfList() {
  const [board, list] = [$("board"), $("results")].map((node) => node.getBoundingClientRect());
  return [board.width, list.height, list.top - board.top].map(Math.round).join(" ");
}

/** Draw documents and lines where they belong, less the share `left` of their way from where they were. */
function paint(left, spots, paths) {
  for (const spot of spots) {
    spot.now = spot.y + (spot.from - spot.y) * left;
    place(spot);
  }
  paths.forEach((path) => parts.stages.bend(path));
}

export function place({ node, now, y }) {
  const shift = now - y;
  if (node) node.style.transform = shift ? `translateY(${shift.toFixed(1)}px)` : ""; // what rests has none: that costs
}

/** Follow a document through all columns; null: none. */
export function follow(id) {
  if (!shown || shown.followed === id) return;
  shown.followed = id;
  markFollowed();
}

export function markFollowed(id = shown.followed) {
  $("board").classList.toggle("is-following", id !== null);
  for (const node of $("board").querySelectorAll(".is-followed")) node.classList.remove("is-followed");
  if (id === null) return;
  for (const node of $("board").querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) node.classList.add("is-followed");
}
