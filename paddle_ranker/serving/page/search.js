// The search page: asks POST /v1/search and draws what each stage made of the documents.
// Every number that it shows is in the answer. All texts enter the page as text nodes.
// Read it in this order: words, tools, address, asking, drawing results, drawing columns and lines, keys, start.

// ---- words: everything that the page says, in both languages ----------------------------------------------------

const WORDS = {
  zh: {
    other: "English", search: "搜索", judge: "标注", more: "其他", skip: "跳到结果", query: "查询",
    settings: "设置", use: "召回方式", words: "词语", vectors: "语义", fused: "融合", ranked: "排序", fusion: "融合方法",
    recall: "各路召回", rank_top: "排序前", top_k: "显示", filters: "筛选", stages: "阶段", results: "结果", keys: "按键",
    rrf: "倒数排名", weighted: "加权得分", none: "不排序", any: "不限", yes: "是", no: "否", from: "从", to: "到",
    placeholder: "输入查询，例如：{example}", documents: "{n} 篇文档",
    welcome: "输入一个查询，看召回找到了什么，排序又把它们放到了哪里。", tries: "试试：",
    found: "{total} 篇文档中的前 {n} 条结果，用时 {time}。", milliseconds: "{n} 毫秒", working: "正在搜索……",
    cut: "概率至少", passed: "{percent}：{n} / {total} 条", all: "不限", line: "{percent} 以下：{n} 条", more_results: "显示更多",
    up: "上升 {n} 位", down: "下降 {n} 位", same: "位置不变", new: "新出现", moved: "第 {from} → {to} 位", stays: "第 {to} 位不变",
    entered: "排序新增", ends: "最终第 {to} 位", place: "{stage}第 {rank} 位", missing: "{stage}没有找到", exact: "精确", approximate: "近似",
    probability: "概率 {percent}", probability_word: "概率", why: "为什么", close: "收起", open: "打开原文", relevant: "相关", irrelevant: "不相关",
    legend_up: "上升", legend_down: "下降", legend_new: "此路未召回", beyond: "{n} 名以后",
    why_found: "为什么被找到", why_here: "为什么排在这里", fused_score: "融合得分 {n}", logit: "logit {n}", path: "经过", fields: "字段",
    signal_words: "共有的词（BM25）", signal_vectors: "意思相近（余弦）", signal_match: "匹配级别（最长的共有片段）",
    signal_ranker: "排序模型（logit）", signal_recall: "召回得分的加成", level: "级别 {n}", at: "第 {places} 字", more_terms: "另有 {n} 个：{added}", rank: "第 {n} 位",
    nothing: "没有找到与“{query}”有关的文档。", searched: "搜索了 {total} 篇文档，方式：{use}。", filtered: "筛选条件：{filters}。",
    drop_filters: "去掉筛选条件", use_all: "同时用词语和语义", shorter: "也可以换一个更短或更常见的说法。", remove: "去掉 {what}",
    gone: "服务器没有回应。", busy: "服务器正忙。", refused: "服务器拒绝了这次请求。", failed: "服务器出错了。", unread: "服务器的回答读不懂。",
    needs_key: "这台服务器需要密钥。", key: "密钥", again: "重试", again_in: "{n} 秒后可重试。", stale: "下面仍是上一次“{query}”的结果。",
    late_rank: "排序没有按时完成：下面是融合后的顺序。", late_words: "词语召回没有按时完成。", late_vectors: "语义召回没有按时完成。", late: "没有按时完成：{stage}。",
    unranked: "没有经过排序模型：下面是融合后的顺序。", too_long: "查询太长：只用了前 {n} 个字。", unsaved: "没有记下来：{why}", saved: "已记下",
    key_focus: "输入", key_move: "选择", key_why: "为什么", key_close: "关闭", encode: "编码", total: "共",
    judge_title: "标注", judge_off: "标注没有打开：服务器启动时没有记录日志。", judge_done: "没有待标注的内容了。", back: "回到搜索",
    judge_progress: "已标注 {judged}，还有 {left}", disagree: "召回第 {recall} 位，排序第 {ranked} 位", undo: "撤销", skip_pair: "跳过",
    grade: "等级 {n}", judge_question: "这篇文档回答了查询吗？", judge_empty: "先搜索，再来标注。",
  },
  en: {
    other: "中文", search: "Search", judge: "Judge", more: "More", skip: "Skip to results", query: "Query",
    settings: "Settings", use: "Recall by", words: "Words", vectors: "Vectors", fused: "Fused", ranked: "Ranked", fusion: "Fusion",
    recall: "Recall, each", rank_top: "Rank the first", top_k: "Show", filters: "Filters", stages: "Stages", results: "Results", keys: "Keys",
    rrf: "reciprocal ranks", weighted: "weighted scores", none: "no ranking", any: "any", yes: "yes", no: "no", from: "from", to: "to",
    placeholder: "Type a query, such as: {example}", documents: "{n} documents",
    welcome: "Type a query, and see what recall found and where ranking put it.", tries: "Try: ",
    found: "First {n} results among {total} documents, in {time}.", milliseconds: "{n} ms", working: "Searching…",
    cut: "At least", passed: "{percent}: {n} of {total}", all: "no limit", line: "below {percent}: {n}", more_results: "Show more",
    up: "up by {n}", down: "down by {n}", same: "in the same place", new: "new", moved: "from {from} to {to}", stays: "stays at {to}",
    entered: "added by ranking", ends: "ends at {to}", place: "{stage}: {rank}", missing: "{stage}: not found", exact: "exact", approximate: "approximate",
    probability: "probability {percent}", probability_word: "Probability", why: "Why", close: "Close", open: "Open", relevant: "Relevant", irrelevant: "Not relevant",
    legend_up: "up", legend_down: "down", legend_new: "not found before", beyond: "beyond {n}",
    why_found: "Why it was found", why_here: "Why it stands here", fused_score: "fused score {n}", logit: "logit {n}", path: "Its way", fields: "Fields",
    signal_words: "Words in common (BM25)", signal_vectors: "Closeness of meaning (cosine)", signal_match: "Match level (longest shared part)",
    signal_ranker: "The ranker’s logit", signal_recall: "What recall adds", level: "level {n}", at: "at character {places}", more_terms: "{n} more: {added}", rank: "rank {n}",
    nothing: "Nothing found for “{query}”.", searched: "Searched {total} documents by {use}.", filtered: "Filters: {filters}.",
    drop_filters: "Remove the filters", use_all: "Use both words and vectors", shorter: "Or try a shorter or more common wording.", remove: "Remove {what}",
    gone: "The server does not answer.", busy: "The server is busy.", refused: "The server refused the request.", failed: "The server failed.", unread: "The server’s answer cannot be read.",
    needs_key: "This server needs a key.", key: "Key", again: "Try again", again_in: "Try again in {n} s.", stale: "Below is still the earlier answer, to “{query}”.",
    late_rank: "Ranking was late: this is the fused order.", late_words: "Recall by words was late.", late_vectors: "Recall by vectors was late.", late: "Late: {stage}.",
    unranked: "No ranker was asked: this is the fused order.", too_long: "The query is too long: only its first {n} characters were used.", unsaved: "Not saved: {why}", saved: "Saved",
    key_focus: "type", key_move: "choose", key_why: "why", key_close: "close", encode: "encode", total: "total",
    judge_title: "Judge", judge_off: "Judging is off: the server was started without a log.", judge_done: "Nothing is left to judge.", back: "Back to search",
    judge_progress: "{judged} judged, {left} left", disagree: "recall put it at {recall}, ranking at {ranked}", undo: "Undo", skip_pair: "Skip",
    grade: "grade {n}", judge_question: "Does this document answer the query?", judge_empty: "Search first, then judge.",
  },
};

