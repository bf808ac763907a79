"""Curves over the steps of training, from the logs of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_jax import loggers
from mtl_jax.reports.run_table import EvaluatedRun

_MOST_POINTS = 600  # of a curve: more than a chart has columns of pixels
_DIGITS = 6
_LOSS = "loss/"
_NOT_VALUES = ("step", "kind")


@dataclass(frozen=True)
class Curve:
    """One quantity of one run.

    Attributes:
        run: Position of the run among the runs of the report.
        steps: Steps, ascending.
        values: Values at these steps.
    """

    run: int
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Chart:
    """One quantity of all runs that are comparable in it.

    Attributes:
        group: "losses", "scores" or "progress".
        name: Name of the quantity in the log.
        decides: The quantity is the loss of a main task or the total loss, or a score that decides between checkpoints.
        conditions: What the values were obtained with: the data and, for scores, the protocol.
        curves: A curve for each run that has values.
    """

    group: str
    name: str
    decides: bool
    conditions: str
    curves: list[Curve]


def charts(runs: Sequence[EvaluatedRun]) -> list[Chart]:
    """Returns the charts of everything that the logs hold: deciding ones first, then by name."""
    drawn: dict[tuple[str, str, str], Chart] = {}
    for number, run in enumerate(runs):
        for kind in (loggers.TRAINING, loggers.EVALUATION):
            for name, steps, values in _series([line for line in run.log if line["kind"] == kind]):
                conditions = _conditions(run, kind)
                group = "scores" if kind == loggers.EVALUATION else "losses" if name.startswith(_LOSS) else "progress"
                chart = Chart(group, name, name in _deciding(run), conditions, [])
                chart = drawn.setdefault((group, name, conditions), chart)
                chart.curves.append(Curve(number, *thinned(steps, values)))
    return sorted(drawn.values(), key=lambda chart: (chart.group, not chart.decides, chart.name, chart.conditions))


def _series(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[int], list[float]]]:
    """Returns (name, steps, values) of every quantity of log lines."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in _NOT_VALUES:
                steps, values = series.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(float(value))
    return [(name, steps, values) for name, (steps, values) in series.items()]


def _deciding(run: EvaluatedRun) -> set[str]:
    experiment = run.experiment
    scores = {f"{task}/{criterion.name}" for task, criterion in experiment.streaming_criteria.items()}
    return scores | {f"{_LOSS}{name}" for name in ("total", *experiment.main_tasks)}


def _conditions(run: EvaluatedRun, kind: str) -> str:
    if kind == loggers.TRAINING:
        return f"training batches, data {run.experiment.builder_name}"
    rules = ", ".join(f"{name} {value}" for name, value in run.experiment.protocol_description.items())
    return f"validation images at network resolution, {rules}"


def thinned(steps: Sequence[int], values: Sequence[float], most: int = _MOST_POINTS) -> tuple[list[int], list[float]]:
    """Returns at most `most` points of a curve, with six digits: the least and the greatest value of every interval.

    All returned points are points of the curve, and no peak is lost. The first and the last point are kept.

    Args:
        steps: Steps, ascending.
        values: Values at these steps.
        most: Greatest number of points, 4 or more.
    """
    chosen = list(range(len(steps)))
    if len(steps) > most:
        data, intervals = np.asarray(values), np.array_split(chosen[1:-1], (most - 2) // 2)
        extremes = {int(part[pick(data[part])]) for part in intervals for pick in (np.argmin, np.argmax)}
        chosen = sorted({chosen[0], chosen[-1]} | extremes)
    return [steps[i] for i in chosen], [float(f"{values[i]:.{_DIGITS}g}") for i in chosen]
