// The search page: asks POST /v1/search and draws the results. Every number that it shows is in the answer.
// All texts enter the page as text nodes.

import { DEFAULTS, readAddress, remember, state } from "./address.js";
import { acts, isOut, likeOf, namesOf, question, readAnswer, show, shown, takeExample, tellLike } from "./answer.js";
import { chooseStage, drawRows, drawStages, fillRest, finish, layOutAgain, narrow, parts, positions, roomForRows } from "./board.js";
import { examples, fitted, index } from "./collection.js";
import { showFailure } from "./failure.js";
import { fillForm, fillQuery } from "./form.js";
import { listenToKeys, listenToMouse, listenToSettings, listenToTyping } from "./keys.js";
import { listen, now, send, viewOf } from "./machine.js";
import { $, button, make } from "./nodes.js";
import { drawHead, notices, showNothing, tellFound } from "./notices.js";
import { fitTexts, hasPicture } from "./rows.js";
import { ask, Failure, sendFeedback } from "./server.js";
import { cut, VALUE } from "./text.js";
import { count, languageOf, say, score, speak, switchLanguage, titleOfPage, withAllWords } from "./words.js";

const PATIENCE = 300; // milliseconds before the page shows that it works
let indexed = null; // the promise of what GET /v1/index says
let asking = null; // the AbortController of the request that runs
let again = null; // the timer of another try

/** Show what is to be seen in a state of the machine. */
function render(now, before) {
  const [view, old] = [viewOf(now), viewOf(before)];
  document.body.classList.toggle("is-empty", view.isEmpty);
  document.body.classList.toggle("is-working", view.isWorking);
  $("board").setAttribute("aria-busy", view.isBusy);
  for (const id of ["welcome", "lead"]) $(id).hidden = !view.welcome;
  for (const id of ["board", "nothing", "suggestions", "why"]) $(id).hidden = !view[id];
  if (!view.board) for (const id of ["legend", "all-words"]) $(id).hidden = true;
  if (!view.failure) $("failure").replaceChildren();
  if (view.suggestions !== old.suggestions) {
    $("query").setAttribute("aria-expanded", view.suggestions);
    $("query").removeAttribute("aria-activedescendant");
  }
  if (!now.answer && before.answer) {
    show(null);
    for (const id of ["status", "notice", "facets"]) $(id).replaceChildren();
  }
  if (view.isWorking !== old.isWorking) $("status").textContent = view.isWorking ? say("working") : shown?.answer.hits.length ? tellFound(shown.answer) : "";
}

/** Load the parts that the settings and the index need; the page does without one that does not come. */
async function loadParts() {
  const load = async (name) => (parts[name] ??= await import(`./${name}.js`).catch(() => null));
  const isNarrowed = Object.keys(index.fields ?? {}).length || state.filter !== DEFAULTS.filter || likeOf();
  const hadFilters = parts.filters;
  await Promise.all([isNarrowed && load("filters"), state.how && load("stages")]);
  if (!hadFilters) parts.filters?.fillFilters();
}

/** Search for what the settings say, and remember it in the address; without a query, list documents, `from` one on. */
async function search(how, from = null) {
  asking?.abort();
  const { signal } = (asking = new AbortController());
  const { turn } = send("ask");
  if (["typed", "chosen"].includes(how)) state.from = from || null;
  if (["typed", "chosen"].includes(how) && shown?.query !== state.q) Object.assign(state, { open: "", literal: "" });
  const isFirst = !state.q.trim() && !likeOf();
  const query = state.q;
  // The server is asked first, once its limits are known: what follows is done while it searches.
  const answered = indexed.then(async () => {
    const asked = question(query, how === "typed");
    return { ...(await ask("v1/search", { method: "POST", body: asked, signal })), asked };
  });
  const loaded = indexed.then(loadParts);
  remember(how === "back" ? "same" : how);
  fillForm();
  document.title = isFirst ? titleOfPage() : `${cut(state.q, 80) || tellLike()} · ${titleOfPage()}`;
  if (isFirst) showWelcome();
  const slow = setTimeout(() => send("slow", { turn }), PATIENCE);
  try {
    const [answer] = await Promise.all([answered, loaded]);
    if (turn !== now().turn) return;
    if (state.from && !answer.hits?.length) return void ((state.from = null), search("same")); // behind the last page
    drawAnswer(readAnswer(answer), query, isFirst);
    if (state.from && how === "chosen") $("answer").scrollIntoView();
    if (how === "back") scrollBack();
  } catch (error) {
    const isQuiet = isFirst && !shown && error.kind === "busy"; // it is starting: the index is asked for again
    if (turn === now().turn && error.name !== "AbortError") isQuiet ? showWelcome(true) : tellFailure(error);
  } finally {
    clearTimeout(slow);
  }
}