let language = "zh";

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

// ---- tools ------------------------------------------------------------------------------------------------------

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

/** Return a function that writes numbers in the page's language; to make an `Intl.NumberFormat` takes longest. */
function numbers(options) {
  const formats = {};
  return (value) => (Number.isFinite(value) ? (formats[language] ??= new Intl.NumberFormat(language, options)).format(value) : "?");
}

const count = numbers({});
const score = numbers({ maximumSignificantDigits: 3 });
const signed = numbers({ maximumSignificantDigits: 3, signDisplay: "exceptZero" });
const percent = numbers({ style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const wholePercent = numbers({ style: "percent" });
const tenths = numbers({ minimumFractionDigits: 1, maximumFractionDigits: 1 });
const time = (value) => say("milliseconds", { n: tenths(value) });

/** A refusal or failure of the server: `kind` says how to tell it, `status` is HTTP's, `retryAfter` is in seconds. */
class Failure extends Error {
  constructor(kind, message = "", status = 0, retryAfter = 0) {
    super(message);
    Object.assign(this, { kind, status, retryAfter });
  }
}

/** Return the server's key, which stays until the tab is closed; some browsers keep nothing. */
function keptKey(given) {
  try {
    if (given) sessionStorage.setItem("key", given);
    return sessionStorage.getItem("key");
  } catch {
    return null;
  }
}

/** Ask the server; return the JSON of its answer. Throws `Failure`, or an `AbortError` where `signal` ends it. */
export async function ask(path, { method = "GET", body, signal, keepalive } = {}) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const key = keptKey();
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
  if (response.ok && content !== null) return content;
  const kinds = { 401: "needs_key", 404: "refused", 429: "busy", 502: "gone", 503: "busy", 504: "busy" };
  const kind = response.ok ? "unread" : kinds[response.status] ?? (response.status < 500 ? "refused" : "failed");
  throw new Failure(kind, content?.message ?? "", response.status, Number(response.headers.get("Retry-After")) || 0);
}

/** Show a failure with a way to try again, and where a key is missing, a field for it. */
export function showFailure(error, again, note = "") {
  const again_in = error.retryAfter ? say("again_in", { n: count(error.retryAfter) }) : "";
  const told = [say(error.kind ?? "unread"), error.message, again_in, note].filter(Boolean).join(" ");
  const field = error.kind === "needs_key" && make("input", { type: "password", "aria-label": say("key"), autocomplete: "current-password" });
  const submit = (event) => {
    event.preventDefault();
    if (field) keptKey(field.value);
    again();
  };
  const form = make("form", { onsubmit: submit }, field, make("button", {}, say("again")));
  $("failure").replaceChildren(make("p", {}, told), form);
}

/** Tell the log of an event; where nothing is logged, nothing is sent. Returns whether it was taken. */
export async function sendFeedback(index, content) {
  if (!index.logging) return false;
  await ask("v1/feedback", { method: "POST", body: content, keepalive: true });
  return true;
}

// What joins code points to one character: marks, joiners, variation selectors, flags, skin tones, tags, Hangul.
const JOINED = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{1f1e6}-\u{1f1ff}\u{1f3fb}-\u{1f3ff}\u{e0020}-\u{e007f}\u1100-\u11ff]/u;
const SURROGATE = /[\ud800-\udfff]/;
const AROUND = 64; // code points around a window in which the ends of characters are looked for

/** Return a text's code points: the text itself where each is one unit, else an array; both have slice and length. */
const codePoints = (text) => (SURROGATE.test(text) ? Array.from(text) : text);
const joined = (points) => (typeof points === "string" ? points : points.join(""));

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
  const length = codePoints(hit.text).length;
  if (length <= SHOWN) return [0, length];
  const { start = 0, end = length } = hit.passage ?? {};
  const first = (hit.highlights ?? []).find((one) => one.start >= start && one.end <= end)?.start ?? start;
  const from = first - start > SHOWN / 2 ? first - SHOWN / 4 : start;
  return [Math.min(from, length - SHOWN), Math.min(from + SHOWN, length)].map((place) => Math.max(0, Math.round(place)));
}

/** Return the language that a text's letters show, for its font and its voice; "": unknown. */
export function languageOf(text) {
  const begin = text.slice(0, 400);
  if (/[\u3040-\u30ff]/.test(begin)) return "ja";
  if (/\p{Script=Hangul}/u.test(begin)) return "ko";
  return /\p{Script=Han}/u.test(begin) ? "zh" : "";
}

