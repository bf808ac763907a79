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
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mtl_jax import parallel, predictions
from mtl_jax.data import prefetch
from mtl_jax.data.datasets import Split
from mtl_jax.metrics import Accumulator, Metric, Result, delta_m
from mtl_jax.tasks import TASKS

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
    save_to: Path | None = None,
) -> Results:
    """Scores at each image's original size.

    An image without a label of a task does not count in that task's score; its prediction is saved all the same.

    Args:
        images: (index in the source, predictions at network resolution), from `predict_images`.
        source: the records with their labels.
        metrics: the final protocol's.
        family: label conventions of the records, a key of `records.CONVENTIONS`.
        save_to: folder that receives the predictions as files, one sub-folder a task; None writes nothing.
    """
    accumulators = {task: Accumulator(metric) for task, metric in metrics.items()}
    for index, maps in images:
        sample = source.sample(index, tuple(metrics), family)
        size = sample["image"].shape[:2]
        for task, accumulator in accumulators.items():
            if save_to is None and task not in sample:
                continue
            resized = predictions.resize_prediction(task, maps[task], size)
            prediction = predictions.quantise(task, resized)
            if save_to is not None:
                predictions.save(task, prediction, predictions.file_path(save_to, task, sample["id"]))
            if task in sample:
                accumulator.update(accumulator.metric.update(prediction[None], sample[task][None]))
    return {task: accumulator.compute() for task, accumulator in accumulators.items()}


def score(results: Results, reference: Results | None, tasks: Sequence[str]) -> float | None:
    """What ranks the checkpoints of a run, higher is better; None where it cannot be told.

    The deciding metric for a single task; for several, the multi-task performance relative to `reference`: the
    single-task results or, without them, the run's first evaluation that can serve.
    """
    if len(tasks) == 1:
        row = TASKS[tasks[0]]
        value = _criterion(results, row.name) * (1 if row.higher_is_better else -1)
    elif reference is None:
        return None
    else:
        value = delta_m(results, reference, tasks)
    return value if math.isfinite(value) else None  # NaN would sort above every score


def can_serve_as_reference(results: Results, tasks: Sequence[str]) -> bool:
    """Whether relative gains over these results exist: no deciding metric is 0 or undefined."""
    return all(math.isfinite(value) and value != 0 for value in (_criterion(results, task) for task in tasks))


def _criterion(results: Results, task: str) -> float:
    return float(results[task][TASKS[task].criterion])  # type: ignore[arg-type]


def read_single_task(directories: Sequence[str | Path], tasks: Sequence[str], protocol: Mapping[str, str]) -> Results:
    """The results of single-task runs, found below the directories, for the given tasks.

    Raises:
        FileNotFoundError: no results for one of the tasks; the message names the command that makes them.
        ValueError: results that cannot be read, that occur twice, that were obtained under another protocol, or that no
            relative gain can refer to; the message names the file.
    """
    found: dict[str, Path] = {}
    results: Results = {}
    for path in sorted(path for directory in directories for path in Path(directory).rglob(RESULTS)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores, obtained = content["results"], content["protocol"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a report of scripts/evaluate.py ({error!r}); evaluate again") from error
        names = tuple(scores)
        if len(names) != 1 or names[0] not in tasks:
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
        if not can_serve_as_reference(scores, names):
            raise ValueError(f"{path}: {TASKS[names[0]].criterion} is 0 or undefined, so no relative gain exists")
        found[names[0]] = path
        results |= scores
    if missing := [task for task in tasks if task not in found]:
        raise FileNotFoundError(
            f"no single-task {RESULTS} for {', '.join(missing)} below {', '.join(map(str, directories))}; train the "
            "single-task models and run scripts/evaluate.py on each of their workdirs, or leave out --single_task"
        )
    return {task: results[task] for task in tasks}


def report(results: Results, reference: Results | None, *, step: int, protocol: Mapping[str, str]) -> dict[str, Any]:
    """What results.json holds: scores, the multi-task performance where it can be told, and how they were obtained."""
    gain = None if reference is None else delta_m(results, reference, tuple(results))
    if gain is not None and not math.isfinite(gain):  # a task without a labelled image
        gain = None
    return {"step": step, "protocol": dict(protocol), "results": results, "delta_m": gain, "single_task": reference}


def write_report(content: Mapping[str, Any], workdir: str | Path) -> Path:
    """Writes results.json, whole or not at all."""
    path = Path(workdir) / RESULTS
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return temporary.replace(path)


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
    text = f"step {content['step']}; protocol: {protocol}\n{table(content['results'])}\n{comparison}"
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
