"use strict";
// Shows the values under the pointer. Without it the page is complete, only silent.
(() => {
  const MOST_ROWS = 12; // of more curves, those with the largest values are told

  const text = (value) => {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
    return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 7 : 4 }).replace("-", "−");
  };

  const nearest = (values, wanted) => {
    let low = 0;
    let high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle;
      else high = middle;
    }
    return wanted - values[low] <= values[high] - wanted ? low : high;
  };

  const element = (tag, content, className) => {
    const made = document.createElement(tag);
    if (content !== undefined) made.textContent = content; // Never as HTML: names come from runs.
    if (className) made.className = className;
    return made;
  };

  const attach = (svg, chart) => {
    const line = svg.querySelector(".cursor");
    const tip = element("div", undefined, "tip");
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true");
    svg.parentNode.append(tip);

    const hide = () => {
      tip.hidden = true;
      line.setAttribute("visibility", "hidden");
    };

    const show = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = box.width / chart.width;
      const pixel = (event.clientX - box.left) / scale;
      const at = chart.low + ((pixel - chart.left) / (chart.right - chart.left)) * (chart.high - chart.low);
      const longest = chart.curves.filter((curve) => curve.x.length).map((curve) => curve.x[nearest(curve.x, at)]);
      if (!longest.length) return hide();
      const x = longest.reduce((best, value) => (Math.abs(value - at) < Math.abs(best - at) ? value : best));
      const slack = (chart.high - chart.low) / 50;
      const found = chart.curves.map((curve) => {
        const index = curve.x.length ? nearest(curve.x, x) : -1;
        return { curve, index, isNear: index >= 0 && Math.abs(curve.x[index] - x) <= slack };
      });
      const value = ({ curve, index, isNear }) => (isNear ? curve.y[index] : -Infinity);
      const told = found.length > MOST_ROWS ? found.sort((a, b) => value(b) - value(a)).slice(0, MOST_ROWS) : found;
      const rows = told.map(({ curve, index, isNear }) => {
        const band = isNear && curve.low ? ` [${text(curve.low[index])}, ${text(curve.high[index])}]` : "";
        const row = element("div");
        row.append(element("span", curve.label, curve.colour), element("b", isNear ? text(curve.y[index]) + band : "–"));
        return row;
      });
      tip.replaceChildren(element("div", `${chart.axis} ${text(x)}`), ...rows);
      tip.hidden = false;
      const position = chart.left + ((x - chart.low) / (chart.high - chart.low)) * (chart.right - chart.left);
      line.setAttribute("x1", position);
      line.setAttribute("x2", position);
      line.setAttribute("visibility", "visible");
      const middle = position * scale;
      const side = middle > box.width / 2 ? middle - tip.offsetWidth - 10 : middle + 10;
      tip.style.left = `${Math.max(0, Math.min(side, box.width - tip.offsetWidth))}px`;
      tip.style.top = `${box.top - svg.parentNode.getBoundingClientRect().top + 16}px`;
    };

    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  };

  // For pages whose charts come later.
  globalThis.klimb = { attach, text };

  const source = document.getElementById("charts");
  const charts = source ? JSON.parse(source.textContent) : {};
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = charts[svg.dataset.chart];
    if (chart?.curves.length) attach(svg, chart);
  }
})();
