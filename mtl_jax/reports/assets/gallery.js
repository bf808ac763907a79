"use strict";
// Images with prediction, truth and error of each task.

const imageOrders = [
  ["worst", "worst first"],
  ["best", "best first"],
];

function picture(number, text) {
  return element("img", { src: pictures[number], alt: text });
}

function cell(number, caption, absent) {
  const shown = number === null ? element("div", { class: "absent" }, absent) : picture(number, caption);
  return element("figure", {}, shown, element("figcaption", {}, caption));
}

/** The prediction, over which a slider draws the truth from the left. */
function wipe(task) {
  if (task.truth === null) return cell(task.prediction, "prediction", "");
  const truth = picture(task.truth, "truth");
  const line = element("div", { class: "edge-line" });
  const slider = element("input", { type: "range", min: 0, max: 100, value: 0, "aria-label": `truth over the prediction of ${task.task}` });
  const move = () => {
    truth.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
    line.hidden = slider.value === "0";
  };
  slider.oninput = move;
  move();
  const stack = element("div", { class: "stack" }, picture(task.prediction, "prediction"), truth, line);
  return element("figure", { class: "wipe" }, stack, slider, element("figcaption", {}, "prediction; the slider lays the truth over it"));
}

/** What colours mean: an element for each form of key that the Python module key_data makes. */
const keyForms = {
  swatches({ entries, more }) {
    const shown = entries.map(({ name, color, picture: number }) => {
      const square = number === null ? swatch(color) : element("img", { class: "swatch", src: pictures[number], alt: "" });
      return element("span", {}, square, name);
    });
    return [...shown, more ? element("span", {}, `and ${more} more`) : null];
  },
  bar({ stops, low, high, unit, title, clipped }) {
    const scale = element("span", { class: "scale" });
    scale.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const end = [high, unit, clipped ? "or more" : ""].filter(Boolean).join(" ");
    return [element("span", {}, title ? `${title}: ` : "", low, scale, end)];
  },
  ball({ picture: number, title, lines }) {
    return [element("img", { class: "ball", src: pictures[number], alt: title }), element("span", {}, [title, ...lines].join("; "))];
  },
  note({ text }) {
    return [element("span", {}, text)];
  },
};

function legend(key) {
  return element("div", { class: "legend" }, keyForms[key.form](key));
}

function taskRow(image, task, score) {
  const cells = [
    cell(image.image, "image", ""),
    wipe(task),
    cell(task.truth, "truth", "no label"),
    cell(task.error, task.error_text ? `error: ${task.error_text}` : "error", "no error map"),
  ];
  const value = `${score.metric} ${fixed(task.score, 4)} ${score.higher_is_better ? "↑" : "↓"}`;
  const title = element("div", { class: "title" }, element("b", {}, task.task), `: ${value}`);
  const errorKey = task.error_key ? legend(task.error_key) : null;
  if (errorKey) errorKey.prepend(element("b", {}, "Error:"));
  return element("div", { class: "task" }, title, element("div", { class: "cells" }, cells), legend(task.key), errorKey);
}

function card(gallery, image) {
  const rows = image.tasks.map((task) => taskRow(image, task, gallery.scores.find((score) => score.task === task.task)));
  return element("article", { class: "card" }, element("header", {}, element("h4", {}, `Image ${image.id}`)), rows);
}

function sortedImages(gallery, { task, order }) {
  const { higher_is_better: higher } = gallery.scores.find((score) => score.task === task);
  const value = ({ tasks }) => tasks.find((each) => each.task === task).score;
  const sign = (order === "worst") === higher ? 1 : -1;
  const known = gallery.images.filter((image) => value(image) !== null);
  const unknown = gallery.images.filter((image) => value(image) === null);
  return [...known.sort((a, b) => sign * (value(a) - value(b))), ...unknown];
}

function describeGallery(gallery) {
  const { images, wanted, scored, total } = gallery;
  const replaced = gallery.scores.filter((score) => score.metric !== score.stands_for);
  const names = replaced.map(({ task, metric, stands_for: usual }) => ` For ${task}, ${metric} takes the place of ${usual}.`).join("");
  const fewer = images.length < Math.min(wanted, scored) ? ` ${wanted} were asked for; the rest would make the page too large.` : "";
  return (
    `Best checkpoint, step ${gallery.step}. ${images.length} images, half of them the worst and half the best, in turns by the score of each task, ` +
    `chosen from ${scored} of the ${total} images of the split ${gallery.split}.${fewer} ` +
    `Hatched pixels have no label. A score is that of the image alone, at its own size.${names} Protocol: ${gallery.protocol}.`
  );
}

function addGallery(place, gallery) {
  const box = place.appendChild(element("div", { class: "gallery" }));
  box.append(element("h3", {}, runLabel(gallery.run), ` ${data.runs[gallery.run].description}`));
  const update = () => (box.hidden = hiddenRuns.has(gallery.run));
  runListeners.push(update);
  if (gallery.problem) {
    box.append(element("p", { class: "problem" }, `There are no images of this run: ${gallery.problem}`));
    return;
  }
  box.append(element("p", { class: "note" }, describeGallery(gallery)));
  const cards = element("div");
  const known = new Map(gallery.images.map((image) => [image, card(gallery, image)]));
  const choice = { task: gallery.scores[0].task, order: "worst" };
  const fill = () => cards.replaceChildren(...sortedImages(gallery, choice).map((image) => known.get(image)));
  const choose = (name) => (value) => {
    choice[name] = value;
    fill();
  };
  const tasks = gallery.scores.map(({ task, metric }) => [task, `${task} ${metric}`]);
  box.append(element("div", { class: "controls" }, select("Sort by:", tasks, choose("task")), select("Order:", imageOrders, choose("order"))));
  box.append(cards);
  fill();
}
