"""Plots of runs: training curves and the IoU of each class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot
from matplotlib.figure import Figure

from mtl_jax.reports import class_scores, curves, figures, run_table
from mtl_jax.reports.class_scores import ClassScores
from mtl_jax.reports.curves import Curve
from mtl_jax.reports.run_table import EvaluatedRun

_LOSS = "loss/total"  # name of the training loss in the logs
_LINE, _BAR = 0.1, 0.1  # inches that a class takes, and each of its bars


def draw(runs: Sequence[EvaluatedRun], folder: Path) -> list[Path]:
    """Writes PNG files into a folder and returns their paths.

    `loss.png` shows the training loss of all runs over the steps, `TASK_METRIC.png` the metric that decides a task
    during training. `DATA_TASK_IoU.png`, DATA the data set, shows the IoU of each class at the best checkpoints, by the
    run's own protocol.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = run_table.short_names(runs)
    drawn: dict[str, list[Curve]] = {_LOSS: []}
    for run in runs:
        drawn |= {f"{task}/{criterion.name}": [] for task, criterion in run.experiment.streaming_criteria.items()}
    for chart in curves.charts(runs):
        drawn.get(chart.name, []).extend(chart.curves)
    names = {_LOSS: "loss"} | {name: name.replace("/", "_") for name in sorted(drawn.keys() - {_LOSS})}
    names_of_runs = [labels[run.workdir] for run in runs]
    written = [_curves(drawn[name], names_of_runs, name, folder / f"{stem}.png") for name, stem in names.items()]
    for (data, task), scores in class_scores.grouped(runs).items():
        written.append(_bars(scores, labels, folder / f"{data.replace('/', '_')}_{task}_IoU.png"))
    return written


def _curves(drawn: Sequence[Curve], labels: Sequence[str], name: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=figures.SIZE)
    for curve in sorted(drawn, key=lambda curve: curve.run):
        axes.plot(curve.steps, curve.values, label=labels[curve.run], marker="." if len(curve.steps) < 30 else None)
    axes.set(xlabel="step", ylabel=name)
    return _save(figure, path)


def _bars(scores: Sequence[ClassScores], labels: Mapping[Path, str], path: Path) -> Path:
    names = max((each.names for each in scores), key=len)
    height = 0.8 / len(scores)
    width, least = figures.SIZE
    figure, axes = pyplot.subplots(figsize=(width, max(least, len(names) * (_LINE + _BAR * len(scores)))))
    for i, each in enumerate(scores):
        positions = [j + (i - (len(scores) - 1) / 2) * height for j in range(len(each.values))]
        axes.barh(positions, each.values, height, label=labels[each.run.workdir])
    axes.set(xlabel="IoU", ylabel=f"class of {scores[0].task}", xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    axes = figure.axes[0]
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return figures.save(figure, path)
