"use strict";
// Curves over the steps of training.

const chartHeight = 220;
const groups = [
  ["losses", "Losses", "losses"],
  ["scores", "Scores while training", "scores"],
  ["progress", "Other quantities", "other quantities"],
];
let logarithmic = false;
const drawnCharts = [];

function chartData(chart) {
  const usable = (value) => (logarithmic && !(value > 0) ? null : value);
  return uPlot.join(chart.curves.map(({ steps, values }) => [steps, values.map(usable)]));
}

function chartOptions(chart, width) {
  const style = getComputedStyle(document.documentElement);
  const axis = { stroke: style.getPropertyValue("--quiet"), grid: { stroke: style.getPropertyValue("--line"), width: 1 } };
  const show = (_, value) => short(value);
  return {
    width,
    height: chartHeight,
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    axes: [
      { ...axis, label: "step", labelSize: 18, size: 34 },
      { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
    ],
    cursor: { points: { size: 7 } },
    series: [
      { label: "step", value: (_, step) => (step === null ? undefinedText : String(step)) },
      ...chart.curves.map(({ run, steps }) => ({
        label: data.runs[run].name,
        stroke: runColor(run),
        dash: runDash(run),
        width: 1.6,
        spanGaps: true,
        points: { show: steps.length < 30 },
        show: !hiddenRuns.has(run),
        value: show,
      })),
    ],
    hooks: {
      setSeries: [
        (_, index, change) => {
          if (index > 0 && change.show !== undefined) showRun(chart.curves[index - 1].run, change.show);
        },
      ],
    },
  };
}

/** Draws a chart into a box, and again when the box gets another width. */
function drawChart(box, chart) {
  const drawn = { chart, plot: null };
  drawn.redraw = () => {
    if (drawn.plot) drawn.plot.destroy();
    drawn.plot = new uPlot(chartOptions(chart, box.clientWidth), chartData(chart), box);
  };
  new ResizeObserver(() => {
    const width = box.clientWidth;
    if (drawn.plot && width > 0 && width !== drawn.plot.width) drawn.plot.setSize({ width, height: chartHeight });
  }).observe(box);
  drawn.redraw();
  drawnCharts.push(drawn);
}

function addCharts(place, charts, sharedConditions) {
  const grid = place.appendChild(element("div", { class: "charts" }));
  for (const chart of charts) {
    const note = sharedConditions ? null : element("p", { class: "note" }, chart.conditions);
    const box = element("div", { class: "plot" });
    grid.append(element("div", { class: "chart" }, element("h4", {}, chart.name), note, box));
    drawChart(box, chart);
  }
}

function addGroup(place, [group, title, plural]) {
  const charts = data.charts.filter((chart) => chart.group === group);
  if (!charts.length) return;
  place.append(element("h3", {}, title));
  const shared = new Set(charts.map((chart) => chart.conditions)).size === 1;
  if (shared) place.append(element("p", { class: "note" }, `From ${charts[0].conditions}.`));
  const main = charts.filter((chart) => chart.decides);
  const rest = charts.filter((chart) => !chart.decides);
  addCharts(place, main, shared);
  if (!rest.length) return;
  const more = place.appendChild(element("details", {}, element("summary", {}, `${rest.length} ${main.length ? "more " : ""}${plural}`)));
  more.addEventListener("toggle", () => addCharts(more, rest, shared), { once: true }); // drawn when they can be seen
}

function addCurves(place) {
  const box = element("input", { type: "checkbox", id: "logarithmic" });
  box.onchange = () => {
    logarithmic = box.checked;
    for (const drawn of drawnCharts) drawn.redraw();
  };
  const controls = element("div", { class: "controls" }, element("label", {}, box, " logarithmic vertical axis"));
  controls.append(element("span", { class: "note" }, "Drag over a chart to zoom in, double-click to see all of it. The numbers under a chart follow the pointer."));
  place.append(controls);
  for (const group of groups) addGroup(place, group);
  runListeners.push(() => {
    for (const { chart, plot } of drawnCharts) {
      chart.curves.forEach(({ run }, i) => {
        const shown = !hiddenRuns.has(run);
        if (plot.series[i + 1].show !== shown) plot.setSeries(i + 1, { show: shown });
      });
    }
  });
}
