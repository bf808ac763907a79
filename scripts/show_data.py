"""Draws a contact sheet of a data set, labels over images: look at the data before training on it.

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
from mtl_jax.config import Config, all_tasks, validate
from mtl_jax.data import catalogue, datasets
from mtl_jax.data.split import Split
from mtl_jax.drawing import contact_sheet

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configuration, FILE.py or FILE.py:key=value,...")
_SPLIT = flags.DEFINE_string("split", "train", "train or val")
_TASKS = flags.DEFINE_list("tasks", [], "labels to draw: those of the configuration, named ones, or all there are")
_COUNT = flags.DEFINE_integer("count", 12, "at most so many images, evenly spread over the split", lower_bound=1)
_START = flags.DEFINE_integer("start", None, "instead of evenly spread: consecutive ones from this position")
_IDS = flags.DEFINE_list("ids", [], "instead of --count: the images with these ids, separated by commas")
_AUGMENT = flags.DEFINE_bool("augment", False, "draw the samples as training sees them")
_SEED = flags.DEFINE_integer("seed", 0, "of the augmentation", lower_bound=0)
_HEIGHT = flags.DEFINE_integer("height", 240, "of each picture in pixels", lower_bound=32)
_OUT = flags.DEFINE_string("out", None, "image file to write, for example sheet.png", required=True)
flags.mark_flag_as_required("config")


def main() -> None:
    config = validate(experiment.resolve(_CONFIG.value))
    out = _writable(Path(_OUT.value))
    source = _open(config)
    positions = _positions(source)
    names = {**catalogue.get(config.data.dataset).class_names, **config.data.class_names}
    picture = contact_sheet.sheet(_samples(config, source, positions), source.tasks, height=_HEIGHT.value, names=names)
    _, encoded = cv2.imencode(out.suffix, picture[..., ::-1])
    out.write_bytes(encoded.tobytes())
    print(f"{len(positions)} of {len(source)} images of {source.name}, split {source.split}: {out}")


def _writable(out: Path) -> Path:
    """The path itself, before any work is done for it.

    Raises:
        ValueError: OpenCV writes no such files, or a folder has this name.
        OSError: nothing can be written there.
    """
    if not out.suffix or not cv2.haveImageWriter(f"sheet{out.suffix}"):
        raise ValueError(f"--out {out} has no suffix of an image file; name it {out.stem}.png")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):
        return out


def _open(config: Config) -> Split:
    """The split with the labels to draw."""
    if _TASKS.value != ["all"]:
        names = tasks.ordered(_TASKS.value) or all_tasks(config)
        return experiment.open_split(config, _SPLIT.value, names)
    manual_dir = config.data.manual_dir or None
    builder = datasets.prepare(experiment.builder_name(config), experiment.data_dir(config), manual_dir)
    return datasets.open_split(builder, _SPLIT.value)


def _positions(source: Split) -> list[int]:
    if not _IDS.value:
        return contact_sheet.spread(len(source), _COUNT.value, _START.value)
    if _START.value is not None:
        raise ValueError("give either --ids or --start")
    return contact_sheet.find(source, _IDS.value)


def _samples(config: Config, source: Split, positions: list[int]) -> Iterator[dict[str, Any]]:
    recipe, size = experiment.recipe(config), experiment.image_size(config)
    for position in positions:
        sample = source.sample(position, source.tasks, config.data.dataset)
        if _AUGMENT.value:
            rng = np.random.default_rng([_SEED.value, position])
            sample = contact_sheet.augmented(sample, rng, recipe, size, config.data.border)
        yield sample


if __name__ == "__main__":
    cli.run(main)
