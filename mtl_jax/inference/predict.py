"""Prediction on image files or on a split; maps and panels are written to disk."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mtl_jax.codecs import pictures
from mtl_jax.data import transforms
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions
from mtl_jax.inference.restored import Restored

Sample = dict[str, Any]  # "id", "image" uint8 [H, W, 3], and a label [H, W, C] for each task with a known label


def find_images(pattern: str, limit: int = 0) -> list[Path]:
    """Returns the files that match a glob, in order.

    Args:
        pattern: Glob, which may have ** for folders at any depth.
        limit: Greatest number of files; 0 = all.

    Raises:
        FileNotFoundError: No file matches.
        ValueError: Two files have the same name without suffix, so that their predictions would overwrite each other.
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
    """Yields the images in files, without labels.

    Raises:
        ValueError: A file is not an image that can be read.
    """
    for path in paths:
        try:
            image = pictures.decode(path.read_bytes(), 3)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error
        yield {"id": path.stem, "image": image}


def split_samples(source: Split, family: str, tasks: Sequence[str], limit: int = 0) -> Iterator[Sample]:
    """Yields the images of a split with their labels.

    Args:
        source: The records of the split.
        family: Label conventions of the records, a key of `catalogue.FAMILIES`.
        tasks: Tasks whose labels are read.
        limit: Greatest number of images; 0 = all.
    """
    for index in range(min(limit or len(source), len(source))):
        yield source.sample(index, tasks, family)


def predict(run: Restored, samples: Iterable[Sample], out: Path) -> int:
    """Predicts, and writes OUT/<task>/<id>.png or .mat and OUT/panels/<id>.png at the size of the image.

    Args:
        run: The model.
        samples: Images, with the labels that the panels show.
        out: Folder OUT.

    Returns:
        The number of images.

    Raises:
        ValueError: The folder belongs to an evaluation.
    """
    if (out / predictions.OWNER).exists():
        raise ValueError(f"{out} holds predictions that scripts/evaluate.py has saved; give another --out")
    size = run.experiment.image_size
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
