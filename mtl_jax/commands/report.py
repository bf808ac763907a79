"""Turns evaluated runs into one table.

    mtl report runs
    mtl report runs/a runs/b --json report.json --plots plots
    mtl report runs --html report.html

Looks below the given directories for work directories with results.json, or results_latest.json and
results_PROTOCOL.json, which `mtl evaluate` writes with --step latest and --protocol PROTOCOL. Runs that differ only in
their seed share a line with mean ± standard deviation. The multi-task performance is relative to the single-task runs
below the same directories. --plots draws training curves and the IoU of each class; it needs the extra "plots".

--html writes everything into one page, which opens in a browser from the disk: tables, curves, the IoU of each class,
and images with prediction, truth and error, for which the best checkpoints predict a part of the validation images.
"""

import argparse
from pathlib import Path

from mtl_jax import cli
from mtl_jax.reports import page, run_table
from mtl_jax.runtime import atomic_files

_PAGE = page.Options()
# {option: the options with one of which it has an effect}
_NEEDS = {"gallery": ("html",), "gallery_scored": ("html",)}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("directories", nargs="+", metavar="DIRECTORY", help="folder with work directories below it")
    parser.add_argument("--json", metavar="FILE", help="file that receives the numbers")
    parser.add_argument("--markdown", metavar="FILE", help="file that receives the tables")
    parser.add_argument("--plots", metavar="DIR", help="folder that receives training curves and the IoU of each class")
    parser.add_argument("--html", metavar="FILE", help="file that receives a page with tables, curves and images")
    parser.add_argument(
        "--gallery",
        type=cli.at_least(0),
        metavar="N",
        help=f"with --html: images of each experiment in the page, {_PAGE.gallery} by default; 0 = none, which takes "
        "seconds",
    )
    parser.add_argument(
        "--gallery_scored",
        type=cli.at_least(0),
        metavar="N",
        help="with --html: validation images that are scored to find the worst and the best, "
        f"{_PAGE.scored} by default, evenly spaced over the split; 0 = all",
    )
    parser.refuse_ineffective(needs=_NEEDS)


def run(arguments: argparse.Namespace) -> None:
    if arguments.gallery == 0 and arguments.gallery_scored is not None:
        raise ValueError(
            "--gallery_scored has no effect with --gallery 0, which leaves the images out; omit one of them"
        )
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
    if arguments.html:
        cli.enable_compilation_cache()
        given = {"gallery": arguments.gallery, "scored": arguments.gallery_scored}
        options = page.Options(**{name: value for name, value in given.items() if value is not None})
        cli.show(f"the page is in {page.write(runs, arguments.html, options)}")
