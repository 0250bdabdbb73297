// Elements of the page.

export const $ = (id) => document.getElementById(id);

/** Make an element; names that begin with `on` are listeners, `null`, `undefined` and `false` are left out. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Make a button that sends no form. */
export const button = (attributes, ...children) => make("button", { type: "button", ...attributes }, ...children);

/** Load a further style sheet of the page; resolves once it is there, or does not come. */
export function loadStyles(name) {
  const sheet = make("link", { rel: "stylesheet", href: `page/${name}` });
  const loaded = new Promise((resolve) => (sheet.onload = sheet.onerror = resolve));
  document.head.append(sheet);
  return loaded;
}
