// The panel beside the list, why a hit stands where it does: its reasons in sentences, most important first, then its way,
// its fields, its text. The search page loads this when somebody asks.

import { remember, state } from "./address.js";
import { acts, isCalibrated, isOut, partsOf, rankIn, shown, tellWay, titleOf, wholeOf } from "./answer.js";
import { follow, narrow } from "./board.js";
import { isAddress, labelOf, linkOf, nameOf, searchers, tellOf } from "./collection.js";
import { send } from "./machine.js";
import { $, loadStyles, make } from "./nodes.js";
import { codePoints, cut, joined, marked } from "./text.js";
import { count, language, languageOf, numbers, percent, say, score, withinSentence } from "./words.js";

await loadStyles("why.css"); // without it the panel would move the list

const MOST = 100_000; // code points of a text that are shown: a browser takes seconds for more
const OF_FIELD = 10_000; // of a field's value
const signed = numbers({ maximumSignificantDigits: 3, signDisplay: "exceptZero" });

/** Open the panel for a hit; `isChosen`: somebody asked for it here, so the focus goes there. */
export function openWhy(hit, isChosen) {
  const [panel, drawn] = [$("why"), shown];
  nameWhy();
  follow(hit.id);
  send("open", { id: hit.id });
  const content = (hit) => whyOf(hit, drawn.answer, () => acts.closeWhy(true));
  panel.replaceChildren(...content(hit));
  wholeOf(hit, MOST).then((whole) => {
    if (drawn !== shown || state.open !== hit.id || whole === hit) return;
    const [head, ...rest] = panel.children;
    for (const one of rest) one.remove(); // the head may have the focus
    head.after(...content(whole).slice(1));
  });
  panel.style.setProperty("--above", `${Math.max(16, $("answer").getBoundingClientRect().top)}px`);
  panel.scrollTop = 0;
  if (!isChosen) return;
  panel.focus({ preventScroll: true });
  const { top, bottom } = drawn.rows.get(hit.id).getBoundingClientRect();
  if (narrow.matches) scrollBy(0, Math.min(top, Math.max(0, bottom - panel.getBoundingClientRect().top))); // not under the sheet
  remember("same");
}

/** Close the panel; `isChosen`: the focus goes back to where it was opened. */
export function closeWhy(isChosen) {
  const opener = shown?.rows.get(state.open)?.querySelector(".ask-why");
  send("close");
  state.open = "";
  nameWhy();
  if (!isChosen) return;
  opener?.focus({ preventScroll: true });
  remember("same");
}

function nameWhy() {
  for (const button of document.querySelectorAll(".ask-why")) button.setAttribute("aria-expanded", String(button.closest("li").dataset.id === state.open));
}

/** Return the content of the panel for a hit of an answer; `close` closes it. */
function whyOf(hit, answer, close) {
  const contents = Object.keys(hit.contents ?? {}); // their values are digests of files
  const named = Object.entries({ ...(!Object.values(hit.fields ?? {}).includes(hit.id) && { id: hit.id }), ...hit.fields });
  const fields = named.filter(([name]) => !contents.includes(name)).flatMap(([name, value]) => [make("dt", { dir: "auto" }, labelOf(name)), make("dd", { dir: "auto" }, tellField(name, value))]);
  return [
    make("header", {}, make("h2", { id: "why-title" }, answer.sort ? say("details") : isOut(hit) ? say("why_out") : say("why_this", { n: count(hit.rank) })), make("button", { type: "button", "aria-label": say("close"), title: say("close"), onclick: close }, "×")),
    make("p", { class: "of", lang: languageOf(titleOf(hit) || hit.text), dir: "auto" }, titleOf(hit) || cut(hit.text, 90)),
    ...(answer.sort && !hit.signals ? [] : reasonsOf(hit, answer)),
    ...(answer.sort ? [] : [make("h3", {}, say("path")), make("p", { class: "way" }, tellWay(hit))]),
    make("h3", {}, say("fields")), make("dl", {}, ...fields),
    make("h3", {}, say("text")), make("p", { class: "whole", lang: languageOf(hit.text), dir: "auto" }, hit.begin > 0 && "…", ...marked(hit.text, hit.highlights), hit.isCut && "…"),
  ];
}

/** Return the value of a field: an address as a link, an object as JSON. */
function tellField(name, value) {
  if (isAddress(name) && linkOf({ url: value })) return make("a", { href: value, rel: "noreferrer", target: "_blank" }, value);
  return cut(value && typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : tellOf(name, value), OF_FIELD);
}

/** Return the parts of a text of the page, in which nodes stand for `{names}`. */
function sayNodes(name, values) {
  const places = Object.fromEntries(Object.keys(values).map((key) => [key, `\0${key}\0`]));
  return say(name, places).split("\0").flatMap((part, place) => (place % 2 ? values[part] : part));
}

/** Return nodes as a list in words, as the page's language joins them. */
function enumerate(nodes) {
  const parts = new Intl.ListFormat(language).formatToParts(nodes.map((_, place) => String(place)));
  return parts.map(({ type, value }) => (type === "element" ? nodes[value] : value));
}

/** Return the signals of a hit: what the ranker counted first, then what found it, heaviest first; last what added nothing.
 *  An answer without `signals` has at least its stages' scores, which say what was measured and not what it added. */
