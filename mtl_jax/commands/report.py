"""Turns evaluated runs into one table.

    mtl report runs
    mtl report runs/a runs/b --json report.json --plots plots

Looks below the given directories for work directories with results.json, or results_latest.json and
results_PROTOCOL.json, which `mtl evaluate` writes with --step latest and --protocol PROTOCOL. Runs that differ only in
their seed share a line with mean ± standard deviation. The multi-task performance is relative to the single-task runs
below the same directories. --plots draws training curves and the IoU of each class; it needs the extra "plots".
"""

import argparse
from pathlib import Path

from mtl_jax import cli
from mtl_jax.reports import run_table
from mtl_jax.runtime import atomic_files


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("directories", nargs="+", metavar="DIRECTORY", help="folder with work directories below it")
    parser.add_argument("--json", metavar="FILE", help="file that receives the numbers")
    parser.add_argument("--markdown", metavar="FILE", help="file that receives the tables")
    parser.add_argument("--plots", metavar="DIR", help="folder that receives training curves and the IoU of each class")


def run(arguments: argparse.Namespace) -> None:
    runs = run_table.find_runs(arguments.directories)
    tables = run_table.tabulate(runs)
    text = run_table.markdown(tables)
    cli.show(text)
    if arguments.markdown:
        atomic_files.write(Path(arguments.markdown), text + "\n")
    if arguments.json:
        atomic_files.write_json(Path(arguments.json), run_table.as_dict(tables))
    if arguments.plots:
        from mtl_jax.reports import plots

        plots.draw(runs, Path(arguments.plots))
