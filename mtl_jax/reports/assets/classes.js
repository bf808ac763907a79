"use strict";
// The IoU of each class as bars.

const classOrders = [
  ["data", "as in the data set"],
  ["best", "best first"],
  ["worst", "worst first"],
];

function orderedClasses(group, shown, order) {
  const numbers = group.names.map((_, number) => number);
  if (order === "data") return numbers;
  const mean = (number) => shown.reduce((sum, bar) => sum + (bar.values[number] ?? 0), 0);
  const sign = order === "best" ? -1 : 1;
  return numbers.sort((a, b) => sign * (mean(a) - mean(b)));
}

function classBar({ run, values, step }, number) {
  const value = values[number] ?? null;
  const fill = element("div", { class: "fill" });
  fill.style.width = `${100 * (value ?? 0)}%`;
  fill.style.background = runColor(run);
  const title = `${data.runs[run].name}, best checkpoint, step ${step}: ${fixed(value, 4)}`;
  return element("div", { class: "bar", title }, element("div", { class: "track" }, fill), element("span", { class: "value" }, fixed(value, 3)));
}

function addClasses(place, group) {
  let order = "data";
  const box = element("div", { class: "bars" });
  const fill = () => {
    const shown = group.bars.filter((bar) => !hiddenRuns.has(bar.run));
    box.replaceChildren(
      ...orderedClasses(group, shown, order).map((number) => {
        const name = element("div", { class: "name" }, group.names[number]);
        return element("div", { class: "row" }, name, element("div", {}, shown.map((bar) => classBar(bar, number))));
      }),
    );
  };
  const setOrder = (value) => {
    order = value;
    fill();
  };
  place.append(element("h3", {}, `IoU of the classes of ${group.task}, ${group.data}`));
  const protocols = [...new Set(group.bars.map((bar) => bar.protocol))].join("; ");
  place.append(element("p", { class: "note" }, `Best checkpoints, validation images. Protocol: ${protocols}. A class that occurs neither in a label nor in a prediction counts as 0.`));
  place.append(element("div", { class: "controls" }, select("Order:", classOrders, setOrder)));
  place.append(box);
  runListeners.push(fill);
  fill();
}