function signalsOf(hit) {
  const measured = {};
  for (const stage of searchers()) if (hit.stages?.[stage]) measured[stage] = { value: hit.stages[stage].score, to: "fused" };
  if (Number.isFinite(hit.logit)) measured.ranker = { value: hit.logit, to: "ranked" };
  const given = hit.signals && Object.keys(hit.signals).length ? hit.signals : measured;
  const signals = Object.entries(given).map(([name, signal]) => ({ name, to: "ranked", ...(typeof signal === "number" ? { value: signal } : signal) }));
  const order = ({ name, to, added }) => (Number.isFinite(added) ? (to === "fused" ? 0 : name === "ranker" ? 2e9 : 1e9) + Math.abs(added) : -1);
  return signals.sort((a, b) => order(b) - order(a));
}

/** Draw the reasons: a sentence or two for each signal, and what did not find the hit; then what was measured. */
function reasonsOf(hit, answer) {
  const signals = signalsOf(hit).filter(({ name, value, added }) => name !== "match" || value > 1 || added); // one word is told by `words`
  const most = { fused: 0, ranked: 0 };
  for (const { to, added } of signals) most[to] = Math.max(most[to] ?? 0, Math.abs(added ?? 0));
  const drawn = signals.map((signal) => {
    const { to, added } = signal;
    const fill = make("span", { class: added < 0 ? "less" : null });
    fill.style.width = `${(100 * Math.abs(added ?? 0)) / (most[to] || 1)}%`;
    return make("li", {}, Number.isFinite(added) ? make("span", { class: "bar", "aria-hidden": "true" }, fill) : null, ...sentencesOf(hit, signal, answer).map((nodes) => make("p", {}, ...nodes)));
  });
  const measured = signals.map(({ name, value, added, terms, more }) => {
    const rank = hit.stages?.[name]?.rank;
    const facts = [rank ? say("rank", { stage: nameOf(name), n: count(rank) }) : name !== "ranker" && name, say(name === "ranker" ? "logit" : "value", { n: score(value) }), Number.isFinite(added) && added !== value && say("added", { n: signed(added) })];
    return make("div", {}, make("p", { class: "worth" }, facts.filter(Boolean).join(" · ")), name === "words" ? drawTerms(terms, more) : null);
  });
  const missing = answer.feeds.filter((stage) => !rankIn(hit, stage)).map((stage) => {
    const [name, isWords] = [nameOf(stage), stage === "words" && !hit.highlights?.length];
    return make("li", { class: "quiet" }, make("p", {}, say(isWords ? "why_missing" : "why_behind", { stage: name === stage ? name : withinSentence(name) })));
  });
  return [make("ul", { class: "reasons" }, ...drawn, ...missing), make("details", {}, make("summary", {}, say("numbers")), ...measured)];
}

/** Return what a signal means, as sentences of nodes. */
function sentencesOf(hit, { name, value, terms }, answer) {
  if (name === "ranker") {
    const [from, to] = [rankIn(hit, answer.base), rankIn(hit, answer.last)];
    const sure = isCalibrated() && Number.isFinite(hit.probability) && say("why_sure", { percent: percent(hit.probability) });
    const sentences = [sure, answer.isRanked && from && say("why_place", { from: count(from), to: count(to) })].filter(Boolean);
    return sentences.length ? sentences.map((one) => [one]) : [[say("why_ranker")]];
  }
  if (name === "words") {
    const inTitle = distinct(titleOf(hit), partsOf(titleOf(hit)));
    const inText = distinct(hit.text, hit.highlights ?? []).filter((one) => !inTitle.some((other) => other.toLowerCase() === one.toLowerCase()));
    const told = (what, found) => sayNodes(what, { s: found.length > 1 ? "s" : "", terms: enumerate(found.slice(0, TERMS).map(markTerm)) });
    const others = (Array.isArray(terms) ? terms : []).filter((one) => one.for);
    const kind = ({ for: from }) => ((answer.synonyms ?? []).some((one) => one.from === from) ? "why_synonym" : "why_corrected");
    const sentences = [inTitle.length && told("why_title", inTitle), inText.length && told("why_text", inText), ...others.map((one) => sayNodes(kind(one), { from: one.for, terms: [markTerm(one.term)] }))].filter(Boolean);
    return sentences.length ? sentences : [[say("why_words")]];
  }
  if (name === "match") return [[say("why_match", { n: value })]];
  if (["vectors", "recall", "features"].includes(name)) return [[say(`why_${name}`)]];
  return [[searchers().includes(name) ? say("why_field", { name }) : name]];
}

const TERMS = 6; // words of a result that are told one by one
const markTerm = (term) => make("mark", { lang: languageOf(term) }, term);
/** Return the parts of a text, each once, the longest shared ones first. */
function distinct(text, parts) {
  const points = codePoints(text);
  return [...new Set([...parts].sort((a, b) => (b.level ?? 1) - (a.level ?? 1)).map(({ start, end }) => joined(points.slice(start, end))))].filter(Boolean);
}

/** Draw the words that were found, what each added and where, and how many others there are. */
function drawTerms(terms, more) {
  if (!Array.isArray(terms) || !terms.length) return null;
  const others = Math.max(terms.length - TERMS, 0) + (Number(more?.terms) || 0);
  return make("p", { class: "terms" }, ...terms.slice(0, TERMS).flatMap(({ term, added, at }) => {
    const places = (at ?? []).slice(0, 3).map(([start]) => count(start + 1)).join(language === "zh" ? "、" : ", ");
    return [make("span", {}, markTerm(term), " ", [Number.isFinite(added) && signed(added), places && say("at", { places })].filter(Boolean).join(", ")), " "];
  }), others ? say("others", { n: count(others) }) : "");
}
