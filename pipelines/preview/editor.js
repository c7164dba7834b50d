"use strict";
// Draws lines and zones over the live image of a camera. Everything that comes from the device is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const NEAR = 14; // screen pixels: a finger is not exact
const WAYS = ["in", "out"];
const HINTS = {
  idle: "Drag a corner, a line or a zone. Small dots make new corners. Delete removes what is chosen. "
    + "Keys: the arrows move what is chosen, C goes on to its next corner.",
  line: "Press where the line begins, and let go where it ends; or click both places.",
  zone: "Click the corners, one after the other. Click the first one again, or Done, to end.",
};

// Where a shape begins that is made without a pointer, in parts of the image.
const STARTS = { line: [[0.5, 0.25], [0.5, 0.75]], zone: [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]] };

let open = null; // the one editor that is open

document.addEventListener("camera", (event) => {
  const card = event.detail;
  const button = textButton("Lines and zones", () => (open && open.card === card ? open.close() : openEditor(card)));
  button.classList.add("edit-shapes");
  button.setAttribute("aria-label", `Lines and zones of ${card.root.dataset.source}`);
  card.root.querySelector(".about").prepend(button);
});

document.addEventListener("camera-removed", (event) => {
  if (open && open.card === event.detail) open.end();
});

function textButton(text, action) {
  const button = make("button", "", text);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

function drawn(tag, attributes, className) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (className) element.setAttribute("class", className);
  return element;
}

async function openEditor(card) {
  if (open && !open.close()) return;
  const editor = new Editor(card);
  open = editor;
  await editor.load();
}

