// Counts: answers, ratings, and how far people agree.

import { fetchCounts } from "./server.js";
import { copyOf, count, find, show, thousands } from "./text.js";

const tile = (name, big, more = "") => {
  const made = copyOf("tile-template");
  made.querySelector(".name").textContent = name;
  made.querySelector(".big").textContent = big;
  made.querySelector(".more").textContent = more;
  return made;
};

const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
const decimal = (number) => number.toFixed(2).replace("-", "−");
const rating = (mean) => (mean === null ? "–" : decimal(mean));

const row = (name, counted) => {
  const made = copyOf("row-template");
  show(made.querySelector("th"), name);
  const cells = [thousands(counted.answers), `${thousands(counted.rated)} (${percent(counted.rated, counted.answers)})`, rating(counted.mean_rating)];
  made.querySelectorAll("td").forEach((cell, number) => { cell.textContent = cells[number]; });
  return made;
};

const agreed = ({ alpha, low, high, answers, reason }) => {
  if (alpha === null) return `Do raters agree? Not known yet: ${reason}.`;
  const ends = low === null ? ` (no interval: ${reason})` : ` [${decimal(low)}, ${decimal(high)}]`;
  return `Agreement of raters: α = ${decimal(alpha)}${ends} over ${count(answers, "answer")} with two or more ratings. 1 is full agreement, 0 is chance.`;
};

export const showCounts = async () => {
  const counted = await fetchCounts();
  find("tiles").replaceChildren(
    tile("answers", thousands(counted.answers)),
    tile("rated", thousands(counted.rated), `${percent(counted.rated, counted.answers)} of all; ${thousands(counted.unrated)} wait`),
    tile("mean rating", rating(counted.mean_rating), "1 is good, 0 is bad"),
    tile("other feedback", thousands(counted.preferences + counted.corrections + counted.comments),
      [count(counted.preferences, "preference"), count(counted.corrections, "correction"), count(counted.comments, "comment")].join(", ")),
    tile("raters", thousands(counted.raters)),
  );
  find("agreement").textContent = agreed(counted.agreement);
  find("days").tBodies[0].replaceChildren(...counted.days.map((day) => row(day.day, day)));
  find("policies").tBodies[0].replaceChildren(...counted.policies.map((policy) => row(`${policy.name}, version ${policy.version}`, policy)));
};
