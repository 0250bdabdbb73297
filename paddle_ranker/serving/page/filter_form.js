// The form of further filters: ranges of numbers and dates, values of fields. The page loads this when somebody opens it.

import { countValues, shown } from "./answer.js";
import { isNumeric, labelOf, nameWithUnit } from "./collection.js";
import { make } from "./nodes.js";
import { cut, VALUE } from "./text.js";
import { say } from "./words.js";

const OFFERED = 20; // values that are offered while somebody types

/** Make the input of a field: a range of numbers or dates, a list of values, yes or no, else a text, for which values are
 *  offered. `setFilter` is called with the name and the condition. */
export function filterInput(name, field, value, setFilter) {
  const choices = field.type === "boolean" ? [["true", say("yes")], ["false", say("no")]] : field.values?.map((one) => [one, cut(String(one), VALUE)]);
  if ((isNumeric(field) || field.type === "date") && !choices) {
    const ends = ["gte", "lte"].map((end) => {
      const label = `${labelOf(name)} ${say(end === "gte" ? "from" : "to")}`;
      const change = ({ target }) => {
        const now = { ...(Array.isArray(value) || typeof value !== "object" ? {} : value), [end]: isNumeric(field) ? target.valueAsNumber : target.value };
        if (!target.value) delete now[end];
        setFilter(name, Object.keys(now).length ? now : undefined);
      };
      return make("input", { type: isNumeric(field) ? "number" : "date", step: isNumeric(field) && "any", name: `${name}.${end}`, "aria-label": label, placeholder: field[end === "gte" ? "min" : "max"], value: value?.[end] ?? "", onchange: change });
    });
    return make("span", { class: "range" }, make("span", {}, nameWithUnit(name)), ends[0], "–", ends[1]);
  }
  const change = (event) => {
    const text = event.target.value;
    setFilter(name, text === "" ? undefined : field.type === "boolean" ? text === "true" : isNumeric(field) ? Number(text) : text);
  };
  const plain = value === undefined || typeof value === "object" ? "" : String(value);
  const input = choices
    ? make("select", { name, onchange: change }, ...[["", say("any")], ...choices].map(([one, text]) => make("option", { value: one, selected: String(one) === plain }, text)))
    : make("input", { name, value: plain, onchange: change, list: `values-${name}`, oninput: ({ target }) => offerValues(name, target) });
  return make("label", {}, make("span", {}, labelOf(name)), " ", input, choices ? "" : make("datalist", { id: `values-${name}` }));
}

const PAUSE = 200; // milliseconds after the last letter, before the server looks for values
let finding = 0; // the timer of that

/** Offer values of a field that has too many to list, as the server finds them by what is typed. */
function offerValues(name, input) {
  clearTimeout(finding);
  if (!shown?.answer.facets || !input.value.trim()) return;
  finding = setTimeout(async () => {
    const typed = input.value;
    const { [name]: found } = await countValues([name], { [name]: typed.trim() }).catch(() => ({}));
    if (typed === input.value) input.list?.replaceChildren(...(found ?? []).slice(0, OFFERED).map(({ value }) => make("option", { value })));
  }, PAUSE);
}
