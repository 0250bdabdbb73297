// What the page says about an answer: how the query was read, what was late, that nothing was found.

import { DEFAULTS, state } from "./address.js";
import { acts, isCalibrated, shown } from "./answer.js";
import { parts } from "./board.js";
import { choicesOf, index, nameOf, numberOf, searchedBy, searchers } from "./collection.js";
import { fillQuery } from "./form.js";
import { $, button, make } from "./nodes.js";
import { codePoints, cut } from "./text.js";
import { count, languageOf, say, time, wordsIn } from "./words.js";

export const tellFound = (answer) =>
  say(!Number.isFinite(answer.total) ? "found" : answer.total === 1 ? "single" : wordsIn(shown.query).length > 1 ? "matched" : "matched_one", { n: count(answer.hits.length), total: count(answer.total ?? answer.index?.documents), time: time(answer.took_ms?.total ?? 0) });

/** Return what the answer says of the query: how it was read, what was late; with ways to have it otherwise. */
export function notices(answer) {
  const told = answer.degraded.map((stage) => (stage === "rank" ? say("late_rank") : say("late", { stage: nameOf(stage) })));
  if (answer.hits.length && answer.ranked === false && index.ranker !== null && state.how && !answer.sort && !answer.degraded.includes("rank")) told.push(say("unranked"));
  if (answer.nothing_close && answer.hits.length) told.unshift(say("nothing_close"));
  if (answer.query_read < codePoints(shown.query).length) told.push(say("too_long", { n: count(answer.query_read) }));
  for (const [name, n] of Object.entries(answer.query_read_by ?? {})) told.push(say("too_long_by", { name: nameOf(name), n: count(n) }));
  const again = (name, change) => button({ onclick: () => (Object.assign(state, change, { q: shown.query }), fillQuery(), acts.search("chosen")) }, say(name));
  const others = (answer.phrases ?? []).map((one) => `“${bare(one)}”`).join(", ");
  const read = [
    ...(answer.corrected ?? []).filter(({ by }) => by !== "prefix").map((one) => say("corrected", { ...one, to: one.to.join(", ") })),
    ...(answer.synonyms ?? []).map((one) => say("synonyms", { ...one, to: one.to.join(", ") })),
    ...["phrases", "unfound", "excluded"].flatMap((name) => (answer[name] ?? []).map(bare).map((n) => say(name === "unfound" && others ? "unfound_with" : name, { n, others }))),
  ];
  if (read.length) told.push([read.join(" "), " ", again(answer.phrases || answer.excluded ? "signs" : "literal", { literal: "1" })]);
  if (state.literal) told.push([say("was_literal"), " ", again("not_literal", { literal: "" })]);
  if (answer.did_you_mean && answer.hits.length) told.push([say("did_you_mean"), " ", suggestion(answer)]);
  return told.map((parts) => make("span", {}, ...[parts].flat()));
}

/** A phrase without the plus sign of a word that results must have. */
const bare = (phrase) => phrase.replace(/^\+(?=\p{L})/u, "");

const suggestion = ({ did_you_mean: better }) => button({ lang: languageOf(better), onclick: () => acts.searchFor(better) }, cut(better));

/** Say that nothing was found, once, and ways on. */
export function showNothing(answer) {
  const filters = parts.filters?.tellFilters() ?? "";
  const by = (name, change) => button({ onclick: () => (Object.assign(state, change), acts.search("chosen")) }, say(name));
  const isMore = searchedBy().length < searchers().length;
  const isShort = codePoints(shown.query.trim()).length === 1 && !isMore;
  $("nothing").replaceChildren(
    make("h2", {}, shown.isFirst ? say("nothing_meets") : say("nothing", { query: shown.query })),
    answer.did_you_mean ? make("p", {}, say("did_you_mean"), " ", suggestion(answer)) : "",
    filters ? make("p", {}, say("filtered", { filters }), " ", by("drop_filters", { filter: "{}" })) : "",
    isMore ? make("p", {}, by("use_all", { use: DEFAULTS.use })) : "",
    shown.isFirst ? "" : make("p", { class: "quiet" }, say(isShort ? "one_more" : "shorter")),
  );
}

/** Draw what stands around the list: the cut where probabilities are calibrated, and the ways to more: longer lists,
 *  and of sorted ones the next page. */
export function drawHead(answer) {
  $("cut").hidden = !(isCalibrated() && answer.isRanked && state.how);
  $("scale").hidden = isCalibrated() || !state.how || !Number.isFinite(answer.hits[0].probability);
  const [most, from, found] = [numberOf("top_k"), state.from ?? 0, answer.hits.length];
  const isLonger = !from && found >= most && most < choicesOf("top_k").at(-1);
  const isNext = Boolean(answer.sort) && !isLonger && (answer.total ? from + found < answer.total : found >= most) && from + most + most <= (index.limits?.sorted ?? Infinity);
  const turn = (name, to) => button({ class: name, onclick: () => acts.search("chosen", to) }, say(name));
  const longer = () => button({ onclick: () => ((state.top_k = choicesOf("top_k").find((one) => one > most) ?? most), acts.search("chosen")) }, say("more_results"));
  $("more").replaceChildren(...(isLonger ? [longer()] : []), ...(from ? [turn("page_before", Math.max(0, from - most)), " "] : []), ...(isNext ? [turn("page_next", from + most)] : []));
  $("more").hidden = !$("more").children.length;
}
