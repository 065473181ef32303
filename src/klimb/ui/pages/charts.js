"use strict";
// Shows the values under the pointer. Without it the page is complete, only silent.
(() => {
  const source = document.getElementById("charts");
  if (!source) return;
  const charts = JSON.parse(source.textContent);

  const text = (value) => {
    if (value === null || value === undefined) return "–";
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
      const rows = chart.curves.map((curve) => {
        const index = curve.x.length ? nearest(curve.x, x) : -1;
        const slack = (chart.high - chart.low) / 50;
        const isNear = index >= 0 && Math.abs(curve.x[index] - x) <= slack;
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
      tip.style.top = `${svg.offsetTop + 24}px`;
    };

    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  };

  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = charts[svg.dataset.chart];
    if (chart) attach(svg, chart);
  }
})();
