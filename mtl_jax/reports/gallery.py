"""A gallery of a run: images with prediction, truth and error of each task, the worst and the best."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_jax import tasks as task_table
from mtl_jax.data import datasets
from mtl_jax.data.split import Split
from mtl_jax.drawing import maps as drawn_maps
from mtl_jax.evaluation import predictions, result_files
from mtl_jax.experiment import Experiment
from mtl_jax.inference.restored import Restored
from mtl_jax.reports.data_uris import DataUris
from mtl_jax.reports.key_data import key_data
from mtl_jax.reports.run_table import EvaluatedRun

_LONG_SIDE = 320  # pixels of a picture


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
        key: What the colours of prediction and truth mean, from `key_data`.
        error_key: What the colours of the errors mean, from `key_data`.
        error_text: The errors in a few words.
    """

    task: str
    score: float | None
    prediction: int
    truth: int | None
    error: int | None
    key: dict[str, Any]
    error_key: dict[str, Any] | None
    error_text: str


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
        yield indices[position], sample, predictions.as_stored(maps, size, run.recipe.placement)


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
    image = _shrunk(sample["image"])
    height, width = image.shape[:2]
    layers, errors = [drawn_maps.layer(task, maps[task], height, width, is_label=False)], None
    if task in sample:
        label = task_table.get(task).kind.mark_ignored(sample[task])
        layers.append(drawn_maps.layer(task, label, height, width, is_label=True))
        errors = drawn_maps.errors(task, maps[task], label)
    limits = drawn_maps.limits(layers)
    drawn = [pictures.add(drawn_maps.draw(layer, image, "map", limits)) for layer in layers]
    key = drawn_maps.key(layers, "map", run.class_names.get(task, ()), run.conventions, limits)
    return TaskPictures(
        task=task,
        score=values[task] if math.isfinite(values[task]) else None,
        prediction=drawn[0],
        truth=drawn[1] if len(drawn) > 1 else None,
        error=None if errors is None else pictures.add(drawn_maps.draw_errors(errors, height, width)),
        key=key_data(key, pictures),
        error_key=None if errors is None else key_data(errors.key(), pictures),
        error_text="" if errors is None else errors.text,
    )


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Returns an image at the size of the pictures."""
    height, width = image.shape[:2]
    scale = min(1, _LONG_SIDE / max(height, width))
    return drawn_maps.thumbnail(image, max(1, round(scale * height)), max(1, round(scale * width)))
