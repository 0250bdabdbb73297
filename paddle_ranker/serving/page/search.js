// The search page: asks POST /v1/search and draws the results; on request, what each stage made of the documents.
// Every number that it shows is in the answer. All texts enter the page as text nodes.

// ---- words: everything that the page says, in both languages

const WORDS = {
  zh: {
    more_like: "更多类似", by_picture: "以图搜索", by_recording: "以声音搜索",
    other: "English", search: "搜索", judge: "标注", more: "其他", skip: "跳到结果", query: "查询", suggestions: "建议",
    settings: "设置", use: "召回方式", words: "词语", vectors: "语义", fused: "融合", ranked: "排序", fusion: "融合方法",
    recall: "各路召回", rank_top: "排序前", top_k: "显示", group_by: "合并近似的文档", filters: "更多筛选", stages: "阶段", results: "结果", keys: "按键",
    rrf: "倒数排名", weighted: "加权得分", none: "不排序", yes: "是", no: "否",
    placeholder: "输入查询，例如：{example}", documents: "{n} 篇文档", tries: "试试：", example: "搜索“{query}”的经过",
    welcome: "输入一个查询。", how: "这些结果是怎么找到的？", example_plain: "例如“{query}”的搜索结果",
    sort: "排序方式", all_words: "只看含有全部词语的", key_for: "这里的搜索需要密钥", key_from: "请向管理员索取。密钥只保存到这个标签页关闭为止。", key_wrong: "密钥不对，请再试一次。", key_send: "进入",
    found: "{total} 篇文档中的前 {n} 条结果，用时 {time}。", matched: "{total} 篇文档含有任一词，用时 {time}。", matched_one: "{total} 篇文档，用时 {time}。", single: "1 篇文档，用时 {time}。", milliseconds: "{n} 毫秒", working: "正在搜索……",
    cut: "概率至少", passed: "{percent}：{n} / {total} 条", all: "不限", more_results: "显示更多",
    moved: "从 {from} 到 {to}", stays: "{to} 不变", ends: "最终第 {to} 位", place: "{stage}第 {rank} 位", missing: "{stage}不在前列",
    probability: "概率", relative: "横条：相关程度，相对于第一条", why: "为什么", open: "打开原文", relevant: "相关", irrelevant: "不相关",
    others: "另有 {n} 条", out: "被排序移出前 {n} 位", similar: "另有 {n} 篇相近：{ids}",
    nothing: "没有找到与“{query}”有关的文档。", filtered: "筛选条件：{filters}。", one_more: "一个字太短，请再输入一个。",
    did_you_mean: "你要找的是", drop_filters: "去掉筛选条件", use_all: "按语义搜索", shorter: "也可以换一个更短或更常见的说法。",
    corrected: "没有文档含“{from}”，已搜索“{to}”。", synonyms: "“{from}”也包括“{to}”。", phrases: "只要含有“{n}”的。", unfound: "没有文档含有整句“{n}”。", excluded: "不含“{n}”。", literal: "按原样搜索", signs: "把符号当作普通字搜索", was_literal: "按原样搜索：没有更正。", not_literal: "恢复更正",
    gone: "服务器没有回应。", busy: "服务器正忙。", refused: "服务器拒绝了这次请求。", failed: "服务器出错了。", unread: "服务器的回答读不懂。",
    again: "重试", again_in: "{n} 秒后可重试。", stale: "下面仍是上一次“{query}”的结果。",
    late_rank: "排序没有按时完成：下面是融合后的顺序。", late: "没有按时完成：{stage}。",
    nothing_close: "没有找到很接近的内容；下面是相对最近的。", unranked: "没有经过排序模型：下面是融合后的顺序。", too_long: "查询太长：只用了前 {n} 个字。", too_long_by: "查询太长：{name}只读了前 {n} 个字。", unsaved: "没有记下来：{why}", saved: "已记下",
    unfamiliar: "排序模型可能不适合这些文档：得分应在 {expected} 左右，实为 {seen}。",
    key_focus: "输入", key_move: "选择", key_why: "为什么", key_close: "关闭",
  },
  en: {
    more_like: "More like this", by_picture: "Search by picture", by_recording: "Search by sound",
    other: "中文", search: "Search", judge: "Judge", more: "More", skip: "Skip to results", query: "Query", suggestions: "Suggestions",
    settings: "Settings", use: "Recall by", words: "Words", vectors: "Meaning", fused: "Fused", ranked: "Ranked", fusion: "Fusion",
    recall: "Recall, each", rank_top: "Rank the first", top_k: "Show", group_by: "Near-duplicates as one", filters: "More filters", stages: "Stages", results: "Results", keys: "Keys",
    rrf: "reciprocal ranks", weighted: "weighted scores", none: "no ranking", yes: "yes", no: "no",
    placeholder: "Type a query, such as: {example}", documents: "{n} documents", tries: "Try: ", example: "What a search for “{query}” goes through",
    welcome: "Type a query.", how: "How was this found?", example_plain: "Results for “{query}”, as an example",
    sort: "Sort by", all_words: "Only with all words", key_for: "This search needs a key", key_from: "Ask whoever runs it. The key is kept until this tab is closed.", key_wrong: "That key does not fit. Please try again.", key_send: "Continue",
    found: "First {n} results among {total} documents, in {time}.", matched: "{total} documents have any of these words, in {time}.", matched_one: "{total} documents, in {time}.", single: "1 document, in {time}.", milliseconds: "{n} ms", working: "Searching…",
    cut: "At least", passed: "{percent}: {n} of {total}", all: "no limit", more_results: "Show more",
    moved: "from {from} to {to}", stays: "stays at {to}", ends: "ends at {to}", place: "{stage}: {rank}", missing: "{stage}: not among the first",
    probability: "Probability", relative: "Bar: relevance, relative to the first", why: "Why", open: "Open", relevant: "Relevant", irrelevant: "Not relevant",
    others: "{n} more", out: "Left the first {n} by ranking", similar: "{n} similar: {ids}",
    nothing: "Nothing found for “{query}”.", filtered: "Filters: {filters}.", one_more: "One character is too short: type another.",
    did_you_mean: "Did you mean", drop_filters: "Remove the filters", use_all: "Search by meaning", shorter: "Or try a shorter or more common wording.",
    corrected: "Nothing has “{from}”: searched “{to}”.", synonyms: "“{from}” includes “{to}”.", phrases: "Only with “{n}”.", unfound: "Nothing has all of “{n}”.", excluded: "Without “{n}”.", literal: "Search as written", signs: "Search for the signs as plain words", was_literal: "Searched as written, without corrections.", not_literal: "Search as usual",
    gone: "The server does not answer.", busy: "The server is busy.", refused: "The server refused the request.", failed: "The server failed.", unread: "The server’s answer cannot be read.",
    again: "Try again", again_in: "Try again in {n} s.", stale: "Below is still the earlier answer, to “{query}”.",
    late_rank: "Ranking was late: this is the fused order.", late: "Late: {stage}.",
    nothing_close: "Nothing comes close to your search. These are the nearest documents there are.", unranked: "No ranker was asked: this is the fused order.", too_long: "The query is too long: only its first {n} characters were used.", too_long_by: "The query is too long for {name}, which reads its first {n} characters.", unsaved: "Not saved: {why}", saved: "Saved",
    unfamiliar: "The ranker may not fit these documents: its scores should be about {expected}, and are {seen}.",
    key_focus: "type", key_move: "choose", key_why: "why", key_close: "close",
  },
};

let language = "zh";

/** Add what a further module says. */
export function addWords(words) {
  for (const [name, own] of Object.entries(words)) Object.assign(WORDS[name], own);
}