/** Scroll to where this entry of the history was left, once all rows are there. */
function scrollBack() {
  const { scroll } = history.state ?? {};
  if (!scroll || !shown) return;
  finish();
  layOutAgain();
  scrollTo(0, scroll);
}

/** Say what went wrong. Earlier results stay, unless it went wrong while these were drawn, or nothing was found. */
function tellFailure(error) {
  const isDrawn = error instanceof Failure;
  if (!isDrawn) {
    console.warn(error);
    error = new Failure("unread", String(error));
  }
  send("refuse", { error, keeps: isDrawn && Boolean(shown?.answer.hits.length) });
  $("status").textContent = "";
  const again = () => {
    if (!Object.keys(index).length) loadIndex(); // it could not be read, either
    search("same");
  };
  showFailure(error, again, shown?.query.trim() ? say("stale", { query: shown.query }) : "");
}

/** Search by an example: the id of a document, or a file. */
function searchLike(id, file = null) {
  Object.assign(state, { like: id, open: "", sort: "" });
  takeExample(file);
  search("chosen");
}

/** Show the page without a query: examples, and a list of documents once that is there. */
function showWelcome(isDone = false) {
  if (isDone || !shown) send("welcome", { isDone });
  drawWelcome(shown ? "" : say("welcome"));
}

function drawWelcome(lead) {
  $("lead").textContent = lead;
  const tries = examples().slice(0, 4).map((query) => button({ lang: languageOf(query), onclick: () => searchFor(query) }, cut(query, VALUE)));
  $("tries").replaceChildren(...(tries.length ? [say("tries"), ...tries] : []));
}

function searchFor(query) {
  state.q = query;
  fillQuery();
  search("chosen");
}

/** Open the panel for a hit, whose script comes when it is first asked for. */
async function openWhy(hit, isChosen) {
  const drawn = shown;
  state.open = hit.id;
  parts.why ??= await import("./why.js").catch(() => null);
  if (drawn !== shown || state.open !== hit.id) return;
  if (parts.why) return parts.why.openWhy(hit, isChosen);
  const error = new Failure("gone");
  send("refuse", { error, keeps: true });
  showFailure(error, () => openWhy(hit, isChosen));
}

function closeWhy(isChosen) {
  if (parts.why) parts.why.closeWhy(isChosen);
  else state.open = "";
}

/** Draw an answer in place of the one before; what is in both moves to its new place. */
function drawAnswer(answer, query, isFirst) {
  const first = roomForRows(); // asked before anything is changed
  const before = shown && positions();
  const { clicked, judged, followed } = shown?.answer === answer ? shown : { clicked: new Set(), judged: new Map(), followed: null };
  const hits = new Map(answer.docs.map((hit) => [hit.id, hit]));
  const out = new Set(answer.docs.slice(answer.hits.length).map(({ id }) => id));
  show({ answer, query, isFirst, hits, out, rows: new Map(), bare: new Set(), items: new Map(), first, isSeen: false, isWhole: !answer.hits.length, stage: answer.last, spots: [], paths: [], clicked, judged, followed });
  shown.names = namesOf(answer.docs);
  const rows = answer.hits.length;
  send("answer", { rows, isFirst });
  if (isFirst) drawWelcome("");
  $("notice").replaceChildren(...notices(answer));
  $("status").textContent = rows ? tellFound(answer) : "";
  $("how").hidden = isFirst;
  $("all-words").hidden = !rows || isFirst || !withAllWords(query) || !(answer.total > rows);
  $("board").classList.toggle("has-pictures", answer.hits.some(hasPicture));
  $("legend").hidden = true;
  parts.filters?.drawFacets(answer.facets);
  if (!rows) {
    closeWhy();
    return showNothing(answer);
  }
  drawHead(answer);
  drawRows(answer);
  drawStages(answer);
  chooseStage(before);
  if (hits.has(state.open)) openWhy(hits.get(state.open));
  else closeWhy();
  const drawn = shown;
  requestAnimationFrame(() => setTimeout(() => {
    performance.clearMarks("drawn");
    performance.mark("drawn"); // what is seen; `python -m benchmarks.search_page` reads it
    drawn.isSeen = true;
    layOutAgain();
    fillRest(drawn);
  }));
}

/** Tell the log what somebody thinks of a hit; the button stays pressed once that is saved. */
async function judge(hit, event) {
  const { judged, rows } = shown;
  try {
    await sendFeedback(index, feedbackOn(hit, event));
    judged.set(hit.id, event);
    for (const one of rows.get(hit.id).querySelectorAll(".verdict")) one.setAttribute("aria-pressed", String(one.classList.contains(event)));
    $("saved").textContent = say("saved");
  } catch (error) {
    $("notice").textContent = say("unsaved", { why: say(error.kind ?? "failed") });
  }
}

