// A row of the list: a hit, its files, its fields, what can be done with it.

import { state } from "./address.js";
import { acts, ARROWS, foundBy, isBrief, isCalibrated, isOut, movement, partsOf, rankIn, shown, tellWay, titleOf } from "./answer.js";
import { index, isAddress, isNumber, labelOf, linkOf, pictureOf, tellOf } from "./collection.js";
import { button, make } from "./nodes.js";
import { codePoints, cut, marked, SHOWN, windowOf } from "./text.js";
import { count, languageOf, percent, say } from "./words.js";

export const ROW = 90; // pixels of a row that is not laid out yet, about
const SHORT = 90; // code points of a text without a title that is shown as one

/** Return the rows of the list's stage, in its order; some may not be in the list yet. */
export const visibleRows = () => foundBy(shown.stage).map(({ id }) => shown.rows.get(id));

/** Fill a row if it is empty yet; return it. */
export function fillRow(id) {
  const [row, hit] = [shown.rows.get(id), shown.hits.get(id)];
  if (!shown.bare.delete(id)) return row;
  const name = `title-${isOut(hit) ? "out-" : ""}${hit.rank}`;
  const [title, length] = [titleOf(hit), codePoints(hit.text).length];
  const isShort = !title && length <= SHORT && !hit.isCut; // the text is the title
  const [address, picture] = [linkOf(hit.fields), pictureOf(hit.fields)];
  const linked = (nodes) => (address ? [make("a", { href: address, rel: "noreferrer", target: "_blank", title: say("open"), onclick: () => acts.sendClick(hit), onauxclick: (event) => event.button === 1 && acts.sendClick(hit) }, ...nodes)] : nodes);
  const text = () => {
    const nodes = marked(hit.text, hit.highlights, ...windowOf(hit));
    return [hit.begin > 0 && nodes[0] !== "…" && "…", ...nodes, hit.isCut && nodes.at(-1) !== "…" && "…"].filter(Boolean);
  };
  const why = button({ class: "ask-why", "aria-controls": "why", "aria-expanded": String(state.open === id), "aria-describedby": name, onclick: () => (state.open === id ? acts.closeWhy(true) : acts.openWhy(hit, true)) }, say(shown.answer.sort ? "details" : "why"));
  row.append(...[
    make("span", { class: "place", "aria-hidden": "true" }, count(rankIn(hit, shown.stage))),
    make("div", { class: "body" },
      picture && make("img", { class: "thumb", src: picture, alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer", onerror: ({ target }) => target.remove() }),
      title || isShort ? make("h3", { class: isShort ? "title text" : "title", id: name, lang: languageOf(title || hit.text), dir: "auto" }, ...linked(isShort ? text() : marked(title, partsOf(title)))) : null,
      isShort || title === hit.text ? null : make("p", { class: "text", id: title ? null : name, lang: languageOf(hit.text), dir: "auto" }, ...text()),
      ...Object.values(hit.contents ?? {}).flat().map((content) => drawContent(content, title || cut(hit.text, SHORT))),
      make("p", { class: "fields quiet" }, ...drawFields(hit, title || isShort ? null : address))),
    drawProbability(hit),
    make("span", { class: "moved" }, ...drawMoved(hit, shown.stage)),
    make("span", { class: "acts" }, why, drawMoreLike(hit, name), ...drawVerdicts(hit, name)),
    make("span", { class: "unseen" }, tellWay(hit)),
  ].filter(Boolean));
  if (hit.place) import("./places.js").then(({ drawPlace }) => drawPlace(hit, row)).catch(() => {});
  return row;
}

/** Shorten the texts that have more lines than the style sheet shows, which would cut them within a word. */
export function fitTexts() {
  for (let tries = 0; shown && tries < 4; tries++) { // heights are read together, and texts written together
    const shares = [...document.querySelectorAll("#results p.text:not([hidden])")].map((node) => [node, node.clientHeight / node.scrollHeight]);
    const long = shares.filter(([, share]) => share < 0.99);
    if (!long.length) return;
    for (const [node, share] of long) {
      const hit = shown.hits.get(node.closest("li").dataset.id);
      const most = Math.floor(0.97 * share * (Number(node.dataset.most) || SHOWN));
      node.dataset.most = most;
      node.replaceChildren(...marked(hit.text, hit.highlights, ...windowOf(hit, most)));
    }
  }
}

/** Tell how a hit came to its place in the last stage; in an earlier one, where it ends. */
export function drawMoved(hit, stage) {
  const { base, last, isRanked } = shown.answer;
  const [from, to] = [rankIn(hit, stage === last ? base : stage), rankIn(hit, last)];
  if (!isRanked || !from) return [];
  const told = from === to ? say("stays", { to: count(to) }) : stage === last ? say("moved", { from: count(from), to: count(to) }) : say("ends", { to: count(to) });
  const kind = isOut(hit) ? "out" : movement(from, to);
  return [make("span", { class: `mark ${kind}`, "aria-hidden": "true" }, ARROWS[kind]), " ", make("span", {}, told)];
}

export const hasPicture = (hit) => !hit.place && Object.values(hit.contents ?? {}).flat().some(({ media_type }) => String(media_type).startsWith("image/"));

function drawMoreLike(hit, name) {
  if (!index.like?.includes("id") || !hasPicture(hit)) return "";
  return button({ class: "ask-like", "aria-describedby": name, onclick: () => acts.searchLike(hit.id) }, say("more_like"));
}

/** Draw a file of a document by its type: a picture, sound or film in place, else a link. */
function drawContent({ url, media_type }, told) {
  const tag = { audio: "audio", image: "img", video: "video" }[String(media_type).split("/")[0]] ?? "a";
  const node = make(tag, { class: "content", ...(tag === "img" ? { alt: told, loading: "lazy" } : tag === "a" ? {} : { controls: true, preload: "none" }) });
  if (tag === "a") {
    const kind = String(media_type).split(/[/;]/)[1] ?? "";
    node.textContent = `${told} (${kind.split(/[.+-]/).at(-1).toUpperCase()})`;
    node.download = `${told.replace(/[\\/:*?"<>|\p{C}]/gu, " ").trim()}.${url.split(".").at(-1)}`; // not its digest
  }
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
  const brief = Object.entries(hit.fields ?? {}).filter(([name, value]) => name !== "url" && !isAddress(name) && !(name in (hit.place ?? {})) && isBrief(value) && !(name in (hit.contents ?? {})) && ![hit.title, hit.text].includes(String(value)) && tellOf(name, value) !== differs).slice(0, 3);
  const similar = Array.isArray(hit.similar) && hit.similar.length > 0 && say("similar", { n: count(hit.similar.length), ids: hit.similar.slice(0, 3).join(", ") });
  const open = address && make("a", { href: address, rel: "noreferrer", target: "_blank", onclick: () => acts.sendClick(hit) }, say("open"));
  return [differs && make("b", {}, differs), ...brief.map(([name, value]) => (typeof value === "string" && !isNumber(name, value) ? tellOf(name, value) : `${labelOf(name)} ${tellOf(name, value)}`)), similar, open].filter(Boolean).flatMap((part, place) => (place ? [" · ", part] : [part]));
}

function drawVerdicts(hit, name) {
  if (!index.logging || isOut(hit) || shown.isFirst) return [];
  return ["relevant", "irrelevant"].map((event) =>
    button({ class: `verdict ${event}`, "aria-pressed": String(shown.judged.get(hit.id) === event), "aria-describedby": name, title: say(event), "aria-label": say(event), onclick: () => acts.judge(hit, event) }, event === "relevant" ? "✓" : "✗"));
}
