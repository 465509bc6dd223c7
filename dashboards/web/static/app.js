// Every page: the plant's clock, running times, the live feed, the theme. Nothing here computes a figure.
import { follow, refresh } from "./feed.js";
import { filters, zooms } from "./choose.js";
import { showTips } from "./tips.js";

const page = document.body.dataset;
const zone = page.zone;
const wallFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone });
const secondsFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: zone });
const STALE_SECS = 12;
const OLD_SECS = { data: 30, status: 120 }; // after which an age stands out
const BUSY_AFTER_SECS = 0.6;

// The server's clock is the plant's: a tablet with a wrong clock must not show wrong ages.
let serverEpoch = Number(page.generated);
let heardAt = performance.now();
const now = () => serverEpoch + (performance.now() - heardAt) / 1000;
let lastHeard = performance.now();

function stopwatch(secs) {
  const whole = Math.max(0, Math.floor(secs));
  const days = Math.floor(whole / 86400);
  const rest = whole % 86400;
  const two = (value) => String(value).padStart(2, "0");
  const clock = `${Math.floor(rest / 3600)}:${two(Math.floor(rest / 60) % 60)}:${two(rest % 60)}`;
  return days ? `${days} d ${clock}` : clock;
}

function age(secs) {
  if (secs < 1.5) return "now";
  if (secs < 60) return `${Math.round(secs)} s ago`;
  if (secs < 3600) return `${Math.floor(secs / 60)} min ago`;
  return `${Math.floor(secs / 3600)} h ago`;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tick() {
  const moment = now();
  const silent = (performance.now() - lastHeard) / 1000;
  const live = page.feed !== "none";
  document.documentElement.classList.toggle("stale", live && silent > STALE_SECS);
  for (const node of document.querySelectorAll("[data-fresh-word]")) put(node, `updated ${age(silent)}`);
  for (const node of document.querySelectorAll("[data-wall]")) put(node, wallFormat.format(moment * 1000));
  for (const node of document.querySelectorAll("[data-since]")) put(node, stopwatch(moment - Number(node.dataset.since)));
  for (const node of document.querySelectorAll("[data-age]")) {
    const secs = moment - Number(node.dataset.age);
    const what = node.dataset.ageOf ?? "data";
    put(node, what ? `${what} ${age(secs)}` : age(secs));
    node.classList.toggle("old", secs > (OLD_SECS[what] ?? Infinity));
  }
}

const lost = document.querySelector("[data-lost]");
function showLost(retryInSecs) {
  if (!lost) return;
  if (lost.hidden) put(lost.querySelector("[data-lost-at]"), secondsFormat.format(now() * 1000 - (performance.now() - lastHeard)));
  lost.hidden = false;
  put(lost.querySelector("[data-lost-next]"), retryInSecs > 0 ? `Trying again in ${retryInSecs} s.` : "Connecting…");
}

function heard(generated) {
  lastHeard = performance.now();
  if (generated) { serverEpoch = generated; heardAt = lastHeard; }
  if (lost) lost.hidden = true;
  tick();
}

const themes = document.querySelector("[data-theme-switch]");
function theme() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen !== "auto") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
themes?.addEventListener("click", () => {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  document.querySelector("[data-dark]").media = next === "dark" ? "screen" : "not all";
  document.cookie = `theme=${next}; path=${page.base || "/"}; max-age=31536000; samesite=lax`;
});

// Pages of charts are taken anew now and then while their time still runs; the board is fed instead.
let refreshedAt = performance.now();
async function renew() {
  const refreshSecs = Number(page.refresh);
  if (!refreshSecs || document.hidden || performance.now() - refreshedAt < refreshSecs * 1000) return;
  if (document.querySelector("main :focus-visible:is(input, select, textarea), dialog[open]")) return;
  refreshedAt = performance.now();
  await refresh().catch(() => false);
  document.dispatchEvent(new Event("renewed"));
}

function span(secs) {
  const minutes = Math.floor(secs / 60);
  return minutes ? `${minutes}\u00a0min ${String(secs % 60).padStart(2, "0")}\u00a0s` : `${secs}\u00a0s`;
}

function splits() {
  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-cut]")) return;
    put(event.target.closest("label").querySelector("[data-cut-word]"), span(Number(event.target.value)));
    const form = event.target.form;
    if (form.elements.part.value === "") form.elements.part.value = "first";
  });
}

// Figures of many days take the server seconds: say so on the page that one is leaving.
function busy() {
  const box = document.querySelector("[data-busy]");
  let timer = 0;
  const stop = () => { clearInterval(timer); box.hidden = true; };
  addEventListener("beforeunload", () => {
    const began = performance.now();
    clearInterval(timer);
    timer = setInterval(() => {
      const secs = (performance.now() - began) / 1000;
      if (secs > 120) return stop();
      if (secs < BUSY_AFTER_SECS) return;
      put(box.querySelector("[data-busy-word]"), `The server is working it out… ${Math.floor(secs)}\u00a0s`);
      box.hidden = false;
    }, 200);
  });
  addEventListener("pageshow", stop);
  addEventListener("focus", stop); // a file was saved: the page stays
}

// Rows of a table whose text has a pattern in it: * stands for anything.
function patterns() {
  const sift = () => {
    for (const input of document.querySelectorAll("[data-rows]")) {
      const parts = input.value.trim().split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
      const wanted = new RegExp(parts.join(".*"), "i");
      const rows = document.getElementById(input.dataset.rows)?.tBodies[0].rows ?? [];
      for (const row of rows) row.hidden = !wanted.test(row.textContent);
    }
  };
  document.addEventListener("input", (event) => { if (event.target.matches("[data-rows]")) sift(); });
  document.addEventListener("renewed", sift);
}

// What scrolls sideways or down is reached by the keyboard, too.
function reachable() {
  for (const box of document.querySelectorAll(".scroll")) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (scrolls) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// A wall display shows one line after the other.
function cycle() {
  const box = document.querySelector("[data-cycle]");
  if (!box || box.children.length < 2) return;
  setInterval(() => {
    const lines = [...box.children];
    const next = (lines.findIndex((line) => !line.hidden) + 1) % lines.length;
    lines.forEach((line, index) => { line.hidden = index !== next; });
    document.querySelectorAll(".pager i").forEach((dot, index) => dot.classList.toggle("on", index === next));
  }, Number(box.dataset.cycle) * 1000);
}

document.documentElement.classList.add("scripted");
showTips(document.querySelector("[data-tip-box]"));
filters();
zooms(refresh);
splits();
busy();
patterns();
cycle();
reachable();
addEventListener("resize", reachable);
document.addEventListener("renewed", reachable);
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
tick();
setInterval(tick, 1000);
if (page.feed !== "none") {
  follow({ base: page.base, topic: page.feed, lost: showLost, heard: (generated) => { heard(generated); renew(); } });
}