/** Return the address in a document's fields if it is one of the web, else null. */
export function addressIn(fields) {
  if (!fields?.url) return null; // to fail costs more
  try {
    const address = new URL(fields?.url);
    return ["http:", "https:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

// ---- address: query and settings stand in the URL ---------------------------------------------------------------

const DEFAULTS = { q: "", use: "", fusion: "", recall: 100, rank_top: 50, top_k: 10, filter: "{}", min: 0, stage: "" };
const CHOICES = { recall: [20, 50, 100, 200, 500], rank_top: [0, 10, 20, 50, 100], top_k: [10, 20, 50, 100] };

let state = { ...DEFAULTS, open: [] };
let index = {}; // what GET /v1/index says
let indexed = null; // the promise of that

const LONG = 4000; // characters of an address that servers and people take; a longer query stays in the history alone

/** Return the settings of the address; what is none of them is left at its default. */
function readAddress() {
  const given = new URLSearchParams(location.search);
  if (history.state?.q) given.set("q", history.state.q);
  const read = { ...DEFAULTS, open: given.getAll("open") };
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
function remember(how) {
  const address = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) if (state[name] !== usual) address.set(name, state[name]);
  for (const id of state.open) address.append("open", id);
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
const filterOf = () => Object.assign(Object.create(null), JSON.parse(state.filter));

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
  $("set").textContent = [...searchedBy().map((name) => say(name)), say(fusionOf()), state.rank_top ? `${say("rank_top")} ${count(state.rank_top)}` : say("none")].join(" · ");
  $("least").value = Math.round(100 * state.min);
  fillFilters();
}

/** Make a box for each searcher, in the order of the index; keep those that are there. */
function fillUse() {
  const boxes = [...document.querySelectorAll("[name=use]")];
  if (boxes.map((box) => box.value).join() !== searchers().join()) {
    for (const box of boxes) box.parentNode.remove();
    $("use").append(...searchers().map((name) => make("label", {}, make("input", { type: "checkbox", name: "use", value: name }), " ", make("span", { "data-say": name }, say(name)))));
  }
  for (const box of document.querySelectorAll("[name=use]")) box.checked = searchedBy().includes(box.value);
  $("use").hidden = searchers().length < 2; // there is nothing to choose
}

function fillChoices(select, choices, named, chosen = state[select.name]) {
  const all = choices.includes(chosen) ? choices : [...choices, chosen].sort((a, b) => a - b);
  select.replaceChildren(...all.map((value) => make("option", { value, selected: value === chosen }, named(value))));
}

/** Return the names of the searchers, once the index is known. */
const searchers = () => index.searchers ?? ["words", "vectors"];

/** Return what is searched by: of what was chosen, that which the index has; all if that is nothing. */
function searchedBy() {
  const chosen = searchers().filter((name) => state.use.split(",").includes(name));
  return chosen.length ? chosen : searchers();
}

/** Return how lists become one: what was chosen, else the server's own way. */
const fusionOf = () => state.fusion || index.fusion || "rrf";

/** Return the numbers to choose from, as far as the server's limits allow them. */
const choicesOf = (name) => CHOICES[name].filter((value) => value <= (index.limits?.[{ recall: "depth", rank_top: "pairs", top_k: "hits" }[name]] ?? Infinity));

/** Make a form of the declared fields, and a list of the conditions that hold, each with a button that removes it. */
function fillFilters() {
  const [filter, fields] = [filterOf(), Object.entries(index.fields ?? {})];
  const open = document.activeElement?.name;
  $("filters").hidden = !fields.length;
  $("filters").replaceChildren($("filters").firstElementChild, ...fields.map(([name, field]) => filterInput(name, field, filter[name])));
  if (open) $("filters").querySelector(`[name="${CSS.escape(open)}"]`)?.focus();
  $("chips").replaceChildren(...Object.entries(filter).map(([name, condition]) => {
    const told = tellCondition(name, condition);
    const remove = () => setFilter(name, undefined);
    return make("li", {}, told, " ", make("button", { type: "button", "aria-label": say("remove", { what: told }), onclick: remove }, "×"));
  }));
}

const SIGNS = { gte: "≥", lte: "≤", gt: ">", lt: "<", in: "∈", ne: "≠" };

function tellCondition(name, condition) {
  if (!condition || typeof condition !== "object") return `${name} = ${condition}`;
  if (Array.isArray(condition)) return tellCondition(name, { in: condition });
  return Object.entries(condition).map(([sign, value]) => `${name} ${SIGNS[sign] ?? sign} ${value}`).join(", ");
}

function filterInput(name, field, value) {
  const isNumber = ["number", "integer", "float"].includes(field.type);
  const choices = field.type === "boolean" ? [["true", say("yes")], ["false", say("no")]] : field.values?.map((one) => [one, one]);
  if (isNumber && !choices) {
    const ends = ["gte", "lte"].map((end) => {
      const label = `${name} ${say(end === "gte" ? "from" : "to")}`;
      const change = (event) => {
        const now = { ...(Array.isArray(value) || typeof value !== "object" ? {} : value), [end]: event.target.valueAsNumber };
        if (Number.isNaN(now[end])) delete now[end];
        setFilter(name, Object.keys(now).length ? now : undefined);
      };
      return make("input", { type: "number", step: "any", name: `${name}.${end}`, "aria-label": label, value: value?.[end] ?? "", onchange: change });
    });
    return make("span", { class: "range" }, make("span", {}, name), ends[0], "–", ends[1]);
  }
  const change = (event) => {
    const text = event.target.value;
    setFilter(name, text === "" ? undefined : field.type === "boolean" ? text === "true" : isNumber ? Number(text) : text);
  };
  const plain = value === undefined || typeof value === "object" ? "" : String(value);
  const input = choices
    ? make("select", { name, onchange: change }, ...[["", say("any")], ...choices].map(([one, text]) => make("option", { value: one, selected: String(one) === plain }, text)))
    : make("input", { name, value: plain, onchange: change });
  return make("label", {}, make("span", {}, name), " ", input);
}

function setFilter(name, condition) {
  const filter = filterOf();
  if (condition === undefined) delete filter[name];
  else filter[name] = condition;
  state.filter = JSON.stringify(filter);
  setTimeout(search, 0, "chosen"); // it makes the fields anew: by then the one that Tab goes to has the focus
}

// ---- asking: the newest question alone is answered --------------------------------------------------------------

const PAUSE = 250; // milliseconds after the last key
const PATIENCE = 300; // milliseconds before the page shows that it works
const SETTLED = 2000; // milliseconds after which what was typed is an entry of the history, which stays
let settling = 0; // the timer of the entry
let asking = null; // the AbortController of the request that runs
let shown = null; // what is drawn: the answer, its question, its nodes

/** Search for what the settings say, and remember it in the address. */
async function search(how) {
  asking?.abort();
  const mine = (asking = new AbortController());
  if (["typed", "chosen"].includes(how) && shown?.query !== state.q) state.open = [];
  // The server is asked first, once its limits are known: what follows is done while it searches.
  const answered = state.q.trim() ? indexed.then(() => ask("v1/search", { method: "POST", body: question(), signal: mine.signal })) : null;
  remember(how === "back" ? "same" : how);
  fillForm();
  document.title = state.q ? `${state.q} · ${say("search")}` : say("search");
  if (!answered) {
    asking = null;
    setWorking(false);
    return showWelcome();
  }
  tellBusy();
  const slow = setTimeout(() => setWorking(true), PATIENCE);
  try {
    const answer = await answered;
    if (mine === asking) drawAnswer(readAnswer(answer));
  } catch (error) {
    if (mine === asking && error.name !== "AbortError") tellFailure(error);
  } finally {
    clearTimeout(slow);
    if (mine === asking) {
      asking = null;
      setWorking(false);
    }
  }
}

/** Say what went wrong. Earlier results stay, unless it went wrong while these were drawn, or nothing was found. */
function tellFailure(error) {
  const isDrawn = error instanceof Failure;
  if (!isDrawn) {
    console.warn(error);
    error = new Failure("unread", String(error));
  }
  if (!isDrawn || !shown?.answer.hits.length) clearAnswer();
  $("status").textContent = "";
  const again = () => {
    if (!Object.keys(index).length) loadIndex(); // it could not be read, either
    search("same");
  };
  showFailure(error, again, shown ? say("stale", { query: shown.query }) : "");
}

/** Return what is asked: without what the server's own options say, unless it was chosen here. */
function question() {
  const { q, fusion, recall, rank_top, top_k } = state;
  const asked = { query: q, where: filterOf(), explain: true };
  const counts = { ...(recall !== DEFAULTS.recall && { depth: recall }), ...(top_k !== DEFAULTS.top_k && { top_k }), ...(rank_top && { rank_top }) };
  return { ...asked, ...counts, ...(searchedBy().length < searchers().length && { by: searchedBy() }), ...(fusion && { fusion }) };
}

const isRank = (rank) => Number.isInteger(rank) && rank > 0;

/** Return an answer that can be drawn; throws `Failure` where it has not the shape of one. */
function readAnswer(answer) {
  const isHit = (hit) => hit && typeof hit.id === "string" && typeof hit.text === "string" && isRank(hit.rank);
  if (!Array.isArray(answer.hits) || !answer.hits.every(isHit)) throw new Failure("unread");
  const degraded = answer.degraded ?? [];
  const isRanked = answer.ranked !== false && !degraded.includes("rank");
  const has = (stage) => answer.hits.some((hit) => isRank(hit.stages?.[stage]?.rank));
  const stages = [...new Set(["words", "vectors", ...searchers(), "fused", "ranked"])].filter((stage) => (stage === "ranked" ? isRanked : stage === "fused" ? !isRanked || has(stage) : has(stage)));
  return { ...answer, degraded, isRanked, stages, last: stages.at(-1) };
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
  for (const id of ["board", "nothing", "legend", "welcome"]) $(id).hidden = true;
  for (const id of ["failure", "status", "notice"]) $(id).replaceChildren();
}

/** Show the page without an answer, as it is before a query. */
function showWelcome() {
  clearAnswer();
  document.body.classList.add("is-empty");
  $("welcome").hidden = false;
  const tries = (index.examples ?? []).slice(0, 5).map((query) => make("button", { type: "button", lang: languageOf(query), onclick: () => searchFor(query) }, query));
  $("tries").replaceChildren(...(tries.length ? [say("tries"), ...tries] : []));
}

function searchFor(query) {
  state.q = query;
  fillQuery();
  search("chosen");
}

// ---- drawing results --------------------------------------------------------------------------------------------

const tellFound = (answer) =>
  say("found", { n: count(answer.hits.length), total: count(answer.index?.documents), time: time(answer.took_ms?.total ?? 0) });

/** Draw an answer in place of the one before; what is in both moves to its new place. */
function drawAnswer(answer) {
  const first = roomForRows(); // asked before anything is changed
  const before = shown && positions();
  const { clicked, judged, followed } = shown?.answer === answer ? shown : { clicked: new Set(), judged: new Map(), followed: null };
  const hits = new Map(answer.hits.map((hit) => [hit.id, hit]));
  shown = { answer, query: state.q, hits, rows: new Map(), bare: new Set(), items: new Map(), first, isSeen: false, isWhole: !answer.hits.length, stage: answer.last, spots: [], paths: [], clicked, judged, followed };
  document.body.classList.remove("is-empty");
  $("welcome").hidden = true;
  $("failure").replaceChildren();
  $("notice").replaceChildren(...notices(answer).map((told) => make("span", {}, told)));
  const isEmpty = !answer.hits.length;
  $("status").textContent = isEmpty ? "" : tellFound(answer);
  $("nothing").hidden = !isEmpty;
  $("board").hidden = $("legend").hidden = isEmpty;
  if (isEmpty) return showNothing(answer);
  state.open = state.open.filter((id) => shown.hits.has(id));
  drawTabs(answer);
  drawHead(answer);
  drawRows(answer);
  drawColumns(answer);
  chooseStage(before);
  const drawn = shown;
  requestAnimationFrame(() => setTimeout(() => {
    performance.clearMarks("drawn");
    performance.mark("drawn"); // what is seen; `python -m benchmarks.search_page` reads it
    drawn.isSeen = true;
    layOutAgain();
    fillRest(drawn);
  }));
}

function notices(answer) {
  const told = answer.degraded.map((stage) => (["rank", "words", "vectors"].includes(stage) ? say(`late_${stage}`) : say("late", { stage })));
  if (answer.hits.length && answer.ranked === false && !answer.degraded.includes("rank")) told.push(say("unranked"));
  if (answer.query_read < codePoints(state.q).length) told.push(say("too_long", { n: count(answer.query_read) }));
  return told;
}

/** Say that nothing was found, and what was searched, with ways on. */
function showNothing(answer) {
  const filters = Object.entries(filterOf()).map(([name, condition]) => tellCondition(name, condition)).join(", ");
  const by = (name, change) => make("button", { type: "button", onclick: () => (Object.assign(state, change), search("chosen")) }, say(name));
  const use = searchedBy().map((name) => say(name)).join(" + ");
  $("nothing").replaceChildren(
    make("h2", {}, say("nothing", { query: state.q })),
    make("p", {}, say("searched", { total: count(answer.index?.documents), use }), " ", filters ? say("filtered", { filters }) : ""),
    make("p", {}, filters ? by("drop_filters", { filter: "{}" }) : "", state.use === DEFAULTS.use ? "" : by("use_all", { use: DEFAULTS.use })),
    make("p", { class: "quiet" }, say("shorter")),
  );
  $("status").textContent = say("nothing", { query: state.q });
}

/** Return the milliseconds of a column's stage, in words. */
function timeOf(stage, took = {}) {
  const parts = { vectors: [took.encode, took.vectors], fused: [took.fuse], ranked: [took.rank] }[stage] ?? [took[stage]];
  return parts.every(Number.isFinite) ? time(parts.reduce((sum, part) => sum + part, 0)) : "";
}

function titleOf(stage, answer) {
  const took = answer.took_ms ?? {};
  if (stage !== "vectors") return "";
  const how = answer.exact === undefined ? "" : say(answer.exact ? "exact" : "approximate");
  return [how, `${say("encode")} ${time(took.encode ?? 0)}`, `${say("vectors")} ${time(took.vectors ?? 0)}`].filter(Boolean).join(", ");
}

/** Draw what stands above the list: the last stage, its time, and the cut where there are probabilities. */
function drawHead(answer) {
  $("last").replaceChildren(say(answer.last), " ", make("span", { class: "quiet" }, timeOf(answer.last, answer.took_ms)));
  $("cut").hidden = !answer.hits.some((hit) => Number.isFinite(hit.probability));
  $("more").hidden = answer.hits.length < state.top_k || state.top_k >= choicesOf("top_k").at(-1);
  $("more").firstElementChild.textContent = say("more_results");
  const parts = ["up", "down", "new"].map((kind) => make("span", { class: kind }, make("i", { "aria-hidden": "true" }), say(`legend_${kind}`)));
  $("legend").replaceChildren(...parts, make("span", { class: "total" }, `${say("total")} ${time(answer.took_ms?.total ?? 0)}`));
}

/** Return the rank that a stage gave a hit; undefined where it did not find it. The last stage's is the hit's own. */
const rankIn = (hit, stage) => (stage === shown.answer.last ? hit.rank : isRank(hit.stages?.[stage]?.rank) ? hit.stages[stage].rank : undefined);

/** Return the hits that a stage found, in its order. */
const foundBy = (stage) => shown.answer.hits.filter((hit) => rankIn(hit, stage)).sort((a, b) => rankIn(a, stage) - rankIn(b, stage));

/** Return how a hit came from one rank to another: its `kind` (up, down, same, new) and by how many places. */
function movement(from, to) {
  if (!from) return { kind: "new", by: 0 };
  return { kind: to < from ? "up" : to > from ? "down" : "same", by: Math.abs(from - to) };
}

const ARROWS = { up: "↑", down: "↓", same: "=", new: "+" };

/** Tell how a hit moved from one stage to another, by a mark and in words. */
function drawMovement(hit, from, to, told) {
  const { kind, by } = movement(rankIn(hit, from), rankIn(hit, to));
  const mark = make("span", { class: `mark ${kind}`, "aria-hidden": "true" }, by ? `${ARROWS[kind]}${count(by)}` : ARROWS[kind]);
  return make("span", { class: "movement" }, mark, " ", make("span", {}, told(kind, rankIn(hit, from), rankIn(hit, to))));
}

function tellMovement(kind, from, to) {
  return kind === "new" ? say("entered") : kind === "same" ? say("stays", { to: count(to) }) : say("moved", { from: count(from), to: count(to) });
}

/** Return the way of a hit through all stages, in words. */
const tellWay = (hit) =>
  shown.answer.stages.map((stage) => {
    const rank = rankIn(hit, stage);
    return rank ? say("place", { stage: say(stage), rank: count(rank) }) : say("missing", { stage: say(stage) });
  });

const ROW = 72; // pixels of a row with one line of text, as the style sheet has it
const SOME = 20; // rows that are filled in one go, further down

/** Return how many rows there are down to the window's end, at the most. */
const roomForRows = () => Math.max(1, Math.ceil((innerHeight - $("results").getBoundingClientRect().top) / ROW));

/** Make the rows of the list. The first ones, down to the window's end, are filled at once. */
function drawRows({ hits }) {
  for (const { id } of hits) {
    shown.rows.set(id, make("li", { "data-id": id }));
    shown.bare.add(id);
  }
  for (const { id } of hits.slice(0, shown.first)) fillRow(id);
  for (const id of state.open) openWhy(shown.hits.get(id));
}

/** Put the rows into the list, in the order of its stage; until all are filled, the first ones and room for the rest. */
function listRows() {
  const [rows, first] = [visibleRows(), shown.isWhole ? Infinity : shown.first];
  const hidden = shown.isWhole ? [...shown.rows.values()].filter((row) => row.hidden) : [];
  $("results").replaceChildren(...rows.slice(0, first), ...hidden);
  $("results").style.paddingBottom = rows.length > first ? `${(rows.length - first) * ROW}px` : "";
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
  $("results").append(...visibleRows().slice(there), ...[...shown.rows.values()].filter((row) => row.hidden));
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
  const [text, why] = [`text-${hit.rank}`, `why-${hit.rank}`];
  const address = addressIn(hit.fields);
  const button = make("button", { type: "button", class: "ask-why", "aria-expanded": "false", "aria-controls": why, "aria-describedby": text, onclick: () => toggleWhy(hit.id) }, say("why"));
  const open = address && make("a", { href: address, rel: "noreferrer", target: "_blank", "aria-describedby": text, title: say("open"), "aria-label": say("open"), onclick: () => sendClick(hit), onauxclick: (event) => event.button === 1 && sendClick(hit) }, "↗");
  const moved = make("span", { class: "moved" }, ...drawMoved(hit, shown.stage));
  const way = make("span", { class: "unseen" }, tellWay(hit).join(", "));
  const acts = make("span", { class: "acts" }, button, open, ...drawVerdicts(hit, text));
  row.append(
    make("span", { class: "place", "aria-hidden": "true" }, count(rankIn(hit, shown.stage))),
    make("div", { class: "body" },
      hit.title ? make("p", { class: "title", lang: languageOf(hit.title), dir: "auto" }, hit.title) : null,
      make("p", { class: "text", id: text, lang: languageOf(hit.text), dir: "auto" }, ...marked(hit.text, hit.highlights, ...windowOf(hit))),
      ...Object.values(hit.contents ?? {}).flat().map(drawContent),
      make("div", { class: "meta" }, drawProbability(hit), moved, tellFields(hit), way, acts),
      make("div", { id: why, class: "why", role: "region", hidden: true })),
  );
  return row;
}

/** Draw a file of a document by its type: a picture, sound or film in place, else a link. */
function drawContent({ url, media_type }) {
  const tag = { audio: "audio", image: "img", video: "video" }[String(media_type).split("/")[0]] ?? "a";
  const node = make(tag, { class: "content", ...(tag === "img" ? { alt: "", loading: "lazy" } : tag === "a" ? { download: "" } : { controls: true, preload: "none" }) });
  if (tag === "a") node.textContent = media_type;
  const show = (address) => node.setAttribute(tag === "a" ? "href" : "src", address);
  if (!/^\/v1\/contents\/[\w.]+$/.test(url)) return null;
  if (keptKey()) fetch(url, { headers: { "X-API-Key": keptKey() } }).then((found) => found.blob()).then((blob) => show(URL.createObjectURL(blob))).catch(() => {});
  else show(url);
  return node;
}

function drawProbability(hit) {
  if (!Number.isFinite(hit.probability)) return null;
  const fill = make("span", {});
  fill.style.width = `${100 * Math.min(1, Math.max(0, hit.probability))}%`;
  const told = percent(hit.probability);
  return make("span", { class: "probability" }, make("span", { class: "bar", "aria-hidden": "true" }, fill), make("span", { class: "unseen" }, say("probability_word"), " "), make("b", {}, told));
}

/** Return a few short fields of a hit, which help to tell documents apart. */
function tellFields(hit) {
  const brief = Object.entries(hit.fields ?? {}).filter(([name, value]) => name !== "url" && value !== hit.title && ["string", "number"].includes(typeof value) && String(value).length <= 24);
  return brief.length ? make("span", { class: "quiet fields" }, brief.slice(0, 3).map(([, value]) => value).join(" · ")) : null;
}

function drawVerdicts(hit, text) {
  if (!index.logging) return [];
  return ["relevant", "irrelevant"].map((event) =>
    make("button", { type: "button", class: `verdict ${event}`, "aria-pressed": String(shown.judged.get(hit.id) === event), "aria-describedby": text, title: say(event), "aria-label": say(event), onclick: () => judge(hit, event) }, event === "relevant" ? "✓" : "✗"));
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
  if (shown.clicked.has(hit.id)) return;
  shown.clicked.add(hit.id);
  sendFeedback(index, feedbackOn(hit, "click")).catch(() => {});
}

// ---- why: the signals of a hit, in plain words ------------------------------------------------------------------

function toggleWhy(id, isOpen = !state.open.includes(id)) {
  const row = fillRow(id);
  state.open = state.open.filter((one) => one !== id);
  if (isOpen) {
    state.open.push(id);
    openWhy(shown.hits.get(id));
  } else {
    row.querySelector(".why").hidden = true;
    nameWhy(row, false);
  }
  follow(id);
  remember("same");
}

function nameWhy(row, isOpen) {
  const button = row.querySelector(".ask-why");
  button.setAttribute("aria-expanded", String(isOpen));
  button.textContent = say(isOpen ? "close" : "why");
  row.classList.toggle("is-open", isOpen);
}

function openWhy(hit) {
  const row = fillRow(hit.id);
  const panel = row.querySelector(".why");
  const signals = signalsOf(hit);
  const part = (to, title, sum) => {
    const own = signals.filter((signal) => signal.to === to);
    return own.length ? make("section", {}, make("h3", {}, say(title), " ", make("span", { class: "quiet" }, sum)), make("ul", {}, ...own.map(drawSignal(hit, own)))) : null;
  };
  const fused = hit.stages?.fused?.score;
  const sum = [Number.isFinite(hit.logit) && say("logit", { n: score(hit.logit) }), Number.isFinite(hit.probability) && say("probability", { percent: percent(hit.probability) })];
  const fields = Object.entries({ id: hit.id, ...hit.fields }).flatMap(([name, value]) => [make("dt", { dir: "auto" }, name), make("dd", { dir: "auto" }, typeof value === "object" ? JSON.stringify(value) : String(value))]);
  const [from, to] = windowOf(hit);
  const isWhole = from === 0 && to === codePoints(hit.text).length;
  panel.replaceChildren(
    ...[
      isWhole ? null : make("p", { class: "whole", lang: languageOf(hit.text), dir: "auto" }, ...marked(hit.text, hit.highlights)),
      part("ranked", "why_here", sum.filter(Boolean).join(", ")),
      part("fused", "why_found", Number.isFinite(fused) ? say("fused_score", { n: score(fused) }) : ""),
      make("section", {}, make("h3", {}, say("path")), make("p", { class: "way" }, tellWay(hit).join(" → "))),
      make("section", {}, make("h3", {}, say("fields")), make("dl", {}, ...fields)),
    ].filter(Boolean),
  );
  panel.setAttribute("aria-label", `${say("why")} ${count(hit.rank)}`);
  panel.hidden = false;
  nameWhy(row, true);
}

/** Return the signals of a hit, heaviest first: `name`, `value`, `added`, `to` (what it was added to), `terms`.
 *  An answer without `signals` has at least its stages' scores, which say what was measured and not what it added. */
function signalsOf(hit) {
  const measured = {};
  for (const stage of searchers()) if (hit.stages?.[stage]) measured[stage] = { value: hit.stages[stage].score, to: "fused" };
  if (Number.isFinite(hit.logit)) measured.ranker = { value: hit.logit, to: "ranked" };
  const given = hit.signals && Object.keys(hit.signals).length ? hit.signals : measured;
  const signals = Object.entries(given).map(([name, signal]) => ({ name, to: "ranked", ...(typeof signal === "number" ? { value: signal } : signal) }));
  return signals.sort((a, b) => Math.abs(b.added ?? 0) - Math.abs(a.added ?? 0));
}

const drawSignal = (hit, all) => (signal) => {
  const most = Math.max(...all.map((one) => Math.abs(one.added ?? 0))) || 1;
  const fill = make("span", {});
  fill.style.width = `${(100 * Math.abs(signal.added ?? 0)) / most}%`;
  const rank = hit.stages?.[signal.name]?.rank;
  const known = WORDS[language][`signal_${signal.name}`];
  const value = signal.name === "match" ? say("level", { n: signal.value }) : score(signal.value);
  return make(
    "li", { class: signal.added < 0 ? "less" : "" },
    make("span", { class: "name" }, known ?? signal.name),
    make("span", { class: "value" }, value, rank ? `, ${say("rank", { n: count(rank) })}` : ""),
    Number.isFinite(signal.added) ? make("span", { class: "bar", "aria-hidden": "true" }, fill) : make("span", {}),
    make("b", {}, Number.isFinite(signal.added) ? signed(signal.added) : ""),
    drawTerms(hit, signal),
  );
};

const TERMS = 6; // words of a result that are told one by one

/** Draw the words that were found and where; without `terms`, those that are highlighted, with their match level. */
function drawTerms(hit, signal) {
  const points = codePoints(hit.text);
  let terms = signal.terms;
  if (!terms && signal.name === (hit.signals?.match ? "match" : "words")) {
    const found = new Map();
    for (const { start, end, level } of hit.highlights ?? []) {
      const term = joined(points.slice(start, end));
      found.set(term, { term, level, at: [...(found.get(term)?.at ?? []), [start, end]] });
    }
    terms = [...found.values()];
  }
  if (!terms?.length) return null;
  const rest = terms.slice(TERMS);
  const more = rest.length > 0 && say("more_terms", { n: count(rest.length), added: signed(rest.reduce((sum, { added }) => sum + added, 0)) });
  return make("span", { class: "terms" }, ...terms.slice(0, TERMS).flatMap(({ term, added, level, at }) => {
    const places = (at ?? []).slice(0, 5).map(([start]) => count(start + 1)).join(language === "zh" ? "、" : ", ");
    const told = [Number.isFinite(added) && signed(added), level && say("level", { n: level }), places && say("at", { places })].filter(Boolean).join(", ");
    return [make("span", {}, make("mark", { class: `level-${Math.min(level ?? 1, 3)}`, lang: languageOf(term) }, term), " ", told), " "];
  }), more);
}

// ---- the cut: a line across the list ----------------------------------------------------------------------------

/** Mark the rows below the least probability, and draw the line above them. */
function drawCut() {
  const rows = visibleRows();
  const passes = (row) => state.min === 0 || (shown.hits.get(row.dataset.id).probability ?? 1) >= state.min;
  const passed = rows.filter(passes);
  for (const row of rows) row.classList.toggle("is-below", !passes(row));
  const told = wholePercent(state.min);
  const place = rows.indexOf(passed.at(-1)) + 1;
  const next = rows[place];
  $("passed").textContent = state.min ? say("passed", { percent: told, n: count(passed.length), total: count(rows.length) }) : say("all");
  $("least").setAttribute("aria-valuetext", state.min ? told : say("all"));
  $("line").hidden = !state.min;
  $("line").firstElementChild.textContent = say("line", { percent: told, n: count(rows.length - passed.length) });
  if (!state.min) return;
  const list = $("results");
  $("line").style.top = `${next?.isConnected ? next.offsetTop : list.offsetTop + (next ? place * ROW : list.offsetHeight)}px`;
}

/** Return the rows of the list's stage, in its order; some may not be in the list yet. */
const visibleRows = () => foundBy(shown.stage).map(({ id }) => shown.rows.get(id));

// ---- stages as tabs, over one list, where there is no room for columns ------------------------------------------

const narrow = matchMedia("(max-width: 43.99em)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

function drawTabs(answer) {
  $("tabs").replaceChildren(...answer.stages.map((stage) =>
    make("button", { type: "button", role: "tab", id: `tab-${stage}`, "aria-controls": "results", "data-stage": stage, onclick: () => chooseTab(stage) },
      say(stage), make("span", { class: "quiet" }, timeOf(stage, answer.took_ms)))));
}

function chooseTab(stage) {
  state.stage = stage === shown.answer.last ? "" : stage;
  remember("same");
  chooseStage(positions());
}

/** Order the list by the stage that is chosen, which is the last one where all have columns. */
function chooseStage(before) {
  const { answer, rows } = shown;
  const stage = narrow.matches && answer.stages.includes(state.stage) ? state.stage : answer.last;
  const found = foundBy(stage);
  for (const tab of $("tabs").children) {
    const isChosen = tab.dataset.stage === stage;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
  }
  const listed = new Set(found.map(({ id }) => id));
  for (const [id, row] of rows) row.hidden = !listed.has(id);
  if (stage !== shown.stage) {
    shown.stage = stage;
    for (const { id } of found.slice(0, shown.first)) fillRow(id);
    for (const hit of found.filter(({ id }) => !shown.bare.has(id))) {
      rows.get(hit.id).querySelector(".place").textContent = count(rankIn(hit, stage));
      rows.get(hit.id).querySelector(".moved").replaceChildren(...drawMoved(hit, stage));
    }
  }
  listRows();
  layOut(before);
}

/** Tell how a hit came to its place in the last stage; in an earlier one, where it ends. */
function drawMoved(hit, stage) {
  const { stages, last } = shown.answer;
  if (stage !== last) return [drawMovement(hit, stage, last, (kind, from, to) => say("ends", { to: count(to) }))];
  if (last !== "ranked" || !stages.includes("fused")) return [make("span", { class: "movement" }, tellWay(hit).slice(0, -1).join(", "))];
  return [drawMovement(hit, "fused", last, tellMovement)];
}

// ---- columns and lines ------------------------------------------------------------------------------------------

const MOTION = 200; // milliseconds in which things move to their new places
const STEP = 26; // pixels between documents below the last row
const MIDDLE = 22; // pixels from the top of a row to the middle of its first line
const SVG = "http://www.w3.org/2000/svg";
let moving = 0; // the animation frame that is asked for; 0: nothing moves
let laidOut = ""; // the size of the list for which all was laid out

/** Draw the columns before the last, empty: `layOut` puts into them the same documents at the ranks of these stages. */
function drawColumns(answer) {
  for (const old of document.querySelectorAll("#board > .column")) old.remove();
  const stages = answer.stages.slice(0, -1);
  $("board").dataset.columns = stages.length;
  for (const [place, stage] of stages.entries()) {
    const beyond = make("p", { class: "beyond", "aria-hidden": "true" }, say("beyond", { n: count(answer.hits.length) }));
    const head = make("h2", { title: titleOf(stage, answer) }, say(stage), " ", make("span", { class: "quiet" }, timeOf(stage, answer.took_ms)));
    $("lines").before(make("section", { class: `column column-${place}`, "data-stage": stage, "aria-label": say(stage) }, make("div", { class: "head" }, head), make("ol"), beyond));
  }
}

function drawItem(hit, stage) {
  const text = hit.title || joined(codePoints(hit.text).slice(...windowOf(hit)).slice(0, 24)); // more than the column has room for
  // Reached by mouse and by screen readers; by keyboard the rows of the list do the same.
  const button = make("button", { type: "button", tabindex: "-1", title: text, onclick: () => (follow(shown.followed === hit.id ? null : hit.id), reveal(hit.id)) },
    make("b", {}, count(rankIn(hit, stage))), " ", make("span", { lang: languageOf(hit.text), dir: "auto" }, text));
  return make("li", { "data-id": hit.id, value: rankIn(hit, stage), class: shown.isWhole && "is-later" }, button);
}

function reveal(id) {
  finish();
  shown.rows.get(id).scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}

/** Return where everything is drawn now, by column and document. */
const positions = () => new Map(shown?.spots.map((spot) => [keyOf(spot.stage, spot.id), spot.now]));

const keyOf = (stage, id) => `${stage} ${id}`;

/** Measure where everything belongs, draw what the window shows of it, and move what was elsewhere `before`. */
function layOut(before) {
  cancelAnimationFrame(moving);
  moving = 0;
  laidOut = sizeOfList();
  const board = $("board");
  const rows = visibleRows();
  for (const row of rows) row.style.transform = "";
  const origin = board.getBoundingClientRect();
  const topOf = (node) => node.getBoundingClientRect().top - origin.top;
  let next = topOf($("results"));
  const middles = rows.map((row) => { // not of what is in a row: it may not be laid out, or not be in the list yet
    const top = row.isConnected ? topOf(row) : next;
    next = top + ROW;
    return top + MIDDLE;
  });
  const columns = [...board.querySelectorAll(":scope > .column")].filter((column) => column.offsetParent !== null);
  const bottom = $("results").getBoundingClientRect().bottom - origin.top + STEP * 2;
  const spots = rows.map((row, place) => ({ stage: shown.answer.last, id: row.dataset.id, node: row, y: middles[place] }));
  let depth = 0;
  for (const column of columns) {
    const { stage } = column.dataset;
    const [list, found] = [column.querySelector("ol"), foundBy(stage)];
    const places = placesOf(found.map((hit) => rankIn(hit, stage)), middles, bottom, deepestRank());
    const above = topOf(list) + STEP / 2;
    found.forEach(({ id }, i) => spots.push({ stage, id, list, node: shown.items.get(keyOf(stage, id)), top: places[i] - above, y: places[i] }));
    depth = Math.max(depth, ...places);
  }
  shown.top = -origin.top; // of the window, on the board
  shown.spots = spots;
  for (const spot of spots) {
    const was = before?.get(keyOf(spot.stage, spot.id)) ?? spot.y;
    spot.now = spot.from = sideOf(was) === 0 || sideOf(spot.y) === 0 ? was : spot.y; // nobody sees what moves elsewhere
  }
  findPaths(columns.length ? [...columns, $("answer")] : [], origin);
  board.style.setProperty("--beyond", depth > bottom - STEP ? `${bottom - STEP * 1.5}px` : "-99rem");
  board.style.minHeight = depth > bottom - STEP ? `${depth + STEP}px` : "";
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

/** Lay out anew if the list has another size by now; what is seen is drawn first, rows further down change after that. */
function layOutAgain() {
  if (shown?.isSeen && shown.answer.hits.length && laidOut !== sizeOfList()) layOut(moving ? positions() : undefined);
}

const sizeOfList = () => `${$("board").clientWidth} ${$("results").offsetHeight}`;
const deepestRank = () => Math.max(...shown.answer.stages.flatMap((stage) => shown.answer.hits.map((hit) => rankIn(hit, stage) ?? 0)));

/** Return the heights of a column's ranks, ascending: beside the row of the same rank; further down, by its logarithm. */
function placesOf(ranks, middles, bottom, deepest) {
  const beyond = ranks.filter((rank) => rank > middles.length).length;
  const room = STEP * Math.max(beyond, 4);
  const scale = Math.log((deepest + 1) / (middles.length + 1)) || 1;
  const places = ranks.map((rank) => middles[rank - 1] ?? bottom + (room * Math.log(rank / (middles.length + 1))) / scale);
  for (let i = 1; i < places.length; i++) {
    if (ranks[i] > middles.length) places[i] = Math.max(places[i], places[i - 1] + STEP);
  }
  return places;
}

/** Find the lines between neighbouring columns; one that did not find a document is passed by a dotted line. */
function findPaths(columns, origin) {
  const byPlace = new Map(shown.spots.map((spot) => [keyOf(spot.stage, spot.id), spot]));
  const { stages, hits } = shown.answer;
  const sides = columns.map((column) => column.getBoundingClientRect()).map((box) => [box.left - origin.left, box.right - origin.left]);
  shown.paths = [];
  $("lines").replaceChildren();
  for (const hit of columns.length ? hits : []) {
    let before = -1;
    stages.forEach((stage, place) => {
      const spot = byPlace.get(keyOf(stage, hit.id));
      if (!spot) return;
      const { kind } = movement(before >= 0 && rankIn(hit, stages[before]), rankIn(hit, stage));
      const isSkipping = before >= 0 && place - before > 1;
      const [from, start] = before >= 0 ? [byPlace.get(keyOf(stages[before], hit.id)), sides[before][1] + 4] : [spot, sides[place][0] - 24];
      if (before >= 0 || place > 0) shown.paths.push({ id: hit.id, from, to: spot, start, end: sides[place][0] - (stage === stages.at(-1) ? 14 : 4), kind, isSkipping });
      before = place;
    });
  }
}

/** Make the documents in columns and the lines that are not there yet: first what the window shows, then the rest. */
function drawNodes() {
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
    path.node.setAttribute("class", `${path.kind}${path.isSkipping ? " is-skipping" : ""}`);
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
function follow(id) {
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

// ---- keys and mouse ---------------------------------------------------------------------------------------------

/** Search while somebody types, but not for letters that an input method has yet to turn into characters. */
function listenToTyping() {
  const input = $("query");
  let composing = false;
  let typing = 0; // the timer of the pause
  const typed = () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (input.value === state.q) return;
      state.q = input.value;
      search("typed");
    }, PAUSE);
  };
  input.addEventListener("compositionstart", () => (composing = true, clearTimeout(typing)));
  input.addEventListener("compositionend", () => (composing = false, typed()));
  input.addEventListener("input", (event) => { if (!event.isComposing && !composing) typed(); });
  input.addEventListener("keydown", (event) => {
    // Enter that chooses a candidate is no order to search; 229 is what Safari sends for it, after the composition.
    if (event.key === "Enter" && (event.isComposing || event.keyCode === 229)) event.preventDefault();
  });
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (composing) return;
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
    else if (name in CHOICES) state[name] = Number(value);
    else return;
    search("chosen");
  });
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
  const id = row?.dataset.id ?? state.open.at(-1);
  if (state.open.includes(id)) {
    toggleWhy(id, false);
    shown.rows.get(id).querySelector(".ask-why").focus();
  } else if (shown.followed !== null) {
    follow(null);
    if (row) $("query").focus();
  } else if ($("settings").open) $("settings").open = false;
  else if (row) $("query").focus();
}

/** A click on a row's text follows the document; a pointer over it shows its way. Text can still be selected. */
function listenToMouse() {
  $("results").addEventListener("click", (event) => {
    const row = event.target.closest("#results > li");
    if (!row || event.target.closest("button, a, .why") || !getSelection().isCollapsed) return;
    follow(shown.followed === row.dataset.id ? null : row.dataset.id);
    sendClick(shown.hits.get(row.dataset.id));
  });
  $("board").addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && shown) markFollowed(event.target.closest("[data-id]")?.dataset.id ?? shown.followed);
  });
  $("board").addEventListener("pointerleave", () => shown && markFollowed());
}

