// A question and its answer: what is asked, what is shown, where each hit stands in each stage.

import { filterOf, state } from "./address.js";
import { index, isAddress, nameOf, numberOf, searchedBy, searchers, tellOf } from "./collection.js";
import { ask, Failure } from "./server.js";
import { codePoints, cut, joined, windowOf } from "./text.js";
import { count, say } from "./words.js";

/** Take a file of the visitor as the example; null: none. */
export const takeExample = (file) => (example = file);

let example = null; // a file of the visitor that documents should be like: its type of fields, and its data: URL

/** What the views ask for; search.js says what it does. */
export const acts = {};

export const likeOf = () => (example ? { [example.kind]: example.url } : state.like ? { id: state.like } : null);
export const tellLike = () => (example ? say(`by_${example.kind}`) : state.like && `${say("more_like")}: ${state.like}`);

const PASSAGE = 240; // code points of a text that are asked for: the list shows a part of them
const LONGEST = 300; // code points of a title, and of a field that a row may tell

/** Return what is asked: without what the server's own options say, unless it was chosen here. Without a query and an
 *  example, documents are listed: nothing about words and scores is asked then. */
export function question(query, isTyped) {
  const { fusion, recall, top_k, from, literal, group_by, sort } = state;
  const like = likeOf();
  const isListing = !query.trim() && !like;
  const isCounted = isListing || (Boolean(query.trim()) && searchedBy().includes("words"));
  const short = { snippet: PASSAGE, field_size: LONGEST + 1 };
  const asked = { query, where: filterOf(), ...short, total: isCounted, ...(like && { like }), ...(top_k !== null && { top_k }), ...(from && (isListing || sort) && { offset: from }), ...(isCounted && index.facets?.length && { facets: index.facets }) };
  const alike = group_by && index.facets && { group_by: "content" };
  if (isListing) return { ...asked, ...(sort && { sort: [sort] }), ...alike };
  const ranking = { ...(recall !== null && { depth: recall }), ...(numberOf("rank_top") && { rank_top: numberOf("rank_top") }), ...(fusion && { fusion }) };
  const words = { ...(literal && { literal: true }), ...(isTyped && { prefix: true }), ...alike };
  return { ...asked, explain: true, ...(sort ? { sort: [sort] } : ranking), ...words, ...(searchedBy().length < searchers().length && { by: searchedBy() }) };
}

/** Count values of fields among the documents of the answer that is shown: those that have a part, by name of a field. */
export async function countValues(facets, facet_values) {
  const { query, where, literal, prefix } = shown.answer.asked;
  const words = query.trim() ? { literal, prefix, rank_top: 0, ...(searchers().length > 1 && { by: ["words"] }) } : {};
  const { facets: counted } = await ask("v1/search", { method: "POST", body: { query, where, ...words, facets, facet_values, top_k: 1, snippet: 1, fields: [], logged: false } });
  return counted;
}

/** Return a hit with its whole text, the words in it marked, and all of its fields; where the server has it no more,
 *  the hit as it is. Of a text with more than `most` code points it has those around the passage. */
export async function wholeOf(hit, most = Infinity) {
  const { text: all, fields } = await ask(`v1/documents/${encodeURIComponent(hit.id)}`).catch(() => ({}));
  if (typeof all !== "string") return hit;
  const points = codePoints(all);
  const begin = points.length > most ? Math.max(0, Math.min(hit.begin - most / 2, points.length - most)) : 0;
  const text = joined(points.slice(begin, begin + most));
  const { start, end } = { start: hit.begin - begin, end: hit.begin - begin + codePoints(hit.text).length };
  const own = (hit.highlights ?? []).map((one) => ({ ...one, start: start + one.start, end: start + one.end }));
  const others = partsOf(text, patternOf([hit])).filter((one) => one.end <= start || one.start >= end);
  if (hit.place) delete fields.places;
  return { ...hit, text, fields, highlights: [...own, ...others], begin, isCut: begin + most < points.length };
}

/** Return a hit with its passage as its text; `begin`: where that begins, `isCut`: whether more follows. What is shown
 *  of it begins at the first word of the query. */
function withText(hit) {
  const { text, start: begin, of, highlights } = hit?.snippet ?? {};
  if (typeof text !== "string") return hit;
  const end = codePoints(text).length;
  return { ...hit, text, begin, isCut: begin + end < of, highlights, passage: { start: highlights?.[0]?.start ?? 0, end } };
}

const isRank = (rank) => Number.isInteger(rank) && rank > 0;

/** Return an answer that can be drawn; throws `Failure` where it has not the shape of one.
 *  `feeds`: searchers that are several, and feed the fused list; `base`: the list that is ranked; `last`: what is shown. */
export function readAnswer(answer) {
  const isHit = (hit) => hit && typeof hit.id === "string" && typeof hit.text === "string" && isRank(hit.rank);
  if (Array.isArray(answer.hits)) answer = { ...answer, hits: answer.hits.map(withText) };
  const dropped = Array.isArray(answer.dropped) ? answer.dropped.map(withText) : answer.dropped ?? [];
  const lists = [answer.hits, dropped, ...["corrected", "synonyms", "phrases", "unfound", "excluded"].map((name) => answer[name] ?? [])];
  if (!lists.every(Array.isArray) || ![...answer.hits, ...dropped].every(isHit)) throw new Failure("unread");
  const degraded = answer.degraded ?? [];
  const isRanked = answer.ranked !== false && !degraded.includes("rank") && !answer.sort;
  const own = new Set(answer.hits.map(({ id }) => id));
  const docs = [...answer.hits, ...(isRanked ? dropped.filter(({ id }) => !own.has(id)) : [])];
  const found = [...new Set(["words", "vectors", ...searchers()])].filter((stage) => docs.some((hit) => isRank(hit.stages?.[stage]?.rank)));
  const feeds = found.length > 1 ? found : [];
  const base = feeds.length || !found.length ? "fused" : found[0];
  const stages = [...feeds, base, ...(isRanked ? ["ranked"] : [])];
  return { ...answer, degraded, isRanked, docs, feeds, base, stages, last: stages.at(-1) };
}

