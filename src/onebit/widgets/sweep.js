// Draw the position `index` of a precomputed table: curves with a moving marker, one drawing a
// position, or one finished SVG a position; below it the readout, which screen readers hear.

const COLOURS = ["var(--ob-plus)", "var(--ob-minus)", "var(--ob-third)", "var(--ob-fourth)"];
const DASHES = [null, "7 4", "2 3", "9 3 2 3"];
const MARKERS = [
  (x, y) => s("circle", { cx: x, cy: y, r: 5 }),
  (x, y) => s("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9 }),
  (x, y) => s("path", { d: `M${x} ${y - 6}l6 10.5h-12z` }),
  (x, y) => s("path", { d: `M${x} ${y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z` }),
];
const MARGIN = { top: 22, right: 14, bottom: 42, left: 54 };

const brief = (value) => {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return minus(value.toExponential().replace("+", ""));
  return minus(value.toLocaleString("en", { maximumSignificantDigits: 6 }).replaceAll(",", " "));
};

function linearTicks([low, high], wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((nice) => nice * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

function logTicks([low, high], wanted) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / wanted));
  const ticks = [];
  for (let power = first; power <= last; power += every) ticks.push(10 ** power);
  return ticks;
}

// An axis places data values between two pixels and knows its ticks.
function axis(range, pixels, log, wanted) {
  const place = log ? Math.log10 : (value) => value;
  const [low, high] = range.map(place);
  const at = (value) =>
    pixels[0] + ((place(value) - low) / (high - low)) * (pixels[1] - pixels[0]);
  return { at, ticks: (log ? logTicks : linearTicks)(range, wanted) };
}

