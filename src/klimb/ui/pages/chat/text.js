// Text of a model or of strangers: shown as text, with nothing hidden in it. The same rule as klimb/ui/escaping.py,
// but for joiners inside emoji and inside scripts that are written with them.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
const KEPT = new Set(["\n", "\t"]);
const EMOJI_BEFORE = /^[\p{Extended_Pictographic}\p{Emoji_Modifier}\uFE0F]/u;
const EMOJI_AFTER = /^\p{Extended_Pictographic}/u;
const JOINED = "\\p{Script=Arabic}\\p{Script=Devanagari}\\p{Script=Bengali}\\p{Script=Malayalam}\\p{Script=Kannada}\\p{Script=Sinhala}\\p{Script=Telugu}\\p{Script=Tamil}\\p{Script=Khmer}";
const JOINED_BEFORE = new RegExp(`^[${JOINED}\\p{M}]`, "u");
const JOINED_AFTER = new RegExp(`^[${JOINED}]`, "u");

// `before` and `after` are one character each: patterns that end with `$` miss some of them in Chromium.
const isJoiner = (character, before, after) =>
  (character === "\u200D" && EMOJI_BEFORE.test(before) && EMOJI_AFTER.test(after)) ||
  ((character === "\u200D" || character === "\u200C") && JOINED_BEFORE.test(before) && JOINED_AFTER.test(after));

export const visible = (text) =>
  text.replace(UNSEEN, (character, place) => {
    if (KEPT.has(character)) return character;
    const before = [...text.slice(Math.max(0, place - 2), place)].at(-1) ?? "";
    if (isJoiner(character, before, text.slice(place + 1, place + 3))) return character;
    return `[U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
  });

export const show = (element, text) => { element.textContent = visible(text); };

export const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export const find = (id) => document.getElementById(id);

const counted = new Intl.NumberFormat("en");
export const count = (number, noun) => `${counted.format(number)} ${noun}${number === 1 ? "" : "s"}`;
export const thousands = (number) => counted.format(number);

export const moment = (seconds) => {
  if (!seconds) return "";
  const date = new Date(seconds * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return isToday ? time : `${date.toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" })}, ${time}`;
};
