// The threshold explorer: a mark for each test image, a threshold to drag, and what follows from it.
//
// One file for two places. In a notebook anywidget calls `render` with the kernel's model; into a page of the book
// texad/teaching/explorer.py writes this text, and a call of `render` with a `PageModel`, which needs no kernel.
//
// The model holds data {images: [{name, label, score}], auroc, threshold}, the threshold as it stands, the position of the
// selected image, and either the addresses of all pictures (pictures) or the selected one alone (picture {index, url}).

const HEIGHT = 186; // of the picture of the scores, in pixels; its width is that of the page
const PAPER = 640; // that width in print
const MARGIN = 12; // left and right of its axis
const AXIS = 146; // how far down the axis lies
const ROWS = [62, 116]; // the middles of the rows of normal and of anomalous images
const HANDLE = 44; // width of what a finger can grip
const REACH = 24; // how far from a mark a tap still means it
const KINDS = ["normal", "anomalous"];

// -- numbers -----------------------------------------------------------------------------------------------

function format(value) {
  const size = Math.abs(value);
  return size >= 1000 && size < 1e6 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}

const share = (value) => (value === null ? "–" : value.toFixed(3));

/** Scores to positions from 0 to 1 and back, logarithmic if all are positive. */
function makeAxis(scores, threshold) {
  const isLog = threshold > 0 && scores.every((score) => score > 0);
  const warp = isLog ? (x) => Math.log(Math.max(x, Number.MIN_VALUE)) : (x) => x;
  const unwarp = isLog ? Math.exp : (x) => x;
  const distinct = [...new Set(scores)].sort((a, b) => a - b);
  const [low, high] = [Math.min(distinct[0], threshold), Math.max(distinct.at(-1), threshold)].map(warp);
  const pad = 0.04 * (high - low) || (isLog ? 0.1 : 0.1 * Math.abs(high) || 1);
  const [start, length] = [low - pad, high - low + 2 * pad];
  // One threshold for each gap between scores. The middle of two neighbouring floats may be the upper one: then the lower.
  const gaps = distinct.slice(1).map((above, i) => {
    const middle = unwarp((warp(distinct[i]) + warp(above)) / 2);
    return middle > distinct[i] && middle < above ? middle : distinct[i];
  });
  const thresholds = [unwarp(start + pad / 2), ...gaps, unwarp(start + length - pad / 2)];
  const within = (position) => Math.min(1, Math.max(0, position));
  return {
    isLog,
    position: (score) => within((warp(score) - start) / length),
    score: (position) => unwarp(start + length * within(position)),
    /** The threshold one gap up (1) or down (-1): the nearest that decides otherwise. */
    step: (from, by) => thresholds.at(Math.max(0, distinct.filter((score) => score <= from).length + by)) ?? thresholds.at(-1),
  };
}

/** Round numbers along an axis, no more than there is room for. */
function ticks(axis, room) {
  const [low, high] = [axis.score(0), axis.score(1)];
  if (axis.isLog) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.floor(Math.log10(high))];
    const powers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    const scores = (...factors) => powers.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)));
    const [fine, coarse] = [scores(1, 2, 5), scores(1)].map((all) => all.filter((score) => score >= low && score <= high));
    if (fine.length > 1 && fine.length <= room) return fine;
    if (coarse.length > 1) return coarse.filter((_, i) => i % Math.ceil(coarse.length / room) === 0);
  }
  const rough = (high - low) / Math.min(room, 5);
  const size = [1, 2, 5, 10].map((factor) => factor * 10 ** Math.floor(Math.log10(rough))).find((step) => step >= rough);
  const count = Math.floor(high / size) - Math.ceil(low / size) + 1;
  return Array.from({ length: count }, (_, i) => Number(((Math.ceil(low / size) + i) * size).toPrecision(12)));
}

/** False-alarm rate and recall, from the highest threshold to the lowest; equal scores move together. */
function rocCurve(images) {
  const total = [0, 1].map((label) => images.filter((image) => image.label === label).length);
  if (!total[0] || !total[1]) return null;
  const [seen, points] = [[0, 0], [[0, 0]]];
  const falling = [...images].sort((a, b) => b.score - a.score);
  falling.forEach((image, i) => {
    seen[image.label] += 1;
    if (falling[i + 1]?.score !== image.score) points.push([seen[0] / total[0], seen[1] / total[1]]);
  });
  return points;
}

