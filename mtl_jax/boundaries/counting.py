"""Scoring many images in parallel; what is finished stays finished."""

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
from mtl_jax.runtime import atomic_files, workers
from mtl_jax.runtime.messages import listing

_TRUTHS = (".mat", ".png")
_RULES = 1  # to be raised when the same files are counted differently, so that stored counts are not taken any more
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """An image to score: its prediction, a grey PNG of 8 bits, and its true boundary, as files or their content.

    Attributes:
        kind: what the truth is, see `truth.read_truth`.
    """

    id: str
    prediction: Path | bytes
    truth: Path | bytes
    kind: str = "labels"


def count_images(
    images: Sequence[Image], protocol: BoundaryProtocol, *, store: Path | None = None, num_workers: int | None = None
) -> BoundaryCounts:
    """The counts of all images, in their order.

    Args:
        images: what to score.
        protocol: thresholds, suppression and tolerance.
        store: file that receives each image's counts as soon as they are known, and from which they are taken where
            prediction, truth and protocol are the same.
        num_workers: processes; None = one for each core.

    Raises:
        ValueError: faulty files; the message lists them all. What was counted is in the store.
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
    """The images of two folders with files of the same names: ID.png, and ID.png or ID.mat.

    Args:
        ids: which; by default all that have a truth. Predictions of others are ignored, and their number is logged.

    Raises:
        FileNotFoundError: a folder, a prediction or a truth is missing; the message lists what is.
        ValueError: there is nothing to score, or an id has two truths.
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
            raise ValueError(f"both {true[0]} and {true[1]} are the truth of {name}; keep one")
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
    """The 2498 images of PASCAL-Context's 5105 for validation whose boundaries the published numbers score."""
    return files("mtl_jax.boundaries").joinpath("pascal_context_ids.txt").read_text("utf-8").split()


def _content(data: Path | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()


def _key(image: Image, protocol: BoundaryProtocol) -> str:
    """What an image's counts follow from."""
    parts = [repr((_RULES, protocol, image.kind)).encode(), _content(image.prediction), _content(image.truth)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]


def _count(image: Image, protocol: BoundaryProtocol) -> BoundaryCounts | str:
    """The counts, or what is wrong with the files."""
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
    """Appends to the store's file, a line for each image; does nothing without one."""

    def __init__(self, path: Path | None):
        self._path = path

    def __enter__(self) -> Callable[[str, str, BoundaryCounts], None]:
        self._file = None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            content = self._path.read_bytes() if self._path.exists() else b""
            self._file = FileIO(self._path, "a")
            if content and not content.endswith(b"\n"):
                atomic_files.append(self._file, b"\n")  # a killed run may have left half a line
        return self._write

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, image_id: str, key: str, counts: BoundaryCounts) -> None:
        if self._file is not None:
            line = {"id": image_id, "key": key, **{name: getattr(counts, name).tolist() for name in FIELDS}}
            atomic_files.append(self._file, json.dumps(line).encode() + b"\n")


def _read_store(path: Path, thresholds: int) -> dict[str, BoundaryCounts]:
    """{key: counts}, without what a killed run left unfinished, and without those of other protocols."""
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
