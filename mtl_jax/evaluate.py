"""Evaluation: while training, and by the final protocol.

While training, predictions are scored where they are made, at network resolution, against the transformed labels. The
final protocol resizes every prediction to its image's original size, quantises it as if it were written to a file, and
compares it with the untouched labels.
"""

import contextlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from mtl_jax import parallel, predictions, whole
from mtl_jax.data import prefetch
from mtl_jax.data.datasets import Split
from mtl_jax.metrics import Accumulator, Metric, Result, deciding, delta_m
from mtl_jax.tasks import Criterion

if TYPE_CHECKING:  # it loads a compiler, which training does not need
    from mtl_jax.edge_scores import EdgeScores

RESULTS = "results.json"
Results = dict[str, Result]  # {task: {metric: value}}


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
        return parallel.shard_batch({name: batch[name] for name in names or batch}, mesh)

    with contextlib.ExitStack() as exits:
        if (close := getattr(source, "close", None)) is not None:
            exits.callback(close)  # ends the worker processes, also where the caller fails
        yield from prefetch.ahead(place)


def final(
    images: Iterable[tuple[int, dict[str, np.ndarray]]],
    source: Split,
    metrics: Mapping[str, Metric],
    family: str,
    edges: "EdgeScores | None" = None,
) -> "Scored":
    """Scores at each image's original size.

    An image without a label of a task does not count in that task's score.

    Args:
        images: (index in the source, predictions), from `predict_images` at network resolution or from
            `read_predictions` at the original one.
        source: the records with their labels.
        metrics: the final protocol's.
        family: label conventions of the records, a key of `records.CONVENTIONS`.
        edges: also gets the predicted edges.
    """
    accumulators = {task: Accumulator(metric) for task, metric in metrics.items()}
    for index, maps in images:
        sample = source.sample(index, tuple(metrics), family)
        size = sample["image"].shape[:2]
        for task, accumulator in accumulators.items():
            if task in sample:
                prediction = predictions.quantise(task, predictions.resize_prediction(task, maps[task], size))
                accumulator.update(accumulator.metric.update(prediction[None], sample[task][None]))
                if task == "edge" and edges is not None:
                    edges.update(index, sample["id"], prediction)
    return Scored(accumulators, edges)


