// The page: its views, who answers now, the key, and single keys.

import { Conversation } from "./conversation.js";
import { showCounts } from "./counts.js";
import { Queue } from "./queue.js";
import { fetchPolicy, getKey, getRater, keepIdentity } from "./server.js";
import { find, moment, visible } from "./text.js";

const VIEWS = ["chat", "queue", "counts"];
const POLICY_MS = 3_000, COUNTS_MS = 10_000;
const NO_KEYS = "klimb-no-single-keys";

const say = (id, text) => { find(id).querySelector("p").textContent = visible(text); find(id).hidden = false; };
const hush = (id) => { find(id).hidden = true; find(id).querySelector("p").textContent = ""; };

const onTrouble = (error) => {
  if (!("status" in error)) console.error(error);
  say("trouble", error.message);
  if (isAboutKey(error) && !find("settings").open) openSettings();
};

const isAboutKey = (error) => error.status === 401 || error.status === 403;

// --- who answers

let answering = null;

const showPolicy = ({ policy, candidate }) => {
  const since = moment(policy.since);
  const parts = [`${policy.name} answers`, `version ${policy.version}`, since && `since ${since}`];
  if (candidate) parts.push(`${candidate.name} is tried out on ${Number((100 * candidate.fraction).toPrecision(2))} % of the requests`);
  find("policy").textContent = visible(parts.filter(Boolean).join(" · "));
  if (answering && answering !== policy.name) say("notice", `${policy.name} answers now; before, it was ${answering}.${policy.reason ? ` Why: ${policy.reason}` : ""}`);
  answering = policy.name;
};

let isPolicyAsked = false, isKeyMissing = false;
const askPolicy = async () => {
  if (document.hidden || isPolicyAsked || isKeyMissing) return;
  isPolicyAsked = true;
  try { showPolicy(await fetchPolicy()); } catch (error) {
    isKeyMissing = isAboutKey(error);
    find("policy").textContent = error.message;
  } finally { isPolicyAsked = false; }
};

// --- views

// An answer says which policy gives it. One that was not heard of before may have taken over just now.
const heardOf = new Set();
const onModel = (name) => {
  if (heardOf.has(name)) return;
  heardOf.add(name);
  if (answering && name !== answering) askPolicy();
};

const conversation = new Conversation({ model: document.body.dataset.model, onTrouble, onModel });
const queue = new Queue({ onTrouble });
const view = () => (VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "chat");
const askCounts = async () => { try { await showCounts(); } catch (error) { onTrouble(error); } };

const showView = () => {
  const now = view();
  for (const name of VIEWS) find(name).hidden = name !== now;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${now}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (now === "queue") queue.load();
  if (now === "counts") askCounts();
  if (now === "chat") find("question").focus();
};

// --- the key and the name, kept in this tab

const openSettings = () => {
  find("key").value = getKey();
  find("rater").value = getRater();
  find("settings").showModal();
};

find("settings").addEventListener("close", () => {
  if (find("settings").returnValue !== "save") return;
  keepIdentity(find("key").value, find("rater").value);
  find("key").value = "";
  hush("trouble");
  isKeyMissing = false;
  askPolicy();
  if (view() !== "chat") showView();
});
find("open-settings").addEventListener("click", openSettings);
find("open-help").addEventListener("click", () => find("help").showModal());
for (const id of ["notice", "trouble"]) find(id).querySelector("button").addEventListener("click", () => hush(id));

// --- single keys; they can be switched off, and a field keeps its own

find("use-keys").checked = !sessionStorage.getItem(NO_KEYS);
find("use-keys").addEventListener("change", (event) => {
  if (event.target.checked) sessionStorage.removeItem(NO_KEYS); else sessionStorage.setItem(NO_KEYS, "1");
});

const CHOICE_KEYS = { 1: "first", 2: "second", 3: "good", 4: "bad" };

const press = (key) => {
  if (key === "?") { find("help").showModal(); return true; }
  if (view() === "queue") return queue.press(key);
  if (view() === "chat" && key in CHOICE_KEYS && conversation.pair) { conversation.pair.choose(CHOICE_KEYS[key]); return true; }
  return false;
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && conversation.running) conversation.stop();
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.closest("textarea, input, select") || !find("use-keys").checked) return;
  if (press(event.key)) event.preventDefault();
});

addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", askPolicy);
setInterval(askPolicy, POLICY_MS);
setInterval(() => { if (view() === "counts" && !document.hidden) askCounts(); }, COUNTS_MS);
askPolicy();
showView();