/** The confusion matrix, and [part, whole] of each share. */
function decide(images, threshold) {
  const counts = { tn: 0, fp: 0, fn: 0, tp: 0 };
  for (const { label, score } of images) counts[["tn", "fp", "fn", "tp"][2 * label + (score > threshold)]] += 1;
  const { tn, fp, fn, tp } = counts;
  return { counts, precision: [tp, tp + fp], recall: [tp, tp + fn], falseAlarms: [fp, fp + tn] };
}

const ratio = ([part, whole]) => (whole ? part / whole : null);

// -- elements: attributes and text only, never markup, so that no file name can smuggle any in -----------------

const builder = (create) => (tag, attributes, ...children) => {
  const element = create(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const html = builder((tag) => document.createElement(tag));
const svg = builder((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
const text = (words, attributes) => svg("text", { "text-anchor": "middle", ...attributes }, words);

function button(words, react, attributes = {}) {
  const element = html("button", { type: "button", ...attributes }, words);
  element.addEventListener("click", react);
  return element;
}

function mark(label, x, y) {
  const shape = label ? svg("path", { d: "M0-6L6 0L0 6L-6 0Z" }) : svg("circle", { r: 4.5 });
  return svg("g", { class: `mark ${KINDS[label]}`, transform: `translate(${x} ${y})` }, shape);
}

// -- parts: each an element, and what it shows at a threshold -----------------------------------------------------

function scorePicture(model, { images, threshold: ofRun }, axis) {
  let [width, current, places, marks] = [0, ofRun, [], []];
  const element = svg("svg", { class: "scores", role: "img", "aria-label": `Scores of ${images.length} test images.` });
  const [label, ring] = [text("", { y: 12 }), svg("circle", { class: "ring", r: 10 })];
  const handle = svg("rect", { class: "handle", x: -HANDLE / 2, width: HANDLE, height: AXIS });
  const grip = svg("rect", { class: "grip", x: -5, y: 18, width: 10, height: 18, rx: 4 });
  const line = svg("g", { class: "line" }, svg("path", { d: `M0 22V${AXIS}` }), grip, label, handle);
  const x = (score) => MARGIN + axis.position(score) * (width - 2 * MARGIN);

  // Drawn anew for each width, so that its text keeps its size on a small screen.
  function resize(available) {
    width = available;
    element.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    // Multiples of the golden ratio scatter the marks of a row evenly, and each time alike.
    places = images.map(({ label, score }, i) => [x(score), ROWS[label] + (((i * 0.618034) % 1) - 0.5) * 40]);
    marks = images.map(({ label }, i) => mark(label, ...places[i]));
    const numbers = ticks(axis, width / 50).flatMap((tick) => [
      svg("path", { d: `M${x(tick)} ${AXIS}v5` }),
      text(format(tick), { x: x(tick), y: AXIS + 18 }),
    ]);
    const title = text(`anomaly score${axis.isLog ? " (logarithmic)" : ""}`, { x: width / 2, y: AXIS + 36 });
    const lines = [svg("path", { d: `M0 ${AXIS}H${width}` }), svg("path", { class: "dotted", d: `M${x(ofRun)} 30V${AXIS}` })];
    element.replaceChildren(...lines, ...numbers, title, ...marks, ring, line);
  }

  function update(threshold) {
    current = threshold;
    line.setAttribute("transform", `translate(${x(threshold)} 0)`);
    label.setAttribute("text-anchor", x(threshold) < 70 ? "start" : x(threshold) > width - 70 ? "end" : "middle");
    label.textContent = `threshold ${format(threshold)}`;
    images.forEach(({ label, score }, i) => marks[i].classList.toggle("wrong", score > threshold !== (label === 1)));
    ring.setAttribute("transform", `translate(${places[model.get("selected")].join(" ")})`);
  }

  // Dragging keeps the distance between pointer and line. A press that does not move is a tap on the mark below the handle.
  let [pressed, isDragged] = [null, false];
  const at = (event) => {
    const box = element.getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * HEIGHT) / box.height];
  };
  element.addEventListener("pointerdown", (event) => {
    isDragged = false;
    if (event.target !== handle || event.button !== 0 || !event.isPrimary) return;
    handle.setPointerCapture(event.pointerId);
    pressed = { x: at(event)[0], offset: x(current) - at(event)[0] };
  });
  element.addEventListener("pointermove", (event) => {
    if (!pressed || !event.isPrimary) return;
    isDragged ||= Math.abs(at(event)[0] - pressed.x) > 3;
    if (isDragged) model.send("threshold", axis.score((at(event)[0] + pressed.offset - MARGIN) / (width - 2 * MARGIN)));
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(end, () => (pressed = null));
  element.addEventListener("click", (event) => {
    const [left, top] = at(event);
    const distances = places.map((place) => Math.hypot(place[0] - left, place[1] - top));
    const nearest = distances.indexOf(Math.min(...distances));
    if (!isDragged && distances[nearest] < REACH) model.send("selected", nearest);
  });
  return { element, update, resize };
}

function control(model, { images, threshold: ofRun }, axis) {
  const range = html("input", { type: "range", min: 0, max: 1000, step: 1 });
  range.addEventListener("input", () => model.send("threshold", axis.score(range.value / 1000)));
  // Arrow keys go from decision to decision: a step of fixed size is too small here and too large there.
  range.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    model.send("threshold", axis.step(model.get("threshold"), by));
  });
  const keys = [0, 1].map((label) => svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, mark(label, 0, 0)));
  const seen = model.get("pictures") === null ? "score" : "image"; // a page may have none
  const hint = html("span", { class: "hint" }, `Drag the line; choose a mark to see its ${seen}.`);
  const legend = html("p", {}, keys[0], " normal ", keys[1], " anomalous; hollow: decided wrongly. ", hint);
  const reset = button(`back to ${format(ofRun)}, the run’s own`, () => model.send("threshold", ofRun));
  const element = html("div", { class: "control" }, html("label", {}, "threshold ", range), legend, reset);
  function update(threshold) {
    const { fp, fn } = decide(images, threshold).counts;
    range.value = Math.round(axis.position(threshold) * 1000);
    range.setAttribute("aria-valuetext", `${format(threshold)}: ${fp} false alarms, ${fn} missed defects`);
  }
  return { element, update };
}

function rocPicture({ images, auroc }) {
  const curve = rocCurve(images);
  const [x, y] = [(rate) => 40 + 200 * rate, (rate) => 210 - 200 * rate];
  const point = svg("circle", { class: "point", r: 6 });
  const element = svg("svg", { class: "roc", viewBox: "0 0 252 252", role: "img" }, svg("path", { d: "M40 10V210H240" }));
  for (const rate of [0, 0.5, 1]) {
    element.append(text(rate, { x: x(rate), y: 226 }), text(rate, { x: 34, y: y(rate) + 4, "text-anchor": "end" }));
  }
  element.append(text("false-alarm rate", { x: 140, y: 246 }), text("recall", { transform: "translate(12 110) rotate(-90)" }));
  element.append(svg("path", { class: "dotted", d: "M40 210L240 10" }));
  element.append(text(`AUROC ${share(auroc)}`, { x: 236, y: 202, "text-anchor": "end" }));
  if (curve) element.append(svg("path", { class: "curve", d: `M${curve.map(([fpr, tpr]) => `${x(fpr)} ${y(tpr)}`).join("L")}` }), point);
  else element.append(text("no curve: one kind of image only", { x: 140, y: 60 }));
  function update(threshold) {
    const { recall, falseAlarms } = decide(images, threshold);
    const [fpr, tpr] = [ratio(falseAlarms), ratio(recall)];
    point.setAttribute("transform", `translate(${x(fpr)} ${y(tpr)})`);
    element.setAttribute("aria-label", `ROC curve, AUROC ${share(auroc)}: recall ${share(tpr)}, false-alarm rate ${share(fpr)}.`);
  }
  return { element, update };
}

function decisions({ images }) {
  const cells = Object.fromEntries(["tn", "fp", "fn", "tp"].map((name) => [name, html("td", { "data-count": name })]));
  const row = (kind, ...counts) => html("tr", {}, html("th", { scope: "row" }, kind), ...counts);
  const head = html("tr", {}, html("td", {}), ...KINDS.map((kind) => html("th", { scope: "col" }, `called ${kind}`)));
  const body = html("tbody", {}, row(KINDS[0], cells.tn, cells.fp), row(KINDS[1], cells.fn, cells.tp));
  const measures = ["precision", "recall", "false-alarm rate"].map((name) => html("dd", { "data-measure": name }));
  const list = html("dl", {}, ...measures.map((cell) => html("div", {}, html("dt", {}, cell.dataset.measure), cell)));
  function update(threshold) {
    const { counts, precision, recall, falseAlarms } = decide(images, threshold);
    for (const [name, count] of Object.entries(counts)) cells[name].textContent = count;
    [precision, recall, falseAlarms].forEach(([part, whole], i) => {
      measures[i].dataset.value = ratio([part, whole]) ?? "";
      measures[i].textContent = whole ? `${share(part / whole)} (${part} of ${whole} ${["alarms", "defects", "normal"][i]})` : "–";
    });
  }
  return { element: html("div", {}, html("table", {}, html("thead", {}, head), body), list), update };
}

function imageViewer(model, { images }) {
  const order = images.map((_, i) => i).sort((a, b) => images[a].score - images[b].score || a - b);
  const options = order.map((i) => html("option", { value: i }, `${images[i].name} (${format(images[i].score)})`));
  const choice = html("select", {}, ...options);
  choice.addEventListener("change", () => model.send("selected", Number(choice.value)));
  const go = (by) => () => model.send("selected", order[order.indexOf(model.get("selected")) + by] ?? model.get("selected"));
  const lower = button("‹", go(-1), { "aria-label": "image with the next lower score" });
  const higher = button("›", go(1), { "aria-label": "image with the next higher score" });
  const picker = html("div", { class: "picker" }, lower, html("label", {}, "image, by score ", choice), higher);
  // The class tells the theme of the book that a photograph needs no white frame in the dark.
  const [picture, caption] = [html("img", { class: "dark-light" }), html("p", {})];
  const viewer = html("div", { "aria-live": "polite" }, caption);
  function update(threshold) {
    const index = model.get("selected");
    const { name, label, score } = images[index];
    const late = model.get("picture"); // the kernel's answer, perhaps still that of the image before
    const url = model.get("pictures")?.[index] ?? (late?.index === index ? late.url : "");
    choice.value = index;
    if (url && !picture.parentNode) viewer.prepend(picture);
    if (!url) picture.remove(); // without an address it is a broken one
    if (url && picture.getAttribute("src") !== url) picture.src = url;
    picture.alt = `${name}: ${KINDS[label]}, score ${format(score)}, called ${KINDS[Number(score > threshold)]}`;
    const said = `${picture.alt}.${url ? " First the image, then its heatmap; a line marks the border of a known defect." : ""}`;
    if (caption.textContent !== said) caption.textContent = said; // else a screen reader would say it again
  }
  return { element: html("div", { class: "wide" }, picker, viewer), update };
}

// -- the explorer ----------------------------------------------------------------------------------------------

function render({ model: shared, el }) {
  const data = shared.get("data");
  const send = (name, value) => (shared.set(name, value), shared.save_changes());
  const model = { get: (name) => shared.get(name), send };
  const axis = makeAxis(data.images.map((image) => image.score), data.threshold);
  const scores = scorePicture(model, data, axis);
  const parts = [scores, control(model, data, axis), rocPicture(data), decisions(data), imageViewer(model, data)];
  const show = (threshold) => {
    el.dataset.threshold = threshold;
    for (const part of parts) part.update(threshold);
  };
  const update = () => show(shared.get("threshold"));
  let width = 0;
  const draw = (available, threshold) => (scores.resize(available), show(threshold));
  const resize = () => {
    const available = el.clientWidth || width || PAPER; // 0 where a notebook shows it later
    if (available !== width) draw((width = available), shared.get("threshold"));
  };
  const print = () => draw(PAPER, data.threshold); // nothing can be dragged there: the run's own decisions
  const printed = () => draw(width, shared.get("threshold"));

  el.classList.add("texad-explorer");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Threshold explorer");
  el.replaceChildren(html("div", { class: "parts" }, ...parts.map((part) => part.element)));
  resize();
  const events = ["change:threshold", "change:selected", "change:picture"];
  for (const event of events) shared.on(event, update);
  const observer = new ResizeObserver(resize);
  observer.observe(el);
  window.addEventListener("beforeprint", print);
  window.addEventListener("afterprint", printed);
  return () => {
    for (const event of events) shared.off(event, update);
    observer.disconnect();
    window.removeEventListener("beforeprint", print);
    window.removeEventListener("afterprint", printed);
  };
}

/** What a page has in place of the kernel's model. */
class PageModel extends EventTarget {
  constructor(state) {
    super();
    this.state = state;
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    this.state[name] = value;
    this.dispatchEvent(new Event(`change:${name}`));
  }
  on(event, react) {
    this.addEventListener(event, react);
  }
  off(event, react) {
    this.removeEventListener(event, react);
  }
  save_changes() {}
}

export default { render };
