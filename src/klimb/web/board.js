// The board: what is ticked and chosen, kept in the address, and drawn again whenever a run has written something.

import { matching, showMore, showRuns, showStudies } from "./runs.js";
import { fetchSettings, showTables } from "./tables.js";

const INTERVAL = Number(document.body.dataset.interval);
const MOST_TICKED = 40;
const FIRST_METRICS = ["reward_mean", "evaluation_mean", "kl_pi_ref", "entropy", "length_mean", "ess_token", "grad_norm", "tokens_per_second"];
const find = (id) => document.getElementById(id);

const state = { ticked: [], metrics: [], axis: "step", isLog: false, weight: 0 };
const colours = new Map();
const figures = new Map();
const AXES = [...document.getElementById("axis").options].map((option) => option.value);
let listing = { runs: [], studies: [], is_cut: false }, listed = null;
let drawn = { charts: {}, latest: {}, runs: {}, metrics: [] }, asked = null;

// --- the address keeps what is shown, so that a page can be reloaded, kept and passed on

const readAddress = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  state.ticked = given.getAll("run").slice(0, MOST_TICKED);
  state.metrics = given.has("metric") ? [...new Set(given.getAll("metric"))] : [...FIRST_METRICS];
  state.axis = AXES.includes(given.get("x")) ? given.get("x") : "step";
  state.isLog = given.get("log") === "1";
  state.weight = Math.min(0.98, Math.max(0, Number(given.get("smooth")) || 0));
  find("axis").value = state.axis;
  find("log").checked = state.isLog;
  find("smooth").value = state.weight;
};

const writeAddress = () => {
  const kept = new URLSearchParams();
  for (const id of state.ticked) kept.append("run", id);
  if (state.metrics.join("\n") !== FIRST_METRICS.join("\n")) for (const name of state.metrics) kept.append("metric", name);
  if (state.axis !== "step") kept.set("x", state.axis);
  if (state.isLog) kept.set("log", "1");
  if (state.weight) kept.set("smooth", state.weight);
  history.replaceState(null, "", `#${kept}`);
};

// --- colours stay with a run as long as it is ticked

const assignColours = () => {
  for (const id of colours.keys()) if (!state.ticked.includes(id)) colours.delete(id);
  for (const id of state.ticked) {
    if (colours.has(id)) continue;
    const used = new Set(colours.values());
    let free = 0;
    while (used.has(free)) free++;
    colours.set(id, free);
  }
};

const shownRuns = () => matching(listing.runs, find("search").value);
const drawList = () => showRuns(shownRuns(), listing.runs, colours, tick);

const tick = (id, isTicked) => {
  state.ticked = state.ticked.filter((each) => each !== id);
  if (isTicked) state.ticked.push(id);
  state.ticked = state.ticked.slice(-MOST_TICKED);
  changed();
};

const changed = () => {
  assignColours();
  writeAddress();
  drawList();
  wake();
};

// --- charts: the server draws them, as it draws those of reports

const figureOf = (metric) => {
  if (figures.has(metric)) return figures.get(metric);
  const figure = document.createElement("figure"), caption = document.createElement("figcaption"), remove = document.createElement("button");
  remove.textContent = "×";
  remove.type = "button";
  remove.setAttribute("aria-label", `remove ${metric}`);
  remove.addEventListener("click", () => { state.metrics = state.metrics.filter((each) => each !== metric); changed(); });
  caption.append(metric, remove);
  figure.append(caption);
  figure.dataset.metric = metric;
  figures.set(metric, figure);
  return figure;
};

const drawFigure = (figure) => {
  const chart = drawn.charts[figure.dataset.metric];
  if (!chart || figure.shown === chart.html) return;
  figure.shown = chart.html;
  const isOpen = figure.querySelector("details")?.open;
  while (figure.children.length > 1) figure.lastChild.remove();
  // The server has escaped every text in it, and the page's policy lets no markup run anything.
  figure.insertAdjacentHTML("beforeend", chart.html);
  if (isOpen) figure.querySelector("details")?.setAttribute("open", "");
  if (chart.values.curves.length) globalThis.klimb.attach(figure.querySelector("svg"), chart.values);
};

