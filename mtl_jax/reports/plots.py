"""Plots of runs: training curves and the IoU of each class. Only this module needs matplotlib."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # writes files, also where there is no screen

from matplotlib import pyplot
from matplotlib.figure import Figure

from mtl_jax.evaluation import result_files
from mtl_jax.reports.run_table import EvaluatedRun
from mtl_jax.runtime import atomic_files

_SIZE = (8.0, 4.5)  # inches
_IOU = "per_class_IoU"


def draw(runs: Sequence[EvaluatedRun], folder: Path) -> list[Path]:
    """Writes PNG files into a folder and returns their paths.

    `loss.png` shows the training loss of all runs over the steps, `TASK_METRIC.png` the metric that decides a task
    during training. `DATA_TASK_IoU.png`, DATA the data set, shows the IoU of each class at the best checkpoints, by the
    run's own protocol.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = _labels(runs)
    written = [_curves(runs, labels, "train", "loss/total", folder / "loss.png")]
    names = {
        f"{task}/{criterion.name}" for run in runs for task, criterion in run.experiment.streaming_criteria.items()
    }
    written += [_curves(runs, labels, "eval", name, folder / f"{name.replace('/', '_')}.png") for name in sorted(names)]
    shown: dict[tuple[str, str], list[EvaluatedRun]] = {}
    for run in runs:
        for task in _class_scores(run):
            shown.setdefault((run.experiment.builder_name, task), []).append(run)
    for (data, task), scored in sorted(shown.items()):
        written.append(_bars(scored, labels, task, folder / f"{data.replace('/', '_')}_{task}_IoU.png"))
    return written


def _labels(runs: Sequence[EvaluatedRun]) -> dict[Path, str]:
    """Returns {work directory: short name that no other work directory has}."""
    common = os.path.commonpath([run.workdir.parent for run in runs])
    return {run.workdir: os.path.relpath(run.workdir, common) for run in runs}


def _class_scores(run: EvaluatedRun) -> dict[str, list[float]]:
    own = run.experiment.protocol_description
    best = [each for each in run.reports if each["checkpoint"] == result_files.BEST and each["protocol"] == own]
    return {task: scores[_IOU] for report in best for task, scores in report["results"].items() if _IOU in scores}


def _curves(runs: Sequence[EvaluatedRun], labels: Mapping[Path, str], kind: str, name: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=_SIZE)
    for run in runs:
        points = [(line["step"], line[name]) for line in run.log if line["kind"] == kind and name in line]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=labels[run.workdir], marker="." if len(points) < 30 else None)
    axes.set(xlabel="step", ylabel=name)
    return _save(figure, path)


def _bars(runs: Sequence[EvaluatedRun], labels: Mapping[Path, str], task: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=_SIZE)
    width = 0.8 / len(runs)
    for i, run in enumerate(runs):
        values = _class_scores(run)[task]
        positions = [j + (i - (len(runs) - 1) / 2) * width for j in range(len(values))]
        axes.bar(positions, values, width, label=labels[run.workdir])
    axes.set(xlabel=f"class of {task}", ylabel="IoU", ylim=(0, 1))
    names = runs[0].experiment.class_names.get(task)
    if names:
        axes.set_xticks(range(len(names)), names, rotation=45, rotation_mode="anchor", ha="right", fontsize="small")
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    axes = figure.axes[0]
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=120)
    pyplot.close(figure)
    return atomic_files.write(path, content.getvalue())
