// What the page says, and numbers as they are written in its languages. Chinese and English stand beside the code that
// says it; words_de.js and the like have all of another language, and are loaded when it is chosen.

const WORDS = {
  zh: {
    more_like: "更多类似", by_picture: "以图搜索", by_recording: "以声音搜索",
    language: "语言", search: "搜索", judge: "标注", more: "其他", skip: "跳到结果", query: "查询", suggestions: "建议",
    settings: "设置", use: "召回方式", words: "词语", vectors: "语义", fused: "融合", ranked: "排序", fusion: "融合方法",
    recall: "各路召回", rank_top: "排序前", top_k: "显示", group_by: "合并近似的文档", filters: "更多筛选", stages: "阶段", results: "结果", keys: "按键",
    rrf: "倒数排名", weighted: "加权得分", none: "不排序", yes: "是", no: "否",
    placeholder: "输入查询，例如：{example}", documents: "{n} 篇文档", tries: "试试：",
    welcome: "输入一个查询。", how: "这些结果是怎么找到的？",
    sort: "排序方式", all_words: "只看含有全部词语的", key_for: "这里的搜索需要密钥", key_from: "请向管理员索取。密钥只保存到这个标签页关闭为止。", key_wrong: "密钥不对，请再试一次。", key_send: "进入",
    found: "{total} 篇文档中的前 {n} 条结果，用时 {time}。", matched: "{total} 篇文档含有任一词，用时 {time}。", matched_one: "{total} 篇文档，用时 {time}。", single: "1 篇文档，用时 {time}。", milliseconds: "{n} 毫秒", working: "正在搜索……",
    cut: "概率至少", nothing_meets: "没有文档符合筛选条件。", details: "详情", page_before: "上一页", page_next: "下一页", passed: "{percent}：{n} / {total} 条", all: "不限", more_results: "显示更多",
    moved: "从 {from} 到 {to}", stays: "{to} 不变", ends: "最终第 {to} 位", place: "{stage}第 {rank} 位", missing: "{stage}不在前列",
    probability: "概率", relative: "横条：相关程度，相对于第一条", why: "为什么", open: "打开原文", relevant: "相关", irrelevant: "不相关",
    others: "另有 {n} 条", out: "被排序移出前 {n} 位", similar: "另有 {n} 篇相近：{ids}",
    nothing: "没有找到与“{query}”有关的文档。", filtered: "筛选条件：{filters}。", one_more: "一个字太短，请再输入一个。",
    did_you_mean: "你要找的是", drop_filters: "去掉筛选条件", use_all: "按语义搜索", shorter: "也可以换一个更短或更常见的说法。",
    corrected: "没有文档含“{from}”，已搜索“{to}”。", synonyms: "“{from}”也包括“{to}”。", phrases: "只要含有“{n}”的。", unfound: "没有文档含有“{n}”：结果可以不含它。", unfound_with: "含有{others}的文档都没有“{n}”：结果可以不含它。", excluded: "不含“{n}”。", literal: "按原样搜索", signs: "把符号当作普通字搜索", was_literal: "按原样搜索：没有更正。", not_literal: "恢复更正",
    gone: "服务器没有回应。", busy: "服务器正忙。", refused: "服务器拒绝了这次请求。", failed: "服务器出错了。", unread: "服务器的回答读不懂。",
    starting: "服务器正在启动……", refused_unprocessable: "这次搜索里有一项不成立：{field}。", refused_invalid_request: "这次请求的格式不对：{field}。", refused_too_large: "这次请求太大：{field}。", refused_deadline_exceeded: "没有按时完成。", refused_unavailable: "服务器还没有准备好。", refused_read_only: "这里不接受改动。", refused_not_found: "服务器没有这项功能。", again: "重试", again_in: "{n} 秒后可重试。", stale: "下面仍是上一次“{query}”的结果。",
    late_rank: "排序没有按时完成：下面是融合后的顺序。", late: "没有按时完成：{stage}。",
    nothing_close: "没有找到很接近的内容；下面是相对最近的。", unranked: "没有经过排序模型：下面是融合后的顺序。", too_long: "查询太长：只用了前 {n} 个字。", too_long_by: "查询太长：{name}只读了前 {n} 个字。", unsaved: "没有记下来：{why}", saved: "已记下",
    unfamiliar: "排序模型可能不适合这些文档：得分应在 {expected} 左右，实为 {seen}。",
    key_focus: "输入", key_move: "选择", key_why: "为什么", key_close: "关闭",
  },
  en: {
    more_like: "More like this", by_picture: "Search by picture", by_recording: "Search by sound",
    language: "Language", search: "Search", judge: "Judge", more: "More", skip: "Skip to results", query: "Query", suggestions: "Suggestions",
    settings: "Settings", use: "Recall by", words: "Words", vectors: "Meaning", fused: "Fused", ranked: "Ranked", fusion: "Fusion",
    recall: "Recall, each", rank_top: "Rank the first", top_k: "Show", group_by: "Near-duplicates as one", filters: "More filters", stages: "Stages", results: "Results", keys: "Keys",
    rrf: "reciprocal ranks", weighted: "weighted scores", none: "no ranking", yes: "yes", no: "no",
    placeholder: "Type a query, such as: {example}", documents: "{n} documents", tries: "Try: ",
    welcome: "Type a query.", how: "How was this found?",
    sort: "Sort by", all_words: "Only with all words", key_for: "This search needs a key", key_from: "Ask whoever runs it. The key is kept until this tab is closed.", key_wrong: "That key does not fit. Please try again.", key_send: "Continue",
    found: "First {n} results among {total} documents, in {time}.", matched: "{total} documents have any of these words, in {time}.", matched_one: "{total} documents, in {time}.", single: "1 document, in {time}.", milliseconds: "{n} ms", working: "Searching…",
    cut: "At least", nothing_meets: "No document meets the filters.", details: "Details", page_before: "Previous page", page_next: "Next page", passed: "{percent}: {n} of {total}", all: "no limit", more_results: "Show more",
    moved: "from {from} to {to}", stays: "stays at {to}", ends: "ends at {to}", place: "{stage}: {rank}", missing: "{stage}: not among the first",
    probability: "Probability", relative: "Bar: relevance, relative to the first", why: "Why", open: "Open", relevant: "Relevant", irrelevant: "Not relevant",
    others: "{n} more", out: "Left the first {n} by ranking", similar: "{n} similar: {ids}",
    nothing: "Nothing found for “{query}”.", filtered: "Filters: {filters}.", one_more: "One character is too short: type another.",
    did_you_mean: "Did you mean", drop_filters: "Remove the filters", use_all: "Search by meaning", shorter: "Or try a shorter or more common wording.",
    corrected: "Nothing has “{from}”: searched “{to}”.", synonyms: "“{from}” includes “{to}”.", phrases: "Only with “{n}”.", unfound: "Nothing has “{n}”: results need not have it.", unfound_with: "Nothing with {others} has “{n}”: results need not have it.", excluded: "Without “{n}”.", literal: "Search as written", signs: "Search for the signs as plain words", was_literal: "Searched as written, without corrections.", not_literal: "Search as usual",
    gone: "The server does not answer.", busy: "The server is busy.", refused: "The server refused the request.", failed: "The server failed.", unread: "The server’s answer cannot be read.",
    starting: "The server is starting…", refused_unprocessable: "A part of this search does not hold: {field}.", refused_invalid_request: "The request is not well formed: {field}.", refused_too_large: "The request is too large: {field}.", refused_deadline_exceeded: "It was not done in time.", refused_unavailable: "The server is not ready.", refused_read_only: "Nothing can be changed here.", refused_not_found: "The server does not offer this.", again: "Try again", again_in: "Try again in {n} s.", stale: "Below is still the earlier answer, to “{query}”.",
    late_rank: "Ranking was late: this is the fused order.", late: "Late: {stage}.",
    nothing_close: "Nothing comes close to your search. These are the nearest documents there are.", unranked: "No ranker was asked: this is the fused order.", too_long: "The query is too long: only its first {n} characters were used.", too_long_by: "The query is too long for {name}, which reads its first {n} characters.", unsaved: "Not saved: {why}", saved: "Saved",
    unfamiliar: "The ranker may not fit these documents: its scores should be about {expected}, and are {seen}.",
    key_focus: "type", key_move: "choose", key_why: "why", key_close: "close",
  },
};

