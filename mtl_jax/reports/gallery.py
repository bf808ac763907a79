"""A gallery of a run: images with prediction, truth and error of each task, the worst and the best."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mtl_jax import tasks as task_table
from mtl_jax.data import datasets
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions, result_files
from mtl_jax.experiment import Experiment
from mtl_jax.inference.restored import Restored
from mtl_jax.labels import LabelKind
from mtl_jax.labels.kind import IGNORE, resize
from mtl_jax.reports.data_uris import DataUris
from mtl_jax.reports.error_maps import error_map
from mtl_jax.reports.run_table import EvaluatedRun

_LONG_SIDE = 320  # pixels of a picture
_LISTED = 8  # classes in the legend of a picture


@dataclass(frozen=True)
class Score:
    """The score that images are sorted by.

    Attributes:
        task: Name of the task.
        metric: Name of the score.
        stands_for: Score of a data set in whose place it is taken, often `metric` itself.
        higher_is_better: True if higher scores are better.
    """

    task: str
    metric: str
    stands_for: str
    higher_is_better: bool


@dataclass(frozen=True)
class TaskPictures:
    """The pictures of one task on one image, positions in `DataUris.uris`; None where there is no such picture.

    Attributes:
        task: Name of the task.
        score: Score of the image; None without a label.
        prediction: Drawing of the prediction.
        truth: Drawing of the label.
        error: Drawing of the errors.
        meaning: What the colours of prediction and truth mean; "" where `classes` say it.
        error_meaning: What the colours of the errors mean.
        classes: (name, colour as #rrggbb) of the classes in prediction or truth, the most frequent first.
        more_classes: Number of further classes.
    """

    task: str
    score: float | None
    prediction: int
    truth: int | None
    error: int | None
    meaning: str
    error_meaning: str
    classes: list[tuple[str, str]]
    more_classes: int


@dataclass(frozen=True)
class GalleryImage:
    """An image of the gallery.

    Attributes:
        id: Id of the image.
        image: Position of the image in `DataUris.uris`.
        tasks: The pictures of each task.
    """

    id: str
    image: int
    tasks: list[TaskPictures]


@dataclass(frozen=True)
class Gallery:
    """The gallery of a run.

    Attributes:
        step: Number of the checkpoint's step.
        scores: The score of each task that images are sorted by.
        images: The images.
        wanted: Number of images that were asked for.
        scored: Number of images that were scored to choose these.
        total: Number of images in the split.
    """

    step: int
    scores: list[Score]
    images: list[GalleryImage]
    wanted: int
    scored: int
    total: int


def build(run: EvaluatedRun, wanted: int, candidates: int, pictures: DataUris, limit: int) -> Gallery:
    """Returns the gallery of a run at its best checkpoint, on images of the validation split.

    Half of the images are the worst, half the best, in turns by the score of each task. A score is that of the image
    alone, at its own size, by the run's protocol.

    Args:
        run: The run.
        wanted: Number of images.
        candidates: Number of images that are scored, evenly spaced over the split; 0 = all.
        pictures: Receives the pictures.
        limit: Size of all pictures in bytes at which no further image is added.

    Raises:
        FileNotFoundError: The data set is not built, or the run has no checkpoint.
        OSError: Data or checkpoint cannot be read.
        ValueError: Data or checkpoint do not fit the configuration, or are damaged.
    """
    asked = _without_workers(run.experiment)
    restored, source = Restored(asked, run.workdir, result_files.BEST), _open(asked)
    chosen_from = _spaced(len(source), candidates)
    scores = _scores(asked)
    bar = tqdm(_predicted(restored, source, chosen_from), f"scoring {run.workdir.name}", len(chosen_from), unit="image")
    values = {index: _values(asked, scores, sample, maps) for index, sample, maps in bar}
    chosen = list(itertools.islice(in_turns(_rankings(scores, values)), wanted))
    images = []
    for index, sample, maps in _predicted(restored, source, chosen):
        if pictures.size >= limit:
            break
        drawn = [_draw(asked, task, sample, maps, values[index], pictures) for task in restored.tasks]
        images.append(GalleryImage(sample["id"], pictures.add(_shrunk(sample["image"])), drawn))
    return Gallery(restored.step, scores, images, wanted, len(chosen_from), len(source))


def _without_workers(run: Experiment) -> Experiment:
    """Returns the experiment as it reads data in this process: the images of a gallery are few."""
    data = dataclasses.replace(run.config.data, num_workers=0)
    return Experiment(dataclasses.replace(run.config, data=data))


def _open(run: Experiment) -> Split:
    """Opens the validation split of a data set that is built; unlike training, a report builds none."""
    if not datasets.make_builder(run.builder_name, run.data_dir).is_prepared():
        raise FileNotFoundError(
            f"the data set {run.builder_name} is not built in {run.data_dir}; evaluate the run with `mtl evaluate`, "
            "which builds it, and make the report again"
        )
    return run.open_split(result_files.SPLIT, run.main_tasks)


def _spaced(total: int, candidates: int) -> list[int]:
    if not candidates or candidates >= total:
        return list(range(total))
    return [int(index) for index in np.linspace(0, total - 1, candidates).round()]


def _scores(run: Experiment) -> list[Score]:
    """Returns the score of single images for each task: the deciding one, or the one that takes its place."""
    scores = []
    for task, criterion in run.streaming_criteria.items():
        name = run.final_metrics[task].of_one_image.get(criterion.name, criterion.name)
        scores.append(Score(task, name, run.final_criteria[task].name, criterion.higher_is_better))
    return scores


def _predicted(
    restored: Restored, source: Split, indices: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any], dict[str, np.ndarray]]]:
    """Yields (index, sample with labels, {task: quantised prediction at the image's size}) in the order of indices."""
    run = restored.experiment
    for position, maps in restored.predict_split(source.subset(indices)):
        sample = source.sample(indices[position], restored.tasks, run.conventions)
        size = sample["image"].shape[:2]
        resized = {task: predictions.resize_prediction(task, value, size) for task, value in maps.items()}
        yield indices[position], sample, {task: predictions.quantise(task, value) for task, value in resized.items()}


def _values(
    run: Experiment, scores: Sequence[Score], sample: dict[str, Any], maps: dict[str, np.ndarray]
) -> dict[str, float]:
    """Returns {task: score of the image}, NaN where it has no label."""
    values = {}
    for score in scores:
        if score.task not in sample:
            values[score.task] = math.nan
            continue
        metric = run.final_metrics[score.task]
        result = metric.compute(metric.update(maps[score.task][None], sample[score.task][None]))
        values[score.task] = float(np.asarray(result[score.metric]))
    return values


def _rankings(scores: Sequence[Score], values: dict[int, dict[str, float]]) -> list[list[int]]:
    """Returns the images from worst to best by the score of each task, then from best to worst."""
    worst_first = [_worst_first(score, values) for score in scores]
    return [*worst_first, *(ranking[::-1] for ranking in worst_first)]


def _worst_first(score: Score, values: dict[int, dict[str, float]]) -> list[int]:
    known = {index: each[score.task] for index, each in values.items() if math.isfinite(each[score.task])}
    return sorted(known, key=known.__getitem__, reverse=not score.higher_is_better)


def in_turns(rankings: Sequence[Sequence[int]]) -> Iterator[int]:
    """Yields from each ranking in turn the first number that has not been yielded yet."""
    seen: set[int] = set()
    queues = [iter(ranking) for ranking in rankings]
    while queues:
        for queue in list(queues):
            new = next((index for index in queue if index not in seen), None)
            if new is None:
                queues.remove(queue)
            else:
                seen.add(new)
                yield new


def _draw(
    run: Experiment,
    task: str,
    sample: dict[str, Any],
    maps: dict[str, np.ndarray],
    values: dict[str, float],
    pictures: DataUris,
) -> TaskPictures:
    kind, size = task_table.get(task).kind, _small(sample["image"])
    prediction = _shrunk_prediction(kind, maps[task], size)
    label = kind.shrink(kind.mark_ignored(sample[task]), *size) if task in sample else None
    shown = [(prediction, False)] if label is None else [(prediction, False), (label, True)]
    low, high = kind.value_range(shown)
    drawn = [kind.paint(array, is_label=is_label, low=low, high=high) for array, is_label in shown]
    errors = None if label is None else error_map(kind, prediction, label)
    meaning = kind.legend(run.conventions)
    if low is not None and high is not None:
        meaning = f"{kind.meaning(run.conventions)}, from {low:.2f} (dark) to {high:.2f} (bright)"
    classes, more = _classes(run, task, [array for array, _ in shown]) if kind.has_classes else ([], 0)
    return TaskPictures(
        task=task,
        score=values[task] if math.isfinite(values[task]) else None,
        prediction=pictures.add(drawn[0]),
        truth=pictures.add(drawn[1]) if label is not None else None,
        error=pictures.add(errors.picture()) if errors is not None else None,
        meaning=meaning,
        error_meaning=errors.meaning if errors is not None else "",
        classes=classes,
        more_classes=more,
    )


def _small(image: np.ndarray) -> tuple[int, int]:
    """Returns height and width of the pictures of an image."""
    height, width = image.shape[:2]
    scale = min(1, _LONG_SIDE / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def _shrunk(image: np.ndarray) -> np.ndarray:
    return resize(image, *_small(image), cv2.INTER_AREA)


def _shrunk_prediction(kind: LabelKind, prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    nearest = kind.prediction_interpolation == "nearest"  # a mixture of two classes is no class
    return resize(prediction, *size, cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)


def _classes(run: Experiment, task: str, arrays: Sequence[np.ndarray]) -> tuple[list[tuple[str, str]], int]:
    """Returns (name, colour) of the most frequent classes of the arrays, and the number of the others."""
    pixels = np.concatenate([array.reshape(-1) for array in arrays]).astype(np.int64)
    counts = np.bincount(pixels, minlength=IGNORE + 1)
    present = [int(i) for i in np.argsort(-counts[:IGNORE], kind="stable") if counts[i]]
    names = run.class_names.get(task, ())
    listed = []
    for i in present[:_LISTED]:
        red, green, blue = panels.colorize(task, np.full((1, 1, 1), i), label=True)[0, 0]
        listed.append((names[i] if i < len(names) else f"class {i}", f"#{red:02x}{green:02x}{blue:02x}"))
    return listed, len(present) - len(listed)
