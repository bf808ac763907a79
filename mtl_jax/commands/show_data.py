"""Draws a contact sheet of a data set, labels over images, to look at the data before training.

    mtl data show nyud_mtinet --split train --out sheet.png
    mtl data show pascal_mtinet --augment --tasks semseg,normals --out sheet.png

With --augment the samples are what training sees: moved, recoloured and resized by the augmentation of the experiment.
`--data.augmentation=invpt:scale=0.5-1.5` shows another one.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtl_jax import cli, experiment, tasks
from mtl_jax.data import datasets
from mtl_jax.data.split import Split
from mtl_jax.data.training_labels import TRAIN
from mtl_jax.drawing import contact_sheet
from mtl_jax.experiment import Experiment
from mtl_jax.labels.keys import STYLES
from mtl_jax.runtime import atomic_files

_COUNT = 12
# {option: the options with one of which it has an effect}
_NEEDS = {"seed": ("augment",)}
# {option: the options with each of which it has none}
_EXCLUDED = {"count": ("ids",), "start": ("ids",)}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_config()
    parser.add_argument("--split", default="train", help="train (the default), val or another split of the data set")
    parser.add_argument(
        "--tasks",
        type=cli.names,
        default=(),
        metavar="A,B,...",
        help="tasks whose labels are drawn, or all; by default those of the configuration",
    )
    parser.add_argument(
        "--count",
        type=cli.at_least(1),
        metavar="N",
        help=f"greatest number of images, evenly spread over the split; {_COUNT} by default",
    )
    parser.add_argument(
        "--start",
        type=int,
        metavar="N",
        help="position of the first of --count consecutive images, instead of evenly spread ones",
    )
    parser.add_argument(
        "--ids",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        metavar="A,B,...",
        help="ids of the images to draw, instead of --count",
    )
    parser.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="draw the augmented samples that training sees",
    )
    parser.add_argument(
        "--seed", type=cli.at_least(0), metavar="N", help="with --augment: seed of the augmentation; 0 by default"
    )
    parser.add_argument(
        "--height",
        type=cli.at_least(32),
        default=240,
        metavar="PIXELS",
        help="height of each picture; 240 by default",
    )
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="overlay",
        help="overlay (the default) lays classes, saliency and edges over the images, map draws the labels alone",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="image file to write, for example sheet.png")
    parser.refuse_ineffective(needs=_NEEDS, excluded=_EXCLUDED)


def run(arguments: argparse.Namespace) -> None:
    shown = experiment.make(experiment.resolve(arguments.config))
    out = _writable(Path(arguments.out))
    source = _open(shown, arguments)
    positions = _positions(source, arguments)
    picture = contact_sheet.sheet(
        _samples(shown, source, positions, arguments),
        source.tasks,
        height=arguments.height,
        names=shown.class_names,
        conventions=shown.conventions,
        style=arguments.style,
    )
    _, encoded = cv2.imencode(out.suffix, picture[..., ::-1])
    atomic_files.write(out, encoded.tobytes())
    cli.show(f"{len(positions)} of {len(source)} images of {source.name}, split {source.split}: {out}")


def _writable(out: Path) -> Path:
    """Returns the path of the image file, after a check that it can be written.

    Raises:
        ValueError: OpenCV writes no files with this suffix, or a folder has this name.
        OSError: The folder cannot be written to.
    """
    if not out.suffix or not cv2.haveImageWriter(f"sheet{out.suffix}"):
        raise ValueError(f"--out {out} has no suffix of an image file; name it {out.stem}.png")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):
        return out


def _open(shown: Experiment, arguments: argparse.Namespace) -> Split:
    """Returns the split with the labels to draw; of the training split, those that training uses."""
    if arguments.tasks != ("all",):
        names = tasks.ordered(arguments.tasks) or shown.all_tasks
        if arguments.split == TRAIN:
            return shown.training_labels.open(names)
        return shown.open_split(arguments.split, names)
    return datasets.open_split(shown.prepare_data(), arguments.split)


def _positions(source: Split, arguments: argparse.Namespace) -> list[int]:
    if not arguments.ids:
        return contact_sheet.spread(len(source), arguments.count or _COUNT, arguments.start)
    return contact_sheet.find(source, arguments.ids)


def _samples(
    shown: Experiment, source: Split, positions: list[int], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    data = shown.config.data
    for position in positions:
        sample = source.sample(position, source.tasks, shown.conventions)
        if arguments.augment:
            rng = np.random.default_rng([arguments.seed or 0, position])
            sample = contact_sheet.augmented(
                sample, rng, shown.recipe, shown.image_size, data.border, shown.conventions
            )
        yield sample
