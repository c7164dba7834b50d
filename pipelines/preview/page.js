"use strict";
// Everything that comes from the device is set as text, never as markup.

const POLL_MS = 1000;
const TIMEOUT_MS = 5000;
const MOST_STREAMS = 4; // a browser opens six connections to one server: the others are for the numbers and single images
const REOPEN_MS = 3000; // a stream that the server does not know of after so long is opened again
const OLD_IMAGE_S = 3;
const STATES = {
  connecting: "connecting",
  live: "live",
  stale: "no images",
  reconnecting: "reconnecting",
  failed: "failed",
  ended: "ended",
};
const UNITS = { c: "°C", w: "W", mhz: "MHz", s: "s", ms: "ms", mb: "MB", bytes: "bytes", percent: "%", fps: "fps" };

const pageId = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const cards = new Map();
const byElement = new WeakMap();
let instance = "";
let watching = []; // the cameras whose streams reach this page, says the server
let requests = 0;
let lostSince = null;
let timer = 0;
let polling = false;

function byId(id) {
  return document.getElementById(id);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Replaces the children when `shown` changed since the last time: selections and scroll positions stay otherwise. */
function fill(element, shown, build) {
  const text = JSON.stringify(shown);
  if (element.dataset.shown === text) return;
  element.dataset.shown = text;
  element.replaceChildren(...build(shown));
}

function fillPairs(list, pairs) {
  fill(list, pairs, (rows) =>
    rows.map(([name, value, title]) => {
      const row = make("div");
      if (title) row.title = title;
      row.dataset.name = name;
      row.append(make("dt", "", name), make("dd", "", value));
      return row;
    }),
  );
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function fixed(value) {
  return value === null ? "–" : value.toFixed(1);
}

function milliseconds(ms) {
  return ms !== null && ms >= 10 ? `${Math.round(ms)} ms` : `${fixed(ms)} ms`;
}

function plain(name) {
  return name.replaceAll("_", " ");
}

// --- one camera ---

function makeCard(source) {
  const card = { key: source.key, visible: false, mode: "none", openedAt: 0 };
  card.root = make("article", "camera");
  card.root.dataset.source = source.name;
  card.root.setAttribute("aria-label", source.name);
  card.frame = make("div", "frame");
  card.image = make("img");
  card.image.alt = `Live image of ${source.name}`;
  card.veil = make("p", "veil");
  card.frame.append(card.image, card.veil);
  const about = make("div", "about");
  const title = make("h2");
  card.badge = make("span", "badge");
  card.badge.setAttribute("role", "status");
  title.append(make("span", "", source.name), card.badge);
  card.trouble = make("p", "trouble");
  card.numbers = make("dl");
  card.counts = make("dl");
  card.countsTitle = make("h3", "", "Counts");
  card.drops = make("dl");
  card.dropsTitle = make("h3", "", "Frames dropped");
  about.append(title, card.trouble, card.numbers, card.countsTitle, card.counts, card.dropsTitle, card.drops);
  card.root.append(card.frame, about);
  byElement.set(card.root, card);
  seen.observe(card.root);
  document.dispatchEvent(new CustomEvent("camera", { detail: card }));
  return card;
}

function removeCard(card) {
  document.dispatchEvent(new CustomEvent("camera-removed", { detail: card }));
  seen.unobserve(card.root);
  stopImage(card);
  card.root.remove();
  cards.delete(card.key);
}

function showSource(card, source, streamsFull) {
  const state = STATES[source.state] || source.state;
  const away = source.state !== "live";
  card.hasImage = source.image_age_s !== null;
  card.root.dataset.state = source.state;
  card.root.classList.toggle("away", away);
  card.badge.dataset.state = source.state;
  setText(card.badge, state);
  if (source.size_wh[0]) card.frame.style.aspectRatio = `${source.size_wh[0]} / ${source.size_wh[1]}`;
  setText(card.veil, veilText(card, source, state, streamsFull));
  showTrouble(card, source, away);
  const numbers = [
    ["frames per second", fixed(source.fps)],
    ["age of results", milliseconds(source.age_ms)],
    ["size", source.size_wh[0] ? `${source.size_wh[0]} × ${source.size_wh[1]}` : "–"],
    ["frames", String(source.frames)],
  ];
  if (source.reconnects) numbers.push(["reconnects", String(source.reconnects)]);
  fillPairs(card.numbers, numbers);
  showCounters(card.countsTitle, card.counts, source.counts);
  showCounters(card.dropsTitle, card.drops, source.dropped);
}

function veilText(card, source, state, streamsFull) {
  const age = source.image_age_s;
  if (age === null) return source.state === "live" ? "waiting for the first image" : state;
  if (source.state !== "live") return `${state} · last image ${duration(age)} ago`;
  if (age > OLD_IMAGE_S) return `last image ${duration(age)} ago`;
  return streamsFull && card.mode === "stream" && !card.streaming ? "too many watchers, trying again" : "";
}

function showTrouble(card, source, away) {
  const shown = away && (source.error || source.hint) ? [source.code, source.error, source.hint] : [];
  card.trouble.hidden = !shown.length;
  fill(card.trouble, shown, ([code, error, hint]) => [
    make("strong", "", code ? `${code}: ` : ""),
    make("span", "", error || ""),
    make("span", "hint", hint ? ` ${hint}` : ""),
  ]);
}

function showCounters(title, list, counters) {
  const pairs = Object.entries(counters).map(([name, count]) => [plain(name), String(count)]);
  title.hidden = list.hidden = !pairs.length;
  fillPairs(list, pairs);
}

// --- images ---

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) byElement.get(entry.target).visible = entry.isIntersecting;
  showImages();
}, { rootMargin: "100px" });