const fetchCharts = async () => {
  const wanted = new URLSearchParams({ x: state.axis, log: state.isLog, smooth: state.weight });
  for (const id of state.ticked) { wanted.append("run", id); wanted.append("colour", colours.get(id)); }
  for (const name of state.metrics) wanted.append("metric", name);
  const sizes = listing.runs.filter((run) => state.ticked.includes(run.id)).map((run) => `${run.id} ${run.size}`);
  const question = `${wanted} ${sizes.join("\n")}`;
  if (question === asked) return;
  const answer = await fetch(`/api/charts?${wanted}`);
  if (answer.status === 404) return; // A run has just gone; the next list knows it.
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  drawn = await answer.json();
  asked = question;
};

const drawLegend = (names) => {
  find("legend").replaceChildren(...state.ticked.map((id) => {
    const item = document.createElement("li"), label = document.createElement("span");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 26 10");
    svg.setAttribute("class", `c${colours.get(id) % 8} d${Math.floor(colours.get(id) / 8) % 4}`);
    line.setAttribute("class", "line");
    line.setAttribute("d", "M1 5H25");
    svg.append(line);
    label.textContent = names.get(id) ?? id;
    item.append(svg, label);
    return item;
  }));
};

let figureOrder = null;
const draw = () => {
  const names = new Map(Object.entries(drawn.runs)), wanted = state.metrics.map(figureOf), order = state.metrics.join("\n");
  if (order !== figureOrder) find("charts").replaceChildren(...wanted);
  figureOrder = order;
  for (const figure of wanted) drawFigure(figure);
  drawLegend(names);
  showTables(state.ticked, names, Object.keys(drawn.charts), drawn.latest);
  find("metrics").replaceChildren(...drawn.metrics.filter((name) => !state.metrics.includes(name)).map((name) => new Option(name, name)));
  find("hint").textContent = listing.runs.length ? "" : "No runs here yet. Start one with klimb train; it shows up by itself.";
};

// --- looking for news, one look at a time

const look = async () => {
  const answer = await fetch("/api/runs");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const text = await answer.text();
  if (text !== listed) {
    listing = JSON.parse(text);
    if (listed === null && !state.ticked.length) state.ticked = firstTicked();
    listed = text;
    showStudies(listing.studies);
    assignColours();
    drawList();
  }
  const known = new Set(listing.runs.map((run) => run.id));
  state.ticked = state.ticked.filter((id) => known.has(id));
  assignColours();
  await fetchCharts();
  await fetchSettings(state.ticked);
  draw();
  drawList();
};

const firstTicked = () => {
  const going = listing.runs.filter((run) => run.status === "running").slice(0, 4);
  return (going.length ? going : listing.runs.slice(0, 1)).map((run) => run.id);
};

const notice = (text) => { find("notice").textContent = text; find("notice").hidden = !text; };

let timer = 0, isLooking = false, isWoken = false;
const wake = async () => {
  clearTimeout(timer);
  if (isLooking) { isWoken = true; return; }
  isLooking = true;
  isWoken = false;
  try {
    await look();
    notice(listing.is_cut ? "There are more folders here than one look visits; serve a smaller one to see all runs." : "");
  } catch (error) {
    notice(`No answer from the board (${error.message}); trying again.`);
  }
  isLooking = false;
  timer = setTimeout(() => (document.hidden ? null : wake()), isWoken ? 0 : INTERVAL);
};

// --- what people do

const listen = (id, event, action) => find(id).addEventListener(event, (given) => { action(given); changed(); });
listen("axis", "change", () => { state.axis = find("axis").value; });
listen("log", "change", () => { state.isLog = find("log").checked; });
listen("smooth", "input", () => { state.weight = Number(find("smooth").value); });
listen("untick", "click", () => { state.ticked = []; });
listen("tick-shown", "click", () => { state.ticked = shownRuns().slice(0, MOST_TICKED).map((run) => run.id); });
listen("more", "click", showMore);
listen("options", "submit", (event) => {
  event.preventDefault();
  const name = find("metric").value.trim();
  if (name && !state.metrics.includes(name)) state.metrics = [name, ...state.metrics];
  find("metric").value = "";
});
find("search").addEventListener("input", drawList);
window.addEventListener("hashchange", () => { readAddress(); changed(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); });

readAddress();
assignColours();
wake();
