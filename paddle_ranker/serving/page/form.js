// The form of the settings.

import { state } from "./address.js";
import { parts } from "./board.js";
import { CHOICES, choicesOf, fusionOf, index, nameOf, numberOf, searchedBy, searchers } from "./collection.js";
import { $, make } from "./nodes.js";
import { count, say } from "./words.js";

/** Put the query into its field. Elsewhere the field stays as it is: somebody may be typing. */
export const fillQuery = () => ($("query").value = state.q);

/** Put the settings into the form. */
export function fillForm() {
  const form = $("form");
  fillUse();
  fillChoices(form.fusion, index.fusions ?? ["rrf", "weighted"], (name) => say(name), fusionOf());
  for (const name of Object.keys(CHOICES)) {
    fillChoices(form[name], choicesOf(name), (value) => (value === 0 ? say("none") : count(value)));
  }
  $("alike").hidden = !index.facets;
  document.body.classList.toggle("shows-how", Boolean(state.how));
  $("how").firstElementChild.checked = Boolean(state.how);
  form.group_by.checked = Boolean(state.group_by);
  $("least").value = Math.round(100 * state.min);
  parts.filters?.fillFilters();
}

/** Make a box for each searcher, in the order of the index, checked if it is used. */
function fillUse() {
  const open = document.activeElement?.name === "use" && document.activeElement.value;
  const boxes = searchers().map((name) => make("label", {}, make("input", { type: "checkbox", name: "use", value: name, checked: searchedBy().includes(name) }), " ", nameOf(name)));
  $("use").replaceChildren($("use").firstElementChild, ...boxes);
  $("use").hidden = searchers().length < 2; // there is nothing to choose
  if (open) $("use").querySelector(`[value="${CSS.escape(open)}"]`)?.focus();
}

function fillChoices(select, choices, named, chosen = numberOf(select.name)) {
  const all = chosen === undefined || choices.includes(chosen) ? choices : [...choices, chosen].sort((one, other) => one - other);
  select.replaceChildren(...all.map((value) => make("option", { value, selected: value === chosen }, named(value))));
}