/** Return a text of the page in its language, with `{names}` replaced by values. */
export function say(name, values = {}) {
  return (WORDS[language][name] ?? name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/** Choose the language of the address, else of the browser, and put it into what the HTML file holds. */
export function speak() {
  const asked = new URLSearchParams(location.search).get("lang");
  language = (asked ?? navigator.language).toLowerCase().startsWith("zh") ? "zh" : "en";
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const link of document.querySelectorAll("[data-to]")) link.href = link.dataset.to + (asked ? `?lang=${language}` : "");
  const other = document.getElementById("language");
  other.textContent = say("other");
  other.lang = other.hreflang = language === "zh" ? "en" : "zh";
}

/** Change the language in place when its link is used; the address keeps it. `then` draws anew. */
export function switchLanguage(then) {
  document.getElementById("language").addEventListener("click", (event) => {
    event.preventDefault();
    const address = new URLSearchParams(location.search);
    address.set("lang", language === "zh" ? "en" : "zh");
    history.replaceState(history.state, "", `?${address}`);
    speak();
    then();
  });
}

// ---- tools

export const $ = (id) => document.getElementById(id);

/** Make an element; names that begin with `on` are listeners, `null`, `undefined` and `false` are left out. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Make a button that sends no form. */
export const button = (attributes, ...children) => make("button", { type: "button", ...attributes }, ...children);

/** Return a function that writes numbers in the page's language; to make an `Intl.NumberFormat` takes longest. */
export function numbers(options) {
  const formats = {};
  return (value) => (Number.isFinite(value) ? (formats[language] ??= new Intl.NumberFormat(language, options)).format(value) : "?");
}

export const count = numbers({ useGrouping: "min2" }); // 2024 may be a year, 12,345 is none
export const score = numbers({ maximumSignificantDigits: 3 });
export const percent = numbers({ style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const wholePercent = numbers({ style: "percent" });
const tenths = numbers({ minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const time = (value) => say("milliseconds", { n: tenths(value) });

/** A refusal or failure of the server: `kind` says how to tell it, `status` is HTTP's, `retryAfter` is in seconds. */
class Failure extends Error {
  constructor(kind, message = "", status = 0, retryAfter = 0) {
    super(message);
    Object.assign(this, { kind, status, retryAfter });
  }
}

const localStorageOf = () => localStorage;
const sessionStorageOf = () => sessionStorage;

/** Return what a storage keeps under a name, and keep `value` there if it is given; some browsers keep nothing. */
function kept(storageOf, name, value) {
  try {
    if (value !== undefined) storageOf().setItem(name, value);
    return storageOf().getItem(name);
  } catch {
    return null;
  }
}

/** Return the server's key, which stays until the tab is closed. */
const keptKey = (given) => kept(sessionStorageOf, "key", given);

let triedKey = null; // one that was typed, until an answer shows that it is right: only then it is kept

/** Ask the server; return the JSON of its answer. Throws `Failure`, or an `AbortError` where `signal` ends it. */
export async function ask(path, { method = "GET", body, signal, keepalive } = {}) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const key = triedKey ?? keptKey();
  if (/[^ -~]/.test(key ?? "")) throw new Failure("needs_key"); // no header can hold it: an IME was on
  if (key) headers["X-API-Key"] = key;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, keepalive, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("gone");
  }
  const content = await response.text().then(JSON.parse).catch((error) => { // sooner there than `json()`
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && content !== null) {
    if (key && key === triedKey) (keptKey(key), (triedKey = null));
    return content;
  }
  const kinds = { 401: "needs_key", 404: "refused", 429: "busy", 502: "gone", 503: "busy", 504: "busy" };
  const kind = response.ok ? "unread" : kinds[response.status] ?? (response.status < 500 ? "refused" : "failed");
  throw new Failure(kind, content?.message ?? "", response.status, Number(response.headers.get("Retry-After")) || 0);
}

/** Show a failure with a way to try again, and where a key is missing, a field for it. */
export function showFailure(error, again, note = "") {
  $("failure").classList.toggle("is-locked", error.kind === "needs_key");
  if (error.kind === "needs_key") return askForKey(again);
  const again_in = error.retryAfter ? say("again_in", { n: count(error.retryAfter) }) : "";
  const told = [say(error.kind ?? "unread"), error.message, again_in, note].filter(Boolean).join(" ");
  const form = make("form", { onsubmit: (event) => (event.preventDefault(), again()) }, make("button", {}, say("again")));
  $("failure").replaceChildren(make("p", {}, told), form);
}

/** Ask for the server's key, and go on with it. Several requests may ask: the field stays, with what is typed meanwhile. */
function askForKey(again) {
  if (!$("key")) {
    const field = make("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
    const told = make("p", {}, make("label", { for: "key" }, say("key_for")), " ", make("span"));
    $("failure").replaceChildren(told, make("form", {}, field, " ", make("button", {}, say("key_send"))));
    field.focus();
  }
  $("failure").querySelector("span").textContent = say(triedKey ?? keptKey() ? "key_wrong" : "key_from");
  $("key").form.onsubmit = (event) => {
    event.preventDefault();
    triedKey = $("key").value.trim();
    $("key").value = "";
    again();
  };
}

/** Tell the log of an event; where nothing is logged, nothing is sent. Returns whether it was taken. */
async function sendFeedback(index, content) {
  if (!index.logging) return false;
  await ask("v1/feedback", { method: "POST", body: content, keepalive: true });
  return true;
}

// What joins code points to one character: marks, joiners, variation selectors, flags, skin tones, tags, Hangul.
const JOINED = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{1f1e6}-\u{1f1ff}\u{1f3fb}-\u{1f3ff}\u{e0020}-\u{e007f}\u1100-\u11ff]/u;
const SURROGATE = /[\ud800-\udfff]/;
const AROUND = 64; // code points around a window in which the ends of characters are looked for

/** Return a text's code points: the text itself where each is one unit, else an array; both have slice and length. */
export const codePoints = (text) => (SURROGATE.test(text) ? Array.from(text) : text);
export const joined = (points) => (typeof points === "string" ? points : points.join(""));

/** Return where characters begin in a window of code points, `[..., end]`; null: every code point is a character. */
function characterStarts(points, from, to) {
  const text = joined(points.slice(from, to));
  if (!JOINED.test(text) || !Intl.Segmenter) return null;
  const starts = [];
  let place = from;
  for (const { segment } of new Intl.Segmenter(language, { granularity: "grapheme" }).segment(text)) {
    starts.push(place);
    place += codePoints(segment).length;
  }
  return [...starts, place];
}

/** Return text nodes and `mark`s of a text from one code point to another; no character is cut in two.
 *  `highlights`: objects with `start`, `end` (code points) and `level`; where they overlap, the highest level shows. */
export function marked(text, highlights, from = 0, to = Infinity) {
  const points = codePoints(text);
  to = Math.min(to, points.length);
  const starts = characterStarts(points, Math.max(0, from - AROUND), Math.min(points.length, to + AROUND));
  if (starts) {
    from = starts.findLast((start) => start <= from) ?? from;
    to = starts.find((start) => start >= to) ?? to;
  }
  const levels = new Uint8Array(Math.max(0, to - from));
  for (const { start, end, level } of highlights ?? []) {
    for (let i = Math.max(start, from); i < Math.min(end, to); i++) levels[i - from] = Math.max(levels[i - from], level || 1);
  }
  for (let i = 0; starts && i + 1 < starts.length; i++) {
    const [begin, end] = [Math.max(0, starts[i] - from), Math.max(0, starts[i + 1] - from)];
    levels.fill(Math.max(0, ...levels.subarray(begin, end)), begin, end);
  }
  const nodes = [];
  for (let begin = 0, end; begin < levels.length; begin = end) {
    for (end = begin + 1; end < levels.length && levels[end] === levels[begin]; ) end++;
    const part = joined(points.slice(from + begin, from + end));
    nodes.push(levels[begin] ? make("mark", { class: `level-${Math.min(levels[begin], 3)}` }, part) : part);
  }
  if (from > 0) nodes.unshift("…");
  if (to < points.length) nodes.push("…");
  return nodes;
}

const SHOWN = 180; // code points of a text in the list; "why" shows the whole text

/** Return the window of a long text to show: its best passage, from shortly before the first highlight there. */
function windowOf(hit) {
  const points = codePoints(hit.text);
  const { length } = points;
  if (length <= SHOWN) return [0, length];
  const { start = 0, end = length } = hit.passage ?? {};
  const first = (hit.highlights ?? []).find((one) => one.start >= start && one.end <= end)?.start ?? start;
  const from = first - start > SHOWN / 2 ? first - SHOWN / 4 : start;
  const wordAt = (place) => { // where a word begins, near enough
    for (let at = place; at > place - 20 && place < length; at--) if (points[at - 1] === " ") return at;
    return place;
  };
  return [Math.min(from, length - SHOWN), Math.min(from + SHOWN, length)].map((place) => wordAt(Math.max(0, Math.round(place))));
}

/** Return the language that a text's letters show, for its font and its voice; "": unknown. */
export function languageOf(text) {
  const begin = text.slice(0, 400);
  if (/[\u3040-\u30ff]/.test(begin)) return "ja";
  if (/\p{Script=Hangul}/u.test(begin)) return "ko";
  return /\p{Script=Han}/u.test(begin) ? "zh" : "";
}

/** Return the address in a document's fields if it is one of the web, else null. */
function addressIn(fields) {
  if (!fields?.url) return null; // to fail costs more
  try {
    const address = new URL(fields?.url);
    return ["http:", "https:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

// ---- address: query and settings stand in the URL

const DEFAULTS = { q: "", use: "", fusion: "", recall: 100, rank_top: 50, top_k: 10, filter: "{}", min: 0, stage: "", open: "", literal: "", group_by: "", sort: "", how: "", like: "" };
const CHOICES = { recall: [20, 50, 100, 200, 500], rank_top: [0, 10, 20, 50, 100], top_k: [10, 20, 50, 100] };

export let state = { ...DEFAULTS };
export let index = {}; // what GET /v1/index says
let indexed = null; // the promise of that
let example = null; // a file of the visitor that documents should be like: its type of fields, and its data: URL

const LONG = 4000; // characters of an address that servers and people take; a longer query stays in the history alone

/** Return the settings of the address; what is none of them is left at its default. */
function readAddress() {
  const given = new URLSearchParams(location.search);
  if (history.state?.q) given.set("q", history.state.q);
  DEFAULTS.how = kept(localStorageOf, "how") ?? "";
  const read = { ...DEFAULTS };
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = given.get(name);
    if (value === null) continue;
    if (typeof usual === "string") read[name] = value;
    else if (value !== "" && Number(value) >= 0) read[name] = Number(value);
  }
  read.min = Math.min(read.min, 1);
  try {
    const filter = JSON.parse(read.filter);
    if (!filter || typeof filter !== "object" || Array.isArray(filter)) read.filter = DEFAULTS.filter;
  } catch {
    read.filter = DEFAULTS.filter;
  }
  return read;
}

/** Keep the settings in the address: `typed` entries replace each other, `chosen` ones do not, `same` adds none. */
export function remember(how) {
  const address = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) if (state[name] !== usual) address.set(name, state[name]);
  const given = new URLSearchParams(location.search).get("lang");
  if (given) address.set("lang", given);
  const entry = { typed: how === "typed" || (how === "same" && Boolean(history.state?.typed)) };
  if (String(address).length > LONG) {
    address.delete("q");
    entry.q = state.q;
  }
  const next = `?${address}`;
  const isNew = (next !== (location.search || "?") || entry.q !== history.state?.q) && !(how === "same" || (how === "typed" && history.state?.typed));
  history[isNew ? "pushState" : "replaceState"](entry, "", next);
  clearTimeout(settling);
  if (entry.typed) settling = setTimeout(() => history.replaceState({ ...history.state, typed: false }, ""), SETTLED);
}

/** Return the filter: an object without a prototype, since a field may have the name of anything in one. */
export const filterOf = () => Object.assign(Object.create(null), JSON.parse(state.filter));

/** Put the query into its field. Elsewhere the field stays as it is: somebody may be typing. */
const fillQuery = () => ($("query").value = state.q);

/** Put the settings into the form. */
function fillForm() {
  const form = $("form");
  fillUse();
  fillChoices(form.fusion, index.fusions ?? ["rrf", "weighted"], (name) => say(name), fusionOf());
  for (const name of Object.keys(CHOICES)) {
    fillChoices(form[name], choicesOf(name), (value) => (value === 0 ? say("none") : count(value)));
  }
  $("alike").hidden = !index.facets;
  document.body.classList.toggle("shows-how", Boolean(state.how));
  $("how").firstElementChild.checked = Boolean(state.how);
  form.group_by.checked = Boolean(state.group_by);
  $("least").value = Math.round(100 * state.min);
  parts.filters?.fillFilters();
}

/** Make a box for each searcher, in the order of the index, checked if it is used. */
function fillUse() {
  const open = document.activeElement?.name === "use" && document.activeElement.value;
  const boxes = searchers().map((name) => make("label", {}, make("input", { type: "checkbox", name: "use", value: name, checked: searchedBy().includes(name) }), " ", nameOf(name)));
  $("use").replaceChildren($("use").firstElementChild, ...boxes);
  $("use").hidden = searchers().length < 2; // there is nothing to choose
  if (open) $("use").querySelector(`[value="${CSS.escape(open)}"]`)?.focus();
}

function fillChoices(select, choices, named, chosen = state[select.name]) {
  const all = choices.includes(chosen) ? choices : [...choices, chosen].sort((a, b) => a - b);
  select.replaceChildren(...all.map((value) => make("option", { value, selected: value === chosen }, named(value))));
}

/** Return a stage's name; a vector field may have that of any text of the page. */
export const nameOf = (stage) => (["words", "vectors", "fused", "ranked"].includes(stage) ? say(stage) : stage);

/** Return the names of the searchers, once the index is known. */
export const searchers = () => index.searchers ?? ["words", "vectors"];

/** Return what is searched by: of what was chosen, that which the index has; all if that is nothing. */
function searchedBy() {
  const chosen = searchers().filter((name) => state.use.split(",").includes(name));
  return chosen.length ? chosen : searchers();
}

/** Return how lists become one: what was chosen, else the server's own way. */
const fusionOf = () => state.fusion || index.fusion || "weighted";

/** Return the numbers to choose from, as far as the server's limits allow them. */
const choicesOf = (name) => CHOICES[name].filter((value) => value <= (index.limits?.[{ recall: "depth", rank_top: "pairs", top_k: "hits" }[name]] ?? Infinity));

export const isNumeric = (field) => ["number", "integer", "float"].includes(field?.type);

/** Return a field's name as people read it. */
export const labelOf = (name) => index.fields?.[name]?.label || name;

const isNumber = (name, value) => typeof value === "string" && value && isNumeric(index.fields?.[name]) && Number.isFinite(Number(value));

/** Return a value of a field as people read it, with its unit. Tables have numbers as texts. */
export function tellOf(name, value) {
  if (Array.isArray(value)) return value.map((one) => tellOf(name, one)).join(", ");
  if (isNumber(name, value)) return tellOf(name, Number(value));
  const told = typeof value === "number" ? count(value) : typeof value === "boolean" ? say(value ? "yes" : "no") : String(value);
  const unit = typeof value === "number" && index.fields?.[name]?.unit;
  return unit ? `${told} ${unit}` : told;
}

// ---- parts that not every visit needs

const parts = { filters: null, stages: null }; // filters.js and stages.js, once they are loaded

/** Return what draws how results were found, where somebody asked for that. */
const stagesPart = () => (state.how ? parts.stages : null);

/** Load the parts that the settings and the index need; the page does without one that does not come. */
async function loadParts(isFirst) {
  const load = async (name) => (parts[name] ??= await import(`./${name}.js`).catch(() => null));
  const isNarrowed = !isFirst && (Object.keys(index.fields ?? {}).length || state.filter !== DEFAULTS.filter || likeOf());
  const hadFilters = parts.filters;
  await Promise.all([isNarrowed && load("filters"), state.how && load("stages")]);
  if (!hadFilters) parts.filters?.fillFilters();
}

// ---- asking: the newest question alone is answered

const PAUSE = 250; // milliseconds after the last key
const PATIENCE = 300; // milliseconds before the page shows that it works
const SETTLED = 2000; // milliseconds after which what was typed is an entry of the history, which stays
let settling = 0; // the timer of the entry
let asking = null; // the AbortController of the request that runs
export let shown = null; // what is drawn: the answer, its question, its nodes

/** Search for what the settings say, and remember it in the address; without a query, for an example. */
export async function search(how) {
  asking?.abort();
  const mine = (asking = new AbortController());
  if (["typed", "chosen"].includes(how) && shown?.query !== state.q) Object.assign(state, { open: "", literal: "" });
  const isFirst = !state.q.trim() && !likeOf();
  const query = () => (isFirst ? examples()[0] : state.q);
  // The server is asked first, once its limits are known: what follows is done while it searches.
  const answered = indexed.then(() => (query() || likeOf()) && ask("v1/search", { method: "POST", body: { ...question(query(), how === "typed"), ...(isFirst && { logged: false }) }, signal: mine.signal }));
  const loaded = indexed.then(() => loadParts(isFirst));
  remember(how === "back" ? "same" : how);
  fillForm();
  document.title = isFirst ? say("search") : `${state.q || tellLike()} · ${say("search")}`;
  if (isFirst) {
    $("failure").replaceChildren();
    showWelcome();
  }
  tellBusy();
  const slow = isFirst ? 0 : setTimeout(() => setWorking(true), PATIENCE);
  try {
    const [answer] = await Promise.all([answered, loaded]);
    if (mine === asking && answer) drawAnswer(readAnswer(answer), query(), isFirst);
  } catch (error) {
    if (mine === asking && error.name !== "AbortError") isFirst ? showWelcome() : tellFailure(error);
  } finally {
    clearTimeout(slow);
    if (mine === asking) {
      asking = null;
      setWorking(false);
    }
  }
}

/** Return examples of queries: those in the visitor's language, where there are any. */
function examples() {
  const all = index.examples ?? [];
  const own = all.filter((one) => (languageOf(one) === "zh") === (language === "zh"));
  return own.length ? own : all;
}

/** Say what went wrong. Earlier results stay, unless it went wrong while these were drawn, or nothing was found. */
function tellFailure(error) {
  const isDrawn = error instanceof Failure;
  if (!isDrawn) {
    console.warn(error);
    error = new Failure("unread", String(error));
  }
  if (!isDrawn || !shown?.answer.hits.length || shown.isFirst) clearAnswer();
  $("status").textContent = "";
  const again = () => {
    if (!Object.keys(index).length) loadIndex(); // it could not be read, either
    search("same");
  };
  showFailure(error, again, shown ? say("stale", { query: shown.query }) : "");
}

export const likeOf = () => (example ? { [example.kind]: example.url } : state.like ? { id: state.like } : null);

export const tellLike = () => (example ? say(`by_${example.kind}`) : state.like && `${say("more_like")}: ${state.like}`);

/** Search by an example: the id of a document, or a file. */
export function searchLike(id, file = null) {
  Object.assign(state, { like: id, open: "", sort: "" });
  example = file;
  search("chosen");
}

/** Return what is asked: without what the server's own options say, unless it was chosen here. */
function question(query, isTyped) {
  const { fusion, recall, rank_top, top_k, literal, group_by, sort } = state;
  const like = likeOf();
  const asked = { query, where: filterOf(), explain: true, total: Boolean(query), ...(like && { like }), ...(top_k !== DEFAULTS.top_k && { top_k }) };
  const ranking = { ...(recall !== DEFAULTS.recall && { depth: recall }), ...(rank_top && { rank_top }), ...(fusion && { fusion }) };
  const words = { ...(literal && { literal: true }), ...(isTyped && { prefix: true }), ...(group_by && index.facets && { group_by: "content" }) };
  return { ...asked, ...(sort ? { sort: [sort] } : ranking), ...words, ...(query && index.facets?.length && { facets: index.facets }), ...(searchedBy().length < searchers().length && { by: searchedBy() }) };
}

const isRank = (rank) => Number.isInteger(rank) && rank > 0;

/** Return an answer that can be drawn; throws `Failure` where it has not the shape of one.
 *  `feeds`: searchers that are several, and feed the fused list; `base`: the list that is ranked; `last`: what is shown. */
function readAnswer(answer) {
  const isHit = (hit) => hit && typeof hit.id === "string" && typeof hit.text === "string" && isRank(hit.rank);
  const dropped = answer.dropped ?? [];
  const lists = [answer.hits, dropped, ...["corrected", "synonyms", "phrases", "unfound", "excluded"].map((name) => answer[name] ?? [])];
  if (!lists.every(Array.isArray) || ![...answer.hits, ...dropped].every(isHit)) throw new Failure("unread");
  const degraded = answer.degraded ?? [];
  const isRanked = answer.ranked !== false && !degraded.includes("rank") && !state.sort;
  const own = new Set(answer.hits.map(({ id }) => id));
  const docs = [...answer.hits, ...(isRanked ? dropped.filter(({ id }) => !own.has(id)) : [])];
  const found = [...new Set(["words", "vectors", ...searchers()])].filter((stage) => docs.some((hit) => isRank(hit.stages?.[stage]?.rank)));
  const feeds = found.length > 1 ? found : [];
  const base = feeds.length || !found.length ? "fused" : found[0];
  const stages = [...feeds, base, ...(isRanked ? ["ranked"] : [])];
  return { ...answer, degraded, isRanked, docs, feeds, base, stages, last: stages.at(-1) };
}

function setWorking(isWorking) {
  document.body.classList.toggle("is-working", isWorking);
  tellBusy();
  if (isWorking) $("status").textContent = say("working");
  else if (shown && $("status").textContent === say("working")) $("status").textContent = tellFound(shown.answer);
}

/** Say whether the results will still change by themselves: an answer is awaited, or some of it not drawn. */
function tellBusy() {
  $("board").setAttribute("aria-busy", Boolean(asking || (shown && !shown.isWhole)));
}

function clearAnswer() {
  shown = null;
  for (const id of ["board", "nothing", "legend", "welcome", "lead", "all-words"]) $(id).hidden = true;
  for (const id of ["status", "notice", "facets"]) $(id).replaceChildren();
}

/** Show the page without a query: examples, and the answer to the first once that is there. */
function showWelcome() {
  clearAnswer();
  document.body.classList.add("is-empty");
  document.body.classList.remove("is-first");
  drawWelcome(say("welcome"));
}

function drawWelcome(...lead) {
  $("welcome").hidden = $("lead").hidden = false;
  $("lead").replaceChildren(...lead);
  const tries = examples().slice(0, 4).map((query) => button({ lang: languageOf(query), "aria-current": query === shown?.query && "true", onclick: () => searchFor(query) }, query));
  $("tries").replaceChildren(...(tries.length ? [say("tries"), ...tries] : []));
}

function searchFor(query) {
  state.q = query;
  fillQuery();
  search("chosen");
}

// ---- drawing results

/** Return the words of a query as the browser knows them; none where somebody has put marks around them. */
export function wordsIn(query) {
  if (/["“”+-]/.test(query) || !Intl.Segmenter) return [];
  return [...new Intl.Segmenter(language, { granularity: "word" }).segment(query)].filter((one) => one.isWordLike).map((one) => one.segment);
}

const tellFound = (answer) =>
  say(!Number.isFinite(answer.total) ? "found" : answer.total === 1 ? "single" : wordsIn(shown.query).length > 1 ? "matched" : "matched_one", { n: count(answer.hits.length), total: count(answer.total ?? answer.index?.documents), time: time(answer.took_ms?.total ?? 0) });

/** Draw an answer in place of the one before; what is in both moves to its new place. */
function drawAnswer(answer, query, isFirst) {
  const first = roomForRows(); // asked before anything is changed
  const before = shown && positions();
  const { clicked, judged, followed } = shown?.answer === answer ? shown : { clicked: new Set(), judged: new Map(), followed: null };
  const hits = new Map(answer.docs.map((hit) => [hit.id, hit]));
  const out = new Set(answer.docs.slice(answer.hits.length).map(({ id }) => id));
  shown = { answer, query, isFirst, hits, out, rows: new Map(), bare: new Set(), items: new Map(), first, isSeen: false, isWhole: !answer.hits.length, stage: answer.last, spots: [], paths: [], clicked, judged, followed };
  shown.names = namesOf(answer.docs);
  document.body.classList.remove("is-empty");
  document.body.classList.toggle("is-first", isFirst);
  const [begin, end] = say(state.how ? "example" : "example_plain", { query: "\0" }).split("\0");
  if (isFirst) drawWelcome(begin, make("b", {}, query), end);
  else $("welcome").hidden = $("lead").hidden = true;
  $("failure").replaceChildren();
  $("notice").replaceChildren(...notices(answer));
  const isEmpty = !answer.hits.length;
  $("status").textContent = isEmpty || isFirst ? "" : tellFound(answer);
  $("all-words").hidden = isEmpty || isFirst || wordsIn(query).length < 2 || !(answer.total > answer.hits.length);
  $("nothing").hidden = !isEmpty;
  $("board").hidden = isEmpty;
  $("board").classList.toggle("has-pictures", answer.hits.some(hasPicture));
  $("legend").hidden = true;
  parts.filters?.drawFacets(answer.facets);
  if (isEmpty) {
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

export const titleOf = (hit) => (typeof hit.title === "string" ? hit.title.trim() : "");
const wordsOf = (hit) => `${titleOf(hit)}\n${joined(codePoints(hit.text).slice(...windowOf(hit)))}`;

/** Return what tells hits apart: `row` where title and text are those of another, `item` where the titles are. */
function namesOf(hits) {
  const names = new Map(hits.map(({ id }) => [id, {}]));
  for (const [what, shows] of [["row", wordsOf], ["item", (hit) => titleOf(hit) || hit.text.slice(0, 60)]]) {
    const groups = new Map();
    for (const hit of hits) groups.set(shows(hit), [...(groups.get(shows(hit)) ?? []), hit]);
    for (const same of groups.values()) {
      if (same.length < 2) continue;
      const differs = (name) => new Set(same.map((hit) => (isBrief(hit.fields?.[name]) ? String(hit.fields[name]) : ""))).size === same.length;
      const field = Object.keys(same[0].fields ?? {}).find((name) => name !== "url" && differs(name));
      for (const hit of same) names.get(hit.id)[what] = field ? String(hit.fields[field]) : hit.id;
    }
  }
  return names;
}

const isBrief = (value) => ["string", "number", "boolean"].includes(typeof value) && String(value).length <= 40;

/** Return what the answer says of the query: how it was read, what was late; with ways to have it otherwise. */
function notices(answer) {
  const told = answer.degraded.map((stage) => (stage === "rank" ? say("late_rank") : say("late", { stage: nameOf(stage) })));
  if (answer.hits.length && answer.ranked === false && index.ranker !== null && state.how && !state.sort && !answer.degraded.includes("rank")) told.push(say("unranked"));
  if (answer.nothing_close && answer.hits.length) told.unshift(say("nothing_close"));
  if (answer.query_read < codePoints(shown.query).length) told.push(say("too_long", { n: count(answer.query_read) }));
  for (const [name, n] of Object.entries(answer.query_read_by ?? {})) told.push(say("too_long_by", { name: nameOf(name), n: count(n) }));
  const again = (name, change) => button({ onclick: () => (Object.assign(state, change, { q: shown.query }), fillQuery(), search("chosen")) }, say(name));
  const read = [
    ...(answer.corrected ?? []).filter(({ by }) => by !== "prefix").map((one) => say("corrected", { ...one, to: one.to.join(", ") })),
    ...(answer.synonyms ?? []).map((one) => say("synonyms", { ...one, to: one.to.join(", ") })),
    ...["phrases", "unfound", "excluded"].flatMap((name) => (answer[name] ?? []).map((n) => say(name, { n }))),
  ];
  if (read.length) told.push([read.join(" "), " ", again(answer.phrases || answer.excluded ? "signs" : "literal", { literal: "1" })]);
  if (state.literal) told.push([say("was_literal"), " ", again("not_literal", { literal: "" })]);
  if (answer.did_you_mean && answer.hits.length) told.push([say("did_you_mean"), " ", suggestion(answer)]);
  return told.map((parts) => make("span", {}, ...[parts].flat()));
}

const suggestion = ({ did_you_mean: better }) => button({ lang: languageOf(better), onclick: () => searchFor(better) }, better);

/** Say that nothing was found, once, and ways on. */
function showNothing(answer) {
  const filters = parts.filters?.tellFilters() ?? "";
  const by = (name, change) => button({ onclick: () => (Object.assign(state, change), search("chosen")) }, say(name));
  const isMore = searchedBy().length < searchers().length;
  const isShort = codePoints(shown.query.trim()).length === 1 && !isMore;
  $("nothing").replaceChildren(
    make("h2", {}, say("nothing", { query: shown.query })),
    answer.did_you_mean ? make("p", {}, say("did_you_mean"), " ", suggestion(answer)) : "",
    filters ? make("p", {}, say("filtered", { filters }), " ", by("drop_filters", { filter: "{}" })) : "",
    isMore ? make("p", {}, by("use_all", { use: DEFAULTS.use })) : "",
    make("p", { class: "quiet" }, say(isShort ? "one_more" : "shorter")),
  );
}

/** Draw what stands around the list: the cut where probabilities are calibrated, and the way to more. */
function drawHead(answer) {
  $("cut").hidden = !(isCalibrated() && answer.isRanked && state.how);
  $("scale").hidden = isCalibrated() || !state.how || !Number.isFinite(answer.hits[0].probability);
  $("more").hidden = answer.hits.length < state.top_k || state.top_k >= choicesOf("top_k").at(-1);
  $("more").firstElementChild.textContent = say("more_results");
}

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

/** Tell how a hit came to its place in the last stage; in an earlier one, where it ends. */
function drawMoved(hit, stage) {
  const { base, last, isRanked } = shown.answer;
  const [from, to] = [rankIn(hit, stage === last ? base : stage), rankIn(hit, last)];
  if (!isRanked || !from) return [];
  const told = from === to ? say("stays", { to: count(to) }) : stage === last ? say("moved", { from: count(from), to: count(to) }) : say("ends", { to: count(to) });
  const kind = isOut(hit) ? "out" : movement(from, to);
  return [make("span", { class: `mark ${kind}`, "aria-hidden": "true" }, ARROWS[kind]), " ", make("span", {}, told)];
}

/** Return the way of a hit in words: its ranks by the searchers, which are parallel, and in the lists after them. */
export function tellWay(hit) {
  const { feeds, stages } = shown.answer;
  const told = stages.map((stage) => say(rankIn(hit, stage) ? "place" : "missing", { stage: nameOf(stage), rank: count(rankIn(hit, stage)) }));
  return [told.slice(0, feeds.length).join(" + "), ...told.slice(feeds.length)].filter(Boolean).join(" → ");
}

const ROW = 90; // pixels of a row that is not laid out yet, about
const SOME = 20; // rows that are filled in one go, further down

/** Return how many rows there are down to the window's end, at the most. */
const roomForRows = () => Math.max(1, Math.ceil((innerHeight - $("results").getBoundingClientRect().top) / ROW) + 1);

/** Make the rows of the list. The first ones, down to the window's end, are filled at once. */
function drawRows({ docs, hits }) {
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
function fillRest(drawn) {
  if (drawn !== shown) return;
  [...drawn.bare].slice(0, SOME).forEach(fillRow);
  if (drawn.bare.size) setTimeout(fillRest, 0, drawn);
  else finish();
}

/** Draw all that is not there yet: rows, and what is further down in the columns. */
function finish() {
  if (shown.isWhole) return;
  shown.isWhole = true;
  [...shown.bare].forEach(fillRow);
  const there = $("results").children.length;
  $("results").append(...visibleRows().slice(there));
  $("results").style.paddingBottom = "";
  drawCut();
  drawNodes();
  markFollowed();
  tellBusy();
}

/** Fill a row if it is empty yet; return it. */
function fillRow(id) {
  const [row, hit] = [shown.rows.get(id), shown.hits.get(id)];
  if (!shown.bare.delete(id)) return row;
  const name = `title-${isOut(hit) ? "out-" : ""}${hit.rank}`;
  const [title, length] = [titleOf(hit), codePoints(hit.text).length];
  const isShort = !title && length <= SHORT; // the text is the title
  const address = addressIn(hit.fields);
  const linked = (nodes) => (address ? [make("a", { href: address, rel: "noreferrer", target: "_blank", title: say("open"), onclick: () => sendClick(hit), onauxclick: (event) => event.button === 1 && sendClick(hit) }, ...nodes)] : nodes);
  const text = () => marked(hit.text, hit.highlights, ...windowOf(hit));
  const why = button({ class: "ask-why", "aria-controls": "why", "aria-expanded": String(state.open === id), "aria-describedby": name, onclick: () => (state.open === id ? closeWhy(true) : openWhy(hit, true)) }, say("why"));
  row.append(...[
    make("span", { class: "place", "aria-hidden": "true" }, count(rankIn(hit, shown.stage))),
    make("div", { class: "body" },
      title || isShort ? make("h3", { class: isShort ? "title text" : "title", id: name, lang: languageOf(title || hit.text), dir: "auto" }, ...linked(isShort ? text() : marked(title, partsOf(title)))) : null,
      isShort || title === hit.text ? null : make("p", { class: "text", id: title ? null : name, lang: languageOf(hit.text), dir: "auto" }, ...text()),
      ...Object.values(hit.contents ?? {}).flat().map((content) => drawContent(content, title || hit.text)),
      make("p", { class: "fields quiet" }, ...drawFields(hit, title || isShort ? null : address))),
    drawProbability(hit),
    make("span", { class: "moved" }, ...drawMoved(hit, shown.stage)),
    make("span", { class: "acts" }, why, drawMoreLike(hit, name), ...drawVerdicts(hit, name)),
    make("span", { class: "unseen" }, tellWay(hit)),
  ].filter(Boolean));
  if (hit.place) import("./places.js").then(({ drawPlace }) => drawPlace(hit, row)).catch(() => {});
  return row;
}

const SHORT = 90; // code points of a text without a title that is shown as one

const hasPicture = (hit) => !hit.place && Object.values(hit.contents ?? {}).flat().some(({ media_type }) => String(media_type).startsWith("image/"));

function drawMoreLike(hit, name) {
  if (!index.like?.includes("id") || !hasPicture(hit)) return "";
  return button({ class: "ask-like", "aria-describedby": name, onclick: () => searchLike(hit.id) }, say("more_like"));
}

/** Draw a file of a document by its type: a picture, sound or film in place, else a link. */
function drawContent({ url, media_type }, told) {
  const tag = { audio: "audio", image: "img", video: "video" }[String(media_type).split("/")[0]] ?? "a";
  const node = make(tag, { class: "content", ...(tag === "img" ? { alt: told.slice(0, SHORT), loading: "lazy" } : tag === "a" ? { download: "" } : { controls: true, preload: "none" }) });
  if (tag === "a") node.textContent = media_type;
  if (!/^\/v1\/contents\/[\w.]+$/.test(url)) return null;
  node.setAttribute(tag === "a" ? "href" : "src", url); // where a key is needed, a cookie opens it
  return node;
}

/** Draw a hit's score as a bar: its calibrated probability with the number, else its share of the best. */
function drawProbability(hit) {
  if (isOut(hit) || !Number.isFinite(hit.probability)) return null;
  const logits = shown.answer.hits.map(({ logit }) => logit).filter(Number.isFinite);
  const [least, most] = [Math.min(...logits), Math.max(...logits)];
  const share = isCalibrated() ? hit.probability : most > least ? 0.1 + (0.9 * (hit.logit - least)) / (most - least) : 1;
  const fill = make("span", {});
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  const told = isCalibrated() ? [make("span", { class: "unseen" }, say("probability"), " "), make("b", {}, percent(hit.probability))] : [];
  return make("span", { class: "probability", title: isCalibrated() ? null : say("relative") }, make("span", { class: "bar", "aria-hidden": "true" }, fill), ...told);
}

/** Return what is told below a hit: what differs from another that looks the same, a few short fields, similar ones. */
function drawFields(hit, address) {
  const differs = shown.names.get(hit.id).row;
  const brief = Object.entries(hit.fields ?? {}).filter(([name, value]) => name !== "url" && !(name in (hit.place ?? {})) && isBrief(value) && ![hit.title, hit.text, differs].includes(String(value))).slice(0, 3);
  const similar = Array.isArray(hit.similar) && hit.similar.length > 0 && say("similar", { n: count(hit.similar.length), ids: hit.similar.slice(0, 3).join(", ") });
  const open = address && make("a", { href: address, rel: "noreferrer", target: "_blank", onclick: () => sendClick(hit) }, say("open"));
  return [differs && make("b", {}, differs), ...brief.map(([name, value]) => (typeof value === "string" && !isNumber(name, value) ? value : `${labelOf(name)} ${tellOf(name, value)}`)), similar, open].filter(Boolean).flatMap((part, place) => (place ? [" · ", part] : [part]));
}

function drawVerdicts(hit, name) {
  if (!index.logging || isOut(hit) || shown.isFirst) return [];
  return ["relevant", "irrelevant"].map((event) =>
    button({ class: `verdict ${event}`, "aria-pressed": String(shown.judged.get(hit.id) === event), "aria-describedby": name, title: say(event), "aria-label": say(event), onclick: () => judge(hit, event) }, event === "relevant" ? "✓" : "✗"));
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

// ---- why: a panel beside the list, whose content is in why.js

/** Open the panel for a hit; `isChosen`: somebody asked for it here, so the focus goes there. */
async function openWhy(hit, isChosen) {
  const [panel, drawn] = [$("why"), shown];
  state.open = hit.id;
  nameWhy();
  follow(hit.id);
  const own = await import("./why.js").catch(() => null);
  if (drawn !== shown || state.open !== hit.id) return;
  if (!own) return showFailure(new Failure("gone"), () => openWhy(hit, isChosen));
  panel.replaceChildren(...own.whyOf(hit, shown.answer, () => closeWhy(true)));
  panel.hidden = false;
  panel.style.setProperty("--above", `${Math.max(16, $("answer").getBoundingClientRect().top)}px`);
  panel.scrollTop = 0;
  if (!isChosen) return;
  panel.focus({ preventScroll: true });
  const { top, bottom } = drawn.rows.get(hit.id).getBoundingClientRect();
  if (narrow.matches) scrollBy(0, Math.min(top, Math.max(0, bottom - panel.getBoundingClientRect().top))); // not under the sheet
  remember("same");
}

/** Close the panel; `isChosen`: the focus goes back to where it was opened. */
function closeWhy(isChosen) {
  const opener = shown?.rows.get(state.open)?.querySelector(".ask-why");
  $("why").hidden = true;
  state.open = "";
  nameWhy();
  if (!isChosen) return;
  opener?.focus({ preventScroll: true });
  remember("same");
}

function nameWhy() {
  for (const button of document.querySelectorAll(".ask-why")) button.setAttribute("aria-expanded", String(button.closest("li").dataset.id === state.open));
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
export function partsOf(text) {
  if (shown.pattern === undefined) shown.pattern = patternOf(shown.answer.docs);
  const at = (place) => codePoints(text.slice(0, place)).length;
  const parts = [];
  for (const { 0: found, index: place } of shown.pattern ? text.matchAll(shown.pattern) : []) {
    const [start, end] = [at(place), at(place + found.length)];
    if (parts.at(-1)?.end === start) parts.at(-1).end = end; // pairs of ideographs side by side are one part
    else parts.push({ start, end, level: 1 });
  }
  return parts;
}

// ---- the cut: a line across the list

/** Mark the rows below the least probability, and draw the line above them. */
function drawCut() {
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

/** Return the rows of the list's stage, in its order; some may not be in the list yet. */
const visibleRows = () => foundBy(shown.stage).map(({ id }) => shown.rows.get(id));

// ---- stages: what stages.js draws of them, and the list in the order of one

const narrow = matchMedia("(max-width: 63.99em)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Draw how the answer was found, where somebody asked; what was drawn of the one before goes. */
function drawStages(answer) {
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
  $("last").replaceChildren(...(stagesPart()?.headOf(stage, answer) ?? []));
  listRows();
  layOut(before);
}

// ---- where everything stands, and how it moves there

const MOTION = 200; // milliseconds in which things move to their new places
const STEP = 26; // pixels between documents of a column that do not stand beside a row
const MIDDLE = 24; // pixels from the top of a row to the middle of its first line
const SVG = "http://www.w3.org/2000/svg";
let moving = 0; // the animation frame that is asked for; 0: nothing moves
let laidOut = ""; // the size of the list for which all was laid out

export function reveal(id) {
  finish();
  shown.rows.get(id).scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}

/** Return where everything is drawn now, by column and document. */
export const positions = () => new Map(shown?.spots.map((spot) => [keyOf(spot.stage, spot.id), spot.now]));

export const keyOf = (stage, id) => `${stage} ${id}`;

/** Measure where everything belongs, draw what the window shows of it, and move what was elsewhere `before`. */
function layOut(before) {
  cancelAnimationFrame(moving);
  moving = 0;
  laidOut = sizeOfList();
  const board = $("board");
  const { answer, items } = shown;
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
  const bottom = $("results").getBoundingClientRect().bottom - origin.top + STEP * 2;
  const spots = rows.map((row, place) => ({ stage: answer.last, id: row.dataset.id, node: row, y: middles[place] }));
  const columns = [...board.querySelectorAll(":scope > .column")].filter((column) => column.offsetParent !== null);
  let depth = 0;
  for (const list of columns.flatMap((column) => [...column.querySelectorAll("ol")])) {
    const { stage } = list.closest("[data-stage]").dataset;
    const [found, above] = [foundBy(stage), topOf(list)];
    if (answer.feeds.includes(stage)) {
      found.slice(0, list.children.length).forEach(({ id }, place) => spots.push({ stage, id, list, node: items.get(keyOf(stage, id)), y: above + STEP * (place + 0.5) }));
      depth = Math.max(depth, above + STEP * (list.children.length + 1));
      continue;
    }
    let further = bottom - STEP;
    for (const hit of found) {
      const y = listed[rankIn(hit, stage) - 1] ?? (further += STEP);
      spots.push({ stage, id: hit.id, list, node: items.get(keyOf(stage, hit.id)), top: y - above - STEP / 2, y });
      depth = Math.max(depth, y);
    }
  }
  shown.top = -origin.top; // of the window, on the board
  shown.spots = spots;
  for (const spot of spots) {
    const was = before?.get(keyOf(spot.stage, spot.id)) ?? spot.y;
    spot.now = spot.from = sideOf(was) === 0 || sideOf(spot.y) === 0 ? was : spot.y; // nobody sees what moves elsewhere
  }
  $("lines").replaceChildren();
  shown.paths = stagesPart()?.findPaths(columns, origin) ?? [];
  board.style.minHeight = columns.length ? `${depth + STEP}px` : "";
  drawCut();
  drawNodes();
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
const sideOf = (y) => (y < shown.top - STEP ? -1 : y > shown.top + innerHeight + STEP ? 1 : 0);

/** Lay out anew if the list has another size or place by now; what is seen is drawn first, rows further down change
 *  after that. */
function layOutAgain() {
  if (shown?.isSeen && shown.answer.hits.length && laidOut !== sizeOfList()) layOut(moving ? positions() : undefined);
}

function sizeOfList() {
  const [board, list] = [$("board"), $("results")].map((node) => node.getBoundingClientRect());
  return [board.width, list.height, list.top - board.top].map(Math.round).join(" ");
}

/** Make the documents in columns and the lines that are not there yet: first what the window shows, then the rest. */
function drawNodes() {
  const { spots, paths, items, hits, isWhole } = shown;
  const isSeen = (one, other) => isWhole || sideOf(one) * sideOf(other) !== 1; // a line may pass the window
  const added = new Map();
  for (const spot of spots) {
    if (spot.node || (!isWhole && sideOf(spot.y) > 0)) continue; // what is further up comes first, as in the list
    spot.node = parts.stages.drawItem(hits.get(spot.id), spot.stage);
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

/** Draw documents and lines where they belong, less the share `left` of their way from where they were. */
function paint(left, spots, paths) {
  for (const spot of spots) {
    spot.now = spot.y + (spot.from - spot.y) * left;
    place(spot);
  }
  paths.forEach(bend);
}

function place({ node, now, y }) {
  const shift = now - y;
  if (node) node.style.transform = shift ? `translateY(${shift.toFixed(1)}px)` : ""; // what rests has none: that costs
}

function bend({ node, from, to, start, end }) {
  const [middle, one, two] = [(start + end) / 2, from.now.toFixed(1), to.now.toFixed(1)];
  node?.setAttribute("d", `M${start} ${one}C${middle} ${one} ${middle} ${two} ${end} ${two}`);
}

/** Follow a document through all columns; null: none. */
export function follow(id) {
  if (!shown || shown.followed === id) return;
  shown.followed = id;
  markFollowed();
}

function markFollowed(id = shown.followed) {
  $("board").classList.toggle("is-following", id !== null);
  for (const node of $("board").querySelectorAll(".is-followed")) node.classList.remove("is-followed");
  if (id === null) return;
  for (const node of $("board").querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) node.classList.add("is-followed");
}

// ---- keys and mouse

/** Search while somebody types, but not for letters that an input method has yet to turn into characters. */
function listenToTyping() {
  const input = $("query");
  let composing = false;
  let typing = 0; // the timer of the pause
  let suggestions = null; // the module of them
  const close = () => suggestions?.closeSuggestions();
  const choose = (text) => (clearTimeout(typing), close(), searchFor(text));
  const typed = async () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (input.value === state.q) return;
      state.q = input.value;
      search("typed");
    }, PAUSE);
    if (index.suggest) suggestions ??= await import("./suggest.js").catch(() => null);
    suggestions?.suggest(choose);
  };
  input.addEventListener("compositionstart", () => (composing = true, clearTimeout(typing), close()));
  input.addEventListener("compositionend", () => (composing = false, typed()));
  input.addEventListener("input", (event) => { if (!event.isComposing && !composing) typed(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    // Enter that chooses a candidate is no order to search; 229 is what Safari sends for it, after the composition.
    const isCandidate = event.isComposing || event.keyCode === 229;
    if (isCandidate ? event.key === "Enter" : suggestions?.keyOfSuggestions(event.key)) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (composing) return;
    clearTimeout(typing);
    close();
    state.q = input.value;
    search("chosen");
  });
}

function listenToSettings() {
  const form = $("form");
  form.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "use") {
      const use = [...form.querySelectorAll("[name=use]:checked")].map((box) => box.value).join(",");
      if (!use) return void (event.target.checked = true);
      state.use = use === searchers().join() ? DEFAULTS.use : use;
    } else if (name === "fusion") state.fusion = value;
    else if (event.target === form.group_by) state.group_by = form.group_by.checked ? value : "";
    else if (name in CHOICES && event.target === form[name]) state[name] = Number(value);
    else return;
    search("chosen");
  });
  $("how").addEventListener("change", ({ target }) => {
    state.how = kept(localStorageOf, "how", target.checked ? "1" : "") ?? (target.checked ? "1" : "");
    remember("same");
    loadParts(shown?.isFirst).then(redraw);
  });
  $("sort").addEventListener("change", ({ target }) => {
    state.sort = target.value;
    search("chosen");
  });
  $("all-words").addEventListener("click", () => searchFor(wordsIn(shown.query).map((one) => (/^(\p{L}{2}|\p{Script=Han}$)/u.test(one) ? `+${one}` : `"${one}"`)).join(" ")));
  $("least").addEventListener("input", () => {
    state.min = $("least").valueAsNumber / 100;
    drawCut();
  });
  $("least").addEventListener("change", () => remember("same"));
  $("more").firstElementChild.addEventListener("click", () => {
    state.top_k = choicesOf("top_k").find((most) => most > state.top_k) ?? state.top_k;
    search("chosen");
  });
}

/** `/` goes to the query, arrows go through the rows, Escape closes what is open and goes back to the query. */
function listenToKeys() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is that of the search
    $("results").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    const isTyping = target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (key === "/" && !isTyping) {
      event.preventDefault();
      $("query").select();
      $("query").focus();
    } else if (key === "Escape") escape(target);
    else if (["ArrowDown", "ArrowUp"].includes(key) && (target.id === "query" || $("results").contains(target) || target === document.body)) {
      if (move(target, key === "ArrowDown" ? 1 : -1)) event.preventDefault();
    } else if (target.getAttribute("role") === "tab" && ["ArrowLeft", "ArrowRight", "Home", "End"].includes(key)) {
      event.preventDefault();
      moveTab(target, key);
    }
  });
  $("results").addEventListener("focusin", (event) => follow(event.target.closest("li")?.dataset.id ?? null));
}

function move(target, by) {
  const rows = shown ? visibleRows() : [];
  const next = rows.indexOf(target.closest("#results > li")) + by;
  if (!rows.length || (next < 0 && target.id === "query")) return false;
  const place = target.closest("#results") ? next : by > 0 ? 0 : rows.length - 1;
  if (place >= shown.first) finish();
  (place < 0 ? $("query") : fillRow(rows[Math.min(place, rows.length - 1)].dataset.id).querySelector(".ask-why")).focus();
  return true;
}

function moveTab(tab, key) {
  const tabs = [...$("tabs").children];
  const place = { ArrowLeft: tabs.indexOf(tab) - 1, ArrowRight: tabs.indexOf(tab) + 1, Home: 0, End: tabs.length - 1 }[key];
  const next = tabs[(place + tabs.length) % tabs.length];
  next.focus();
  next.click();
}

function escape(target) {
  if (!shown) return;
  const row = target.closest("#results > li");
  if (state.open) closeWhy(true);
  else if (shown.followed !== null) {
    follow(null);
    if (row) $("query").focus();
  } else if ($("settings").open) $("settings").open = false;
  else if (row) $("query").focus();
}

/** A click on a row's text follows the document; a pointer over it shows its way. Text can still be selected. */
function listenToMouse() {
  $("results").addEventListener("click", (event) => {
    const row = event.target.closest("#results > li");
    if (!row || event.target.closest("button, a") || !getSelection().isCollapsed) return;
    follow(shown.followed === row.dataset.id ? null : row.dataset.id);
    sendClick(shown.hits.get(row.dataset.id));
  });
  $("board").addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && shown) markFollowed(event.target.closest("[data-id]")?.dataset.id ?? shown.followed);
  });
  $("board").addEventListener("pointerleave", () => shown && markFollowed());
}

// ---- start

/** Put the index's name, size and examples into the page, and whether its ranker seems to be of other documents. */
function drawIndex() {
  const facts = [index.name, Number.isFinite(index.documents) && say("documents", { n: count(index.documents) })].filter(Boolean);
  $("collection").textContent = facts.join(" · ");
  $("query").placeholder = examples().length ? say("placeholder", { example: examples()[0] }) : "";
  $("to-judge").hidden = !index.logging;
  $("unfamiliar").hidden = !index.unfamiliar;
  if (index.unfamiliar) $("unfamiliar").textContent = say("unfamiliar", { expected: score(index.unfamiliar.expected), seen: score(index.unfamiliar.seen) });
  const keys = [["/", "key_focus"], ["↑ ↓", "key_move"], ["Enter", "key_why"], ["Esc", "key_close"]];
  $("keys").replaceChildren(...keys.flatMap(([key, does]) => [make("kbd", {}, key), ` ${say(does)} `]));
}

/** Draw everything anew, from what is there: after a change of the language or of the width. */
function redraw() {
  drawIndex();
  fillForm();
  if (shown) drawAnswer(shown.answer, shown.query, shown.isFirst);
  else if (!state.q) showWelcome();
}

function start() {
  state = readAddress();
  speak();
  drawIndex();
  fillQuery();
  fillForm();
  switchLanguage(() => {
    const isFirst = shown?.isFirst;
    redraw();
    if (isFirst && shown.query !== examples()[0]) search("same"); // there is one in this language
  });
  listenToTyping();
  listenToSettings();
  listenToKeys();
  listenToMouse();
  addEventListener("popstate", () => {
    state = readAddress();
    speak();
    fillQuery();
    search("back");
  });
  narrow.addEventListener("change", redraw);
  const sizes = new ResizeObserver(layOutAgain);
  for (const id of ["answer", "side"]) sizes.observe($(id)); // what is above the list moves it
  // A row that comes near the window gets its true height: the list may then be as high as the observer saw it before.
  $("results").addEventListener("contentvisibilityautostatechange", () => requestAnimationFrame(layOutAgain), true);
  if (!state.q) $("query").focus({ preventScroll: true });
  loadIndex();
  search("back");
}

function loadIndex() {
  const again = () => (loadIndex(), search("same"));
  indexed = ask("v1/index").catch((error) => {
    if (error.kind === "needs_key") showFailure(error, again);
    else if (error.kind === "busy") setTimeout(again, 1000 * Math.min(Math.max(error.retryAfter, 2), 30)); // such as a server that starts
    return {};
  }).then(takeIndex);
}

function takeIndex(found) {
  index = found.ranker === null ? { ...found, limits: { ...found.limits, pairs: 0 } } : found;
  const most = Math.min(DEFAULTS.rank_top, index.limits?.pairs ?? Infinity); // that the ranker takes of a request
  if (state.rank_top === DEFAULTS.rank_top) state.rank_top = most;
  DEFAULTS.rank_top = most;
  if (index.like?.length > 1) import("./pictures.js").then(({ takeFiles }) => takeFiles(index.like)).catch(() => {});
  redraw();
}

if (document.body.dataset.page === "search") start();
