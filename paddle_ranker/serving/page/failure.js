// What the page shows of a refusal: its reason, a way to try again, a field for the key.

import { $, make } from "./nodes.js";
import { hasKey, tryKey } from "./server.js";
import { cut } from "./text.js";
import { count, hasWord, say } from "./words.js";

/** Show a failure with a way to try again, and where a key is missing, a field for it. */
export function showFailure(error, again, note = "") {
  $("failure").classList.toggle("is-locked", error.kind === "needs_key");
  if (error.kind === "needs_key") return askForKey(again);
  const again_in = error.retryAfter ? say("again_in", { n: count(error.retryAfter) }) : "";
  // Each language has words for the reason; the details, such as names of fields, are the server's own.
  const reason = error.type && hasWord(`refused_${error.type}`) ? say(`refused_${error.type}`, { field: error.field }) : say(error.kind ?? "unread");
  const details = error.message && make("span", { lang: "en", class: "quiet" }, cut(error.message, 500));
  const told = [reason, details, again_in, note].filter(Boolean).flatMap((part) => [part, " "]);
  const form = make("form", { onsubmit: (event) => (event.preventDefault(), again()) }, make("button", {}, say("again")));
  $("failure").replaceChildren(make("p", {}, ...told.slice(0, -1)), form);
}

/** Ask for the server's key, and go on with it. Several requests may ask: the field stays, with what is typed meanwhile. */
function askForKey(again) {
  if (!$("key")) {
    const field = make("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
    const told = make("p", {}, make("label", { for: "key" }, say("key_for")), " ", make("span"));
    $("failure").replaceChildren(told, make("form", {}, field, " ", make("button", {}, say("key_send"))));
    field.focus();
  }
  $("failure").querySelector("span").textContent = say(hasKey() ? "key_wrong" : "key_from");
  $("key").form.onsubmit = (event) => {
    event.preventDefault();
    tryKey($("key").value.trim());
    $("key").value = "";
    again();
  };
}
