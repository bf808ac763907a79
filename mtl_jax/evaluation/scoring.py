"""Evaluation during training and by the final protocol.

During training, predictions are scored on the device, at network resolution, against the transformed labels. The final
protocol resizes every prediction to its image's original size, quantises it as if it were written to a file, and
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
from mtl_jax.data.placing import Placement
from mtl_jax.data.records import IMAGE_SIZE
from mtl_jax.data.split import Split
from mtl_jax.evaluation import predictions
from mtl_jax.labels import Conventions
from mtl_jax.metrics import Accumulator, Metric, Result, Stats, deciding, delta_m
from mtl_jax.runtime import sharding
from mtl_jax.tasks import Criterion

if TYPE_CHECKING:  # edges load a compiler, which training does not need
    from mtl_jax.evaluation.edge_scores import EdgeScores
    from mtl_jax.evaluation.resume_log import ResumeLog

Results = dict[str, Result]  # {task: {metric: value}}
# (task, record of `Split.labels`) -> prediction at the size of its image: `[H, W]` for class maps, or `[H, W, C]`
Predicted = Callable[[str, Mapping[str, Any]], np.ndarray]
Entry = dict[str, Stats]  # statistics of one image: {task: {name: [1, ...]}}, and its edges under _BOUNDARY
_BOUNDARY = "boundary"
_RULES = 1  # raise it when statistics change for the same predictions: kept statistics then do not count any more


def streaming(
    step: Callable[[Any, Mapping], tuple[Any, Mapping]],
    arrays: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    metrics: Mapping[str, Metric],
    mesh: Mesh,
) -> Results:
    """Returns the scores at network resolution.

    Args:
        step: Step from `train.step.make_eval_step`.
        arrays: Arrays of the state.
        batches: Batches from `data.loader.val_batches`; images that are not "valid" are padding.
        metrics: {task: metric}.
        mesh: Devices that share a batch.
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
    """Yields (index, {task: prediction at network resolution}) for every image of the batches.

    Args:
        step: Step from `train.step.make_predict_step`.
        arrays: Arrays of the state.
        batches: Batches with "image" `[B, H, W, 3]`, "index" and "valid" `[B]`; images that are not valid are padding.
        mesh: Devices that share a batch.
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
    """Yields the batches, or some of their entries, on the devices; the next batch is copied while one is in use."""
    source = iter(batches)

    def place() -> dict[str, jax.Array]:
        batch = next(source)
        return sharding.shard_batch({name: batch[name] for name in names or batch}, mesh)

    with contextlib.ExitStack() as exits:
        if (close := getattr(source, "close", None)) is not None:
            exits.callback(close)  # ends the worker processes, also where the caller fails
        yield from prefetch.ahead(place)


def at_size(
    images: Iterable[tuple[int, Mapping[str, np.ndarray]]], placement: Placement = "stretch"
) -> Iterator[tuple[int, Predicted]]:
    """Yields (index, function that brings the predictions to a record's own size) for every image.

    Args:
        images: (index in the source, {task: prediction at network resolution}), from `predict_images`.
        placement: How the images were placed in the network's input.
    """
    for index, maps in images:
        yield index, partial(_at_size, maps, placement)


def _at_size(maps: Mapping[str, np.ndarray], placement: Placement, task: str, record: Mapping[str, Any]) -> np.ndarray:
    return predictions.at_size(task, maps[task], record[IMAGE_SIZE], placement)


def keys(
    source: Split, metrics: Mapping[str, Metric], protocol: Mapping[str, str], origins: Iterable[str]
) -> list[str]:
    """Returns for each image a text that names everything its statistics depend on.

    Args:
        source: The records.
        metrics: {task: metric of the final protocol}.
        protocol: Description of the protocol, from `Protocol.describe`.
        origins: For each image a text that changes whenever its predictions may change.
    """
    common = repr((_RULES, source.fingerprint(), metrics, protocol))
    return [f"{common} {index} {origin}" for index, origin in enumerate(origins)]


def final(
    images: Iterable[tuple[int, Predicted]],
    source: Split,
    metrics: Mapping[str, Metric],
    conventions: Conventions,
    edges: "EdgeScores | None" = None,
    progress: "ResumeLog | None" = None,
) -> "DatasetScores":
    """Returns the scores at each image's original size.

    An image without a label of a task does not count in the score of that task.

    Args:
        images: (index in the source, function that returns its predictions), see `at_size` and `read_predictions`.
        source: The records with their labels.
        metrics: {task: metric of the final protocol}.
        conventions: Label conventions of the records.
        edges: Scores of the predicted boundaries; None = boundaries are not scored.
        progress: Log with the keys of `keys` that receives the statistics of each image. Images that it has already
            count as scored, and may be missing in `images`.
    """
    scored = DatasetScores(metrics, edges)
    for finished in progress.entries() if progress is not None else ():
        scored.add(finished)
    for index, predicted in images:
        if progress is not None and index in progress:
            continue
        record = source.labels(index, tuple(metrics), conventions)
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
        edges: Scores of the boundaries, which count where `metrics` has edges.
    """

    def __init__(self, metrics: Mapping[str, Metric], edges: "EdgeScores | None" = None):
        self._accumulators = {task: Accumulator(metric) for task, metric in metrics.items()}
        self._edges = edges if "edge" in metrics else None

    def add(self, entry: Entry) -> None:
        """Adds the statistics of an image."""
        for name, stats in entry.items():
            if name != _BOUNDARY:
                self._accumulators[name].update(stats)
            elif self._edges is not None:
                self._edges.add(stats)

    @cached_property
    def results(self) -> Results:
        """{task: {metric: value}} of all images added."""
        results: Results = {task: accumulator.compute() for task, accumulator in self._accumulators.items()}
        if self._edges is not None:
            results["edge"] |= self._edges.compute()
        return results

    def bootstrap(self, resamples: int, seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
        """Returns {task: {metric: 95 % confidence interval over the images}}, see `metrics.core.intervals`."""
        intervals = {task: accumulator.bootstrap(resamples, seed) for task, accumulator in self._accumulators.items()}
        if self._edges is not None:
            intervals["edge"] |= self._edges.bootstrap(resamples, seed)
        return intervals


def save_predictions(
    images: Iterable[tuple[int, Mapping[str, np.ndarray]]],
    source: Split,
    conventions: Conventions,
    save_to: Path,
    placement: Placement = "stretch",
) -> None:
    """Writes predictions at each image's original size, with a sub-folder for each task, see `predictions.file_path`.

    Args:
        images: (index in the source, {task: prediction at network resolution}), from `predict_images`.
        source: The records.
        conventions: Label conventions of the records.
        save_to: Folder that receives the predictions.
        placement: How the images were placed in the network's input.
    """
    for index, maps in images:
        record = source.labels(index, (), conventions)
        for task, value in predictions.as_stored(maps, record[IMAGE_SIZE], placement).items():
            predictions.save(task, value, predictions.file_path(save_to, task, record["id"]))


def read_predictions(
    directory: Path, source: Split, channels: Mapping[str, int], skip: Container[int] = ()
) -> Iterator[tuple[int, Predicted]]:
    """Yields (index, function that reads its predictions) for every image.

    The files are from `save_predictions` or another tool. The function raises ValueError where a file is faulty or does
    not have the image's size; the message names the file.

    Args:
        directory: Folder with a sub-folder for each task.
        source: The records.
        channels: {task: logit channels}; for class maps the number of classes.
        skip: Indices of images to leave out.

    Raises:
        FileNotFoundError: Predictions are missing; the message lists them.
    """
    predictions.check_complete(directory, channels, source.ids())

    def read(task: str, record: Mapping[str, Any]) -> np.ndarray:
        path = predictions.file_path(directory, task, record["id"])
        return predictions.load(task, path, record[IMAGE_SIZE], channels[task])

    return ((index, read) for index in range(len(source)) if index not in skip)


def score(results: Results, reference: Results | None, criteria: Mapping[str, Criterion]) -> float | None:
    """Returns the number that ranks the checkpoints of a run, higher is better; None where it is not defined.

    For a single task it is the deciding metric, for several tasks the multi-task performance relative to `reference`.

    Args:
        results: {task: {metric: value}} of the checkpoint.
        reference: Results of single-task models, or of the first evaluation of the run that can serve.
        criteria: {task: metric that decides} of the tasks that can be scored.
    """
    if not criteria:
        return None
    if len(criteria) == 1:
        ((task, criterion),) = criteria.items()
        value = criterion.sign * deciding(results, task, criterion)
    elif reference is None:
        return None
    else:
        value = delta_m(results, reference, criteria)
    return value if math.isfinite(value) else None  # NaN would sort above every score


def can_serve_as_reference(results: Results, criteria: Mapping[str, Criterion]) -> bool:
    """Returns True if gains relative to these results exist: no deciding metric is 0 or undefined."""
    values = [deciding(results, task, criterion) for task, criterion in criteria.items()]
    return all(math.isfinite(value) and value != 0 for value in values)


def table(results: Results) -> str:
    """Returns the scalar results as text with a line for each task; nan where nothing is labelled."""
    lines = []
    for task, result in results.items():
        scalars = {name: value for name, value in result.items() if isinstance(value, float)}
        lines.append(f"{task:<12}" + "  ".join(f"{name} {value:.4f}" for name, value in scalars.items()))
    return "\n".join(lines)
