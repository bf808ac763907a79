"""Prediction on files or on a split: maps and panels on disk."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mtl_jax import experiment
from mtl_jax.codecs import pictures
from mtl_jax.data import transforms
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions
from mtl_jax.inference.restored import Restored

Sample = dict[str, Any]  # "id", "image" uint8 [H, W, 3], and a label [H, W, C] for each task that is known


def find_images(pattern: str, limit: int = 0) -> list[Path]:
    """The files a glob matches, in order.

    Args:
        limit: at most so many; 0 = all.

    Raises:
        FileNotFoundError: none does.
        ValueError: two files have the same name without suffix, so that their predictions would overwrite each other.
    """
    paths = sorted(Path(path) for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise FileNotFoundError(
            f"no file matches --images {pattern!r}; check the path, and put the glob in quotes so that the shell "
            "leaves it alone"
        )
    paths = paths[: limit or None]
    stems = [path.stem for path in paths]
    if repeated := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ValueError(f"several images are named {', '.join(repeated[:5])}; predict on one folder at a time")
    return paths


def file_samples(paths: Sequence[Path]) -> Iterator[Sample]:
    """Images read from files, without labels.

    Raises:
        ValueError: a file is not an image that can be read.
    """
    for path in paths:
        try:
            image = pictures.decode(path.read_bytes(), 3)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error
        yield {"id": path.stem, "image": image}


def split_samples(source: Split, family: str, tasks: Sequence[str], limit: int = 0) -> Iterator[Sample]:
    """The images of a split with the labels they have; at most `limit` of them, 0 = all."""
    for index in range(min(limit or len(source), len(source))):
        yield source.sample(index, tasks, family)


def predict(run: Restored, samples: Iterable[Sample], out: Path) -> int:
    """Predicts and writes OUT/<task>/<id>.png or .mat and OUT/panels/<id>.png, all at the image's own size.

    Returns:
        The number of images.

    Raises:
        ValueError: the folder belongs to an evaluation.
    """
    if (out / predictions.OWNER).exists():
        raise ValueError(f"{out} holds predictions that scripts/evaluate.py has saved; give another --out")
    size = experiment.image_size(run.config)
    (out / "panels").mkdir(parents=True, exist_ok=True)
    written = 0
    for sample in tqdm(samples, unit="image"):
        # One image at a time: sizes differ, and a batch must fill every device.
        image = transforms.val_transform({"image": sample["image"]}, size)["image"]
        batch = {"image": np.repeat(image[None], run.mesh.size, axis=0)}
        valid = np.arange(run.mesh.size) == 0
        ((_, maps),) = run.predict_batches([batch | {"valid": valid, "index": np.zeros(run.mesh.size, np.int32)}])
        stored = predictions.save_all(out, sample["id"], maps, sample["image"].shape[:2])
        labels = {task: sample[task] for task in run.tasks if task in sample}
        panel = panels.panel(sample["image"], stored, labels or None)
        path = out / "panels" / f"{sample['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)  # an id may name a folder
        if not cv2.imwrite(str(path), panel[..., ::-1]):
            raise OSError(f"cannot write {path}")
        written += 1
    return written
