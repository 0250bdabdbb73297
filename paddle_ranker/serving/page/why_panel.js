// The panel beside the list, whose content is in why.js.

import { remember, state } from "./address.js";
import { shown, wholeOf } from "./answer.js";
import { follow, narrow } from "./board.js";
import { showFailure } from "./failure.js";
import { send } from "./machine.js";
import { $ } from "./nodes.js";
import { Failure } from "./server.js";

/** Open the panel for a hit; `isChosen`: somebody asked for it here, so the focus goes there. */
export async function openWhy(hit, isChosen) {
  const [panel, drawn] = [$("why"), shown];
  state.open = hit.id;
  nameWhy();
  follow(hit.id);
  const own = await import("./why.js").catch(() => null);
  if (drawn !== shown || state.open !== hit.id) return;
  if (!own) {
    const error = new Failure("gone");
    send("refuse", { error, keeps: true });
    return showFailure(error, () => openWhy(hit, isChosen));
  }
  send("open", { id: hit.id });
  const content = (hit) => own.whyOf(hit, shown.answer, () => closeWhy(true));
  panel.replaceChildren(...content(hit));
  wholeOf(hit).then((whole) => {
    if (drawn !== shown || state.open !== hit.id || whole === hit) return;
    const [head, ...rest] = panel.children;
    for (const one of rest) one.remove(); // the head may have the focus
    head.after(...content(whole).slice(1));
  });
  panel.style.setProperty("--above", `${Math.max(16, $("answer").getBoundingClientRect().top)}px`);
  panel.scrollTop = 0;
  if (!isChosen) return;
  panel.focus({ preventScroll: true });
  const { top, bottom } = drawn.rows.get(hit.id).getBoundingClientRect();
  if (narrow.matches) scrollBy(0, Math.min(top, Math.max(0, bottom - panel.getBoundingClientRect().top))); // not under the sheet
  remember("same");
}

/** Close the panel; `isChosen`: the focus goes back to where it was opened. */
export function closeWhy(isChosen) {
  const opener = shown?.rows.get(state.open)?.querySelector(".ask-why");
  send("close");
  state.open = "";
  nameWhy();
  if (!isChosen) return;
  opener?.focus({ preventScroll: true });
  remember("same");
}

function nameWhy() {
  for (const button of document.querySelectorAll(".ask-why")) button.setAttribute("aria-expanded", String(button.closest("li").dataset.id === state.open));
}
