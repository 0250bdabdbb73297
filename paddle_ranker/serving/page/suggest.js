// Suggestions: a list under the field of the query, while somebody types. The search page loads this with the first letter.

import { $, addWords, ask, languageOf, make, say } from "./search.js";

addWords({
  zh: { from_title: "标题", from_query: "搜过" },
  en: { from_title: "title", from_query: "asked before" },
});

let suggesting = null; // the AbortController of the request that runs

/** Ask for what the query may become; the newest letters alone are answered. What fails here is not told.
 *  `choose` is called with the text that somebody chooses. */
export async function suggest(choose) {
  suggesting?.abort();
  const mine = (suggesting = new AbortController());
  const typed = $("query").value.trim();
  if (!typed) return closeSuggestions();
  const found = await ask(`v1/suggest?q=${encodeURIComponent(typed)}&top_k=8`, { signal: mine.signal }).catch(() => ({}));
  if (mine !== suggesting || document.activeElement !== $("query")) return;
  const others = Array.isArray(found.suggestions) ? found.suggestions.filter(({ text }) => typeof text === "string" && text !== typed) : [];
  $("suggestions").replaceChildren(...others.map(({ text, from }, place) =>
    make("li", { id: `suggestion-${place}`, role: "option", "aria-selected": "false", lang: languageOf(text), onmousedown: (event) => event.preventDefault(), onclick: () => choose(text) },
      make("span", { dir: "auto" }, text), " ", make("span", { class: "quiet" }, say(`from_${from}`)))));
  openSuggestions(others.length > 0);
}

function openSuggestions(isOpen) {
  $("suggestions").hidden = !isOpen;
  $("query").setAttribute("aria-expanded", String(isOpen));
  $("query").removeAttribute("aria-activedescendant");
}

export function closeSuggestions() {
  suggesting?.abort();
  suggesting = null;
  openSuggestions(false);
}

/** Take a key where suggestions are open; returns whether it was one of theirs. */
export function keyOfSuggestions(key) {
  const options = [...$("suggestions").children];
  if ($("suggestions").hidden || !["ArrowDown", "ArrowUp", "Enter", "Escape"].includes(key)) return false;
  const place = options.findIndex((one) => one.ariaSelected === "true");
  if (key === "Escape") closeSuggestions();
  else if (key === "Enter") {
    if (place < 0) return false;
    options[place].click();
  } else {
    const next = options[place < 0 ? (key === "ArrowDown" ? 0 : options.length - 1) : (place + (key === "ArrowDown" ? 1 : -1) + options.length) % options.length];
    for (const one of options) one.setAttribute("aria-selected", String(one === next));
    $("query").setAttribute("aria-activedescendant", next.id);
  }
  return true;
}
