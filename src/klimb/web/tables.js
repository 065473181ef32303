// Tables under the charts: the latest values, and the settings in which the ticked runs differ.

import { pathNodes } from "./runs.js";

const settings = new Map();
const OF_THE_PLACE = ["run.name", "run.folder"];

const cell = (name, text, className = "") => {
  const made = document.createElement(name);
  made.append(...pathNodes(text));
  made.className = className;
  if (name === "th") made.scope = "col";
  return made;
};

const table = (title, heads, lines, isNumber) => {
  const section = document.createElement("section"), scroll = document.createElement("div"), made = document.createElement("table");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  const head = made.createTHead().insertRow(), body = made.createTBody();
  head.append(...heads.map((text, index) => cell("th", text, isNumber && index ? "number" : "")));
  for (const [name, ...values] of lines) {
    const row = body.insertRow(), first = cell("th", name);
    first.scope = "row";
    row.append(first, ...values.map((text) => cell("td", text, isNumber ? "number" : "")));
  }
  scroll.append(made);
  section.append(cell("h2", title), scroll);
  return section;
};

export const fetchSettings = async (ids) => {
  for (const id of ids.filter((each) => !settings.has(each))) {
    const answer = await fetch(`/api/settings?${new URLSearchParams({ run: id })}`);
    if (answer.ok) settings.set(id, (await answer.json()).settings);
  }
};

const latest = (ids, names, metrics, values) => {
  const lines = ids.filter((id) => id in values).map((id) => [names.get(id), ...values[id].map(globalThis.klimb.text)]);
  return table("Latest values", ["run", ...metrics], lines, true);
};

const differing = (ids, names) => {
  const known = ids.filter((id) => settings.has(id));
  const keys = [...new Set(known.flatMap((id) => Object.keys(settings.get(id))))].sort();
  const text = (id, key) => String(settings.get(id)[key] ?? "–");
  const found = keys.filter((key) => !OF_THE_PLACE.includes(key) && new Set(known.map((id) => text(id, key))).size > 1);
  if (known.length < 2) return [];
  const lines = found.map((key) => [key, ...known.map((id) => text(id, key))]);
  if (!lines.length) lines.push(["none: all settings are equal", ...known.map(() => "")]);
  return [table("Settings that differ", ["key", ...known.map((id) => names.get(id) ?? id)], lines, false)];
};

let drawn = "";

export const showTables = (ids, names, metrics, values) => {
  const sections = ids.length ? [latest(ids, names, metrics, values), ...differing(ids, names)] : [];
  const html = sections.map((section) => section.outerHTML).join("");
  if (html !== drawn) document.getElementById("tables").replaceChildren(...sections);
  drawn = html;
};
