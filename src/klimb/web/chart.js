// One chart as SVG: axes, curves, and the values under the pointer. All text goes in as text, never as HTML.

const WIDTH = 480, HEIGHT = 250;
const BOX = { left: 52, right: WIDTH - 10, top: 8, bottom: HEIGHT - 26 };
const MOST_POINTS = 400, MOST_IN_TIP = 12;
const FEW_POINTS = 30; // up to this many are marked one by one and never smoothed, such as evaluations

const svgElement = (name, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

export const numberText = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size < 1e-3 && size > 0)) return value.toExponential(2).replace("e+", "e");
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
};

// Exponential moving average, corrected for its start; a value that is not finite is a gap and leaves it as it is.
export const smoothed = (values, weight) => {
  let mean = 0, total = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return NaN;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
};

// At most MOST_POINTS points: of each part of the curve its lowest and its highest, so that no spike is lost.
export const thinned = (x, y) => {
  if (x.length <= MOST_POINTS) return x.map((_, index) => index);
  const kept = [], size = (2 * x.length) / MOST_POINTS;
  for (let start = 0; start < x.length; start += size) {
    const first = Math.floor(start), end = Math.min(x.length, Math.floor(start + size));
    let low = -1, high = -1, gap = -1;
    for (let index = first; index < end; index++) {
      if (!Number.isFinite(y[index])) gap = index;
      else {
        if (low < 0 || y[index] < y[low]) low = index;
        if (high < 0 || y[index] > y[high]) high = index;
      }
    }
    kept.push(...[...new Set([low, high, gap])].filter((index) => index >= 0).sort((a, b) => a - b));
  }
  return kept;
};

const ticks = (low, high, count) => {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-6; at++) found.push(at * step);
  return found.map((value) => Number(value.toPrecision(12)));
};

const logTicks = (low, high) => {
  const found = [];
  const every = Math.max(1, Math.ceil((high - low) / 6));
  for (let power = Math.ceil(low); power <= high; power += every) found.push(power);
  return found.length > 1 ? found : ticks(low, high, 3);
};

const extent = (curves, key) => {
  let low = Infinity, high = -Infinity;
  for (const curve of curves)
    for (const value of curve[key]) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return null;
  const margin = high > low ? (key === "y" ? 0.04 * (high - low) : 0) : Math.abs(low) * 0.1 || 1;
  return [low - margin, high + margin];
};

// Curves with y on the scale that is drawn: its logarithm, or itself.
const scaled = (curves, isLog) =>
  curves.map((curve) => {
    const y = isLog ? curve.y.map((value) => (value > 0 ? Math.log10(value) : NaN)) : curve.y;
    return { ...curve, y };
  });

const path = (x, y, place) => {
  let text = "", isDown = false;
  for (const index of thinned(x, y)) {
    if (!Number.isFinite(y[index])) { isDown = false; continue; }
    const [left, top] = place(x[index], y[index]);
    text += `${isDown ? "L" : "M"}${left.toFixed(1)} ${top.toFixed(1)}`;
    isDown = true;
  }
  return text;
};

const axes = (svg, [xLow, xHigh], [yLow, yHigh], place, isLog) => {
  for (const value of isLog ? logTicks(yLow, yHigh) : ticks(yLow, yHigh, 4)) {
    const [, top] = place(xLow, value);
    svg.append(svgElement("line", { class: "grid", x1: BOX.left, x2: BOX.right, y1: top, y2: top }));
    const shown = numberText(isLog ? Number((10 ** value).toPrecision(3)) : value);
    svg.append(svgElement("text", { x: BOX.left - 6, y: top + 4, "text-anchor": "end" }, shown));
  }
  for (const value of ticks(xLow, xHigh, 5)) {
    const [left] = place(value, yLow);
    const anchor = left > BOX.right - 15 ? "end" : "middle";
    svg.append(svgElement("text", { x: left, y: BOX.bottom + 17, "text-anchor": anchor }, numberText(value)));
  }
};

