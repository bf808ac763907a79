"""Predicts on images: a map for each task, and a panel of the image, its predictions and, where known, its labels.

    mtl predict --workdir runs/nyud_mtinet --images "photos/*.jpg" --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --images other/room.png --out predictions
    mtl predict --workdir runs/nyud_mtinet --split val --limit 8 --out predictions

Writes OUT/<task>/<name>.png (depth as .mat in metres) and OUT/panels/<name>.png. Photographs are turned as their EXIF
orientation says. Files that cannot be read are passed over and listed at the end; the exit status is 1 then.
"""

import argparse
from pathlib import Path

from mtl_jax import cli, experiment
from mtl_jax.inference import predict
from mtl_jax.inference.restored import Restored
from mtl_jax.runtime import messages


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", required=True, help="directory of a training run")
    parser.add_argument("--step", default="best", help="checkpoint: best (the default), latest or a step number")
    parser.add_argument(
        "--images", action="append", metavar="PLACE", help="image file, folder, or glob in quotes (repeatable)"
    )
    parser.add_argument("--split", help="instead of --images: a split of the run's data set, for example val")
    parser.add_argument(
        "--limit", type=cli.at_least(0), default=0, metavar="N", help="greatest number of images; 0 = all"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="with --split: folder of the built data sets; by default the run's own"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    if (arguments.images is None) == (arguments.split is None):
        raise ValueError("give either --images or --split NAME")
    paths = None if arguments.images is None else predict.find_images(arguments.images, arguments.limit)
    config = experiment.load_config(arguments.workdir)
    if arguments.data_dir is not None:
        config.data.data_dir = arguments.data_dir
    restored = Restored(config, arguments.workdir, arguments.step)
    unreadable: list[str] = []
    if paths is not None:
        samples = predict.file_samples(paths, unreadable)
    else:
        source = restored.experiment.open_split(arguments.split, restored.tasks)
        samples = predict.split_samples(source, restored.experiment.conventions, restored.tasks, arguments.limit)
    written = predict.predict(restored, samples, Path(arguments.out))
    cli.show(f"{written} images: maps and panels are in {arguments.out}")
    if unreadable:
        listed = messages.listing(unreadable, separator="\n")
        raise ValueError(f"{len(unreadable)} files could not be read:\n{listed}")
