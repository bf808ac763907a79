"""Prediction on image files or on a split; maps and panels are written to disk."""

import dataclasses
import glob
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from mtl_jax.codecs import pictures
from mtl_jax.data import staging
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions
from mtl_jax.inference.image_input import read
from mtl_jax.inference.map_formats import MAP_FORMATS, Format
from mtl_jax.inference.maps import Map, Maps
from mtl_jax.inference.model import Finish, Model
from mtl_jax.inference.options import PredictOptions
from mtl_jax.labels import Conventions
from mtl_jax.labels.keys import Style
from mtl_jax.runtime import atomic_files, messages

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Sample = dict[str, Any]  # "id", "image" uint8 [H, W, 3], and a label [H, W, C] for each task with a known label


SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of the images in a folder, in any case
DESCRIPTION = "maps.json"  # file in a folder of maps that says what they mean
_WRITERS = 2  # threads that decide, draw and write
_WAITING = 4  # images whose values wait for these threads, at most


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
                    image = read(path)
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


@dataclass(frozen=True)
class PanelOptions:
    """How panels are drawn.

    Attributes:
        style: "map" for classes, saliency and edges in colours alone, "overlay" for colours over the image.
        errors: True to show the errors beside maps with a label.
        long_side: Greatest width and height in pixels.
    """

    style: Style = "map"
    errors: bool = False
    long_side: int = panels.LONG_SIDE


_PANELS = PanelOptions()


def predict(
    model: Model,
    samples: Iterable[Sample],
    out: Path,
    options: PredictOptions | None = None,
    *,
    form: str = "default",
    panel: PanelOptions | None = _PANELS,
) -> int:
    """Predicts, and writes OUT/<task>/<id>.* and OUT/panels/<id>.png at the size of the image.

    OUT/maps.json says what the values in the files mean. Images are read, and maps drawn and written, in threads beside
    the network.

    Args:
        model: The model.
        samples: Images, with the labels that the panels show.
        out: Folder OUT.
        options: Options of prediction.
        form: Format of the files, a key of `MAP_FORMATS`.
        panel: How panels are drawn; None = no panels.

    Returns:
        The number of images.

    Raises:
        ValueError: The folder belongs to an evaluation, or there is no such format.
        OSError: A file cannot be written.
    """
    options = options or PredictOptions()
    if form not in MAP_FORMATS:
        raise ValueError(f"the format is {form!r}; it may be {' or '.join(map(repr, MAP_FORMATS))}")
    if (out / predictions.OWNER).exists():
        raise ValueError(f"{out} holds predictions that `mtl evaluate` has saved; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    origin = {"model": model.origin, "format": form, "options": dataclasses.asdict(options)}
    _warn_of_others(out, origin)
    described: Mapping[str, Map] = {}
    written = 0
    write = partial(_write, out, form=MAP_FORMATS[form], panel=panel)
    for maps in in_threads(tqdm(model.stream(samples, image_of, options), unit="image"), write):
        described, written = maps, written + 1
    if written:
        _describe(out, origin, described, MAP_FORMATS[form])
    return written


def in_threads(
    predicted: Iterable[tuple[Sample, Finish]], work: Callable[[Sample, Finish], Result]
) -> Iterator[Result]:
    """Yields what a function makes of each image and its maps, in order; it works in threads beside the network.

    Args:
        predicted: Images, each with the function that returns its maps, see `Model.stream`.
        work: The function.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer")
    try:
        for sample, finish in predicted:
            waiting.append(pool.submit(work, sample, finish))
            while len(waiting) > _WAITING:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def image_of(sample: Sample) -> np.ndarray:
    """Returns the image of a sample, uint8 `[H, W, 3]`."""
    image: np.ndarray = sample["image"]
    return image


def _write(out: Path, sample: Sample, finish: Finish, form: Format, panel: PanelOptions | None) -> Maps:
    """Writes the maps and, if asked for, the panel of one image, and returns the maps."""
    maps = finish()
    for task, one in maps.items():
        for suffix, content in form.files(one).items():
            _put(out / task / f"{sample['id']}{suffix}", content, sync=False)  # there are thousands of them
    if panel is not None:
        drawn = _panel(sample, maps, panel)
        _put(out / "panels" / f"{sample['id']}.png", pictures.encode_png(drawn), sync=True)
    return maps


def _panel(sample: Sample, maps: Mapping[str, Map], options: PanelOptions) -> np.ndarray:
    """Draws an image, its maps and, where known, its labels side by side, RGB uint8."""
    shown = {task: one.prediction for task, one in maps.items()}
    labels = {task: sample[task] for task in maps if task in sample}
    return panels.panel(
        sample["image"],
        shown,
        labels,
        names={task: one.class_names for task, one in maps.items()},
        conventions=next((one.conventions for one in maps.values()), Conventions()),
        caption=sample["id"],
        **dataclasses.asdict(options),
    )


def _put(path: Path, content: bytes, *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # an id may name a folder
    atomic_files.write(path, content, sync=sync)


def _describe(out: Path, origin: Mapping[str, Any], maps: Mapping[str, Map], form: Format) -> None:
    """Writes the file that says what the maps in a folder mean."""
    tasks = {
        task: {
            "values": one.meaning,
            "files": {f"{task}/NAME{suffix}": text for suffix, text in form.describe(one).items()},
            **({"classes": list(one.class_names)} if one.class_names else {}),
        }
        for task, one in maps.items()
    }
    panel = "the image beside its maps, for people"
    atomic_files.write_json(out / DESCRIPTION, {**origin, "tasks": tasks, "panels/NAME.png": panel})


def _warn_of_others(out: Path, origin: Mapping[str, Any]) -> None:
    """Warns where a folder holds maps of another model, in another format or with other options."""
    path = out / DESCRIPTION
    if not path.is_file():
        return
    try:
        there = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        logger.warning("%s cannot be read (%s); maps of the same names are replaced, others stay", path, error)
        return
    expected = json.loads(json.dumps(origin))
    if other := [name for name in expected if there.get(name) != expected[name]]:
        logger.warning(
            "%s holds maps with another %s (see %s); maps of the same names are replaced, others stay",
            out,
            " and another ".join(other),
            DESCRIPTION,
        )