const drawCurve = (svg, curve, place, weight) => {
  const group = svgElement("g", { class: `c${curve.colour % 8} d${Math.floor(curve.colour / 8) % 4}` });
  const numFinite = curve.y.filter(Number.isFinite).length;
  if (weight > 0 && numFinite > FEW_POINTS) {
    group.append(svgElement("path", { class: "faint", d: path(curve.x, curve.y, place) }));
    group.append(svgElement("path", { class: "line", d: path(curve.x, smoothed(curve.y, weight), place) }));
  } else group.append(svgElement("path", { class: "line", d: path(curve.x, curve.y, place) }));
  if (numFinite <= FEW_POINTS)
    curve.x.forEach((x, index) => {
      if (!Number.isFinite(curve.y[index])) return;
      const [cx, cy] = place(x, curve.y[index]);
      group.append(svgElement("circle", { class: "dot", cx, cy, r: 2.6 }));
    });
  svg.append(group);
};

// Draws into the figure: {curves: [{label, colour, x, y}], isLog, weight, axis, missing}.
export const drawChart = (figure, { curves, isLog, weight, axis, missing }) => {
  const drawn = scaled(curves, isLog);
  const svg = svgElement("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const shown = drawn.filter((curve) => curve.y.some(Number.isFinite));
  const xs = extent(shown, "x"), ys = extent(shown, "y");
  figure.querySelector("svg")?.remove();
  figure.append(svg);
  if (!xs || !ys) {
    svg.append(svgElement("text", { class: "empty", x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, missing));
    figure.chart = null;
    return;
  }
  const place = (x, y) => [
    BOX.left + ((x - xs[0]) / (xs[1] - xs[0])) * (BOX.right - BOX.left),
    BOX.bottom - ((y - ys[0]) / (ys[1] - ys[0])) * (BOX.bottom - BOX.top),
  ];
  axes(svg, xs, ys, place, isLog);
  for (const curve of shown) drawCurve(svg, curve, place, weight);
  const cursor = svgElement("line", { class: "cursor", y1: BOX.top, y2: BOX.bottom, visibility: "hidden" });
  svg.append(cursor);
  svg.setAttribute("aria-label", curves.map((each) => `${each.label}: ${numberText(each.y.at(-1))}`).join("; "));
  figure.chart = { svg, cursor, xs, curves: curves.filter((curve) => curve.x.length), axis };
};

const nearest = (x, at) => {
  let low = 0, high = x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - x[low - 1] < x[low] - at ? low - 1 : low;
};

const tipRows = (chart, at) => {
  const slack = (chart.xs[1] - chart.xs[0]) / 40;
  const near = chart.curves
    .map((curve) => ({ curve, index: nearest(curve.x, at) }))
    .filter(({ curve, index }) => Math.abs(curve.x[index] - at) <= slack)
    .map(({ curve, index }) => ({ label: curve.label, colour: curve.colour, value: curve.y[index] }));
  return near.sort((a, b) => b.value - a.value).slice(0, MOST_IN_TIP);
};

// Shows the values under the pointer, over whatever chart the figure holds at that moment.
export const attachTip = (figure) => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  const hide = () => { tip.hidden = true; figure.chart?.cursor.setAttribute("visibility", "hidden"); };
  const show = (event) => {
    const chart = figure.chart;
    if (!chart || !chart.svg.contains(event.target)) return hide();
    const box = chart.svg.getBoundingClientRect(), scale = box.width / WIDTH;
    const share = ((event.clientX - box.left) / scale - BOX.left) / (BOX.right - BOX.left);
    const at = chart.xs[0] + Math.min(1, Math.max(0, share)) * (chart.xs[1] - chart.xs[0]);
    const rows = tipRows(chart, at);
    if (!rows.length) return hide();
    tip.replaceChildren(line(`${chart.axis} ${numberText(Math.round(at))}`, ""), ...rows.map((row) =>
      line(row.label, numberText(row.value), `c${row.colour % 8}`)));
    tip.hidden = false;
    const left = BOX.left + Math.min(1, Math.max(0, share)) * (BOX.right - BOX.left);
    for (const end of ["x1", "x2"]) chart.cursor.setAttribute(end, left);
    chart.cursor.setAttribute("visibility", "visible");
    const side = left * scale > box.width / 2 ? left * scale - tip.offsetWidth - 10 : left * scale + 10;
    tip.style.left = `${Math.max(0, Math.min(side, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${chart.svg.offsetTop + 16}px`;
  };
  figure.addEventListener("pointermove", show);
  figure.addEventListener("pointerdown", show);
  figure.addEventListener("pointerleave", hide);
};

const line = (label, value, colour = "") => {
  const row = document.createElement("div"), name = document.createElement("span"), bold = document.createElement("b");
  name.textContent = label;
  name.className = colour;
  bold.textContent = value;
  row.append(name, bold);
  return row;
};