/** Live streams for the cameras in view, single images for those beyond the limit, nothing for the rest. */
function showImages() {
  let streams = 0;
  for (const card of cards.values()) {
    card.streaming = watching.includes(card.key);
    if (!card.visible || !card.hasImage || document.hidden) stopImage(card);
    else if (streams++ < MOST_STREAMS) openStream(card);
    else showSingle(card);
  }
}

function openStream(card) {
  const young = performance.now() - card.openedAt < REOPEN_MS;
  if (card.mode === "stream" && (card.streaming || young)) return;
  card.mode = "stream";
  card.openedAt = performance.now();
  card.image.src = `stream/${card.key}?page=${pageId}&n=${++requests}`;
}

function showSingle(card) {
  if (card.mode === "single" && !card.image.complete) return;
  card.mode = "single";
  card.image.src = `image/${card.key}?n=${++requests}`;
}

function stopImage(card) {
  if (card.mode === "none") return;
  card.mode = "none";
  card.image.removeAttribute("src");
}

// --- the rest of the page ---

function showStatus(status) {
  if (instance !== status.instance) cards.forEach(stopImage);
  instance = status.instance;
  document.title = status.title;
  setText(byId("title"), status.title);
  setText(byId("summary"), summary(status));
  const keys = new Set(status.sources.map((source) => source.key));
  for (const card of [...cards.values()]) if (!keys.has(card.key)) removeCard(card);
  for (const source of status.sources) {
    if (!cards.has(source.key)) {
      const card = makeCard(source);
      cards.set(source.key, card);
      byId("cameras").append(card.root);
    }
    showSource(cards.get(source.key), source, status.streams_full);
  }
  watching = status.watching;
  showImages();
  fillPairs(byId("stages"), Object.entries(status.stage_p50_ms).map(([name, ms]) => [name, milliseconds(ms)]));
  showGauges(status.gauges);
  showSinks(status.sinks);
  showEvents(status.events);
  if (byId("views").hidden === status.has_history) {
    byId("views").hidden = !status.has_history;
    showView();
  }
}

function summary(status) {
  const parts = [status.model, `${fixed(status.fps)} fps`, `${status.frames} frames`];
  parts.push(`age ${milliseconds(status.age_p50_ms)}, 99 % below ${milliseconds(status.age_p99_ms)}`, `up ${duration(status.elapsed_s)}`);
  if (!status.running) parts.push("not running");
  return parts.filter(Boolean).join(" · ");
}

function showGauges(gauges) {
  byId("gauges-box").hidden = !gauges.length;
  fillPairs(byId("gauges"), gauges.map(({ name, help, value }) => {
    const words = name.split("_");
    const unit = words.length > 1 ? UNITS[words[words.length - 1]] : undefined;
    const number = Number.isInteger(value) ? String(value) : fixed(value);
    return [plain(unit ? words.slice(0, -1).join("_") : name), unit ? `${number} ${unit}` : number, help];
  }));
}

function showSinks(sinks) {
  fill(byId("sinks"), sinks, (rows) => rows.map((sink) => {
    const row = make("li");
    const numbers = `${sink.emitted} results taken, ${sink.failed} failed, ${sink.dropped} dropped`;
    row.append(make("div", "", sink.name), make("div", "small", numbers));
    if (sink.error) row.append(make("div", "alarm", sink.error));
    return row;
  }));
}

function showEvents(events) {
  const none = [make("li", "small", "None yet.")];
  fill(byId("events"), events, (rows) => rows.length ? rows.map((event) => {
    const row = make("li");
    const time = make("time", "small", new Date(event.time_ms).toLocaleTimeString());
    row.append(time, " ", make("span", event.priority === "alarm" ? "alarm" : "", event.kind));
    row.append(make("div", "small", [event.source, event.details].filter(Boolean).join(" · ")));
    return row;
  }) : none);
}

// --- the views: that of the events is loaded when it is first opened ---

function showView() {
  const isEvents = location.hash === "#events" && !byId("views").hidden;
  byId("live").hidden = isEvents;
  byId("history").hidden = !isEvents;
  for (const link of byId("views").children) {
    if (link.hash === (isEvents ? "#events" : "#live")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (isEvents && !byId("events-script")) {
    document.head.append(Object.assign(make("link"), { rel: "stylesheet", href: "events.css" }));
    document.head.append(Object.assign(make("script"), { id: "events-script", src: "events.js" }));
  }
  document.dispatchEvent(new CustomEvent("viewchange"));
}

addEventListener("hashchange", showView);

// --- the connection ---

/** The status, or null when there is none: then the page says why. */
async function ask() {
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(`api/status?page=${pageId}`, { cache: "no-store", signal: abort.signal });
    if (response.status === 401) location.replace("login");
    else return await response.json();
  } catch (error) {
    lostSince = lostSince || new Date();
    showProblem(`No connection to the device since ${lostSince.toLocaleTimeString()}. Trying again …`);
  } finally {
    clearTimeout(limit);
  }
  return null;
}

function showProblem(text) {
  setText(byId("banner"), text);
  byId("banner").hidden = false;
  document.body.classList.add("lost");
}

function showAnswer(status) {
  lostSince = null;
  if (status.problem !== undefined) {
    showProblem(`The pipeline cannot be asked: ${status.problem}`);
    return;
  }
  byId("banner").hidden = true;
  document.body.classList.remove("lost");
  showStatus(status);
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  try {
    const status = await ask();
    if (status !== null) showAnswer(status);
  } catch (error) {
    showProblem(`This page cannot show what the device says: ${error}`);
    throw error;
  } finally {
    polling = false;
    if (!document.hidden) timer = setTimeout(poll, POLL_MS);
  }
}

// A phone in a pocket, a tab in the back: no streams and no questions.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) cards.forEach(stopImage);
  else poll();
});

poll();
