"""Exports the model of a run as one file that predicts without this package.

mtl export --workdir runs/nyud_mtinet --out nyud_mtinet.zip
mtl export --workdir runs/nyud_mtinet --out nyud_mtinet.zip --batch_size 8 --platforms cuda
"""

import argparse

from mtl_jax import cli, experiment
from mtl_jax.inference import export


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", required=True, help="directory of a training run")
    parser.add_argument("--step", default="best", help="checkpoint: best (the default), latest or a step number")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, which must not exist")
    parser.add_argument(
        "--batch_size",
        type=cli.at_least(0),
        default=0,
        metavar="N",
        help="images in a call of the program; 0 = any number",
    )
    parser.add_argument(
        "--platforms",
        type=cli.names,
        default=("cpu", "cuda"),
        metavar="A,B,...",
        help=f"platforms that the program runs on, of {', '.join(export.PLATFORMS)}; by default cpu,cuda",
    )


def run(arguments: argparse.Namespace) -> None:
    description = export.export_run(
        experiment.load_config(arguments.workdir),
        arguments.workdir,
        arguments.step,
        arguments.out,
        batch_size=arguments.batch_size,
        platforms=arguments.platforms,
    )
    named = ", ".join(description["outputs"])
    cli.show(f"{arguments.out}: step {description['step']}, {named}, for {' and '.join(description['platforms'])}")
