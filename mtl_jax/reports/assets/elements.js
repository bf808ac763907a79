"use strict";
// Elements and numbers. Texts from files become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);

/** Returns a new element: element("p", {class: "note", onclick: f}, "text", otherElement). */
function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") created[name] = value;
    else if (value === true) created.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) created.setAttribute(name, value);
  }
  created.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return created;
}

const undefinedText = "–";

function fixed(value, digits) {
  return value === null || value === undefined ? undefinedText : value.toFixed(digits);
}

/** Formats a number with few digits, whatever its size. */
function short(value) {
  if (value === null || value === undefined) return undefinedText;
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

function select(label, options, onchange) {
  const box = element("select", {}, options.map(([value, text]) => element("option", { value }, text)));
  box.onchange = () => onchange(box.value);
  return element("label", {}, `${label} `, box);
}

// Runs: colours, and which ones are shown.

const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7a5195", "#8c8c8c"];
const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const runColor = (run) => colors[run % colors.length];
const runDash = (run) => dashes[Math.floor(run / colors.length) % dashes.length];
const hiddenRuns = new Set();
const runListeners = [];

/** Shows or hides a run everywhere on the page. */
function showRun(run, shown) {
  if (hiddenRuns.has(run) === !shown) return;
  if (shown) hiddenRuns.delete(run);
  else hiddenRuns.add(run);
  for (const listener of runListeners) listener();
}

function swatch(color) {
  const square = element("span", { class: "swatch" });
  square.style.background = color;
  return square;
}

function runLabel(run) {
  const { name, description, workdir } = data.runs[run];
  return element("span", { class: "run", title: `${description}\n${workdir}` }, swatch(runColor(run)), name);
}
