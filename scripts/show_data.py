"""Draws a contact sheet of a data set, labels over images, to look at the data before training.

    python scripts/show_data.py --config configs/nyud_mtinet.py --split train --out sheet.png
    python scripts/show_data.py --config configs/pascal_mtinet.py --augment --tasks semseg,normals --out sheet.png

With --augment the samples are what training sees: flipped, rotated, scaled and resized by the recipe of the experiment.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from ml_collections import config_flags

from mtl_jax import cli, experiment, tasks
from mtl_jax.data import datasets
from mtl_jax.data.split import Split
from mtl_jax.drawing import contact_sheet
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import atomic_files

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configuration, FILE.py or FILE.py:key=value,...")
_SPLIT = flags.DEFINE_string("split", "train", "train, val or another split of the data set")
_TASKS = flags.DEFINE_list("tasks", [], "tasks whose labels are drawn, or all; by default those of the configuration")
_COUNT = flags.DEFINE_integer("count", 12, "greatest number of images, evenly spread over the split", lower_bound=1)
_START = flags.DEFINE_integer(
    "start", None, "position of the first of --count consecutive images, instead of evenly spread ones"
)
_IDS = flags.DEFINE_list("ids", [], "ids of the images to draw, instead of --count, separated by commas")
_AUGMENT = flags.DEFINE_bool("augment", False, "draw the augmented samples that training sees")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the augmentation", lower_bound=0)
_HEIGHT = flags.DEFINE_integer("height", 240, "height of each picture in pixels", lower_bound=32)
_OUT = flags.DEFINE_string("out", None, "image file to write, for example sheet.png", required=True)
flags.mark_flag_as_required("config")


def main() -> None:
    shown = experiment.make(experiment.resolve(_CONFIG.value))
    out = _writable(Path(_OUT.value))
    source = _open(shown)
    positions = _positions(source)
    names = {**shown.dataset.class_names, **shown.config.data.class_names}
    samples = _samples(shown, source, positions)
    picture = contact_sheet.sheet(
        samples, source.tasks, height=_HEIGHT.value, names=names, conventions=shown.conventions
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


def _open(shown: Experiment) -> Split:
    """Returns the split with the labels to draw."""
    if _TASKS.value != ["all"]:
        return shown.open_split(_SPLIT.value, tasks.ordered(_TASKS.value) or shown.all_tasks)
    return datasets.open_split(shown.prepare_data(), _SPLIT.value)


def _positions(source: Split) -> list[int]:
    if not _IDS.value:
        return contact_sheet.spread(len(source), _COUNT.value, _START.value)
    if _START.value is not None:
        raise ValueError("give either --ids or --start")
    return contact_sheet.find(source, _IDS.value)


def _samples(shown: Experiment, source: Split, positions: list[int]) -> Iterator[dict[str, Any]]:
    data = shown.config.data
    for position in positions:
        sample = source.sample(position, source.tasks, shown.conventions)
        if _AUGMENT.value:
            rng = np.random.default_rng([_SEED.value, position])
            sample = contact_sheet.augmented(
                sample, rng, shown.recipe, shown.image_size, data.border, shown.conventions
            )
        yield sample


if __name__ == "__main__":
    cli.run(main)