class Editor {
  constructor(card) {
    this.card = card;
    this.camera = card.root.dataset.source;
    this.mode = "idle";
    this.shapes = [];
    this.shape = null;
    this.corner = null;
    this.changed = false;
    this.answer = { can_save: false, reason: "", labels: [], names: [], file: "app.toml", version: "" };
    this.svg = drawn("svg", { tabindex: "0", role: "application", "aria-label": `Lines and zones of ${this.camera}` }, "shapes");
    for (const kind of ["down", "move", "up", "cancel"]) {
      this.svg.addEventListener(`pointer${kind}`, (event) => this[kind](event));
    }
    this.keys = (event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    card.frame.append(this.svg);
    this.panel = make("section", "editor");
    this.panel.setAttribute("aria-label", `Editor of ${this.camera}`);
    card.frame.after(this.panel);
    card.root.classList.add("editing");
    this.build();
  }

  build() {
    const tools = make("div", "tools");
    this.done = textButton("Done", () => this.finish());
    tools.append(
      textButton("New line", (event) => this.begin("line", event)), textButton("New zone", (event) => this.begin("zone", event)), this.done,
      textButton("Close", () => this.close()),
    );
    this.hint = make("p", "small");
    this.list = make("div", "tools");
    this.form = make("div", "fields");
    this.toml = make("pre");
    this.message = make("p", "message");
    this.message.setAttribute("role", "status");
    const end = make("div", "tools");
    this.save = textButton("Save", () => this.store());
    this.save.classList.add("main");
    this.anew = textButton("Load anew", () => this.load());
    end.append(this.save, textButton("Copy TOML", () => this.copy()), this.anew);
    this.panel.append(tools, this.hint, this.list, this.form, this.toml, this.message, end);
    this.anew.hidden = true;
  }

  /** Closes; false where unsaved changes are to be kept. */
  close() {
    if (this.changed && !confirm("Drop the changes that are not saved?")) return false;
    this.end();
    return true;
  }

  end() {
    document.removeEventListener("keydown", this.keys);
    this.svg.remove();
    this.panel.remove();
    this.card.root.classList.remove("editing");
    open = null;
  }

  // --- what the device says ---

  async load() {
    const answer = await this.ask({});
    if (answer) this.take(answer);
  }

  async ask(options) {
    try {
      const response = await fetch("api/shapes", { cache: "no-store", ...options });
      if (response.status === 401) location.replace("login");
      const type = response.headers.get("content-type") || "";
      const answer = type.includes("json") ? await response.json() : { error: await response.text() };
      if (response.ok) return answer;
      this.say([answer.error, answer.hint].filter(Boolean).join(" "), true);
      this.anew.hidden = response.status !== 409;
    } catch (error) {
      this.say("No connection to the device. Nothing was saved.", true);
    }
    return null;
  }

  take(answer) {
    this.answer = answer;
    const source = answer.sources.find((one) => one.name === this.camera);
    this.size = source ? source.size_wh : [this.card.image.naturalWidth || 1920, this.card.image.naturalHeight || 1080];
    this.svg.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    this.shapes = answer.shapes.map((shape) => ({
      ...shape, was: shape.name, touched: false,
      px: shape.points.map((point) => (shape.units === "relative" ? point.map((part, axis) => part * this.size[axis]) : [...point])),
    }));
    this.changed = false;
    this.anew.hidden = true;
    this.mode = "idle";
    this.drag = null;
    this.choose(null);
    this.say(answer.can_save ? "" : answer.reason, false);
  }

  async store() {
    const shapes = this.shapes.map(sent(this.size));
    const body = JSON.stringify({ version: this.answer.version, shapes });
    this.save.disabled = true;
    this.say("", false);
    const answer = await this.ask({ method: "PUT", headers: { "Content-Type": "application/json" }, body });
    this.save.disabled = false;
    if (!answer) return;
    this.take(answer);
    this.say(`Saved in ${answer.file}, and at work since ${new Date().toLocaleTimeString()}.`, false);
  }

  say(text, isProblem) {
    setText(this.message, text);
    this.message.classList.toggle("alarm", isProblem);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.toml.textContent);
      this.say("Copied.", false);
    } catch (error) { // not over plain http from another machine
      getSelection().selectAllChildren(this.toml);
      this.say("Selected: copy it with Ctrl+C.", false);
    }
  }

  // --- drawing ---

  begin(kind, event) {
    const names = new Set([...this.answer.names, ...this.shapes.map((shape) => shape.name)]);
    let number = 1;
    while (names.has(`${kind}${number}`)) number += 1;
    this.choose({ kind, name: `${kind}${number}`, was: "", px: [], classes: [], sources: [], units: "relative", points: [],
      touched: true, ...(kind === "line" ? { directions: [...WAYS] } : {}) });
    if (event.detail) this.mode = kind;
    else { // no pointer: the arrow keys move what stands there at once
      this.shape.px = STARTS[kind].map((point) => point.map((part, axis) => part * this.size[axis]));
      this.shapes.push(this.shape);
      this.changed = true;
    }
    this.show();
    this.svg.focus({ preventScroll: true });
  }

  finish() {
    if (this.shape.px.length < (this.mode === "line" ? 2 : 3)) return this.abandon();
    this.mode = "idle";
    this.shapes.push(this.shape);
    this.touch();
  }

  abandon() {
    this.mode = "idle";
    this.choose(null);
  }

  at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [point.x, point.y].map((part, axis) => Math.min(Math.max(part, 0), this.size[axis]));
  }

  /** How many image pixels one pixel of the screen is. */
  scale() {
    return this.svg.getScreenCTM() ? 1 / this.svg.getScreenCTM().a : 1;
  }

  isNear(one, other) {
    return Math.hypot(one[0] - other[0], one[1] - other[1]) <= NEAR * this.scale();
  }

  down(event) {
    if (event.button) return;
    event.preventDefault();
    this.svg.focus({ preventScroll: true });
    this.svg.setPointerCapture(event.pointerId);
    const here = this.at(event);
    if (this.mode !== "idle") return this.place(here);
    const { shape, corner, middle } = event.target.dataset;
    if (corner !== undefined) this.corner = Number(corner);
    else if (middle !== undefined) {
      this.corner = Number(middle) + 1;
      this.shape.px.splice(this.corner, 0, here);
      this.touch();
    } else {
      this.corner = null;
      this.choose(shape === undefined ? null : this.shapes[Number(shape)]);
      if (!this.shape) return;
    }
    this.drag = { last: here, corner: this.corner };
    this.show();
  }

  place(here) {
    const { px } = this.shape;
    if (this.mode === "zone" && px.length > 2 && this.isNear(px[0], here)) return this.finish();
    px.push(here);
    this.drag = { last: here, corner: px.length - 1, from: here };
    if (this.mode === "line" && px.length === 2) this.drag.ends = true;
    this.show();
  }

  move(event) {
    if (!this.drag) return;
    const here = this.at(event);
    if (this.mode === "line" && this.shape.px.length === 1 && !this.isNear(this.drag.from, here)) {
      this.shape.px.push(here);
      this.drag = { last: here, corner: 1, ends: true };
    }
    if (this.drag.corner === null) this.shift(here);
    else if (this.mode !== "line" || this.drag.ends) this.shape.px[this.drag.corner] = here;
    this.drag.last = here;
    if (this.mode === "idle") this.touch();
    else this.show();
  }

  /** Moves the whole shape, as far as it stays in the image. */
  shift(here) {
    for (const axis of [0, 1]) {
      const parts = this.shape.px.map((point) => point[axis]);
      const by = Math.min(Math.max(here[axis] - this.drag.last[axis], -Math.min(...parts)), this.size[axis] - Math.max(...parts));
      for (const point of this.shape.px) point[axis] += by;
    }
  }

  up() {
    const ends = this.drag && this.drag.ends;
    this.drag = null;
    if (this.mode === "line" && ends) this.finish();
  }

  cancel() {
    this.drag = null;
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const isFree = event.target === document.body; // nothing has the focus
    if (byId("live").hidden || !(isFree || this.card.root.contains(event.target))) return;
    if (event.key === "Escape") this.escape();
    else if (!(isFree || event.target === this.svg) || event.ctrlKey || event.metaKey || event.altKey) return; // a field or a button has it
    else if (event.key === "Enter" && this.mode === "zone") this.finish();
    else if (event.key === "Delete" || event.key === "Backspace") this.remove();
    else if (step && this.mode === "idle" && this.shape) this.nudge(step, event.shiftKey ? 10 : 1);
    else if (event.key === "c" && this.mode === "idle" && this.shape) this.nextCorner();
    else return;
    event.preventDefault();
  }

  nextCorner() {
    const next = this.corner === null ? 0 : this.corner + 1;
    this.corner = next < this.shape.px.length ? next : null;
    this.show();
  }

  escape() {
    if (this.mode !== "idle") this.abandon();
    else if (this.shape) this.choose(null);
    else if (!this.changed) this.close();
  }

  nudge(step, by) {
    const moved = this.corner === null ? this.shape.px : [this.shape.px[this.corner]];
    for (const point of moved) for (const axis of [0, 1]) point[axis] = Math.min(Math.max(point[axis] + step[axis] * by, 0), this.size[axis]);
    this.touch();
  }

  /** Removes the chosen corner of a zone, else the chosen shape. */
  remove() {
    if (this.mode !== "idle") return this.abandon();
    if (!this.shape) return undefined;
    if (this.corner !== null && this.shape.px.length > 3) {
      this.shape.px.splice(this.corner, 1);
      this.corner = null;
      return this.touch();
    }
    this.shapes.splice(this.shapes.indexOf(this.shape), 1);
    this.changed = true;
    return this.choose(null);
  }

  choose(shape) {
    this.shape = shape;
    this.corner = null;
    this.fields();
    this.show();
  }

  touch() {
    this.shape.touched = true;
    this.changed = true;
    this.show();
  }

  /** Another name, class, camera or direction: the points stay as they were written. */
  set(changes) {
    Object.assign(this.shape, changes);
    this.changed = true;
    this.show();
  }

  // --- what is shown ---

  show() {
    const here = (shape) => !shape.sources.length || shape.sources.includes(this.camera);
    const drawing = this.mode !== "idle" && this.shape ? [this.shape] : [];
    this.svg.replaceChildren(...[...this.shapes.filter(here), ...drawing].map((shape) => this.figure(shape)));
    this.svg.classList.toggle("drawing", this.mode !== "idle");
    setText(this.hint, HINTS[this.mode]);
    this.done.hidden = this.mode !== "zone";
    this.save.hidden = !this.answer.can_save;
    this.save.disabled = !this.changed || this.mode !== "idle";
    this.list.replaceChildren(...this.shapes.map((shape) => {
      const button = textButton(`${shape.kind} ${shape.name}`, () => {
        this.choose(shape);
        this.svg.focus({ preventScroll: true }); // this button is made anew; the keys are for the shape now
      });
      button.setAttribute("aria-pressed", String(shape === this.shape));
      return button;
    }));
    setText(this.toml, this.shapes.map(toml(this.size)).join("\n"));
    this.toml.hidden = !this.shapes.length;
  }

  figure(shape) {
    const group = drawn("g", {}, `${shape.kind}${shape === this.shape ? " chosen" : ""}${crosses(shape) ? " bad" : ""}`);
    const at = String(this.shapes.indexOf(shape));
    const points = shape.px.map((point) => point.join(",")).join(" ");
    const tag = shape.kind === "zone" && shape.px.length > 2 && this.shapes.includes(shape) ? "polygon" : "polyline";
    const scale = this.scale();
    for (const part of ["edge", "grip"]) {
      const border = drawn(tag, { points }, part);
      if (this.mode === "idle") border.dataset.shape = at;
      group.append(border);
    }
    if (shape.kind === "line" && shape.px.length === 2) group.append(...this.arrow(shape, scale));
    if (shape.px.length) group.append(label(shape.name, shape.px[0], scale));
    if (shape === this.shape) group.append(...this.handles(shape, scale));
    return group;
  }

  /** Points to the side that the first direction leads to: the right one for who walks from start to end. */
  arrow(shape, scale) {
    const [[x1, y1], [x2, y2]] = shape.px;
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [across, along] = [[-(y2 - y1) / length, (x2 - x1) / length], [(x2 - x1) / length, (y2 - y1) / length]];
    const middle = [(x1 + x2) / 2, (y1 + y2) / 2];
    const point = (far, aside) => middle.map((part, axis) => part + scale * (far * across[axis] + aside * along[axis]));
    const tip = [point(30, 0), point(20, -6), point(20, 6)].map((one) => one.join(",")).join(" ");
    const [start, end] = [point(0, 0), point(22, 0)];
    return [
      drawn("line", { x1: start[0], y1: start[1], x2: end[0], y2: end[1] }, "edge"),
      drawn("polygon", { points: tip }, "tip"),
      label(shape.directions[0], point(46, 0), scale, "middle"),
    ];
  }

  handles(shape, scale) {
    const middles = shape.kind === "zone" && this.mode === "idle" ? shape.px.map((point, at) => {
      const next = shape.px[(at + 1) % shape.px.length];
      const dot = drawn("circle", { cx: (point[0] + next[0]) / 2, cy: (point[1] + next[1]) / 2, r: 5 * scale }, "middle");
      dot.dataset.middle = String(at);
      return dot;
    }) : [];
    const corners = shape.px.map(([cx, cy], at) => {
      const dot = drawn("circle", { cx, cy, r: 9 * scale }, at === this.corner ? "corner chosen" : "corner");
      if (this.mode === "idle") dot.dataset.corner = String(at);
      return dot;
    });
    return [...middles, ...corners];
  }

  fields() {
    const { shape } = this;
    if (!shape) return this.form.replaceChildren();
    const rows = [this.text("Name", shape.name, (name) => this.set({ name })), this.cameras(shape)];
    if (shape.kind === "line") {
      rows.push(...shape.directions.map((way, side) => this.text(side ? "Other way" : "Along the arrow", way, (value) => {
        this.set({ directions: shape.directions.map((one, at) => (at === side ? value : one)) });
      })));
    }
    const tools = make("div", "tools");
    if (shape.kind === "line") tools.append(textButton("Turn round", () => { shape.px.reverse(); this.touch(); }));
    tools.append(textButton("Remove", () => { this.corner = null; this.remove(); }));
    return this.form.replaceChildren(...rows, this.classes(shape), tools);
  }

  text(title, value, change) {
    const row = make("label", "", title);
    const input = make("input");
    input.value = value;
    input.maxLength = 64;
    input.autocapitalize = "off";
    input.spellcheck = false;
    input.addEventListener("input", () => {
      const fits = NAME.test(input.value);
      input.setAttribute("aria-invalid", String(!fits));
      this.say(fits ? "" : `${title}: letters, digits, _ and -, 64 at most.`, !fits);
      change(input.value);
    });
    row.append(input);
    return row;
  }

  cameras(shape) {
    const row = make("label", "", "Cameras");
    const select = make("select");
    const choices = [["all cameras", []], [`${this.camera} alone`, [this.camera]]];
    const isOther = shape.sources.length && !(shape.sources.length === 1 && shape.sources[0] === this.camera);
    if (isOther) choices.push([shape.sources.join(", "), shape.sources]);
    choices.forEach(([text], at) => { const option = make("option", "", text); option.value = String(at); select.append(option); });
    select.value = isOther ? "2" : String(shape.sources.length);
    select.addEventListener("change", () => this.set({ sources: choices[Number(select.value)][1] }));
    row.append(select);
    return row;
  }

  classes(shape) {
    const box = make("details");
    const title = make("summary");
    const tell = () => setText(title, `Classes: ${shape.classes.length ? shape.classes.join(", ") : "all"}`);
    tell();
    const labels = [...new Set([...this.answer.labels, ...shape.classes])];
    const rows = labels.map((name) => {
      const row = make("label");
      const check = make("input");
      check.type = "checkbox";
      check.checked = shape.classes.includes(name);
      check.addEventListener("change", () => {
        const others = shape.classes.filter((one) => one !== name);
        this.set({ classes: check.checked ? [...others, name] : others });
        tell();
      });
      row.append(check, ` ${name}`);
      return row;
    });
    const list = make("div", "classes");
    list.append(...rows);
    box.append(title, list);
    return box;
  }
}

