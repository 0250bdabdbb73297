// What the page says, and numbers as they are written in its languages. words_en.js and the like have the words of a
// language; that of the visitor is loaded.

import { cut } from "./text.js";

const WORDS = {}; // by language, what the page says in it, as far as that is loaded

/** The languages of the page, each by its own name. */
export const LANGUAGES = { zh: "中文", en: "English", de: "Deutsch", fr: "Français", es: "Español" };
const USUAL = "en"; // where nobody has asked for one of these

export let language = "zh";
let region = "zh"; // how numbers and dates are written: the visitor's own form of the language, such as de-CH

/** Load the words of a language. Returns whether they are there. */
const load = async (name) => Boolean((WORDS[name] ??= (await import(`./words_${name}.js`).catch(() => null))?.default));

/** Return whether the page has words under a name. */
export const hasWord = (name) => Object.hasOwn(WORDS[language] ?? {}, name);

/** Return a text of the page in its language, with `{names}` replaced by values; long ones are cut. */
export function say(name, values = {}) {
  return (hasWord(name) ? WORDS[language][name] : name).replace(/\{(\w+)\}/g, (_, key) => cut(String(values[key] ?? "")));
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
  for (const name of [wanted, USUAL]) if (await load(name)) { language = name; break; }
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
