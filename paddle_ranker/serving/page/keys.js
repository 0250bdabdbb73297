// Keys, mouse and fields of the search page.

import { DEFAULTS, remember, state } from "./address.js";
import { acts, shown } from "./answer.js";
import { drawCut, finish, follow, markFollowed } from "./board.js";
import { CHOICES, defaultOf, index, searchers } from "./collection.js";
import { now, send } from "./machine.js";
import { $ } from "./nodes.js";
import { fillRow, visibleRows } from "./rows.js";
import { kept, localStorageOf } from "./server.js";
import { withAllWords } from "./words.js";

const PAUSE = 250; // milliseconds after the last key

/** Search while somebody types, but not for letters that an input method has yet to turn into characters. */
export function listenToTyping() {
  const input = $("query");
  let composing = false;
  let typing = 0; // the timer of the pause
  let suggestions = null; // the module of them
  const close = () => send("dismiss");
  const choose = (text) => (clearTimeout(typing), acts.searchFor(text));
  const typed = async () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (input.value === state.q) return;
      state.q = input.value;
      acts.search("typed");
    }, PAUSE);
    const [{ turn }, text] = [now(), input.value]; // what is asked for is for this text, until another search is asked
    const isCurrent = () => turn === now().turn && text === input.value && !composing && document.activeElement === input;
    if (index.suggest) suggestions ??= await import("./suggest.js").catch(() => null);
    if (isCurrent()) suggestions?.suggest(choose, isCurrent);
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
    state.q = input.value;
    acts.search("chosen");
  });
}

export function listenToSettings() {
  const form = $("form");
  form.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "use") {
      const use = [...form.querySelectorAll("[name=use]:checked")].map((box) => box.value).join(",");
      if (!use) return void (event.target.checked = true);
      state.use = use === searchers().join() ? DEFAULTS.use : use;
    } else if (name === "fusion") state.fusion = value;
    else if (event.target === form.group_by) state.group_by = form.group_by.checked ? value : "";
    else if (name in CHOICES && event.target === form[name]) state[name] = Number(value) === defaultOf(name) ? null : Number(value);
    else return;
    acts.search("chosen");
  });
  $("how").addEventListener("change", ({ target }) => {
    state.how = kept(localStorageOf, "how", target.checked ? "1" : "") ?? (target.checked ? "1" : "");
    remember("same");
    acts.redraw();
  });
  $("sort").addEventListener("change", ({ target }) => {
    state.sort = target.value;
    acts.search("chosen");
  });
  $("all-words").addEventListener("click", () => acts.searchFor(withAllWords(shown.query)));
  $("least").addEventListener("input", () => {
    state.min = $("least").valueAsNumber / 100;
    drawCut();
  });
  $("least").addEventListener("change", () => remember("same"));
}

/** `/` goes to the query, arrows go through the rows, Escape closes what is open and goes back to the query. */
export function listenToKeys() {
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
    } else if (key === "Escape" && escape(target)) event.preventDefault(); // which would empty the field
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
  if (!shown) return false;
  const row = target.closest("#results > li");
  if (state.open) acts.closeWhy(true);
  else if (shown.followed !== null) {
    follow(null);
    if (row) $("query").focus();
  } else if ($("settings").open) $("settings").open = false;
  else if (row) $("query").focus();
  else return false;
  return true;
}

/** A click on a row's text follows the document; a pointer over it shows its way. Text can still be selected. */
export function listenToMouse() {
  $("results").addEventListener("click", (event) => {
    const row = event.target.closest("#results > li");
    if (!row || event.target.closest("button, a") || !getSelection().isCollapsed) return;
    follow(shown.followed === row.dataset.id ? null : row.dataset.id);
    acts.sendClick(shown.hits.get(row.dataset.id));
  });
  $("board").addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && shown) markFollowed(event.target.closest("[data-id]")?.dataset.id ?? shown.followed);
  });
  $("board").addEventListener("pointerleave", () => shown && markFollowed());
}
