// The page /judge: one pair at a time, a key for each label. Pairs come in the server's order, from GET /v1/judge; each
// label goes to POST /v1/feedback before the next pair is shown, so what was judged is in the log.

import { showFailure } from "./failure.js";
import { $, make } from "./nodes.js";
import { ask } from "./server.js";
import { marked } from "./text.js";
import { languageOf, say, speak, switchLanguage } from "./words.js";

const FEW = 2; // pairs that are left when more are asked for

let pairs = []; // to judge, in the server's order
let labels = []; // what the data have: 0 and 1 are "irrelevant" and "relevant", more are grades
let totals = { judged: 0, left: 0 };
const seen = new Set(); // pairs that were shown here, judged or skipped
const done = []; // what was judged here, the last one last
let skipped = 0; // pairs that were left out: the server still has them, before those that come next
let isSending = false;
let sent = 0; // lines that the log has from here

const keyOf = (pair) => JSON.stringify([pair.query, pair.id]);
const isGraded = () => labels.length > 2;
const nameOf = (label) => (isGraded() ? say("grade", { n: label }) : say(label ? "relevant" : "irrelevant"));

/** Ask for pairs, where few are left, and draw the first. */
async function load() {
  try {
    const before = sent;
    const answer = await ask(`v1/judge?offset=${skipped}`);
    labels = (answer.labels ?? [0, 1]).map(Number);
    if (sent === before) totals = { judged: answer.judged, left: answer.left }; // else it may have been counted before
    const here = new Set([...seen, ...pairs.map(keyOf)]);
    pairs.push(...answer.pairs.filter((pair) => !here.has(keyOf(pair))));
    $("failure").replaceChildren();
    draw();
  } catch (error) {
    $("pair").hidden = true;
    if (error.status === 404) $("status").textContent = say("judge_off");
    else showFailure(error, load);
  }
}

/** Draw the first pair, or say that there is none. */
function draw() {
  const [pair] = pairs;
  const sum = totals.judged + totals.left;
  $("progress").firstElementChild.style.width = `${sum ? (100 * totals.judged) / sum : 0}%`;
  $("pair").hidden = !pair;
  const progress = say("judge_progress", totals);
  document.title = `${say("judge_title")} · ${totals.judged} / ${sum}`;
  $("status").textContent = pair ? progress : `${say(sum ? "judge_done" : "judge_empty")} ${progress}`;
  $("others").replaceChildren(
    make("button", { type: "button", disabled: !done.length, onclick: undo }, say("undo"), " ", make("kbd", {}, "u")),
    make("button", { type: "button", onclick: skip }, say("skip_pair"), " ", make("kbd", {}, "s")),
  );
  if (!pair) return;
  $("asked").textContent = pair.query;
  $("asked").lang = languageOf(pair.query);
  $("name").hidden = !pair.title;
  $("name").textContent = pair.title ?? "";
  $("name").lang = languageOf(pair.title ?? "");
  $("text").hidden = pair.text === pair.title;
  $("text").lang = languageOf(pair.text);
  $("text").replaceChildren(...marked(pair.text, pair.highlights));
  const facts = Object.values(pair.fields ?? {}).filter((value) => ["string", "number"].includes(typeof value) && value !== pair.title);
  const { fused, ranked } = pair.stages ?? {};
  if (fused && ranked) facts.push(say("disagree", { recall: fused.rank, ranked: ranked.rank }));
  $("facts").textContent = facts.join(" · ");
  $("labels").replaceChildren(...labels.map((label) => make("button", { type: "button", onclick: () => judge(label) }, nameOf(label), " ", make("kbd", {}, String(label)))));
}

const feedbackOn = ({ search_id, query, id, position }, event, label) => ({ search_id, query, id, position, event, ...(label === undefined ? {} : { label }) });

/** Send one line to the log; returns whether it is there. Keys that are pressed meanwhile do nothing. */
async function send(content) {
  if (isSending) return false;
  isSending = true;
  try {
    await ask("v1/feedback", { method: "POST", body: content });
    sent += 1;
    $("failure").replaceChildren();
    return true;
  } catch (error) {
    showFailure(error, () => $("failure").replaceChildren(), say("unsaved"));
    return false;
  } finally {
    isSending = false;
  }
}

/** Log a label of the pair that is shown, and go on. */
async function judge(label) {
  const [pair] = pairs;
  const event = isGraded() ? "judged" : label ? "relevant" : "irrelevant";
  if (!pair || !(await send(feedbackOn(pair, event, isGraded() ? label : undefined)))) return;
  done.push(pair);
  totals = { judged: totals.judged + 1, left: totals.left - 1 };
  await next();
}

/** Take the last label back: the log keeps both lines, the later one holds. */
async function undo() {
  const pair = done.at(-1);
  if (!pair || !(await send(feedbackOn(pair, "unjudged")))) return;
  done.pop();
  seen.delete(keyOf(pair));
  pairs.unshift(pair);
  totals = { judged: totals.judged - 1, left: totals.left + 1 };
  draw();
}

function skip() {
  if (!pairs.length || isSending) return;
  skipped += 1;
  next();
}

async function next() {
  seen.add(keyOf(pairs.shift()));
  draw();
  if (pairs.length < FEW) await load();
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input")) return;
    if (labels.map(String).includes(event.key)) judge(Number(event.key));
    else if (event.key === "u") undo();
    else if (event.key === "s") skip();
  });
}

await speak();
document.title = say("judge_title");
switchLanguage(draw);
listenToKeys();
load();
