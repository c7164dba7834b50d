"use strict";
// The events view: loaded by page.js when it is first opened. Everything that comes from the device is set as text, never as markup.
(() => {
  const LIMIT_MS = 6000;
  const REFRESH_MS = 3000;
  const DAY_REFRESH_MS = 30000;
  const MOST_CHARTS = 12;
  const MOST_TIMELINES = 12;
  const SVG = "http://www.w3.org/2000/svg";
  const FILTERS = [["source", "Camera", "All cameras"], ["label", "Class", "All classes"], ["rule", "Rule", "All rules"]];

  const state = { source: "", label: "", rule: "", day: startOfDay(new Date()), to: null, pages: [], next: null, by: "sources", bins: 0 };
  const view = {};
  let asked = 0; // a late answer to an earlier question is dropped
  let askedDays = 0;
  let timer = 0;
  let dayAt = 0;

  // --- days and times: the browser's own, so that a day may have 23 or 25 hours ---

  function startOfDay(date) {
    return new Date(date.getFullYear(), date.getMonth(), date.getDate());
  }

  function dayAfter(date, days) {
    return new Date(date.getFullYear(), date.getMonth(), date.getDate() + days);
  }

  function dateText(date) {
    const pad = (number, width) => String(number).padStart(width, "0");
    return `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1, 2)}-${pad(date.getDate(), 2)}`;
  }

  function clockText(ms) {
    return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }

  /** As short as the language has it, "3 PM", so that eight of them fit below a timeline. */
  function hourText(ms) {
    return new Date(ms).getMinutes() ? clockText(ms) : new Date(ms).toLocaleTimeString([], { hour: "numeric" });
  }

  function momentText(ms) {
    const date = new Date(ms);
    const isToday = startOfDay(date).getTime() === startOfDay(new Date()).getTime();
    return isToday ? date.toLocaleTimeString() : date.toLocaleString();
  }

  // --- questions ---

  async function get(path, query) {
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), LIMIT_MS);
    try {
      const text = new URLSearchParams(query).toString();
      const response = await fetch(text ? `${path}?${text}` : path, { cache: "no-store", signal: abort.signal });
      if (response.status === 401) location.replace("login");
      const answer = await response.json();
      if (answer.problem !== undefined) throw new Error([answer.problem, answer.hint].filter(Boolean).join(" "));
      return answer;
    } finally {
      clearTimeout(limit);
    }
  }

  function wanted() {
    const query = {};
    if (state.source) query.source = state.source;
    if (state.label) query.label = state.label;
    if (state.rule.startsWith("rule:")) query.rule = state.rule.slice(5);
    if (state.rule.startsWith("kind:")) query.kind = state.rule.slice(5);
    return query;
  }

  async function guarded(action) {
    try {
      await action();
      view.problem.hidden = true;
    } catch (error) {
      setText(view.problem, error.name === "AbortError" ? "The device does not answer in time." : String(error.message || error));
      view.problem.hidden = false;
    }
  }

  // --- the frame ---

  function build() {
    view.problem = make("p", "problem");
    view.problem.setAttribute("role", "alert");
    view.problem.hidden = true;
    const side = make("div", "side");
    side.append(buildTimeline(), buildCharts());
    byId("history").append(view.problem, buildFilters(), side, buildList(), buildDialog());
  }

  function box(className, title) {
    const section = make("section", `box ${className}`);
    const heading = make("h2", "", title);
    section.setAttribute("aria-label", title);
    section.append(heading);
    return [section, heading];
  }

  function field(label, control) {
    control.setAttribute("aria-label", label);
    const element = make("label", "field");
    element.append(make("span", "small", label), control);
    return element;
  }

  function button(text, action, label) {
    const element = make("button", "", text);
    element.type = "button";
    if (label) element.setAttribute("aria-label", label);
    element.addEventListener("click", action);
    return element;
  }

  function buildFilters() {
    const form = make("form", "box filters");
    form.setAttribute("aria-label", "Filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const [name, label, all] of FILTERS) {
      const select = make("select");
      select.name = name;
      select.append(new Option(all, ""));
      select.addEventListener("change", () => {
        state[name] = select.value;
        restart();
      });
      view[name] = select;
      form.append(field(label, select));
    }
    view.date = make("input");
    view.date.type = "date";
    view.date.addEventListener("change", () => {
      const [year, month, day] = view.date.value.split("-").map(Number);
      if (year) chooseDay(new Date(year, month - 1, day));
    });
    const days = make("div", "days");
    days.append(
      button("‹", () => chooseDay(dayAfter(state.day, -1)), "Day before"),
      field("Day", view.date),
      button("›", () => chooseDay(dayAfter(state.day, 1)), "Day after"),
      button("Newest", () => chooseDay(startOfDay(new Date()))),
    );
    form.append(days);
    return form;
  }

  function buildTimeline() {
    const [section, heading] = box("timeline", "Timeline");
    view.timelineTitle = heading;
    view.by = make("select");
    view.by.append(new Option("by camera", "sources"), new Option("by rule", "rules"));
    view.by.addEventListener("change", () => {
      state.by = view.by.value;
      showTimeline();
    });
    view.rows = make("div", "rows");
    view.hours = make("div", "hours small");
    view.jump = make("input");
    view.jump.type = "range";
    view.jump.min = 0;
    view.jump.setAttribute("aria-label", "Jump to a time of the day");
    view.jump.addEventListener("input", () => view.counted && showJump(jumpMs()));
    view.jump.addEventListener("change", () => view.counted && jumpTo(jumpMs()));
    view.jumpText = make("output", "small");
    section.append(field("Show", view.by), view.rows, view.hours, view.jump, view.jumpText);
    return section;
  }

  function buildCharts() {
    const [section, heading] = box("charts", "Counts per hour");
    view.chartsTitle = heading;
    view.charts = make("div", "chart-grid");
    section.append(view.charts);
    return section;
  }

  function buildList() {
    const [section, heading] = box("list", "Events");
    view.listTitle = heading;
    view.total = make("p", "small");
    view.total.setAttribute("role", "status");
    view.list = make("ol");
    view.list.id = "history-list";
    view.newer = button("Newer", () => turn(-1));
    view.older = button("Older", () => turn(1));
    const pager = make("div", "pager");
    pager.append(view.newer, view.older);
    section.append(view.total, view.list, pager);
    return section;
  }

  function buildDialog() {
    view.dialog = make("dialog");
    view.shown = make("div", "shown");
    view.caption = make("p", "small");
    view.dialog.append(view.shown, view.caption, button("Close", () => view.dialog.close()));
    view.dialog.addEventListener("close", () => {
      for (const video of view.shown.querySelectorAll("video")) video.removeAttribute("src"), video.load();
      view.shown.replaceChildren();
    });
    return view.dialog;
  }

  // --- what is chosen ---

  function chooseDay(day) {
    state.day = day;
    const isToday = day.getTime() >= startOfDay(new Date()).getTime();
    state.to = isToday ? null : dayAfter(day, 1).getTime();
    restart();
  }

  function jumpTo(ms) {
    state.to = ms;
    state.pages = [];
    guarded(loadList);
    showTimeline();
  }

  function restart() {
    state.pages = [];
    guarded(async () => {
      await loadList();
      await loadDay();
    });
  }

  function turn(pages) {
    if (pages > 0 && state.next) state.pages.push(state.next);
    else if (pages < 0) state.pages.pop();
    guarded(async () => {
      await loadList();
      view.listTitle.scrollIntoView({ block: "nearest" });
    });
  }

  // --- the list ---

  async function loadList() {
    const number = ++asked;
    const query = wanted();
    if (state.to !== null) query.to_ms = state.to;
    if (state.pages.length) query.before = state.pages[state.pages.length - 1];
    const answer = await get("api/events", query);
    if (number !== asked) return;
    state.next = answer.next;
    if (answer.total !== null) {
      const until = state.to === null ? "" : ` before ${new Date(state.to).toLocaleString()}`;
      setText(view.total, `${answer.total.toLocaleString()} ${answer.total === 1 ? "event" : "events"}${until}`);
    }
    view.newer.disabled = !state.pages.length;
    view.older.disabled = !state.next;
    fill(view.list, answer.events, (events) => (events.length ? events.map(row) : [make("li", "small", "None.")]));
  }

  function title(event) {
    const what = event.direction || (event.rule ? event.kind.split(".").pop() : ""); // "yard · entered"
    return [event.rule || event.kind, what].filter(Boolean).join(" · ");
  }

  function row(event) {
    const item = make("li", event.priority === "alarm" ? "event alarmed" : "event");
    item.dataset.id = event.id;
    const caption = `${title(event)}, ${event.source}, ${momentText(event.time_ms)}`;
    if (event.snapshot) item.append(thumbnail(event, caption));
    const about = make("div", "about-event");
    const time = make("time", "small", momentText(event.time_ms));
    time.dateTime = new Date(event.time_ms).toISOString();
    about.append(make("strong", event.priority === "alarm" ? "alarm" : "", title(event)), " ", time);
    const object = event.tracker_id === null ? event.label : `${event.label} #${event.tracker_id}`.trim();
    about.append(make("div", "", [event.source, object].filter(Boolean).join(" · ")));
    const details = [event.rule ? event.kind : "", event.details].filter(Boolean).join(" · ");
    if (details) about.append(make("div", "small", details));
    item.append(about);
    if (event.clip) item.append(button("▶ Clip", () => open(event, "clip", caption), `Play the clip: ${caption}`));
    return item;
  }

  function thumbnail(event, caption) {
    const opener = make("button", "thumbnail");
    opener.type = "button";
    const image = make("img");
    image.loading = "lazy";
    image.alt = `Snapshot: ${caption}`;
    image.addEventListener("error", () => opener.replaceWith(make("span", "thumbnail small", "deleted")));
    image.src = `media/${event.id}/thumbnail`;
    opener.append(image);
    opener.addEventListener("click", () => open(event, "snapshot", caption));
    return opener;
  }

  function open(event, kind, caption) {
    const shown = make(kind === "clip" ? "video" : "img");
    if (kind === "clip") {
      shown.controls = shown.autoplay = shown.muted = shown.playsInline = true;
      shown.setAttribute("aria-label", caption);
    } else shown.alt = caption;
    shown.addEventListener("error", () => shown.isConnected && shown.replaceWith(make("p", "", "The file is not there any more.")));
    shown.src = `media/${event.id}/${kind}`;
    view.shown.replaceChildren(shown);
    setText(view.caption, caption);
    view.dialog.showModal();
  }

  // --- the day ---

  async function loadDay() {
    dayAt = performance.now();
    const day = state.day;
    const number = ++askedDays;
    const query = { ...wanted(), from_ms: day.getTime(), to_ms: dayAfter(day, 1).getTime() };
    const [answer, names] = [await get("api/events/day", query), await get("api/events/choices")];
    if (number !== askedDays) return;
    view.counted = answer;
    view.date.value = dateText(day);
    showChoices(names);
    showTimeline();
    showCharts();
  }

  function showChoices(names) {
    const rules = [...names.rules.map((name) => [name, `rule:${name}`]), ...names.kinds.map((kind) => [kind, `kind:${kind}`])];
    const options = { source: names.sources.map((name) => [name, name]), label: names.labels.map((name) => [name, name]), rule: rules };
    for (const [name, , all] of FILTERS) {
      fill(view[name], options[name], (pairs) => [new Option(all, ""), ...pairs.map(([text, value]) => new Option(text, value))]);
      view[name].value = state[name];
      if (view[name].selectedIndex < 0) view[name].append(new Option(state[name].replace(/^(rule|kind):/, ""), state[name], true, true));
    }
    const dates = (ms) => (ms === null ? "" : dateText(new Date(ms)));
    view.date.min = dates(names.first_ms);
  }

  function dayMs() {
    return dayAfter(state.day, 1).getTime() - state.day.getTime();
  }

  function shape(name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) {
      const tip = document.createElementNS(SVG, "title");
      tip.textContent = text;
      element.append(tip);
    }
    return element;
  }

  function showTimeline() {
    if (!view.counted) return;
    const width = view.counted.bin_s * 1000;
    state.bins = Math.ceil(dayMs() / width);
    setText(view.timelineTitle, `Timeline of ${state.day.toLocaleDateString()}`);
    const key = state.by === "sources" ? "source" : "rule";
    const rows = view.counted[state.by].map((one) => [one[key] || "–", one.cells]).slice(0, MOST_TIMELINES);
    const most = Math.max(1, ...rows.flatMap(([, cells]) => cells.map(([, count]) => count)));
    fill(view.rows, { rows, day: state.day.getTime(), most }, () =>
      rows.length ? rows.map(([name, cells]) => timelineRow(name, cells, most, width)) : [make("p", "small", "No events on this day.")]);
    const marks = Array.from({ length: Math.ceil(dayMs() / 10800000) }, (_, at) => at * 10800000);
    fill(view.hours, marks.map((ms) => [ms / dayMs(), hourText(state.day.getTime() + ms)]), (shown) =>
      shown.map(([share, text]) => {
        const mark = make("span", "", text);
        mark.style.left = `${100 * share}%`;
        return mark;
      }));
    view.jump.max = state.bins;
    const at = state.to === null ? Date.now() : state.to;
    view.jump.value = Math.max(0, Math.min(state.bins, Math.ceil((at - state.day.getTime()) / width)));
    showJump(state.to);
  }

  function timelineRow(name, cells, most, width) {
    const element = make("div", "row");
    const total = cells.reduce((sum, [, count]) => sum + count, 0);
    const bar = shape("svg", { viewBox: `0 0 ${state.bins} 10`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${total}` });
    bar.append(shape("rect", { x: 0, y: 0, width: state.bins, height: 10, class: "ground" }));
    for (const [bin, count] of cells) {
      const strength = 0.25 + 0.75 * (Math.log1p(count) / Math.log1p(most));
      const from = state.day.getTime() + bin * width;
      bar.append(shape("rect", { x: bin, y: 0, width: 1, height: 10, class: "mark", opacity: strength.toFixed(2) }, `${clockText(from)}: ${count}`));
    }
    bar.addEventListener("click", (event) => {
      const frame = bar.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - frame.left) / frame.width));
      jumpTo(state.day.getTime() + (Math.floor(share * state.bins) + 1) * width);
    });
    const label = make("div", "small row-label");
    label.append(make("span", "", name), make("span", "", String(total)));
    element.append(label, bar);
    return element;
  }

  function jumpMs() {
    return Math.min(dayAfter(state.day, 1).getTime(), state.day.getTime() + Number(view.jump.value) * view.counted.bin_s * 1000);
  }

  function showJump(ms) {
    const text = ms === null ? "the newest events" : `events before ${new Date(ms).toLocaleString([], { dateStyle: "short", timeStyle: "short" })}`;
    setText(view.jumpText, `The list shows ${text}.`);
    view.jump.setAttribute("aria-valuetext", text);
  }

  function showCharts() {
    const rules = new Map();
    for (const { rule, direction, cells } of view.counted.hours) {
      if (!rules.has(rule)) rules.set(rule, []);
      rules.get(rule).push([direction, cells]);
    }
    setText(view.chartsTitle, `Counts per hour, ${state.day.toLocaleDateString()}`);
    const shown = [...rules].slice(0, MOST_CHARTS);
    fill(view.charts, { shown, day: state.day.getTime() }, () =>
      shown.length ? shown.map(([rule, series]) => chart(rule, series)) : [make("p", "small", "No rule counted anything on this day.")]);
  }

  function chart(rule, series) {
    const hours = Math.ceil(dayMs() / 3600000);
    const sums = Array(hours).fill(0);
    for (const [, cells] of series) for (const [hour, count] of cells) sums[hour] += count;
    const most = Math.max(1, ...sums);
    const figure = make("figure");
    const says = series.map(([direction, cells]) => `${cells.reduce((sum, [, count]) => sum + count, 0)} ${direction || "events"}`).join(", ");
    const image = shape("svg", { viewBox: `0 0 ${hours} 20`, preserveAspectRatio: "none", role: "img", "aria-label": `${rule}: ${says}` });
    image.append(shape("rect", { x: 0, y: 0, width: hours, height: 20, class: "ground" }));
    const reached = Array(hours).fill(0);
    series.forEach(([direction, cells], at) => {
      for (const [hour, count] of cells) {
        const height = (20 * count) / most;
        reached[hour] += height;
        const from = clockText(state.day.getTime() + hour * 3600000);
        image.append(shape("rect", { x: hour + 0.1, y: 20 - reached[hour], width: 0.8, height, class: `series-${at % 4}` }, `${from}: ${count} ${direction}`));
      }
    });
    const caption = make("figcaption");
    caption.append(make("strong", "", rule));
    series.forEach(([direction, cells], at) => {
      const entry = make("span", "legend");
      entry.append(make("span", `swatch series-${at % 4}`), `${direction || "events"} ${cells.reduce((sum, [, count]) => sum + count, 0)}`);
      caption.append(entry);
    });
    const axis = make("div", "axis small");
    axis.append(make("span", "", clockText(state.day.getTime())), make("span", "", `most in an hour: ${most}`), make("span", "", clockText(dayAfter(state.day, 1).getTime() - 1)));
    figure.append(caption, image, axis);
    return figure;
  }

  // --- while the view is open ---

  function isOpen() {
    return !byId("history").hidden && !document.hidden;
  }

  async function refresh() {
    clearTimeout(timer);
    if (!isOpen()) return;
    const today = startOfDay(new Date());
    if (state.to === null && state.day < today) { // it was midnight
      state.day = today;
      dayAt = -DAY_REFRESH_MS;
    }
    if (state.to === null && !state.pages.length) await guarded(loadList);
    if (!view.counted || performance.now() - dayAt >= DAY_REFRESH_MS) await guarded(loadDay);
    if (isOpen()) timer = setTimeout(refresh, REFRESH_MS);
  }

  build();
  document.addEventListener("viewchange", refresh);
  document.addEventListener("visibilitychange", refresh);
  refresh();
})();
