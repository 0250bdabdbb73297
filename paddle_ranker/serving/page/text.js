// Texts of documents: cut to what is shown, and marked; no character is cut in two.

import { make } from "./nodes.js";

// What joins code points to one character: marks, joiners, variation selectors, flags, skin tones, tags, Hangul.
const JOINED = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{1f1e6}-\u{1f1ff}\u{1f3fb}-\u{1f3ff}\u{e0020}-\u{e007f}\u1100-\u11ff]/u;

export const VALUE = 80; // code points of a field's value that are shown
const SURROGATE = /[\ud800-\udfff]/;
const AROUND = 64; // code points around a window in which the ends of characters are looked for

/** Return a text's code points: the text itself where each is one unit, else an array; both have slice and length. */
export const codePoints = (text) => (SURROGATE.test(text) ? Array.from(text) : text);

export const joined = (points) => (typeof points === "string" ? points : points.join(""));

/** Return at most the first `most` code points of a text, with an ellipsis where there are more; in time linear in `most`. */
export function cut(text, most = 300) {
  if (text.length <= most) return text;
  const points = Array.from(text.slice(0, 2 * most + 2));
  return points.length <= most && text.length <= 2 * most + 2 ? text : `${points.slice(0, most).join("")}…`;
}

/** Return where characters begin in a window of code points, `[..., end]`; null: every code point is a character. */
function characterStarts(points, from, to) {
  const text = joined(points.slice(from, to));
  if (!JOINED.test(text) || !Intl.Segmenter) return null;
  const starts = [];
  let place = from;
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)) {
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

export const SHOWN = 180; // code points of a text in the list, at most; "why" shows the whole text

/** Return the window of a long text to show: its best passage, from shortly before the first highlight there. */
export function windowOf(hit, most = SHOWN) {
  const points = codePoints(hit.text);
  const { length } = points;
  if (length <= most) return [0, length];
  const { start = 0, end = length } = hit.passage ?? {};
  const first = (hit.highlights ?? []).find((one) => one.start >= start && one.end <= end)?.start ?? start;
  const from = first - start > most / 2 ? first - most / 4 : start;
  const wordAt = (place) => { // where a word begins, near enough
    for (let at = place; at > place - 20 && place < length; at--) if (points[at - 1] === " ") return at;
    return place;
  };
  return [Math.min(from, length - most), Math.min(from + most, length)].map((place) => wordAt(Math.max(0, Math.round(place))));
}
