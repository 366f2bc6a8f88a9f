// SPDX-FileCopyrightText: aqr_perception maintainers
// SPDX-License-Identifier: Apache-2.0

"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const summary = JSON.parse(element("summary").textContent);
  const count = summary.seconds.length;
  const cameraNames = summary.cameras.concat(summary.sensors.filter((name) => isCamera(name) && !summary.cameras.includes(name)));
  const palette = ["#0b84d8", "#1baf8a", "#c05bb4", "#8a7a12", "#4c5fd0", "#d9467a", "#3aa3b8", "#7d6b5d"];
  let frameIndex = -1, frame = null, chosen = -1, timer = 0, plots = [];

  function isCamera(name) { return !name.startsWith("lidar"); }
  function label(name) { return name === "lidar" ? "LiDAR" : name; }
  function colour(name) { return isCamera(name) ? palette[cameraNames.indexOf(name) % palette.length] : "#ff8c00"; }
  function variable(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function number(value, digits = 2) {
    return value === null || value === undefined ? "–" : (summary.signed && value > 0 && digits === 2 ? "+" : "") + value.toFixed(digits);
  }
  function plain(value, digits) { return value === null || value === undefined ? "–" : value.toFixed(digits); }

  function make(tag, attributes = {}, ...children) {
    const space = ["svg", "ellipse", "line", "path", "defs", "radialGradient", "stop", "title"].includes(tag) ? "http://www.w3.org/2000/svg" : null;
    const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  function meter(value, shade) {
    // Signed weights start at the middle.
    const bar = make("span", { class: "meter" });
    if (value === null || value === undefined) return bar;
    const low = summary.signed ? 50 + 50 * Math.min(value, 0) : 0, high = summary.signed ? 50 + 50 * Math.max(value, 0) : 100 * value;
    bar.append(make("i", { style: `left:${low}%;width:${Math.max(high - low, 0)}%;background:${shade}` }));
    return bar;
  }
  function swatches(entries) {
    return entries.flatMap(([shade, text]) => [make("span", { class: "swatch", style: `background:${shade}` }), text]);
  }
  function phaseAt(seconds) { return summary.phases.find((phase) => seconds >= phase.begin && seconds < phase.end); }

  // Frames.

  function show(index) {
    index = Math.min(Math.max(index, 0), count - 1);
    if (index === frameIndex || !count) return;
    const before = frame && frame.detections[chosen];
    frameIndex = index;
    frame = JSON.parse(element(`frame-${index}`).textContent);
    chosen = before ? same(before) : -1;
    draw();
  }
  function same(before) {
    // The nearest detection of the class, if the object can have moved there since the frame before.
    let best = -1, least = 4;
    frame.detections.forEach((found, index) => {
      const distance = Math.hypot(found.box[0] - before.box[0], found.box[1] - before.box[1]);
      if (found.class === before.class && distance < least) { best = index; least = distance; }
    });
    return best;
  }
  function choose(index) {
    chosen = frame && index >= 0 && index < frame.detections.length ? index : -1;
    draw();
  }

  function draw() {
    const seconds = summary.seconds[frameIndex], phase = phaseAt(seconds);
    element("slider").value = frameIndex;
    element("slider").setAttribute("aria-valuetext", `${seconds.toFixed(2)} s`);
    element("time").textContent = `${seconds.toFixed(2)} s · ${frameIndex + 1} of ${count}`;
    element("phase").textContent = phase ? phase.name : "";
    element("phase").hidden = !phase;
    element("phase").className = phase && phase.sensors.length ? "chip bad" : "chip";
    element("unanswered").hidden = !frame.unanswered;
    element("unanswered").textContent = frame.unanswered;
    summary.cameras.forEach(drawPicture);
    if (summary.has_bev) drawPicture("bev");
    drawTable();
    drawQuery();
    drawStates();
    plots.forEach((plot) => plot.redraw(false));
    history.replaceState(null, "", `#frame=${frameIndex}` + (chosen >= 0 ? `&detection=${chosen}` : ""));
  }

  function drawPicture(name) {
    const figure = element(`picture-${name}`), picture = figure.querySelector(".picture");
    const sensor = frame.sensors.find((each) => each.name === (name === "bev" ? "lidar" : name));
    const source = frame.pictures[name], image = picture.querySelector("img"), none = picture.querySelector(".none");
    image.hidden = !source;
    none.hidden = !!source;
    if (source) image.src = source; else image.removeAttribute("src");
    none.textContent = summary.with_pictures[frameIndex] ? "no picture" : "this frame's pictures are not in the report";
    const state = sensor ? [sensor.used ? "" : `not used: ${sensor.reason}`, sensor.used && sensor.reason, sensor.failure !== sensor.reason && sensor.failure] : [];
    figure.classList.toggle("bad", !!sensor && (!sensor.used || !!sensor.failure));
    const found = frame.detections[chosen];
    const value = found && (name === "bev" ? found.lidar_weight : found.camera_weights[name]);
    const share = found && found.attention[name === "bev" ? "lidar" : name];
    const text = state.filter(Boolean).join("; ") || (found && name in found.windows ? `weight ${number(value)}` + (share === undefined ? "" : ` · attention ${share.toFixed(2)}`) : "");
    figure.querySelector(".state").textContent = text;
    const svg = picture.querySelector("svg");
    svg.replaceChildren();
    if (source) drawOverlay(svg, name);
  }

  function drawOverlay(svg, name) {
    const found = frame.detections[chosen];
    if (!found) {
      for (const style of ["dot under", "dot"]) frame.detections.forEach((each, index) => {
        const window_ = each.windows[name];
        if (window_) svg.append(make("line", { x1: window_[0], y1: window_[1], x2: window_[0], y2: window_[1], class: style, "data-detection": index }));
      });
      return;
    }
    const window_ = found.windows[name];
    if (window_) {
      const [x, y, sx, sy] = window_, weight = Math.abs(name === "bev" ? found.lidar_weight : found.camera_weights[name] ?? 0);
      const shade = colour(name === "bev" ? "lidar" : name), id = `gaussian-${name}`, stops = [];
      for (let step = 0; step <= 6; step++) {
        const opacity = (Math.exp(-((step / 2) ** 2) / 2) * (0.15 + 0.75 * Math.min(weight, 1))).toFixed(3);
        stops.push(make("stop", { offset: step / 6, "stop-color": shade, "stop-opacity": opacity }));
      }
      svg.append(make("defs", {}, make("radialGradient", { id }, ...stops)));
      svg.append(make("ellipse", { cx: x, cy: y, rx: 3 * sx, ry: 3 * sy, fill: `url(#${id})`, class: "gaussian" }));
      for (const sigmas of [1, 2]) svg.append(make("ellipse", { cx: x, cy: y, rx: sigmas * sx, ry: sigmas * sy, class: "ring" }));
    }
    for (const style of ["edge under", "edge"]) for (const [x1, y1, x2, y2] of found.outlines[name] ?? []) svg.append(make("line", { x1, y1, x2, y2, class: style }));
  }

  function pick(event, name) {
    const area = event.currentTarget.getBoundingClientRect(), pixels = (dx, dy) => Math.hypot(dx * area.width, dy * area.height);
    const x = (event.clientX - area.left) / area.width, y = (event.clientY - area.top) / area.height;
    let best = -1, least = 0.12 * area.width;
    frame.detections.forEach((found, index) => {
      const lines = found.outlines[name] ?? [], places = found.windows[name] ? [found.windows[name]] : [];
      if (lines.length) places.push([0, 1].map((axis) => lines.reduce((sum, line) => sum + line[axis] + line[axis + 2], 0) / (2 * lines.length)));
      for (const place of places) { const distance = pixels(place[0] - x, place[1] - y); if (distance < least) { best = index; least = distance; } }
    });
    choose(best);
  }

  // The chosen query and the frame's detections.

  function drawQuery() {
    const found = frame.detections[chosen], card = element("query");
    if (!found) {
      card.replaceChildren(make("h2", {}, `${frame.detections.length} detections`), make("p", { class: "soft" }, "Choose a detection in a picture, in the table or with ↑ ↓ to see its query's windows, weights and attention."), sensorTable(null));
      return;
    }
    const box = found.box, speed = box.length > 8 ? Math.hypot(box[7] ?? 0, box[8] ?? 0) : null;
    const lines = [
      ["score", number(found.score).replace("+", "")],
      ["distance", `${Math.hypot(box[0], box[1]).toFixed(1)} m`],
      ["position", `${plain(box[0], 1)}, ${plain(box[1], 1)}, ${plain(box[2], 1)} m`],
      ["size", `${plain(box[3], 1)} × ${plain(box[4], 1)} × ${plain(box[5], 1)} m`],
      ["speed", speed === null ? "–" : `${speed.toFixed(1)} m/s`],
      ["cameras together", `weight ${number(found.camera_weight)}`],
    ];
    const where = Object.keys(found.windows).map((name) => (name === "bev" ? "the view from above" : name));
    card.replaceChildren(
      make("h2", {}, `${found.class}, detection ${chosen + 1} of ${frame.detections.length}`),
      make("dl", {}, ...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      make("p", { class: "soft", id: "window-places" }, where.length ? `Its window is in ${where.join(", ")}.` : "Its window is in no picture."),
      sensorTable(found),
    );
  }
  function sensorTable(found) {
    const attention = found && Object.keys(found.attention).length > 0;
    const head = make("tr", {}, make("th", {}, "sensor"), found ? make("th", {}, "weight") : null, attention ? make("th", {}, "attention") : null, make("th", {}, "state"));
    const rows = frame.sensors.map((sensor) => {
      const name = sensor.name, weight = found && (name === "lidar" ? found.lidar_weight : found.camera_weights[name]);
      const share = found && found.attention[name], cells = [make("td", {}, label(name))];
      const seen = !found || !isCamera(name) || !Object.keys(found.windows).length || name in found.windows;
      if (found) cells.push(make("td", { "data-weight": name }, sensor.used ? (seen || weight ? number(weight) : "not in view") : "–", sensor.used && (seen || weight) ? meter(weight, colour(name)) : ""));
      if (attention) cells.push(make("td", { "data-attention": name }, number(share).replace("+", ""), sensor.used ? shareMeter(share, colour(name)) : ""));
      cells.push(make("td", { class: sensor.state === "ok" ? "off" : "" }, sensor.state === "ok" ? "used" : sensor.state + (sensor.reason ? `: ${sensor.reason}` : "")));
      return make("tr", {}, ...cells);
    });
    return make("table", { class: "sensors" }, make("thead", {}, head), make("tbody", {}, ...rows));
  }
  function shareMeter(value, shade) {
    const bar = make("span", { class: "meter" });
    if (value) bar.append(make("i", { style: `left:0;width:${100 * value}%;background:${shade}` }));
    return bar;
  }

  function drawTable() {
    const attention = frame.detections.some((found) => Object.keys(found.attention).length);
    const titles = ["#", "class", "score", "distance", "LiDAR", "cameras"].concat(attention ? ["attention LiDAR"] : []);
    const rows = frame.detections.map((found, index) => {
      const row = make("tr", { "data-detection": index, "aria-selected": index === chosen, tabindex: -1 });
      const cells = [index + 1, found.class, number(found.score).replace("+", ""), `${Math.hypot(found.box[0], found.box[1]).toFixed(1)} m`];
      row.append(...cells.map((text) => make("td", {}, String(text))));
      row.append(make("td", {}, number(found.lidar_weight), meter(found.lidar_weight, colour("lidar"))));
      row.append(make("td", {}, number(found.camera_weight), meter(found.camera_weight, palette[0])));
      if (attention) row.append(make("td", {}, number(found.attention.lidar).replace("+", "")));
      row.addEventListener("click", () => choose(index === chosen ? -1 : index));
      return row;
    });
    const head = make("tr", {}, ...titles.map((title) => make("th", {}, title)));
    element("detections").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
    const selected = element("detections").querySelector("[aria-selected=true]"), list = element("list");
    if (selected && (selected.offsetTop < list.scrollTop + 30 || selected.offsetTop > list.scrollTop + list.clientHeight - 30)) list.scrollTop = selected.offsetTop - list.clientHeight / 2;
  }

  // Curves.

  const gap = (() => {
    const steps = summary.seconds.slice(1).map((value, index) => value - summary.seconds[index]).sort((a, b) => a - b);
    return steps.length ? 3.1 * steps[steps.length >> 1] : 1;
  })();
  function withGaps(values) {
    const seconds = [], result = [];
    summary.seconds.forEach((value, index) => {
      if (index && value - summary.seconds[index - 1] > gap) { seconds.push(summary.seconds[index - 1] + gap / 2); result.push(values.map(() => null)); }
      seconds.push(value);
      result.push(values.map((each) => each[index]));
    });
    return [seconds, ...values.map((_, place) => result.map((row) => row[place]))];
  }
  function shadePhases(context, left, top, width, height, place) {
    for (const phase of summary.phases) {
      const from = Math.max(place(phase.begin), left), to = Math.min(place(phase.end), left + width);
      if (phase.sensors.length && to > from) { context.fillStyle = variable("--failing") + "26"; context.fillRect(from, top, to - from, height); }
    }
  }
  function plot(id, names, curves, range, unit = "") {
    const host = element(id);
    host.closest(".card").hidden = false;
    const axis = () => ({ stroke: () => variable("--soft"), grid: { stroke: () => variable("--line"), width: 1 }, ticks: { stroke: () => variable("--line"), width: 1 }, font: "11px system-ui" });
    const made = new uPlot({
      width: host.clientWidth, height: 190, scales: { x: { time: false }, y: { range } },
      axes: [{ ...axis(), values: (_, ticks) => ticks.map((tick) => `${tick} s`) }, { ...axis(), size: 58 }],
      cursor: { drag: { x: false, y: false }, points: { size: 6 }, sync: { key: "report" } },
      series: [{ label: "time", value: (_, value) => (value === null ? "–" : `${value.toFixed(2)} s`) }].concat(names.map(([name, shade, width, dash]) => ({
        label: name, stroke: shade, width, dash, spanGaps: false, points: { show: count < 60, size: 4 }, value: (_, value) => (value === null || value === undefined ? "–" : plain(value, unit ? 0 : 2) + unit),
      }))),
      hooks: {
        drawClear: [(u) => shadePhases(u.ctx, u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height, (seconds) => u.valToPos(seconds, "x", true))],
        draw: [(u) => {
          if (frameIndex < 0) return;
          const at = Math.round(u.valToPos(summary.seconds[frameIndex], "x", true));
          u.ctx.fillStyle = variable("--accent");
          u.ctx.fillRect(at - devicePixelRatio / 2, u.bbox.top, 1.5 * devicePixelRatio, u.bbox.height);
        }],
      },
    }, withGaps(curves), host);
    made.over.addEventListener("click", () => { if (made.cursor.left >= 0) showNearest(made.posToVal(made.cursor.left, "x")); });
    plots.push(made);
  }
  function showNearest(seconds) {
    let best = 0;
    summary.seconds.forEach((value, index) => { if (Math.abs(value - seconds) < Math.abs(summary.seconds[best] - seconds)) best = index; });
    show(best);
  }

  const shades = () => ({ ok: variable("--ok"), doubted: variable("--doubted"), failing: variable("--failing"), "left out": variable("--left-out"), unknown: "transparent" });
  function canvasContext(canvas, height) {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = `${height}px`;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return [context, width];
  }
  const margin = 88;
  function timeScale(width, left) {
    const first = summary.seconds[0] ?? 0, last = summary.seconds[count - 1] ?? 1, span = Math.max(last - first, 1e-6);
    return { to: (seconds) => left + ((seconds - first) / span) * (width - left - 6), from: (x) => first + ((x - left) / (width - left - 6)) * span };
  }
  function drawStates() {
    const names = summary.sensors, row = 18, [context, width] = canvasContext(element("states"), names.length * row + 4);
    const scale = timeScale(width, margin), colours = shades();
    context.font = "12px system-ui";
    names.forEach((name, place) => {
      context.fillStyle = variable("--ink");
      context.fillText(label(name), 0, place * row + 13, margin - 8);
      summary.states[name].forEach((state, index) => {
        const from = scale.to(index ? Math.max((summary.seconds[index] + summary.seconds[index - 1]) / 2, summary.seconds[index] - gap / 2) : summary.seconds[0]);
        const to = scale.to(index + 1 < count ? Math.min((summary.seconds[index] + summary.seconds[index + 1]) / 2, summary.seconds[index] + gap / 2) : summary.seconds[index]) ;
        context.fillStyle = colours[state];
        // Height tells the states apart without their colours, too.
        const tall = state === "left out" ? 4 : state === "ok" ? 8 : 13;
        context.fillRect(from, place * row + 2 + (13 - tall), Math.max(to - from, 1) + 0.3, tall);
      });
    });
    if (frameIndex >= 0) { context.fillStyle = variable("--accent"); context.fillRect(scale.to(summary.seconds[frameIndex]) - 0.75, 0, 1.5, names.length * row + 4); }
  }
  function drawPhaseStrip() {
    const [context, width] = canvasContext(element("phases"), 8), scale = timeScale(width, 8);
    context.fillStyle = variable("--bar");
    context.fillRect(0, 0, width, 8);
    for (const phase of summary.phases) if (phase.sensors.length) {
      context.fillStyle = variable("--failing");
      context.fillRect(scale.to(phase.begin), 0, Math.max(scale.to(phase.end) - scale.to(phase.begin) - 1, 1), 8);
    }
    summary.answered.forEach((answered, index) => { if (!answered) { context.fillStyle = variable("--ink"); context.fillRect(scale.to(summary.seconds[index]) - 1, 0, 2, 8); } });
  }

  // Parts that are made once.

  function figure(name) {
    const picture = make("div", { class: "picture" }, make("img", { alt: name === "bev" ? "view from above" : `camera ${name}` }), make("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" }), make("div", { class: "none" }));
    picture.addEventListener("click", (event) => pick(event, name));
    return make("figure", { id: `picture-${name}` }, picture, make("figcaption", {}, make("b", {}, name === "bev" ? "from above: ahead is right" : name), make("span", { class: "state" })));
  }
  function setUp() {
    element("cameras").append(...summary.cameras.map(figure));
    if (summary.has_bev) element("bev").append(figure("bev"));
    element("legend").append("Boxes: ", ...swatches([["rgb(255,140,0)", "supported by the LiDAR"], ["rgb(0,170,255)", "by cameras (between: by both)"], ["#fff", "chosen query: window and box"]]));
    element("states-legend").append(...swatches([[variable("--ok"), "used"], [variable("--doubted"), "used, but something is odd"], [variable("--failing"), "used, though it fails (known from the simulation)"], [variable("--left-out"), "left out"]]));
    element("slider").max = Math.max(count - 1, 0);

    const weighted = summary.sensors.filter((name) => summary.weights[name].some((value) => value !== null));
    const limits = summary.signed ? [-1.05, 1.05] : [0, 1.05], style = (name) => [label(name), colour(name), isCamera(name) ? 1.3 : 2.4];
    if (weighted.length) plot("plot-weights", weighted.map(style), weighted.map((name) => summary.weights[name]), limits);
    else element("plot-weights").textContent = "No frame has detections.";
    const attended = Object.keys(summary.attention);
    if (attended.length) plot("plot-attention", attended.map(style), attended.map((name) => summary.attention[name]), [0, 1.05]);
    if (summary.recall.length) plot("plot-recall", [["recall", "#1b9e77", 1.8]], [summary.recall], [0, 1.05]);
    if (summary.latency.some((value) => value !== null)) plot("plot-latency", [["latency", "#7570b3", 1.5]], [summary.latency], (_, low, high) => [0, (high || 1) * 1.1], " ms");
    element("plot-notes").textContent = "Weights are means over a frame's detections, weighted by score; a camera's mean is over the detections it sees." + (attended.length ? " Attention is the mean over all detections." : "") + (summary.recall.length ? " A true object is detected if a detection of its class is within 2 m." : "") + (summary.phases.some((phase) => phase.sensors.length) ? " Shaded: a sensor fails." : "");

    if (summary.phases.length) {
      const recall = summary.phases.some((phase) => phase.recall !== null);
      const titles = ["phase", "time", "frames answered", ...(recall ? ["recall", "objects"] : []), "LiDAR weight", "working cameras' weight", "failing sensors' weight", "median latency"];
      const rows = summary.phases.map((phase) => {
        const cells = [phase.name, `${phase.begin.toFixed(1)}–${phase.end.toFixed(1)} s`, `${phase.answered} of ${phase.frames}`, ...(recall ? [plain(phase.recall, 2), phase.objects] : []), number(phase.lidar_weight), number(phase.camera_weight), number(phase.failing_weight), phase.latency === null ? "–" : `${phase.latency.toFixed(0)} ms`];
        const made = make("tr", {}, ...cells.map((text) => make("td", {}, String(text))));
        made.addEventListener("click", () => showNearest(phase.begin));
        return made;
      });
      element("phase-table").append(make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", {}, title)))), make("tbody", {}, ...rows));
      element("phase-section").hidden = false;
    }
  }

  function play() {
    if (timer) { clearInterval(timer); timer = 0; } else {
      if (frameIndex >= count - 1) show(0);
      timer = setInterval(() => (frameIndex >= count - 1 ? play() : show(frameIndex + 1)), 200);
    }
    element("play").textContent = timer ? "❚❚" : "▶";
    element("play").setAttribute("aria-label", timer ? "pause" : "play");
  }
  const keys = {
    ArrowLeft: (event) => show(frameIndex - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => show(frameIndex + (event.shiftKey ? 10 : 1)),
    ArrowUp: () => choose(chosen <= 0 ? frame.detections.length - 1 : chosen - 1), ArrowDown: () => choose(chosen + 1 < frame.detections.length ? chosen + 1 : 0),
    Home: () => show(0), End: () => show(count - 1), " ": play, Escape: () => choose(-1),
  };

  setUp();
  if (!count) { element("unanswered").hidden = false; element("unanswered").textContent = "This report has no frames."; return; }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.key === " " && event.target.tagName === "BUTTON")) return;
    const action = keys[event.key];
    if (action) { event.preventDefault(); action(event); }
  });
  element("slider").addEventListener("input", () => show(Number(element("slider").value)));
  element("previous").addEventListener("click", () => show(frameIndex - 1));
  element("next").addEventListener("click", () => show(frameIndex + 1));
  element("play").addEventListener("click", play);
  element("states").addEventListener("click", (event) => showNearest(timeScale(element("states").clientWidth, margin).from(event.offsetX)));
  const redraw = () => { plots.forEach((each) => each.setSize({ width: each.root.parentElement.clientWidth, height: 190 })); drawPhaseStrip(); drawStates(); };
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const wanted = new URLSearchParams(location.hash.slice(1));
  show(Number(wanted.get("frame")) || 0);
  if (wanted.has("detection")) choose(Number(wanted.get("detection")));
  drawPhaseStrip();
})();
