// Where a hit stands in its file: boxes on a page, a player that starts there, a table with its cells marked.
// The search page loads this when a hit has a place.

import { wholeOf } from "./answer.js";
import { loadStyles, make } from "./nodes.js";
import { codePoints, marked } from "./text.js";
import { count, say } from "./words.js";

const MOST_SPANS = 5; // buttons of a player, rows of a table
const BETWEEN = " | "; // two cells of a row
const ABOVE = 0.35; // share of the visible part of a page above its first box

const waiting = new Map(); // by row, what to draw once it is in sight
const sight = new IntersectionObserver((rows) => {
  for (const { isIntersecting, target } of rows) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    waiting.get(target)();
    waiting.delete(target);
  }
});

const styled = loadStyles("places.css");

/** Draw a hit's place into its row. */
export function drawPlace(hit, row) {
  const { page, boxes, seconds, cells } = hit.place;
  const content = Object.values(hit.contents ?? {}).flat()[0];
  const node = row.querySelector(".content");
  if (page && content?.media_type === "application/pdf") leadTo(page, node);
  if (boxes && content?.media_type === "application/pdf") {
    waiting.set(row, () => drawPage(`${content.url}/pages/${page}`, page, boxes, node));
    sight.observe(row);
  } else if (boxes && node?.tagName === "IMG") drawBoxes(boxes, node);
  if (seconds?.length && ["AUDIO", "VIDEO"].includes(node?.tagName)) {
    drawSeconds(seconds, node);
    waiting.set(row, () => node.tagName === "VIDEO" && (node.preload = "metadata")); // which shows the second's frame
    sight.observe(row);
  }
  if (cells) {
    waiting.set(row, async () => drawTable(await wholeOf(hit), row));
    sight.observe(row);
  }
}

/** Have the link to a PDF open it at a page. */
function leadTo(page, link) {
  link.textContent = `PDF, ${say("page", { n: count(page) })}`;
  link.removeAttribute("download");
  link.setAttribute("href", `${link.getAttribute("href")}#page=${page}`);
}

/** Show a page of a PDF beside the link to it; where it cannot be drawn, the link stays alone. */
function drawPage(url, page, boxes, link) {
  const picture = make("img", { class: "content", alt: say("page", { n: count(page) }) });
  link.before(picture);
  const frame = drawBoxes(boxes, picture);
  picture.addEventListener("error", () => frame.remove());
  link.classList.remove("content");
  picture.src = url;
}

/** Put a picture into a frame that scrolls, with boxes on it, the first in sight. */
function drawBoxes(boxes, picture) {
  const sheet = make("div", { class: "sheet" });
  const frame = make("div", { class: "page", tabIndex: 0, role: "group", "aria-label": picture.alt }, sheet);
  picture.replaceWith(frame);
  sheet.append(picture, ...boxes.map(([left, top, right, bottom]) => {
    const box = make("span", { class: "box" });
    Object.assign(box.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
    return box;
  }));
  const scroll = async () => {
    await styled; // which gives the frame its height
    if (boxes.length) frame.scrollTop = sheet.clientHeight * boxes[0][1] - ABOVE * frame.clientHeight;
  };
  if (picture.complete && picture.src) scroll();
  else picture.addEventListener("load", scroll);
  return frame;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** Have a player start at the first span, and offer the others. */
function drawSeconds(seconds, player) {
  const starts = [...new Set(seconds.map(([from]) => from))];
  let second = starts[0];
  const start = () => (player.currentTime = second);
  if (player.readyState) start();
  else player.addEventListener("loadedmetadata", start, { once: true });
  const play = (from) => {
    player.currentTime = second = from; // also where the file is still to be loaded
    player.play().catch(() => {});
  };
  player.after(make("p", { class: "moments" }, ...starts.slice(0, MOST_SPANS).map((from) =>
    make("button", { type: "button", "aria-label": say("play_from", { time: clock(from) }), onclick: () => play(from) }, `▶ ${clock(from)}`))));
}

/** Show a table's header and the rows that have the query's words; a summary, and one column, stay texts. */
function drawTable(hit, row) {
  let place = 0;
  const lines = hit.text.split("\n").map((line) => {
    const cells = line.split(BETWEEN).map((text) => {
      const start = place;
      place += codePoints(text).length + BETWEEN.length;
      return { text, highlights: (hit.highlights ?? []).filter((one) => one.start < place - BETWEEN.length && one.end > start).map((one) => ({ ...one, start: one.start - start, end: one.end - start })) };
    });
    place += 1 - BETWEEN.length;
    return cells;
  });
  const head = lines.findIndex((cells) => cells.length > 1);
  const rows = lines.slice(head + 1).filter((cells) => head >= 0 && cells.length === lines[head].length);
  if (!rows.length) return;
  const found = rows.filter((cells) => cells.some(({ highlights }) => highlights.length));
  const draw = (cells, tag) => make("tr", {}, ...cells.map(({ text, highlights }) => make(tag, {}, ...marked(text, highlights))));
  const table = make("table", {}, make("thead", {}, draw(lines[head], "th")), make("tbody", {}, ...(found.length ? found : rows).slice(0, MOST_SPANS).map((cells) => draw(cells, "td"))));
  const text = row.querySelector("p.text");
  const frame = make("div", { class: "rows", tabIndex: 0, role: "group", "aria-label": hit.title ?? hit.id }, table);
  if (text) {
    text.hidden = true;
    text.after(frame);
  } else row.querySelector(".body").append(frame);
}
