// A search box with results, for a page of another site:
//   <script src="https://search.example.com/embed.js" data-index="https://search.example.com/"></script>
// It stands where the script stands, in a shadow tree that the site's styles do not reach, and takes the site's CSS
// variables. All texts enter as text nodes. The server must allow the site: search-serve --cors_origin.
(() => {
  "use strict";
  const WORDS = {
    zh: { search: "搜索", results: "{n} 条结果", nothing: "没有找到。", gone: "搜索没有回应。", busy: "搜索正忙，请稍后再试。", refused: "这里不能搜索。" },
    en: { search: "Search", results: "{n} results", nothing: "Nothing found.", gone: "The search does not answer.", busy: "The search is busy. Try again soon.", refused: "This site may not search here." },
    de: { search: "Suchen", results: "{n} Ergebnisse", nothing: "Nichts gefunden.", gone: "Die Suche antwortet nicht.", busy: "Die Suche ist ausgelastet. Bitte gleich noch einmal versuchen.", refused: "Diese Seite darf hier nicht suchen." },
    fr: { search: "Rechercher", results: "{n} résultats", nothing: "Rien trouvé.", gone: "La recherche ne répond pas.", busy: "La recherche est occupée. Réessayez bientôt.", refused: "Ce site ne peut pas chercher ici." },
    es: { search: "Buscar", results: "{n} resultados", nothing: "No se ha encontrado nada.", gone: "La búsqueda no responde.", busy: "La búsqueda está ocupada. Inténtelo de nuevo.", refused: "Este sitio no puede buscar aquí." },
  };
  const STYLES = `
    :host { display: block; position: relative; font: inherit; max-width: var(--search-width, 32rem);
      --a: var(--search-accent, #2359c4); --g: var(--search-ground, Canvas); --i: var(--search-ink, CanvasText); --l: var(--search-line, color-mix(in srgb, var(--i) 45%, var(--g))); --r: var(--search-radius, 8px); }
    * { box-sizing: border-box; }
    form { display: flex; border: 1px solid var(--l); border-radius: var(--r); background: var(--g); color: var(--i); }
    form:focus-within { outline: 2px solid var(--a); outline-offset: 1px; }
    input, button { font: inherit; color: inherit; background: none; border: 0; padding: .55em .9em; min-height: 2.75em; }
    input { flex: 1; min-width: 0; outline: 0; }
    button { cursor: pointer; color: var(--a); font-weight: 600; }
    button:focus-visible { outline: 2px solid var(--a); outline-offset: -3px; border-radius: var(--r); }
    label, [role=status] { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
    #pop { position: absolute; z-index: 1000; left: 0; right: 0; top: calc(100% + 4px); background: var(--g); color: var(--i); border: 1px solid var(--l); border-radius: var(--r); overflow: hidden auto; max-height: min(28rem, 70vh); }
    [hidden] { display: none !important; }
    ul { list-style: none; margin: 0; padding: .25em 0; }
    a { display: block; padding: .5em .9em; color: inherit; text-decoration: none; overflow-wrap: anywhere; }
    b { display: block; font-weight: 600; }
    span { display: block; font-size: .875em; opacity: .85; }
    mark { background: none; color: inherit; text-decoration: underline; text-decoration-color: var(--a); text-decoration-thickness: 2px; text-underline-offset: .2em; }
    li:hover, [aria-selected=true] { background: color-mix(in srgb, var(--a) 12%, var(--g)); }
    [aria-selected=true] { outline: 2px solid var(--a); outline-offset: -2px; }
    #pop p { margin: 0; padding: .7em .9em; }`;
  const PAUSE = 200; // milliseconds after the last letter
  const script = document.currentScript;
  const { dataset } = script;
  const server = new URL(dataset.index || ".", dataset.index ? document.baseURI : script.src);
  const most = Math.min(Math.max(Number(dataset.results) || 6, 1), 20);

  const known = (code) => Object.keys(WORDS).find((one) => String(code).toLowerCase().split("-")[0] === one);
  const language = [dataset.language, document.documentElement.lang, ...navigator.languages].map(known).find(Boolean) ?? "en";
  const say = (name, n) => WORDS[language][name].replace("{n}", n);

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  /** Return a text's nodes with its highlights marked; they count code points. */
  function marked(text, highlights) {
    const points = Array.from(text);
    const nodes = [];
    let place = 0;
    for (const { start, end } of highlights) {
      if (start < place) continue;
      nodes.push(points.slice(place, start).join(""), make("mark", {}, points.slice(start, end).join("")));
      place = end;
    }
    return [...nodes, points.slice(place).join("")];
  }

  const input = make("input", { id: "q", name: "q", type: "search", role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": "list", autocomplete: "off", autocapitalize: "off", spellcheck: "false", enterkeyhint: "search", dir: "auto", placeholder: dataset.placeholder ?? null });
  const form = make("form", { role: "search", action: server.href, method: "get" }, make("label", { for: "q" }, say("search")), input, make("button", { type: "submit" }, say("search")));
  const list = make("ul", { id: "list", role: "listbox", "aria-label": say("search") });
  const told = make("p", {});
  const pop = make("div", { id: "pop" }, list, told);
  const status = make("p", { role: "status" });
  const host = make("div", { class: "paddle-ranker-search", lang: language });
  const styles = new CSSStyleSheet(); // no style element, which a site's content policy may forbid
  styles.replaceSync(STYLES);
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [styles];
  root.append(form, pop, status);
  pop.hidden = true;

  let asking = null; // the AbortController of the request that runs
  let link = null; // the promise of the name of the field with addresses
  let timer = 0;
  let composing = false;

  async function ask(path, signal) {
    const response = await fetch(new URL(path, server), { signal, credentials: "omit", referrerPolicy: "no-referrer", headers: dataset.key ? { "X-API-Key": dataset.key } : {} });
    if (!response.ok) throw Object.assign(new Error(), { status: response.status });
    return response.json();
  }

  /** Return the name of the field whose addresses results lead to; "": they lead to the server's own page. */
  const linkOf = () => (link ??= dataset.link ? Promise.resolve(dataset.link) : ask("v1/index").then(({ fields = {} }) =>
    Object.keys(fields).find((name) => fields[name].type === "url") ?? (fields.url ? "url" : ""), (error) => { link = null; throw error; }));

  const isWeb = (value) => typeof value === "string" && /^https?:[/][/]/i.test(value);

  function close() {
    pop.hidden = true;
    input.setAttribute("aria-expanded", "false");
    choose(-1);
  }

  /** Show results, or a text where there are none. */
  function show(options, text) {
    list.replaceChildren(...options);
    list.hidden = !options.length;
    told.textContent = options.length ? "" : text;
    told.hidden = Boolean(options.length);
    status.textContent = text;
    input.removeAttribute("aria-activedescendant");
    pop.hidden = false;
    input.setAttribute("aria-expanded", String(options.length > 0));
  }

  function optionOf({ id, title, snippet, fields }, place, name, query) {
    const value = [fields?.[name]].flat()[0];
    const own = new URL(server);
    own.search = new URLSearchParams({ q: query, open: id });
    const text = snippet?.text ?? "";
    const named = typeof title === "string" && title.trim();
    const more = text && text !== title ? make("span", { dir: "auto" }, ...marked(text, snippet.highlights ?? [])) : "";
    const anchor = make("a", { href: isWeb(value) ? value : own.href, tabindex: "-1", rel: "noreferrer" }, named ? make("b", { dir: "auto" }, title) : "", more);
    return make("li", { id: `option-${place}`, role: "option", "aria-selected": "false" }, anchor);
  }

  async function search() {
    asking?.abort();
    const query = input.value.trim();
    if (!query) return close();
    const { signal } = (asking = new AbortController());
    try {
      const name = await linkOf();
      const asked = new URLSearchParams({ q: query, top_k: most, snippet: 120, prefix: true, fields: name });
      const { hits } = await ask(`v1/search?${asked}`, signal);
      if (signal.aborted) return;
      show(hits.map((hit, place) => optionOf(hit, place, name, query)), hits.length ? say("results", hits.length) : say("nothing"));
    } catch (error) {
      if (signal.aborted) return;
      const { status: code } = error;
      show([], say([429, 503, 504].includes(code) ? "busy" : [401, 403, 421].includes(code) ? "refused" : "gone"));
    }
  }

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(search, PAUSE);
  }

  function choose(place) {
    const options = [...list.children];
    for (const [at, one] of options.entries()) one.setAttribute("aria-selected", String(at === place));
    if (place < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", options[place].id);
    options[place].scrollIntoView({ block: "nearest" });
  }

  input.addEventListener("compositionstart", () => (composing = true));
  input.addEventListener("compositionend", () => ((composing = false), typed()));
  input.addEventListener("input", () => composing || typed());
  input.addEventListener("focus", () => input.value.trim() && list.children.length && show([...list.children], status.textContent));
  host.addEventListener("focusout", ({ relatedTarget }) => host.contains(relatedTarget) || root.contains(relatedTarget) || close());
  pop.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays
  input.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
    const options = [...list.children];
    const isOpen = !pop.hidden && options.length > 0;
    const at = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
    if (event.key === "Escape" && !pop.hidden) close();
    else if (isOpen && event.key === "ArrowDown") choose(at + 1 < options.length ? at + 1 : -1);
    else if (isOpen && event.key === "ArrowUp") choose(at < 0 ? options.length - 1 : at - 1);
    else if (isOpen && event.key === "Enter" && at >= 0) options[at].firstElementChild.click();
    else return;
    event.preventDefault();
  });
  form.addEventListener("submit", (event) => {
    if (composing || !input.value.trim()) event.preventDefault();
  });

  const into = dataset.into && document.querySelector(dataset.into);
  if (into) into.append(host);
  else if (document.head.contains(script)) document.addEventListener("DOMContentLoaded", () => (document.querySelector(dataset.into || "body") ?? document.body).append(host), { once: true });
  else script.after(host);
})();
