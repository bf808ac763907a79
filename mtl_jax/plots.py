"""Pictures of runs: training curves and the IoU of each class. Needs matplotlib, which nothing else here does."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, also where there is no screen

from matplotlib import pyplot
from matplotlib.figure import Figure

from mtl_jax import experiment
from mtl_jax.report import Run

_SIZE = (8.0, 4.5)  # inches


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Writes PNGs into the folder and returns them.

    `loss.png` and `TASK_METRIC.png`: training loss, and what decides a task while training, over the steps of all
    runs.
    `TASK_IoU.png`: the IoU of each class by the final protocol.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [_curves(runs, "train", "loss/total", folder / "loss.png")]
    names = {
        f"{task}/{criterion.name}"
        for run in runs
        for task, criterion in experiment.criteria(run.config, final=False).items()
    }
    written += [_curves(runs, "eval", name, folder / f"{name.replace('/', '_')}.png") for name in sorted(names)]
    classes = {task for run in runs for task, scores in run.reports["best"]["results"].items() if _IOU in scores}
    written += [_bars(runs, task, folder / f"{task}_IoU.png") for task in sorted(classes)]
    return written


_IOU = "per_class_IoU"


def _curves(runs: Sequence[Run], kind: str, name: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=_SIZE)
    for run in runs:
        points = [(line["step"], line[name]) for line in run.log if line["kind"] == kind and name in line]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=run.workdir.name, marker="." if len(points) < 30 else None)
    axes.set(xlabel="step", ylabel=name)
    return _save(figure, path)


def _bars(runs: Sequence[Run], task: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=_SIZE)
    shown = [run for run in runs if _IOU in run.reports["best"]["results"].get(task, {})]
    width = 0.8 / len(shown)
    for i, run in enumerate(shown):
        values = run.reports["best"]["results"][task][_IOU]
        positions = [j + (i - (len(shown) - 1) / 2) * width for j in range(len(values))]
        axes.bar(positions, values, width, label=run.workdir.name)
    axes.set(xlabel=f"class of {task}", ylabel="IoU", ylim=(0, 1))
    names = shown[0].config.data.class_names.get(task)
    if names:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    axes = figure.axes[0]
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
