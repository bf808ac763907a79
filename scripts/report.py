"""Turns evaluated runs into one table.

    python scripts/report.py runs
    python scripts/report.py runs/a runs/b --json report.json --plots plots

Looks for work directories with a results.json (and results_latest.json, results_PROTOCOL.json: scripts/evaluate.py
--step latest, --protocol PROTOCOL). Runs that differ by their seed only share a line, mean ± standard deviation. The
multi-task performance refers to the single-task runs found. Plots (pip install -e ".[plots]"): training curves and,
where there are classes, the IoU of each.
"""

from pathlib import Path

from absl import flags

from mtl_jax import cli, comparison, whole

_JSON = flags.DEFINE_string("json", None, "file that receives the numbers")
_MARKDOWN = flags.DEFINE_string("markdown", None, "file that receives the tables")
_PLOTS = flags.DEFINE_string("plots", None, "folder that receives training curves and IoU of classes")


def main(*directories: str) -> None:
    runs = comparison.find_runs(directories)
    tables = comparison.tabulate(runs)
    text = comparison.markdown(tables)
    print(text)
    if _MARKDOWN.value:
        whole.write(Path(_MARKDOWN.value), text + "\n")
    if _JSON.value:
        whole.write_json(Path(_JSON.value), comparison.as_dict(tables))
    if _PLOTS.value:
        from mtl_jax import plots

        plots.draw(runs, Path(_PLOTS.value))


if __name__ == "__main__":
    cli.run(main, "directories...")