/** Take what is drawn from now on; null: nothing. */
export const show = (next) => (shown = next);

export let shown = null; // what is drawn: the answer, its question, its nodes
export const titleOf = (hit) => (typeof hit.title === "string" ? cut(hit.title.trim()) : "");
const wordsOf = (hit) => `${titleOf(hit)}\n${joined(codePoints(hit.text).slice(...windowOf(hit)))}`;

/** Return what tells hits apart: `row` where title and text are those of another, `item` where the titles are. */
export function namesOf(hits) {
  const names = new Map(hits.map(({ id }) => [id, {}]));
  for (const [what, shows] of [["row", wordsOf], ["item", (hit) => titleOf(hit) || hit.text.slice(0, 60)]]) {
    const groups = new Map();
    for (const hit of hits) groups.set(shows(hit), [...(groups.get(shows(hit)) ?? []), hit]);
    for (const same of groups.values()) {
      if (same.length < 2) continue;
      const differs = (name) => new Set(same.map((hit) => (isBrief(hit.fields?.[name]) ? String(hit.fields[name]) : ""))).size === same.length;
      const field = Object.keys(same[0].fields ?? {}).find((name) => name !== "url" && !isAddress(name) && differs(name));
      for (const hit of same) names.get(hit.id)[what] = field ? tellOf(field, hit.fields[field]) : hit.id;
    }
  }
  return names;
}

export const isBrief = (value) => ["string", "number", "boolean"].includes(typeof value) && String(value).length <= 40;
export const isCalibrated = () => shown.answer.calibrated === true;

/** Return the rank that a stage gave a hit; undefined where it did not find it. */
export function rankIn(hit, stage) {
  const rank = hit.stages?.[stage]?.rank;
  return stage === shown.answer.last && !isOut(hit) ? hit.rank : isRank(rank) ? rank : undefined;
}

/** Return whether ranking moved a hit out of the first ones. */
export const isOut = (hit) => shown.out.has(hit.id);

/** Return the hits that a stage found, in its order; in the last one those that are shown. */
export const foundBy = (stage) =>
  (stage === shown.answer.last ? shown.answer.hits : shown.answer.docs).filter((hit) => rankIn(hit, stage)).sort((a, b) => rankIn(a, stage) - rankIn(b, stage));

/** Return how a hit came from one rank to another; `new`: it was behind those that are shown. */
export function movement(from, to) {
  if (!from || (from > shown.answer.hits.length && to <= shown.answer.hits.length)) return "new";
  return to < from ? "up" : to > from ? "down" : "same";
}

export const ARROWS = { up: "↑", down: "↓", same: "=", new: "+", out: "×" };

/** Return the way of a hit in words: its ranks by the searchers, which are parallel, and in the lists after them. */
export function tellWay(hit) {
  const { feeds, stages, sort } = shown.answer;
  if (sort) return ""; // nothing was found by a searcher
  const told = stages.map((stage) => say(rankIn(hit, stage) ? "place" : "missing", { stage: nameOf(stage), rank: count(rankIn(hit, stage)) }));
  return [told.slice(0, feeds.length).join(" + "), ...told.slice(feeds.length)].filter(Boolean).join(" → ");
}

const ownTerms = (hit) => [hit.signals?.words?.terms ?? []].flat().filter((one) => one && !one.for).map(({ term }) => term);

/** Return a pattern of the words that an answer's hits share with the query: ideographs anywhere, words with endings. */
function patternOf(hits) {
  const terms = [...new Set(hits.flatMap(ownTerms).map(String))].filter(Boolean).sort((a, b) => b.length - a.length);
  const any = terms.map((term) => {
    const plain = term.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
    return /\p{Script=Han}/u.test(term) ? plain : `(?<![\\p{L}\\p{N}])${plain}\\p{L}{0,3}(?![\\p{L}\\p{N}])`;
  });
  return any.length ? new RegExp(any.join("|"), "giu") : null; // made once for an answer: that takes longest
}

/** Return where the query's words stand in a title, which has no highlights of its own. */
export function partsOf(text, pattern = (shown.pattern ??= [patternOf(shown.answer.docs)])[0]) {
  const parts = [];
  let [read, points] = [0, 0]; // characters of the text so far, and code points
  const at = (place) => {
    points += codePoints(text.slice(read, place)).length;
    read = place;
    return points;
  };
  for (const { 0: found, index: place } of pattern ? text.matchAll(pattern) : []) {
    const [start, end] = [at(place), at(place + found.length)];
    if (parts.at(-1)?.end === start) parts.at(-1).end = end; // pairs of ideographs side by side are one part
    else parts.push({ start, end, level: 1 });
  }
  return parts;
}

export const keyOf = (stage, id) => `${stage} ${id}`;