// ---- start ------------------------------------------------------------------------------------------------------

/** Put the index's name, size and examples into the page. */
function drawIndex() {
  const facts = [index.name, Number.isFinite(index.documents) && say("documents", { n: count(index.documents) })].filter(Boolean);
  $("collection").textContent = facts.join(" · ");
  $("query").placeholder = index.examples?.length ? say("placeholder", { example: index.examples[0] }) : "";
  $("to-judge").hidden = !index.logging;
  const keys = [["/", "key_focus"], ["↑ ↓", "key_move"], ["Enter", "key_why"], ["Esc", "key_close"]];
  $("keys").replaceChildren(...keys.flatMap(([key, does]) => [make("kbd", {}, key), ` ${say(does)} `]));
}

/** Draw everything anew, from what is there: after a change of the language or of the width. */
function redraw() {
  drawIndex();
  fillForm();
  if (shown) drawAnswer(shown.answer);
  else if (!state.q) showWelcome();
}

function start() {
  state = readAddress();
  speak();
  drawIndex();
  fillQuery();
  fillForm();
  switchLanguage(redraw);
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
  new ResizeObserver(layOutAgain).observe($("answer"));
  // A row that comes near the window gets its true height: the list may then be as high as the observer saw it before.
  $("results").addEventListener("contentvisibilityautostatechange", () => requestAnimationFrame(layOutAgain), true);
  if (!state.q) $("query").focus();
  loadIndex();
  search("back");
}

function loadIndex() {
  indexed = ask("v1/index").catch(() => ({})).then(takeIndex);
}

function takeIndex(found) {
  index = found.ranker === null ? { ...found, limits: { ...found.limits, pairs: 0 } } : found;
  const most = Math.min(DEFAULTS.rank_top, index.limits?.pairs ?? Infinity); // that the ranker takes of a request
  if (state.rank_top === DEFAULTS.rank_top) state.rank_top = most;
  DEFAULTS.rank_top = most;
  redraw();
}

if (document.body.dataset.page === "search") start();
