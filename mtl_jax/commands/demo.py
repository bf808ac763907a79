"""Shows the library at work: renders rooms, trains MTI-Net on them, evaluates it and predicts.

    mtl demo
    mtl demo --quick       # a few small images and a small model, to see that everything runs

No data and no weights are downloaded. The demo takes 10 to 20 minutes on two CPU cores, with --quick one or two. It
writes into the folders data and runs of the current folder. The same command continues an interrupted demo.
"""

import argparse
import shlex
from pathlib import Path

from mtl_jax import cli, commands

# A few rooms of 64x64 pixels and a model that compiles in seconds; nothing is learned from so few images.
_QUICK = (
    "--model.name=baseline",
    "--model.backbone=resnet18",
    "--data.aux_tasks=",
    "--data.builder=rendered_scenes/nyud_tiny",
    "--data.image_size=64x64",
    "--train.epochs=2",
    "--train.batch_size=4",
)


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", help="directory of the run; by default runs/demo, and runs/demo_quick with --quick"
    )
    parser.add_argument(
        "--quick",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="train a small model on a few small images",
    )


def run(arguments: argparse.Namespace) -> None:
    workdir = arguments.workdir or ("runs/demo_quick" if arguments.quick else "runs/demo")
    steps = (
        ("train", "demo", "--workdir", workdir, *(_QUICK if arguments.quick else ())),
        ("evaluate", "--workdir", workdir, "--step", "best", "--constant_baseline"),
        ("predict", "--workdir", workdir, "--split", "val", "--limit", "8", "--out", f"{workdir}/predictions"),
    )
    for step in steps:
        cli.show(f"mtl {shlex.join(step)}")
        commands.main(step)
    cli.show(f"the panels are in {Path(workdir) / 'predictions' / 'panels'}")
