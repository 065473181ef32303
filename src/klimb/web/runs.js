// The list of runs: searched, ticked, updated in place.

const PAGE = 200;
const rows = new Map();
let order = "", numShown = PAGE;

const element = (name, className = "", text = "") => {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
};

// A path, which may be broken after its slashes.
export const pathNodes = (path) => path.split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")]);

const filePath = (path) => `/open/${path.split("/").map(encodeURIComponent).join("/")}`;

const linkTo = (address, text) => {
  const link = element("a", "", text);
  link.href = address;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
};

const factsOf = (run) => [
  run.step === null ? "no step yet" : `step ${run.step}${run.num_steps && run.num_steps < 1e6 ? ` of ${run.num_steps}` : ""}`,
  run.reward === null ? "" : `reward ${globalThis.klimb.text(run.reward)}`,
  run.recipe, run.task, run.seed === null ? "" : `seed ${run.seed}`, run.ending,
].filter(Boolean).join(" · ");

export const matching = (runs, words) => {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return runs;
  return runs.filter((run) => {
    const text = `${run.id} ${run.recipe} ${run.task} ${run.status} seed-${run.seed}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
};

const makeRow = (id, onTick) => {
  const item = element("li"), label = element("label"), box = element("input");
  const parts = { item, box, name: element("span", "name"), state: element("span", "state"), facts: element("span", "facts"), links: element("div", "links") };
  box.type = "checkbox";
  box.addEventListener("change", () => onTick(id, box.checked));
  parts.name.append(...pathNodes(id));
  label.append(box, parts.name, parts.state, parts.facts);
  item.append(label, parts.links);
  rows.set(id, parts);
  return parts;
};

const update = (parts, run, colour) => {
  parts.box.checked = colour !== undefined;
  parts.item.className = colour === undefined ? "" : `ticked c${colour % 8}`;
  parts.state.textContent = run.status;
  parts.state.className = `state ${run.status}`;
  parts.facts.textContent = factsOf(run);
  // Made from the run as it is now, also while it goes on.
  if ((run.step !== null || run.ending) && !parts.links.children.length) {
    parts.links.append(linkTo(`/report?${new URLSearchParams({ run: run.id })}`, "report"));
  }
};

// Shows the runs; `colours` maps the ticked ones to their colour.
export const showRuns = (runs, all, colours, onTick) => {
  const list = document.getElementById("runs"), more = document.getElementById("more");
  const shown = runs.slice(0, numShown);
  for (const run of shown) update(rows.get(run.id) ?? makeRow(run.id, onTick), run, colours.get(run.id));
  // Putting elements anew takes the focus from them, so it is done only if the order is another.
  const now = shown.map((run) => run.id).join("\n");
  if (now !== order) list.replaceChildren(...shown.map((run) => rows.get(run.id).item));
  order = now;
  more.hidden = runs.length <= numShown;
  more.textContent = `show ${Math.min(PAGE, runs.length - numShown)} more of ${runs.length}`;
  const going = all.filter((run) => run.status === "running").length;
  document.getElementById("counts").textContent =
    `${runs.length === all.length ? "" : `${runs.length} of `}${all.length} runs, ${going} running`;
  const known = new Set(all.map((run) => run.id));
  for (const id of rows.keys()) if (!known.has(id)) rows.delete(id);
};

export const showMore = () => { numShown += PAGE; };

export const showStudies = (studies) => {
  document.getElementById("studies").hidden = !studies.length;
  document.getElementById("study-list").replaceChildren(...studies.map((study) => {
    const item = element("li");
    item.append(study.report ? linkTo(filePath(study.report), study.id) : `${study.id}: no report yet`);
    return item;
  }));
};
