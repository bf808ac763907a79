"""Evaluation: while training, and by the final protocol.

While training, predictions are scored where they are made, at network resolution, against the transformed labels. The
final protocol resizes every prediction to its image's original size, quantises it as if it were written to a file, and
compares it with the untouched labels.
"""

import contextlib
import math
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from mtl_jax.data import prefetch
from mtl_jax.data.split import Split
from mtl_jax.evaluation import predictions
from mtl_jax.metrics import Accumulator, Metric, Result, Stats, deciding, delta_m
from mtl_jax.runtime import sharding
from mtl_jax.tasks import Criterion

if TYPE_CHECKING:  # edges load a compiler, which training does not need
    from mtl_jax.evaluation.edge_scores import EdgeScores
    from mtl_jax.evaluation.resume_log import ResumeLog

Results = dict[str, Result]  # {task: {metric: value}}
# (task, record) -> the prediction at the size of the record's image, `[H, W]` of class maps, else `[H, W, C]`
Predicted = Callable[[str, Mapping[str, Any]], np.ndarray]
Entry = dict[str, Stats]  # what an image adds to the scores: {task: {name: [1, ...]}}, and _BOUNDARY: its edges
_BOUNDARY = "boundary"
_RULES = 1  # to be raised when the same predictions get other statistics, so that kept ones do not count any more


def streaming(
    step: Callable[[Any, Mapping], tuple[Any, Mapping]],
    arrays: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    metrics: Mapping[str, Metric],
    mesh: Mesh,
) -> Results:
    """Scores at network resolution.

    Args:
        step: from `train.step.make_eval_step`.
        arrays: the state's arrays.
        batches: from `data.loader.val_batches`, with "valid" marking the images that do not merely pad.
    """
    accumulators = {task: Accumulator(metric) for task, metric in metrics.items()}
    with contextlib.closing(_placed(batches, mesh)) as placed:
        for batch in placed:
            valid, stats = step(arrays, batch)
            for task, accumulator in accumulators.items():
                accumulator.update({name: np.asarray(value) for name, value in stats[task].items()}, np.asarray(valid))
    return {task: accumulator.compute() for task, accumulator in accumulators.items()}


