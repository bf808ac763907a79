"""Exports the model of a run as one file that predicts without this package.

    mtl export --workdir runs/nyud_mtinet --out nyud_mtinet.zip
    mtl export --workdir runs/nyud_mtinet --out nyud_mtinet.onnx --format onnx
    mtl export --workdir runs/nyud_mtinet --out nyud_mtinet.zip --batch_size 8 --platforms cuda

docs/export.md says what is in the file, and examples/ has a script that reads each format.
"""

import argparse

from mtl_jax import cli, experiment
from mtl_jax.config import EMA, WEIGHTS
from mtl_jax.inference import export


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", required=True, help="directory of a training run")
    parser.add_step()
    parser.add_weights()
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, which must not exist")
    parser.add_argument(
        "--format",
        default="jax",
        metavar="NAME",
        help=f'format of the file: {_formats()}; jax by default. onnx needs the extra "onnx"',
    )
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
        metavar="A,B,...",
        help=f"platforms that a file of the format jax runs on, of {_platforms('jax')}; by default cpu,cuda. A file of "
        "the format onnx runs on all",
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="TEXT",
        help="terms under which the file is passed on, for its description",
    )


def _formats() -> str:
    return ", ".join(f"{name} ({each.suffix})" for name, each in export.FORMATS.items())


def _platforms(format: str) -> str:
    return ", ".join(export.FORMATS[format].platforms)


def run(arguments: argparse.Namespace) -> None:
    description = export.export_run(
        experiment.load_config(arguments.workdir),
        arguments.workdir,
        arguments.step,
        arguments.out,
        weights=arguments.weights,
        format=arguments.format,
        batch_size=arguments.batch_size,
        platforms=arguments.platforms,
        license=arguments.license,
    )
    named = ", ".join(description["outputs"])
    platforms = " and ".join(description.get("platforms", ["all platforms"]))
    averaged = f", {WEIGHTS[EMA]}" if description["weights"] == EMA else ""
    cli.show(f"{arguments.out}: step {description['step']}{averaged}, {named}, for {platforms}")