const feedbackOn = (hit, event) => ({ search_id: shown.answer.search_id, query: shown.answer.query, id: hit.id, position: hit.rank, event });

/** Tell the log, once for each answer, that somebody opened or followed a hit. What fails here is nobody's concern. */
function sendClick(hit) {
  if (shown.clicked.has(hit.id) || isOut(hit) || shown.isFirst) return;
  shown.clicked.add(hit.id);
  sendFeedback(index, feedbackOn(hit, "click")).catch(() => {});
}

/** Put the index's name, size and examples into the page, and whether its ranker seems to be of other documents. */
function drawIndex() {
  const facts = [index.name && cut(index.name), Number.isFinite(index.documents) && say("documents", { n: count(index.documents) })].filter(Boolean);
  $("collection").textContent = facts.join(" · ");
  $("query").placeholder = examples().length ? say("placeholder", { example: examples()[0] }) : "";
  $("to-judge").hidden = !index.logging;
  $("unfamiliar").hidden = !index.unfamiliar;
  if (index.unfamiliar) $("unfamiliar").textContent = say("unfamiliar", { expected: score(index.unfamiliar.expected), seen: score(index.unfamiliar.seen) });
  const keys = [["/", "key_focus"], ["↑ ↓", "key_move"], ["Enter", "key_why"], ["Esc", "key_close"]];
  $("keys").replaceChildren(...keys.flatMap(([key, does]) => [make("kbd", {}, key), ` ${say(does)} `]));
}

/** Draw everything anew, from what is there: after a change of the language or of the width. */
async function redraw() {
  if (state.how && !parts.stages) await loadParts();
  drawIndex();
  fillForm();
  if (shown) drawAnswer(shown.answer, shown.query, shown.isFirst);
  else if (!state.q && !likeOf() && !now().error) drawWelcome(say("welcome"));
}

/** Take the settings of the address, as far as the index has them. */
const takeAddress = () => Object.assign(state, fitted(readAddress()));

/** Ask what the index is; `spoken`: the promise of the words, which come meanwhile. */
function loadIndex(spoken = null) {
  clearTimeout(again);
  const retry = () => (loadIndex(), search("same"));
  const asked = ask("v1/index");
  indexed = Promise.allSettled([asked, spoken]).then(() => asked).catch((error) => {
    if (error.kind === "needs_key") {
      send("refuse", { error, keeps: true });
      showFailure(error, retry);
    } else if (error.kind === "busy") {
      $("collection").textContent = say("starting");
      again = setTimeout(retry, 1000 * Math.min(Math.max(error.retryAfter, 2), 30)); // such as a server that starts
    }
    return {};
  }).then(takeIndex);
}

function takeIndex(found) {
  for (const name of Object.keys(index)) delete index[name];
  Object.assign(index, found);
  if (!Object.keys(found).length) return;
  Object.assign(state, fitted(state));
  if (index.like?.length > 1) import("./pictures.js").then(({ takeFiles }) => takeFiles(index.like)).catch(() => {});
  redraw();
}

async function start() {
  Object.assign(acts, { search, searchFor, searchLike, openWhy, closeWhy, judge, sendClick, redraw });
  listen(render);
  takeAddress();
  const spoken = speak();
  loadIndex(spoken);
  await spoken;
  drawIndex();
  fillQuery();
  fillForm();
  switchLanguage(redraw);
  listenToTyping();
  listenToSettings();
  listenToKeys();
  listenToMouse();
  history.scrollRestoration = "manual"; // the rows are not there yet when a browser would scroll
  let scrolling = 0;
  addEventListener("scroll", () => {
    clearTimeout(scrolling);
    scrolling = setTimeout(() => now().name !== "asking" && history.replaceState({ ...history.state, scroll: Math.round(scrollY) }, ""), 150);
  }, { passive: true });
  addEventListener("popstate", async () => {
    clearTimeout(scrolling);
    takeAddress();
    await speak();
    fillQuery();
    search("back");
  });
  addEventListener("beforeprint", () => shown && finish());
  // Paper is narrow, too: what is there is printed, and drawn anew after that.
  narrow.addEventListener("change", () => matchMedia("print").matches || redraw());
  const sizes = new ResizeObserver(layOutAgain);
  for (const id of ["answer", "side"]) sizes.observe($(id)); // what is above the list moves it
  // A row that comes near the window gets its true height: the list may then be as high as the observer saw it before.
  $("results").addEventListener("contentvisibilityautostatechange", () => requestAnimationFrame(() => (fitTexts(), layOutAgain())), true);
  if (!state.q) $("query").focus({ preventScroll: true });
  search("back");
}

start();
