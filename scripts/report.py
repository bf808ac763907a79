"""Turns evaluated runs into one table.

    python scripts/report.py runs
    python scripts/report.py runs/a runs/b --json report.json --plots plots

Looks for work directories with a results.json (and a results_latest.json: scripts/evaluate.py --step latest). Runs that
differ by their seed only share a line, mean ± standard deviation. The multi-task performance refers to the single-task
runs found. Plots (pip install -e ".[plots]"): training curves and, where there are classes, the IoU of each.
"""

import json
from pathlib import Path

from absl import flags

from mtl_jax import cli, report

_JSON = flags.DEFINE_string("json", None, "file that receives the numbers")
_MARKDOWN = flags.DEFINE_string("markdown", None, "file that receives the tables")
_PLOTS = flags.DEFINE_string("plots", None, "folder that receives training curves and IoU of classes")


def main(*directories: str) -> None:
    runs = report.find_runs(directories)
    tables = report.tabulate(runs)
    text = report.markdown(tables)
    print(text)
    if _MARKDOWN.value:
        Path(_MARKDOWN.value).write_text(text + "\n", encoding="utf-8")
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(report.as_dict(tables), indent=1) + "\n", encoding="utf-8")
    if _PLOTS.value:
        from mtl_jax import plots

        plots.draw(runs, Path(_PLOTS.value))


if __name__ == "__main__":
    cli.run(main, "directories...")