/** The languages of the page, each by its own name. */
export const LANGUAGES = { zh: "中文", en: "English", de: "Deutsch", fr: "Français", es: "Español" };
const USUAL = "en"; // where nobody has asked for one of these

export let language = "zh";
let region = "zh"; // how numbers and dates are written: the visitor's own form of the language, such as de-CH

/** Add what a further module says in Chinese and English. */
export function addWords(words) {
  for (const [name, own] of Object.entries(words)) Object.assign(WORDS[name], own);
}

/** Load the words of a language. Returns whether they are there. */
async function load(name) {
  if (!WORDS[name]) await import(`./words_${name}.js`).then((words) => (WORDS[name] = words.default)).catch(() => {});
  return Boolean(WORDS[name]);
}

/** Return whether the page has words under a name. */
export const hasWord = (name) => Object.hasOwn(WORDS[language], name);

/** Return a text of the page in its language, with `{names}` replaced by values. */
export function say(name, values = {}) {
  return (hasWord(name) ? WORDS[language][name] : name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/** Return the title of the page: that of the server's options, else the word for a search. */
export const titleOfPage = () => document.getElementById("title")?.textContent ?? say("search");

/** Return the first language of the page among some codes, such as `de-AT`. */
const firstOf = (codes) => codes.map((code) => code.toLowerCase().split("-")[0]).find((code) => Object.hasOwn(LANGUAGES, code));

/** Choose the language of the address, else that of the server's options, else the browser's, and put it into what the
 *  HTML file holds. */
export async function speak() {
  const asked = new URLSearchParams(location.search).get("lang");
  const wanted = firstOf([asked, document.documentElement.dataset.language, ...navigator.languages].filter(Boolean)) ?? USUAL;
  language = (await load(wanted)) ? wanted : USUAL;
  region = navigator.languages.find((code) => firstOf([code]) === language) ?? language;
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const link of document.querySelectorAll("[data-to]")) link.href = link.dataset.to + (asked ? `?lang=${language}` : "");
  const choice = document.getElementById("language");
  if (!choice.options.length) for (const [code, name] of Object.entries(LANGUAGES)) choice.add(Object.assign(new Option(name, code), { lang: code }));
  choice.value = language;
}

/** Change the language in place when another is chosen; the address keeps it. `then` draws anew. */
export function switchLanguage(then) {
  document.getElementById("language").addEventListener("change", async ({ target }) => {
    const address = new URLSearchParams(location.search);
    address.set("lang", target.value);
    history.replaceState(history.state, "", `?${address}`);
    await speak();
    then();
  });
}

/** Return the page's word for a thing as it stands within a sentence. */
export const withinSentence = (word) => (language === "de" ? word : word.toLowerCase());

/** Return the language that a text's letters show, for its font and its voice; "": unknown. */
export function languageOf(text) {
  const begin = text.slice(0, 400);
  if (/[\u3040-\u30ff]/.test(begin)) return "ja";
  if (/\p{Script=Hangul}/u.test(begin)) return "ko";
  return /\p{Script=Han}/u.test(begin) ? "zh" : "";
}

/** Return a function that makes a format once for each language; to make an `Intl.NumberFormat` takes longest. */
function formats(Format, options) {
  const made = {};
  return () => (made[region] ??= new Format(region, options));
}

/** Return a function that writes numbers in the page's language. */
export function numbers(options) {
  const format = formats(Intl.NumberFormat, options);
  return (value) => (Number.isFinite(value) ? format().format(value) : "?");
}

const CURRENCIES = { "€": "EUR", $: "USD", "£": "GBP", "¥": "JPY", "₩": "KRW", "₹": "INR", "₽": "RUB", "฿": "THB", kr: "SEK", "zł": "PLN", "Kč": "CZK", Ft: "HUF" };
const quantities = {}; // by unit, a function that writes numbers with it

/** Return a function that writes numbers with a unit: currencies and percents as the language does, others behind. */
function withUnit(unit) {
  const usual = { maximumFractionDigits: 4 };
  if (unit === "%") return numbers({ ...usual, style: "unit", unit: "percent" });
  const isCode = /^[A-Z]{3}$/.test(unit) && Intl.supportedValuesOf?.("currency").includes(unit);
  const currency = isCode ? unit : Object.hasOwn(CURRENCIES, unit) && CURRENCIES[unit];
  // Whole amounts have no decimals, others as many as the currency has: 206,80 €.
  if (currency) return numbers({ ...usual, style: "currency", currency, currencyDisplay: isCode ? "code" : "narrowSymbol", trailingZeroDisplay: "stripIfInteger" });
  return (value) => `${count(value)}\u00a0${unit}`;
}

/** Write a number with its unit, as the page's language does. */
export const quantity = (value, unit) => (quantities[unit] ??= withUnit(unit))(value);

const ISO = /^\d{4}-(\d\d)(?:-(\d\d)(?:[T ](\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?)?$/;
const ofMonth = formats(Intl.DateTimeFormat, { year: "numeric", month: "long", timeZone: "UTC" });
const ofDay = formats(Intl.DateTimeFormat, { dateStyle: "medium", timeZone: "UTC" });
const ofTime = formats(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });

/** Write an ISO 8601 date or time as the page's language does, with its own offset; anything else stays as it is. */
export function dateText(text) {
  const [, month, day, hours, offset] = ISO.exec(text) ?? [];
  const moment = month && new Date(`${text.slice(0, 4)}-${month}-${day ?? "01"}T${hours ?? "00:00"}Z`);
  if (!moment || Number.isNaN(moment.getTime())) return text;
  const told = (hours ? ofTime : day ? ofDay : ofMonth)().format(moment);
  return offset ? `${told} ${offset === "Z" ? "UTC" : offset}` : told;
}

export const count = numbers({ useGrouping: "min2" }); // 2024 may be a year, 12,345 is none
export const score = numbers({ maximumSignificantDigits: 3 });
export const percent = numbers({ style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const wholePercent = numbers({ style: "percent" });
const tenths = numbers({ minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const time = (value) => say("milliseconds", { n: tenths(value) });

/** Return the words of a query as the browser knows them; none where somebody has put marks around them. */
export function wordsIn(query) {
  if (/["“”+-]/.test(query) || !Intl.Segmenter) return [];
  return segments(query);
}

const segments = (text) => [...new Intl.Segmenter(language, { granularity: "word" }).segment(text)].filter((one) => one.isWordLike).map((one) => one.segment);

const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

/** Return a query that demands each of its words; "" if it does already, or has one word. Quotes and signs stay as they are. */
export function withAllWords(query) {
  if (!Intl.Segmenter || query.split('"').length % 2 === 0) return "";
  const parts = (query.match(/[-+]?"[^"]*"|\S+/g) ?? []).flatMap((part) => {
    if (/^([-+]?"|[-+](\p{L}{2}|\p{Script=Han}))/u.test(part)) return [part];
    const words = UNSPACED.test(part) ? segments(part) : [part.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{M}\p{N}+#]+$/gu, "")];
    return words.filter(Boolean).map((one) => (/^(\p{L}\S|\p{Script=Han}$)/u.test(one) ? `+${one}` : `"${one}"`));
  });
  return parts.filter((part) => !part.startsWith("-")).length > 1 && parts.join(" ") !== query.trim() ? parts.join(" ") : "";
}
