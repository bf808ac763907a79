"""Prediction on image files or on a split; maps and panels are written to disk."""

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mtl_jax.codecs import pictures
from mtl_jax.data import staging, transforms
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions
from mtl_jax.inference.restored import Restored
from mtl_jax.labels import Conventions
from mtl_jax.runtime import atomic_files, messages

logger = logging.getLogger(__name__)

Sample = dict[str, Any]  # "id", "image" uint8 [H, W, 3], and a label [H, W, C] for each task with a known label


SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of the images in a folder, in any case


def find_images(places: Iterable[str], limit: int = 0) -> list[Path]:
    """Returns image files in order.

    Args:
        places: Paths of files, of folders with images, or globs, which may have ** for folders at any depth. "~" stands
            for the home folder. What exists under a name is meant by it, also where the name could be a glob.
        limit: Greatest number of files; 0 = all.

    Raises:
        FileNotFoundError: One of the places has no file.
        ValueError: Two files have the same name without suffix, so that their predictions would overwrite each other.
    """
    paths = sorted({path for place in places for path in _find(place)})[: limit or None]
    counts = Counter(path.stem for path in paths)
    if repeated := [stem for stem, count in counts.items() if count > 1]:
        raise ValueError(f"several images are named {messages.listing(repeated)}; predict on one folder at a time")
    return paths


def _find(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not found:
            raise FileNotFoundError(f"{path} has no file that ends in {', '.join(SUFFIXES)}; give another --images")
        return found
    # Brackets may be part of names: those of folders that exist are, and the others where nothing matches otherwise.
    root = next(parent for parent in path.parents if parent.is_dir())
    rest = str(path.relative_to(root))
    for pattern in (rest, rest.replace("[", "[[]")):
        found = [root / name for name in glob.glob(pattern, root_dir=root, recursive=True)]
        if found := [file for file in found if file.is_file()]:
            return found
    raise FileNotFoundError(
        f"no file matches --images {place!r}; check the path, and put a glob in quotes so that the shell leaves it as "
        "it is"
    )


def file_samples(paths: Sequence[Path], unreadable: list[str]) -> Iterator[Sample]:
    """Yields the images in files as viewers show them, without labels.

    At the end, a warning names the files with damage that decoders repair, and those that `pictures.photograph` notes.

    Args:
        paths: The files.
        unreadable: List that receives a line for each file that is no image or cannot be read; it is passed over.
    """
    notes: list[tuple[str, str]] = []
    try:
        for path in paths:
            try:
                with pictures.collect_notes() as texts:
                    image = _read(path)
            except OSError as error:
                unreadable.append(f"{path}: {error.strerror}")
                continue
            except (ValueError, MemoryError) as error:
                unreadable.append(f"{path}: {error}")
                continue
            notes += [(str(path), text) for text in texts]
            yield {"id": path.stem, "image": image}
    finally:
        for line in staging.describe(notes):
            logger.warning("%s", line)


def _read(path: Path) -> np.ndarray:
    data = path.read_bytes()
    image = pictures.upright(pictures.photograph(data), pictures.orientation(data))
    if reason := pictures.damage(data):
        pictures.note(reason)
    return image


def split_samples(source: Split, conventions: Conventions, tasks: Sequence[str], limit: int = 0) -> Iterator[Sample]:
    """Yields the images of a split with their labels.

    Args:
        source: The records of the split.
        conventions: Label conventions of the records.
        tasks: Tasks whose labels are read.
        limit: Greatest number of images; 0 = all.
    """
    for index in range(min(limit or len(source), len(source))):
        yield source.sample(index, tasks, conventions)


def predict(run: Restored, samples: Iterable[Sample], out: Path) -> int:
    """Predicts, and writes OUT/<task>/<id>.png or .mat and OUT/panels/<id>.png. Maps have the size of the image.

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
        raise ValueError(f"{out} holds predictions that `mtl evaluate` has saved; give another --out")
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
        panel = panels.panel(
            sample["image"],
            stored,
            labels,
            names=run.experiment.class_names,
            conventions=run.experiment.conventions,
            caption=sample["id"],
        )
        path = out / "panels" / f"{sample['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)  # an id may name a folder
        _, encoded = cv2.imencode(".png", panel[..., ::-1])
        atomic_files.write(path, encoded.tobytes())
        written += 1
    return written