function label(text, [x, y], scale, anchor = "start") {
  const element = drawn("text", { x: x + (anchor === "start" ? 10 * scale : 0), y: y - (anchor === "start" ? 10 * scale : 0), "font-size": 15 * scale, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

/** A shape that was moved becomes relative, so that it fits any size of the image; another one stays as it was written. */
function written(shape, size) {
  if (!shape.touched) return { points: shape.points, units: shape.units };
  return { points: shape.px.map((point) => point.map((part, axis) => Math.round((part / size[axis]) * 1e4) / 1e4)), units: "relative" };
}

function sent(size) {
  return (shape) => ({
    kind: shape.kind, was: shape.was, name: shape.name, classes: shape.classes, sources: shape.sources,
    ...written(shape, size), ...(shape.kind === "line" ? { directions: shape.directions } : {}),
  });
}

/** What JSON escapes, TOML reads; it also wants DEL to be escaped. */
function quoted(value) {
  return JSON.stringify(value).replaceAll("\u007f", "\\u007f");
}

function toml(size) {
  return (shape) => {
    const { points, units } = written(shape, size);
    const lines = ["[[steps]]", `type = ${quoted(shape.kind)}`, `name = ${quoted(shape.name)}`];
    lines.push(`points = [${points.map((point) => `[${point.join(", ")}]`).join(", ")}]`, `units = ${quoted(units)}`);
    for (const name of ["classes", "sources"]) if (shape[name].length) lines.push(`${name} = [${shape[name].map(quoted).join(", ")}]`);
    if (shape.directions && shape.directions.join() !== WAYS.join()) lines.push(`directions = [${shape.directions.map(quoted).join(", ")}]`);
    return `${lines.join("\n")}\n`;
  };
}

/** Whether the border of a zone crosses itself; the device looks more closely. */
function crosses({ kind, px }) {
  const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
  const meet = (a, b, c, d) => turn(a, b, c) * turn(a, b, d) < 0 && turn(c, d, a) * turn(c, d, b) < 0;
  const edges = px.map((point, at) => [point, px[(at + 1) % px.length]]);
  return kind === "zone" && edges.some((one, at) => edges.slice(at + 1).some((other) => meet(...one, ...other)));
}
