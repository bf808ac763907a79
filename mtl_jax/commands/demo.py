"""Shows the library at work: renders rooms, trains MTI-Net on them, evaluates it and predicts.

    mtl demo
    mtl demo --quick       # a few small images, to see that everything runs

No data and no weights are downloaded. The same command continues an interrupted demo.
"""

import argparse
from pathlib import Path

from mtl_jax import cli, commands

# A few rooms of 64x64 pixels, which take two minutes where the demo takes ten; nothing is learned from so few.
_QUICK = (
    "--data.builder=rendered_scenes/nyud_tiny",
    "--data.image_size=64x64",
    "--train.epochs=2",
    "--train.batch_size=4",
)


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", default="runs/demo", help="directory of the run; runs/demo by default")
    parser.add_argument(
        "--quick", action=argparse.BooleanOptionalAction, default=False, help="train on a few small images"
    )


def run(arguments: argparse.Namespace) -> None:
    workdir = arguments.workdir
    steps = (
        ("train", "demo", "--workdir", workdir, *(_QUICK if arguments.quick else ())),
        ("evaluate", "--workdir", workdir, "--step", "best", "--constant_baseline"),
        ("predict", "--workdir", workdir, "--split", "val", "--limit", "8", "--out", f"{workdir}/predictions"),
    )
    for step in steps:
        cli.show(f"mtl {' '.join(step)}")
        commands.main(step)
    cli.show(f"the panels are in {Path(workdir) / 'predictions' / 'panels'}")
