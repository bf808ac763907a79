"""Boundary counts of many images in parallel, with a file that keeps the counts of finished images."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from io import FileIO
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtl_jax.boundaries.counts import FIELDS, BoundaryCounts, count
from mtl_jax.boundaries.protocols import BoundaryProtocol
from mtl_jax.boundaries.truth import decode_grey, read_truth
from mtl_jax.boundaries.warm_up import compile_loops
from mtl_jax.runtime import atomic_files, workers
from mtl_jax.runtime.messages import listing

_TRUTHS = (".mat", ".png")
_RULES = 1  # version of the counting rules; a higher number makes the stored counts of older versions invalid
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """The files of an image to score.

    Attributes:
        id: Name of the image.
        prediction: Predicted boundary strength, a grey PNG of 8 bits, as a path or as the content of the file.
        truth: Ground truth, as a path or as the content of the file.
        kind: Kind of the ground truth, see `truth.read_truth`.
    """

    id: str
    prediction: Path | bytes
    truth: Path | bytes
    kind: str = "labels"


def count_images(
    images: Sequence[Image], protocol: BoundaryProtocol, *, store: Path | None = None, num_workers: int | None = None
) -> BoundaryCounts:
    """Computes the boundary counts of images.

    Args:
        images: Images to score.
        protocol: Thresholds, suppression and tolerance.
        store: File that keeps the counts of each finished image, one JSON line for each. Counts in the file are used
            again if prediction, truth and protocol are the same. None keeps nothing.
        num_workers: Number of worker processes; None means one for each core.

    Returns:
        The counts of the images, in the order of `images`.

    Raises:
        ValueError: an id occurs twice, or files are faulty. The message lists all faulty files; the counts of the other
            images are in the store.
    """
    repeated = sorted(name for name, times in Counter(image.id for image in images).items() if times > 1)
    if repeated:
        raise ValueError(f"images are given more than once: {listing(repeated)}; list each id once")
    known = _read_store(store, len(protocol.thresholds)) if store is not None else {}
    problems: list[str] = []
    keys: dict[str, str] = {}
    for image in images:
        try:
            keys[image.id] = _key(image, protocol)
        except OSError as error:
            problems.append(f"{image.id}: {error}")
    left = [image for image in images if image.id in keys and keys[image.id] not in known]
    if left:
        compile_loops()
    results = workers.map_ordered(partial(_count, protocol=protocol), left, num_workers=num_workers)
    with _Store(store) as write:
        for image, result in tqdm(zip(left, results, strict=True), "edges", len(left), unit="image"):
            if isinstance(result, str):
                problems.append(f"{image.id}: {result}")
            else:
                known[keys[image.id]] = result
                write(image.id, keys[image.id], result)
    if problems:
        listed = listing(problems, "\n  ")
        raise ValueError(f"{len(problems)} of {len(images)} images cannot be scored:\n  {listed}")
    return BoundaryCounts.stack([known[keys[image.id]] for image in images])


def find_images(predictions: Path, truths: Path, ids: Iterable[str] | None = None, kind: str = "labels") -> list[Image]:
    """Finds the images of a folder of predictions, ID.png, and a folder of ground truth, ID.png or ID.mat.

    Args:
        predictions: Folder of the predictions.
        truths: Folder of the ground truth.
        ids: Ids of the images to score; None means all images with ground truth. Predictions of other images are
            ignored, and a warning gives their number.
        kind: Kind of the ground truth, see `truth.read_truth`.

    Raises:
        FileNotFoundError: a folder, a prediction or a ground truth is missing; the message lists the missing files.
        ValueError: there is no image to score, or an id has two files of ground truth.
    """
    for folder in (predictions, truths):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    if ids is None:
        names = sorted({_name(path, truths) for suffix in _TRUTHS for path in truths.glob(f"**/*{suffix}")})
    else:
        names = list(ids)
    if not names:
        what = "the list of ids is empty" if ids is not None else f"{truths} has neither .png nor .mat files"
        raise ValueError(f"there is nothing to score: {what}")
    images, missing = [], []
    for name in names:
        predicted = Path(f"{predictions / name}.png")
        true = [path for suffix in _TRUTHS if (path := Path(f"{truths / name}{suffix}")).exists()]
        if len(true) > 1:
            raise ValueError(f"both {true[0]} and {true[1]} are the truth of {name}; keep one of them")
        if not predicted.exists():
            missing.append(str(predicted))
        if not true:
            missing.append(f"{truths / name}.png or .mat")
        images += [Image(name, predicted, path, kind) for path in true]
    if missing:
        raise FileNotFoundError(f"{len(missing)} files are missing: {listing(missing)}")
    if extra := len({_name(path, predictions) for path in predictions.glob("**/*.png")} - set(names)):
        _logger.warning("%d predictions in %s are of other images and are ignored", extra, predictions)
    return images


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def pascal_context_ids() -> list[str]:
    """Returns the ids of the 2498 (of 5105) validation images of PASCAL-Context that published boundary scores use."""
    return files("mtl_jax.boundaries").joinpath("pascal_context_ids.txt").read_text("utf-8").split()


def _content(data: Path | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()


def _key(image: Image, protocol: BoundaryProtocol) -> str:
    """Computes a hash of everything that determines the counts of an image."""
    parts = [repr((_RULES, protocol, image.kind)).encode(), _content(image.prediction), _content(image.truth)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]


def _count(image: Image, protocol: BoundaryProtocol) -> BoundaryCounts | str:
    """Returns the counts of an image, or a message that says what is wrong with its files."""
    try:
        strength = decode_grey(_content(image.prediction))
    except (OSError, ValueError) as error:
        return f"the prediction{_place(image.prediction)}: {error}"
    try:
        truth = read_truth(_content(image.truth), image.kind)
    except (OSError, ValueError) as error:
        return f"the ground truth{_place(image.truth)}: {error}"
    try:
        return count(strength, truth, protocol)
    except ValueError as error:
        return str(error)


def _place(data: Path | bytes) -> str:
    return "" if isinstance(data, bytes) else f" {data}"


class _Store:
    """Appends one line for each image to the file of the store; does nothing if there is no file."""

    def __init__(self, path: Path | None):
        self._path = path

    def __enter__(self) -> Callable[[str, str, BoundaryCounts], None]:
        self._file = None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            content = self._path.read_bytes() if self._path.exists() else b""
            self._file = FileIO(self._path, "a")
            if content and not content.endswith(b"\n"):
                atomic_files.append(self._file, b"\n", sync=False)  # a killed run may have left an incomplete line
        return self._write

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, image_id: str, key: str, counts: BoundaryCounts) -> None:
        if self._file is not None:
            line = {"id": image_id, "key": key, **{name: getattr(counts, name).tolist() for name in FIELDS}}
            # What a power cut takes is counted again.
            atomic_files.append(self._file, json.dumps(line).encode() + b"\n", sync=False)


def _read_store(path: Path, thresholds: int) -> dict[str, BoundaryCounts]:
    """Reads {key: counts} from a store; skips incomplete lines of killed runs, and counts of other protocols."""
    known: dict[str, BoundaryCounts] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
            counts = BoundaryCounts(*(np.array(content[name], np.int64) for name in FIELDS))
            if all(value.shape == (thresholds,) for value in vars(counts).values()):
                known[content["key"]] = counts
        except (ValueError, KeyError, TypeError):
            continue
    return known
