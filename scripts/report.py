"""Turns evaluated runs into one table.

    python scripts/report.py runs
    python scripts/report.py runs/a runs/b --json report.json --plots plots

Looks below the given directories for work directories with results.json, or results_latest.json and
results_PROTOCOL.json, which scripts/evaluate.py writes with --step latest and --protocol PROTOCOL. Runs that differ
only in their seed share a line with mean ± standard deviation. The multi-task performance is relative to the
single-task runs below the same directories. --plots draws training curves and the IoU of each class (pip install -e
".[plots]").
"""

from pathlib import Path

from absl import flags

from mtl_jax import cli
from mtl_jax.reports import run_table
from mtl_jax.runtime import atomic_files

_JSON = flags.DEFINE_string("json", None, "file that receives the numbers")
_MARKDOWN = flags.DEFINE_string("markdown", None, "file that receives the tables")
_PLOTS = flags.DEFINE_string("plots", None, "folder that receives training curves and the IoU of each class")


def main(*directories: str) -> None:
    runs = run_table.find_runs(directories)
    tables = run_table.tabulate(runs)
    text = run_table.markdown(tables)
    cli.show(text)
    if _MARKDOWN.value:
        atomic_files.write(Path(_MARKDOWN.value), text + "\n")
    if _JSON.value:
        atomic_files.write_json(Path(_JSON.value), run_table.as_dict(tables))
    if _PLOTS.value:
        from mtl_jax.reports import plots

        plots.draw(runs, Path(_PLOTS.value))


if __name__ == "__main__":
    cli.run(main, "directories...")
