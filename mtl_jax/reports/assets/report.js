"use strict";
// Puts the page together.

function addRuns(place) {
  const buttons = data.runs.map(({ name, description, workdir }, run) =>
    element(
      "button",
      { class: "run", type: "button", title: `${description}\n${workdir}`, onclick: () => showRun(run, hiddenRuns.has(run)) },
      swatch(runColor(run)),
      name,
    ),
  );
  const update = () => buttons.forEach((button, run) => button.setAttribute("aria-pressed", String(!hiddenRuns.has(run))));
  place.append(element("span", {}, "Show:"), ...buttons);
  runListeners.push(update);
  update();
}

function fillSection(name, items, add, nothing) {
  const section = document.getElementById(name);
  if (!items.length) section.append(element("p", { class: "note" }, nothing));
  for (const item of items) add(section, item);
}

function fillPage() {
  const title = data.runs.length === 1 ? `Report on the run ${data.runs[0].name}` : `Report on ${data.runs.length} runs`;
  document.title = title;
  document.getElementById("title").textContent = title;
  addRuns(document.getElementById("runs"));
  addTables(document.getElementById("tables"));
  if (data.charts.length) addCurves(document.getElementById("charts"));
  else document.getElementById("charts").append(element("p", { class: "note" }, "The runs have no logs."));
  fillSection("classes", data.classes, addClasses, "No task of these runs has classes.");
  fillSection("galleries", data.galleries, addGallery, "The report was made without images.");
  document.getElementById("footer").textContent = `Made by mtl_jax ${data.version}. The page loads nothing from a network.`;
}

fillPage();