class Scored:
    """The scores of a data set.

    Attributes:
        results: {task: {metric: value}}.
    """

    def __init__(self, accumulators: Mapping[str, Accumulator], edges: "EdgeScores | None"):
        self._accumulators, self._edges = accumulators, edges if "edge" in accumulators else None
        self.results: Results = {task: accumulator.compute() for task, accumulator in accumulators.items()}
        if self._edges is not None:
            self.results["edge"] |= self._edges.compute()

    def bootstrap(self, resamples: int, seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
        """{task: {metric: 95 % confidence interval over the images}}, see `metrics.core.intervals`."""
        found = {task: accumulator.bootstrap(resamples, seed) for task, accumulator in self._accumulators.items()}
        if self._edges is not None:
            found["edge"] |= self._edges.bootstrap(resamples, seed)
        return found


def save_predictions(
    images: Iterable[tuple[int, dict[str, np.ndarray]]], source: Split, tasks: Sequence[str], family: str, save_to: Path
) -> None:
    """Writes predictions at each image's original size, one sub-folder a task, see `predictions.file_path`.

    Args:
        images: (index in the source, predictions at network resolution), from `predict_images`.
        source: the records.
        tasks: whose predictions.
        family: label conventions of the records.
        save_to: the folder.
    """
    for index, maps in images:
        sample = source.sample(index, (), family)
        for task in tasks:
            resized = predictions.resize_prediction(task, maps[task], sample["image"].shape[:2])
            predictions.save(task, resized, predictions.file_path(save_to, task, sample["id"]))


def read_predictions(
    directory: Path, source: Split, channels: Mapping[str, int], family: str
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(index, {task: prediction}) of every image, from files as `save_predictions` or another tool writes them.

    Args:
        directory: the folder with a sub-folder for each task.
        source: the records, whose images the predictions must have the size of.
        channels: {task: logit channels}, of class maps the number of classes.
        family: label conventions of the records.

    Raises:
        FileNotFoundError: predictions are missing; the message lists them.
        ValueError: a faulty file; the message names it.
    """
    predictions.check_complete(directory, channels, source.ids())
    for index in range(len(source)):
        sample = source.sample(index, (), family)
        size = sample["image"].shape[:2]
        yield (
            index,
            {
                task: predictions.load(task, predictions.file_path(directory, task, sample["id"]), size, classes)
                for task, classes in channels.items()
            },
        )


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


def read_single_task(
    directories: Sequence[str | Path], criteria: Mapping[str, Criterion], protocol: Mapping[str, str]
) -> Results:
    """The results of single-task runs, found below the directories.

    Args:
        directories: work directories, or folders of such.
        criteria: {task: what decides}; these tasks are looked for.
        protocol: what the results must have been obtained under.

    Raises:
        FileNotFoundError: no results for one of the tasks; the message names the command that makes them.
        ValueError: results that cannot be read, that occur twice, that were obtained under another protocol, or that no
            relative gain can refer to; the message names the file.
    """
    found: dict[str, Path] = {}
    results: Results = {}
    for path in sorted(path for directory in directories for path in Path(directory).rglob(RESULTS)):
        content = read_report(path)
        scores, obtained = content["results"], content["protocol"]
        names = tuple(scores)
        if len(names) != 1 or names[0] not in criteria:
            continue
        if obtained != dict(protocol):
            raise ValueError(
                f"{path} was obtained under the protocol {obtained}, this run under {dict(protocol)}; "
                "numbers of different protocols are not comparable. Evaluate the single-task run again"
            )
        if names[0] in found:
            raise ValueError(
                f"both {found[names[0]]} and {path} are results of {names[0]}; name one with --single_task"
            )
        criterion = criteria[names[0]]
        if criterion.name not in scores[names[0]]:
            raise ValueError(f"{path} has no {criterion.name} of {names[0]}; evaluate the single-task run again")
        if not can_serve_as_reference(scores, {names[0]: criterion}):
            raise ValueError(f"{path}: {criterion.name} is 0 or undefined, so no relative gain exists")
        found[names[0]] = path
        results |= scores
    if missing := [task for task in criteria if task not in found]:
        raise FileNotFoundError(
            f"no single-task {RESULTS} for {', '.join(missing)} below {', '.join(map(str, directories))}; train the "
            "single-task models and run scripts/evaluate.py on each of their workdirs, or leave out --single_task"
        )
    return {task: results[task] for task in criteria}


def report(
    results: Results,
    reference: Results | None,
    criteria: Mapping[str, Criterion],
    *,
    step: int | None,
    protocol: Mapping[str, str],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> dict[str, Any]:
    """What results.json holds: scores, the multi-task performance where it can be told, and how they were obtained.

    Args:
        step: of the checkpoint; None for predictions that come from elsewhere.
        intervals: from `Scored.bootstrap`.
    """
    gain = None if reference is None else delta_m(results, reference, criteria)
    if gain is not None and not math.isfinite(gain):  # a task without a labelled image
        gain = None
    content = {"step": step, "protocol": dict(protocol), "results": results, "delta_m": gain, "single_task": reference}
    return content if intervals is None else {**content, "intervals": intervals}


def report_name(step: str) -> str:
    """The file with the report on a checkpoint: "best", "latest" or a number."""
    return RESULTS if step == "best" else f"results_{step}.json"


def read_report(path: Path) -> dict[str, Any]:
    """What `write_report` wrote.

    Raises:
        ValueError: it is none; the message names the file.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["results"], content["protocol"], content["step"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report of scripts/evaluate.py ({error!r}); evaluate again") from error
    return content


def write_report(content: Mapping[str, Any], workdir: str | Path, step: str = "best") -> Path:
    """Writes a report on a checkpoint, whole or not at all."""
    path = Path(workdir) / report_name(step)
    return whole.write(path, json.dumps(content, indent=2) + "\n")


def readable(content: Mapping[str, Any]) -> str:
    """A report for people."""
    gain = content["delta_m"]
    if gain is not None:
        comparison = f"multi-task performance relative to single-task models: {100 * gain:+.2f} %"
    elif content["single_task"] is not None:
        comparison = "multi-task performance: not computed, as a task's deciding metric is undefined"
    else:
        comparison = "multi-task performance: not computed, as no single-task results were given (--single_task DIR)"
    protocol = ", ".join(f"{name} {value}" for name, value in content["protocol"].items())
    step = "predictions from files" if content["step"] is None else f"step {content['step']}"
    text = f"{step}; protocol: {protocol}\n{table(content['results'])}\n{comparison}"
    for task, found in content.get("intervals", {}).items():
        text += f"\n95 % intervals of {task}: " + ", ".join(f"{k} {a:.4f} to {b:.4f}" for k, (a, b) in found.items())
    if "constant" in content:
        text += f"\nbest constant prediction:\n{table(content['constant'])}"
    return text


def table(results: Results) -> str:
    """The scalar results as aligned lines, one task each; nan where nothing is labelled."""
    lines = []
    for task, result in results.items():
        scalars = {name: value for name, value in result.items() if isinstance(value, float)}
        lines.append(f"{task:<12}" + "  ".join(f"{name} {value:.4f}" for name, value in scalars.items()))
    return "\n".join(lines)