def predict_images(
    step: Callable[[Any, Mapping], tuple[Any, Any, Mapping]],
    arrays: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(index, {task: prediction of one image at network resolution}) for every image of the batches.

    Args:
        step: from `train.step.make_predict_step`.
    """
    with contextlib.closing(_placed(batches, mesh, ("image", "index", "valid"))) as placed:
        for batch in placed:
            index, valid, maps = step(arrays, batch)
            maps = {task: np.asarray(value) for task, value in maps.items()}
            for row in np.flatnonzero(np.asarray(valid)):
                yield int(index[row]), {task: value[row] for task, value in maps.items()}


def _placed(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, names: Sequence[str] | None = None
) -> Generator[dict[str, jax.Array], None, None]:
    """The batches on the devices, or these entries of them; the next is on its way while one is being used."""
    source = iter(batches)

    def place() -> dict[str, jax.Array]:
        batch = next(source)
        return sharding.shard_batch({name: batch[name] for name in names or batch}, mesh)

    with contextlib.ExitStack() as exits:
        if (close := getattr(source, "close", None)) is not None:
            exits.callback(close)  # ends the worker processes, also where the caller fails
        yield from prefetch.ahead(place)


def at_size(images: Iterable[tuple[int, Mapping[str, np.ndarray]]]) -> Iterator[tuple[int, Predicted]]:
    """(index, {task: prediction at network resolution}) -> (index, what resizes them to a record's own size)."""
    for index, maps in images:
        yield index, partial(_resized, maps)


def _resized(maps: Mapping[str, np.ndarray], task: str, record: Mapping[str, Any]) -> np.ndarray:
    return predictions.resize_prediction(task, maps[task], record["image"].shape[:2])


def keys(
    source: Split, metrics: Mapping[str, Metric], protocol: Mapping[str, str], origins: Iterable[str]
) -> list[str]:
    """For each image what its statistics follow from.

    Args:
        origins: for each image what its predictions follow from.
    """
    common = repr((_RULES, source.fingerprint(), metrics, protocol))
    return [f"{common} {index} {origin}" for index, origin in enumerate(origins)]


def final(
    images: Iterable[tuple[int, Predicted]],
    source: Split,
    metrics: Mapping[str, Metric],
    family: str,
    edges: "EdgeScores | None" = None,
    progress: "ResumeLog | None" = None,
) -> "DatasetScores":
    """Scores at each image's original size.

    An image without a label of a task does not count in that task's score.

    Args:
        images: (index in the source, what gives its predictions), see `at_size` and `read_predictions`.
        source: the records with their labels.
        metrics: the final protocol's.
        family: label conventions of the records, a key of `records.CONVENTIONS`.
        edges: also scores the predicted boundaries.
        progress: receives every image's statistics at once, and counts as scored those it has already, which `images`
            may leave out; its keys are of `keys`.
    """
    scored = DatasetScores(metrics, edges)
    for finished in progress.entries() if progress is not None else ():
        scored.add(finished)
    for index, predicted in images:
        if progress is not None and index in progress:
            continue
        record = source.sample(index, tuple(metrics), family)
        entry: Entry = {}
        for task, metric in metrics.items():
            if task in record:
                prediction = predictions.quantise(task, predicted(task, record))
                entry[task] = metric.update(prediction[None], record[task][None])
                if task == "edge" and edges is not None:
                    entry[_BOUNDARY] = edges.encode(index, record, prediction)
        if progress is not None:
            progress.add(index, entry)
        scored.add(entry)
    return scored


class DatasetScores:
    """The scores of a data set.

    Args:
        metrics: {task: metric}.
        edges: what scores the boundaries, where `metrics` has edges.
    """

    def __init__(self, metrics: Mapping[str, Metric], edges: "EdgeScores | None" = None):
        self._accumulators = {task: Accumulator(metric) for task, metric in metrics.items()}
        self._edges = edges if "edge" in metrics else None

    def add(self, entry: Entry) -> None:
        """Adds an image."""
        for name, stats in entry.items():
            if name != _BOUNDARY:
                self._accumulators[name].update(stats)
            elif self._edges is not None:
                self._edges.add(stats)

    @cached_property
    def results(self) -> Results:
        """{task: {metric: value}} of all images added."""
        found: Results = {task: accumulator.compute() for task, accumulator in self._accumulators.items()}
        if self._edges is not None:
            found["edge"] |= self._edges.compute()
        return found

    def bootstrap(self, resamples: int, seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
        """{task: {metric: 95 % confidence interval over the images}}, see `metrics.core.intervals`."""
        found = {task: accumulator.bootstrap(resamples, seed) for task, accumulator in self._accumulators.items()}
        if self._edges is not None:
            found["edge"] |= self._edges.bootstrap(resamples, seed)
        return found


def save_predictions(
    images: Iterable[tuple[int, Mapping[str, np.ndarray]]], source: Split, family: str, save_to: Path
) -> None:
    """Writes predictions at each image's original size, one sub-folder a task, see `predictions.file_path`.

    Args:
        images: (index in the source, {task: prediction at network resolution}), from `predict_images`.
        source: the records.
        family: label conventions of the records.
        save_to: the folder.
    """
    for index, maps in images:
        record = source.sample(index, (), family)
        predictions.save_all(save_to, record["id"], maps, record["image"].shape[:2])


def read_predictions(
    directory: Path, source: Split, channels: Mapping[str, int], skip: Container[int] = ()
) -> Iterator[tuple[int, Predicted]]:
    """(index, what reads its predictions) of every image, from files as `save_predictions` or another tool writes them.

    Reading raises ValueError on a faulty file, or one that has not the image's size; the message names it.

    Args:
        directory: the folder with a sub-folder for each task.
        source: the records.
        channels: {task: logit channels}, of class maps the number of classes.
        skip: images to leave out.

    Raises:
        FileNotFoundError: predictions are missing; the message lists them.
    """
    predictions.check_complete(directory, channels, source.ids())

    def read(task: str, record: Mapping[str, Any]) -> np.ndarray:
        path = predictions.file_path(directory, task, record["id"])
        return predictions.load(task, path, record["image"].shape[:2], channels[task])

    return ((index, read) for index in range(len(source)) if index not in skip)


def score(results: Results, reference: Results | None, criteria: Mapping[str, Criterion]) -> float | None:
    """What ranks the checkpoints of a run, higher is better; None where it cannot be told.

    The deciding metric for a single task; for several, the multi-task performance relative to `reference`: the
    single-task results or, without them, the run's first evaluation that can serve.
    """
    if len(criteria) == 1:
        ((task, criterion),) = criteria.items()
        value = criterion.sign * deciding(results, task, criterion)
    elif reference is None:
        return None
    else:
        value = delta_m(results, reference, criteria)
    return value if math.isfinite(value) else None  # NaN would sort above every score


def can_serve_as_reference(results: Results, criteria: Mapping[str, Criterion]) -> bool:
    """Whether relative gains over these results exist: no deciding metric is 0 or undefined."""
    values = [deciding(results, task, criterion) for task, criterion in criteria.items()]
    return all(math.isfinite(value) and value != 0 for value in values)


def table(results: Results) -> str:
    """The scalar results as aligned lines, one task each; nan where nothing is labelled."""
    lines = []
    for task, result in results.items():
        scalars = {name: value for name, value in result.items() if isinstance(value, float)}
        lines.append(f"{task:<12}" + "  ".join(f"{name} {value:.4f}" for name, value in scalars.items()))
    return "\n".join(lines)
