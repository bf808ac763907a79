"use strict";
// Tables of scores, one for each protocol.

function percent(gain) {
  const value = 100 * gain;
  return `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)} %`;
}

/** Returns the columns of a table: head, text or elements of a cell, and the value that rows are sorted by. */
function columnsOf(table) {
  const balanced = new Set(table.rows.map((row) => row.balancing)).size > 1;
  const text = (head, of) => ({ head, cell: of, value: of });
  const labels = (row) => element("span", { class: "runs" }, row.runs.map(runLabel));
  const columns = [
    { head: "run", cell: labels, value: (row) => row.runs[0] },
    text("checkpoint", (row) => `${row.checkpoint} (step ${[...new Set(row.steps)].join(", ")})`),
  ];
  for (const { task, metric, higher_is_better: higher } of table.columns) {
    const scores = (row) => (row.scores[task] && row.scores[task].metric === metric ? row.scores[task] : null);
    const direction = higher ? "higher is better" : "lower is better";
    columns.push({ head: `${task} ${metric} ${higher ? "↑" : "↓"}`, title: direction, ...spreadColumn(scores, higher, (v) => fixed(v, 4)) });
  }
  const gains = spreadColumn((row) => row.delta_m, true, (v) => percent(v), (v) => (100 * v).toFixed(2));
  columns.push({ head: "Δm", title: "multi-task performance: mean relative gain over single-task models", ...gains });
  columns.push(text("model", (row) => row.model), text("backbone", (row) => row.backbone));
  if (balanced) columns.push(text("balancing", (row) => row.balancing));
  if (table.rows.some((row) => row.settings)) columns.push(text("settings", (row) => row.settings));
  const amount = (head, of, show) => ({ head, number: true, cell: (row) => show(of(row)), value: of });
  columns.push(amount("parameters", (row) => row.parameters, (n) => `${(n / 1e6).toFixed(2)} M`));
  columns.push(amount("multiply-adds", (row) => row.multiply_adds, (n) => `${(n / 1e9).toFixed(1)} G`));
  columns.push(amount("seeds", (row) => row.seeds.length, String));
  return columns;
}

/** A column with mean ± standard deviation over the seeds; the best mean is bold. */
function spreadColumn(of, higher, show, showSpread = show) {
  const cell = (row) => {
    const found = of(row);
    if (found === null) return undefinedText;
    const spread = found.std === null ? null : element("span", { class: "spread" }, ` ± ${showSpread(found.std)}`);
    const each = `${found.values.length} seed(s): ${found.values.map((v) => (v === null ? undefinedText : show(v))).join(", ")}`;
    return element("span", { title: each }, found.mean === null ? "undefined" : show(found.mean), spread);
  };
  return { number: true, cell, higher, value: (row) => (of(row) === null ? null : of(row).mean) };
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b));
}

function fillTable(body, table, columns, order) {
  const rows = [...table.rows];
  if (order) {
    const { column, sign } = order;
    const known = rows.filter((row) => column.value(row) !== null);
    const unknown = rows.filter((row) => column.value(row) === null);
    known.sort((a, b) => sign * compare(column.value(a), column.value(b)));
    rows.splice(0, rows.length, ...known, ...unknown);
  }
  const best = new Map();
  for (const column of columns.filter((each) => each.higher !== undefined)) {
    const values = rows.map(column.value).filter((value) => value !== null);
    if (values.length > 1) best.set(column, column.higher ? Math.max(...values) : Math.min(...values));
  }
  body.replaceChildren(
    ...rows.map((row) => {
      const shown = row.runs.some((run) => !hiddenRuns.has(run));
      const cells = columns.map((column) => {
        const isBest = best.has(column) && column.value(row) === best.get(column);
        const names = [column.number ? "number" : "", isBest ? "best" : ""].join(" ").trim();
        return element("td", { class: names || null }, column.cell(row));
      });
      return element("tr", { hidden: !shown }, cells);
    }),
  );
}

function addTable(place, table) {
  const columns = columnsOf(table);
  const body = element("tbody");
  let order = null;
  const fill = () => fillTable(body, table, columns, order);
  const sort = (column) => {
    const first = column.higher === true ? -1 : 1;
    order = { column, sign: order && order.column === column ? -order.sign : first };
    fill();
  };
  const heads = columns.map((column) => {
    const button = element("button", { type: "button", title: column.title || "sort", onclick: () => sort(column) }, column.head);
    return element("th", { class: column.number ? "number" : null, scope: "col" }, button);
  });
  const head = element("thead", {}, element("tr", {}, heads));
  place.append(element("h3", {}, `Validation images of ${table.data}`));
  place.append(element("p", { class: "note" }, `Protocol: ${table.protocol}.`));
  place.append(element("div", { class: "scroll" }, element("table", { class: "scores" }, head, body)));
  runListeners.push(fill);
  fill();
}

function addTables(place) {
  place.append(
    element(
      "p",
      { class: "note" },
      "Numbers in one table have the same protocol; numbers of different tables are not comparable. Several seeds of one " +
        "experiment share a row: mean ± standard deviation. Bold: best of the column. A click on a column's name sorts.",
    ),
  );
  for (const table of data.tables) addTable(place, table);
  place.append(
    element(
      "p",
      { class: "note" },
      "Δm is the mean relative gain over the single-task runs of this report that have the same backbone and protocol, " +
        "at their best checkpoints. " +
        `${undefinedText} means that this report has no such run for one of the tasks.`,
    ),
  );
}