function paper(spec, width, height) {
  const left = MARGIN.left;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const x = axis(spec.x_range, [left, right], spec.log_x, width < 420 ? 4 : 7);
  const y = axis(spec.y_range, [bottom, MARGIN.top], spec.log_y, 5);
  const grid = s("g", { class: "ob-axes" });
  for (const tick of x.ticks) {
    const place = x.at(tick);
    const text = brief(tick);
    const middle = Math.min(place, width - 4 * text.length); // a wide last number stays inside
    grid.append(
      s("line", { x1: place, x2: place, y1: bottom, y2: bottom + 5 }),
      s("text", { x: middle, y: bottom + 18, "text-anchor": "middle" }, text),
    );
  }
  for (const tick of y.ticks) {
    const place = y.at(tick);
    grid.append(
      s("line", { class: "ob-grid", x1: left, x2: right, y1: place, y2: place }),
      s("text", { x: left - 7, y: place + 4, "text-anchor": "end" }, brief(tick)),
    );
  }
  grid.append(
    s("line", { x1: left, x2: right, y1: bottom, y2: bottom }),
    s("text", { x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, spec.x_label),
    s("text", { x: 4, y: 13 }, spec.y_label),
  );
  return { x, y, left, right, bottom, grid };
}

function reference(spec, { x, y, left, right, bottom }) {
  const group = s("g", { class: "ob-reference" });
  for (const [text, value] of spec.marks) {
    const place = x.at(value);
    const nearRight = place > (left + right) / 2;
    group.append(
      s("line", { x1: place, x2: place, y1: MARGIN.top, y2: bottom }),
      s("text", {
        x: place + (nearRight ? -5 : 5), y: MARGIN.top + 11, "text-anchor": nearRight ? "end" : "start",
      }, text),
    );
  }
  for (const [text, value] of spec.levels) {
    const place = y.at(value);
    group.append(
      s("line", { x1: left, x2: right, y1: place, y2: place }),
      s("text", { x: right - 4, y: place - 5, "text-anchor": "end" }, text),
    );
  }
  return group;
}

function drawBars(data, { x, y, bottom }, look) {
  const zero = Math.min(bottom, y.at(0));
  return data.y.map((value, i) => {
    const [a, b] = [x.at(data.x[i]), x.at(data.x[i + 1])];
    const top = y.at(value);
    return s("rect", {
      x: Math.min(a, b) + 0.5, width: Math.max(Math.abs(b - a) - 1, 0.5),
      y: Math.min(top, zero), height: Math.abs(zero - top), class: "ob-bar", ...look,
    });
  });
}

function drawLine(data, { x, y }, steps) {
  let path = "";
  data.x.forEach((value, i) => {
    const [px, py] = [x.at(value).toFixed(1), y.at(data.y[i]).toFixed(1)];
    if (i === 0) path = `M${px} ${py}`;
    else path += steps ? `H${px}V${py}` : `L${px} ${py}`;
  });
  return s("path", { d: path, class: "ob-curve" });
}

function drawSeries(series, i, data, frame) {
  const colour = COLOURS[i];
  if (series.kind === "bars") {
    return s("g", { fill: colour, "stroke-dasharray": DASHES[i], stroke: colour }, drawBars(data, frame));
  }
  if (series.kind === "points") {
    const points = data.x.map((value, j) => MARKERS[i](frame.x.at(value), frame.y.at(data.y[j])));
    return s("g", { fill: colour, class: "ob-points" }, points);
  }
  return s("g", { fill: "none", stroke: colour, "stroke-dasharray": DASHES[i] },
    drawLine(data, frame, series.kind === "steps"));
}

function cursor(spec, index, { x, y, bottom }) {
  const place = x.at(spec.series_data[0].x[index]);
  const group = s("g", { class: "ob-cursor" }, s("line", { x1: place, x2: place, y1: MARGIN.top, y2: bottom }));
  spec.series_data.forEach((data, i) => {
    group.append(s("g", { fill: COLOURS[i] }, MARKERS[i](place, y.at(data.y[index]))));
  });
  return group;
}

function legend(series) {
  const entries = series.map(({ name, kind }, i) => {
    const sample = s("svg", { width: 34, height: 14, "aria-hidden": "true" });
    if (kind === "bars") {
      sample.append(s("rect", { x: 5, y: 2, width: 24, height: 10, class: "ob-bar",
        fill: COLOURS[i], stroke: COLOURS[i], "stroke-dasharray": DASHES[i] }));
    } else {
      if (kind !== "points") {
        sample.append(s("path", { d: "M1 7H33", class: "ob-curve", stroke: COLOURS[i], "stroke-dasharray": DASHES[i] }));
      }
      if (kind === "curve" || kind === "points") sample.append(s("g", { fill: COLOURS[i] }, MARKERS[i](17, 7)));
    }
    return h("span", {}, sample, name);
  });
  return h("div", { class: "ob-legend" }, entries);
}

// The slider is another widget, so its name and spoken value are set from here. It writes its own
// number into the spoken value at every touch; the observer puts the position's name back.
function nameSlider(handle, spec, model) {
  const speak = () => {
    const position = spec.positions[model.get("index")];
    if (handle.getAttribute("aria-valuetext") !== position) handle.setAttribute("aria-valuetext", position);
  };
  handle.setAttribute("aria-label", spec.label);
  new MutationObserver(speak).observe(handle, { attributeFilter: ["aria-valuetext"] });
  speak();
}

function render({ model, el }) {
  const spec = model.get("spec");
  const figure = h("div", { class: "ob-figure", role: "img", "aria-label": spec.alt });
  const readout = h("p", { class: "ob-readout", role: "status", "aria-live": "polite" });
  el.classList.add("ob");
  if (spec.series.length > 1) el.append(legend(spec.series));
  el.append(figure, readout);

  function draw() {
    const index = model.get("index");
    readout.textContent = model.get("texts")[index];
    const handle = el.closest(".onebit-sweep")?.querySelector("[role=slider]:not([aria-label])");
    if (handle) nameSlider(handle, spec, model);
    if (spec.drawings) {
      figure.innerHTML = spec.drawings[index];
      return;
    }
    const width = figure.clientWidth;
    if (width === 0) return;
    const height = Math.round(Math.min(Math.max(width * 0.55, 220), 340));
    const frame = paper(spec, width, height);
    const data = spec.series_data ?? spec.frames[index];
    figure.replaceChildren(
      s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
        frame.grid, reference(spec, frame),
        spec.series.map((series, i) => drawSeries(series, i, data[i], frame)),
        spec.series_data ? cursor(spec, index, frame) : null),
    );
  }

  draw();
  model.on("change:index", draw);
  const watcher = new ResizeObserver(draw);
  watcher.observe(el);
  return () => watcher.disconnect();
}

export default { render };
