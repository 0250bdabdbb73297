// Suggestions: a list under the field of the query, while somebody types. The search page loads this with the first letter.

import { now, send } from "./machine.js";
import { $, make } from "./nodes.js";
import { ask } from "./server.js";
import { cut } from "./text.js";
import { languageOf, say } from "./words.js";

let suggesting = null; // the AbortController of the request that runs

/** Ask for what the query may become; the newest letters alone are answered. What fails here is not told.
 *  `choose` is called with the text that somebody chooses; `isCurrent` says whether the letters are still the newest. */
export async function suggest(choose, isCurrent) {
  suggesting?.abort();
  const mine = (suggesting = new AbortController());
  const typed = $("query").value.trim();
  if (!typed) return send("dismiss");
  const found = await ask(`v1/suggest?q=${encodeURIComponent(typed)}&top_k=8`, { signal: mine.signal }).catch(() => ({}));
  if (mine !== suggesting || !isCurrent()) return;
  const others = Array.isArray(found.suggestions) ? found.suggestions.filter(({ text }) => typeof text === "string" && text !== typed) : [];
  $("suggestions").replaceChildren(...others.map(({ text, from }, place) =>
    make("li", { id: `suggestion-${place}`, role: "option", "aria-selected": "false", lang: languageOf(text), onmousedown: (event) => event.preventDefault(), onclick: () => choose(text) },
      make("span", { dir: "auto" }, cut(text)), " ", make("span", { class: "quiet" }, say(`from_${from}`)))));
  $("query").removeAttribute("aria-activedescendant");
  send("suggest", { count: others.length });
}

/** Take a key where suggestions are open; returns whether it was one of theirs. */
export function keyOfSuggestions(key) {
  const options = [...$("suggestions").children];
  if (!now().suggestions || !["ArrowDown", "ArrowUp", "Enter", "Escape"].includes(key)) return false;
  const place = options.findIndex((one) => one.ariaSelected === "true");
  if (key === "Escape") send("dismiss");
  else if (key === "Enter") {
    if (place < 0) return false;
    options[place].click();
  } else {
    const next = options[place < 0 ? (key === "ArrowDown" ? 0 : options.length - 1) : (place + (key === "ArrowDown" ? 1 : -1) + options.length) % options.length];
    for (const one of options) one.setAttribute("aria-selected", String(one === next));
    $("query").setAttribute("aria-activedescendant", next.id);
    next.scrollIntoView({ block: "nearest" });
  }
  return true;
}
