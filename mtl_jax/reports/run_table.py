"""Many evaluated runs in one table."""

import logging
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_jax import experiment, folders, loggers
from mtl_jax.config import PLAIN_BALANCING, Config
from mtl_jax.evaluation import result_files
from mtl_jax.experiment import Experiment
from mtl_jax.metrics import deciding, delta_m
from mtl_jax.protocol import criteria as protocol_criteria
from mtl_jax.reports import cost
from mtl_jax.runtime import messages
from mtl_jax.tasks import TASKS, Criterion

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluated run.

    Attributes:
        workdir: The work directory of the run.
        experiment: The run's experiment.
        reports: Reports of `mtl evaluate`, one for each checkpoint and protocol.
        log: Lines of the run's log.
    """

    workdir: Path
    experiment: Experiment
    reports: Sequence[result_files.Report]
    log: Sequence[Mapping[str, Any]]

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self.experiment.config

    @property
    def identity(self) -> tuple[Any, ...]:
        """The settings that all runs of one experiment share, whatever their seeds."""
        return tuple((name, repr(value)) for name, value in sorted(experiment.identity(self.config).items()))


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A run at one of its checkpoints, scored by one protocol.

    Attributes:
        run: The run.
        report: The report on the checkpoint by the protocol.
    """

    run: EvaluatedRun
    report: result_files.Report

    @property
    def protocol(self) -> str:
        """The description of the protocol as text; only results with the same text are comparable."""
        return ", ".join(f"{name} {value}" for name, value in self.report["protocol"].items())

    @property
    def criteria(self) -> dict[str, Criterion]:
        """{task: metric that decides}, by the protocol of the report, whatever the configuration says."""
        saliency = self.report["protocol"]["saliency"]
        return protocol_criteria(self.run.experiment.main_tasks, saliency=saliency, final=True)

    def value(self, task: str) -> float:
        """Returns the value of the metric that decides a task."""
        return deciding(self.report["results"], task, self.criteria[task])


@dataclass(frozen=True)
class Row:
    """Runs of one experiment at the same checkpoint: "best", "latest" or a number.

    Attributes:
        members: The runs at this checkpoint.
        gains: Multi-task performance of each run; empty without single-task results.
        parameters: Number of parameters of the model.
        multiply_adds: Number of multiply-adds to predict one image.
    """

    members: tuple[ScoredCheckpoint, ...]
    gains: list[float]
    parameters: int
    multiply_adds: int

    @property
    def criteria(self) -> dict[str, Criterion]:
        """{task: metric that decides}."""
        return self.members[0].criteria

    @property
    def config(self) -> Config:
        """The configuration of the first run."""
        return self.members[0].run.config

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint."""
        return str(self.members[0].report["checkpoint"])

    @property
    def scores(self) -> dict[str, list[float]]:
        """{task: value of the deciding metric for each run}."""
        return {task: [member.value(task) for member in self.members] for task in self.criteria}


def find_runs(directories: Iterable[str | Path]) -> list[EvaluatedRun]:
    """Returns the evaluated runs below the directories.

    Saved models are left out, with a warning.

    Raises:
        FileNotFoundError: There are no evaluated runs.
        ValueError: A report or a configuration cannot be read.
    """
    directories = list(directories)
    reports: dict[Path, list[Path]] = {}
    for path in result_files.find(directories):
        reports.setdefault(path.parent, []).append(path)
    runs = [
        EvaluatedRun(
            workdir,
            experiment.make(experiment.load_config(workdir)),
            [result_files.read(path) for path in paths],
            loggers.read(workdir / loggers.LOG),
        )
        for workdir, paths in reports.items()
        if (workdir / experiment.CONFIG).is_file() and not _left_out(workdir)
    ]
    if not runs:
        raise FileNotFoundError(
            f"no evaluated run below {', '.join(map(str, directories))}; run `mtl evaluate --workdir` on each"
        )
    return runs


def _left_out(folder: Path) -> bool:
    """Returns True for a saved model, which repeats the scores of a run, and says so."""
    saved = folders.is_saved_model(folder)
    if saved:
        _logger.warning("%s is a saved model, no run, and is left out", folder)
    return saved


def tabulate(runs: Sequence[EvaluatedRun]) -> dict[str, list[Row]]:
    """Returns {protocol: rows}; numbers of different protocols are never in one table.

    The multi-task performance is relative to the best checkpoints of the single-task runs with the same backbone, or to
    their mean where the runs differ only in the seed. Where they differ in more, there is no multi-task performance.
    """
    everything = [ScoredCheckpoint(run, content) for run in runs for content in run.reports]
    groups: dict[tuple[Any, ...], list[ScoredCheckpoint]] = {}
    for item in everything:
        key = (item.run.identity, item.report["checkpoint"], item.protocol)
        groups.setdefault(key, []).append(item)
    configs = {run.identity: run.config for run in runs}
    costs = {settings: cost.summarize(config) for settings, config in configs.items()}
    tables: dict[str, list[Row]] = {}
    for (settings, _, protocol), members in groups.items():
        size = costs[settings]
        row = Row(tuple(members), _gains(members, everything), size.parameters, size.multiply_adds)
        tables.setdefault(protocol, []).append(row)
    return tables


def _gains(members: Sequence[ScoredCheckpoint], everything: Sequence[ScoredCheckpoint]) -> list[float]:
    first = members[0]
    if len(first.criteria) < 2:
        return []
    reference = {}
    for task, criterion in first.criteria.items():
        single = [
            other
            for other in everything
            if other.run.experiment.main_tasks == (task,)
            and other.run.config.model.name == "single_task"
            and other.report["checkpoint"] == result_files.BEST
            and other.protocol == first.protocol
            and other.run.config.model.backbone == first.run.config.model.backbone
        ]
        if len({other.run.identity for other in single}) > 1:
            listed = ", ".join(str(other.run.workdir) for other in single)
            _logger.warning(
                "%s has no Δ_m: the single-task runs of %s differ by more than their seed (%s); name one experiment's",
                first.run.workdir,
                task,
                listed,
            )
            return []
        if not single or not math.isfinite(value := statistics.fmean(other.value(task) for other in single)):
            return []
        if value == 0:
            return []
        reference[task] = {criterion.name: value}
    return [delta_m(member.report["results"], reference, first.criteria) for member in members]


def short_names(runs: Sequence[EvaluatedRun]) -> dict[Path, str]:
    """Returns {work directory: short name that no other work directory has}."""
    common = os.path.commonpath([run.workdir.parent for run in runs])
    return {run.workdir: os.path.relpath(run.workdir, common) for run in runs}


def columns(rows: Sequence[Row]) -> list[tuple[str, Criterion]]:
    """Returns the pairs of a task and the metric that decides it which the rows have, in the order of the tasks."""
    order = list(TASKS)
    pairs = {(task, criterion) for row in rows for task, criterion in row.criteria.items()}
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1].name))


def settings(rows: Sequence[Row]) -> list[str]:
    """Returns for each row the fields in which it differs from others of its model, backbone, balancing and tasks.

    The text is empty for a row that these tell apart from all others.
    """
    told = [experiment.identity(row.config) for row in rows]
    groups: dict[tuple[Any, ...], list[dict[str, object]]] = {}
    for row, own in zip(rows, told, strict=True):
        groups.setdefault(_heading(row), []).append(own)
    texts = []
    for row, own in zip(rows, told, strict=True):
        alike = groups[_heading(row)]
        differing = [name for name, value in own.items() if any(other.get(name) != value for other in alike)]
        texts.append(", ".join(_setting(name, own[name]) for name in differing))
    return texts


def _setting(name: str, value: object) -> str:
    """Returns a field and its value as the command line writes them, a mapping by its entries."""
    if value in ("", (), {}):
        return f"{name} empty"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}.{key}={each}" for key, each in value.items())
    return f"{name}={value}"


def _heading(row: Row) -> tuple[Any, ...]:
    model = row.config.model
    return (model.name, model.backbone, row.config.balancing, tuple(row.criteria))


def markdown(tables: Mapping[str, Sequence[Row]]) -> str:
    """Returns the tables as Markdown, with mean ± standard deviation where there are several seeds."""
    parts = []
    for protocol, rows in tables.items():
        shown = columns(rows)
        balanced = any(row.config.balancing != PLAIN_BALANCING for row in rows)
        told = settings(rows)
        names = ["model", "backbone", *["balancing"] * balanced, *["settings"] * any(told), "checkpoint"]
        head = [
            *names,
            *(f"{task} {c.name} {'↑' if c.sign > 0 else '↓'}" for task, c in shown),
        ]
        head += ["Δ_m %", "parameters", "multiply-adds", "seeds"]
        lines = [head, ["---"] * len(names) + ["---:"] * (len(head) - len(names))]
        for row, text in zip(rows, told, strict=True):
            model, steps = row.config.model, sorted({member.report["step"] for member in row.members})
            texts = [model.name, model.backbone, *[row.config.balancing] * balanced, *[text] * any(told)]
            texts += [f"{row.checkpoint} (step {', '.join(map(str, steps))})"]
            cells = list(map(messages.markdown_cell, texts))
            for task, criterion in shown:
                has = row.criteria.get(task) == criterion
                cells.append(_spread(row.scores[task]) if has else "")
            cells += [_spread([100 * gain for gain in row.gains], 2, sign="+") if row.gains else ""]
            cells += [f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.1f} G", str(len(row.members))]
            lines.append(cells)
        title = f"Protocol: {messages.markdown_cell(protocol)}"
        parts.append(f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def as_dict(tables: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Returns the tables for other programs, ready for JSON."""
    return [
        {
            "protocol": dict(row.members[0].report["protocol"]),
            "model": row.config.model.name,
            "backbone": row.config.model.backbone,
            "balancing": row.config.balancing,
            "settings": text,
            "checkpoint": row.checkpoint,
            "workdirs": [str(member.run.workdir) for member in row.members],
            "seeds": [member.run.config.train.seed for member in row.members],
            "steps": [member.report["step"] for member in row.members],
            "scores": {
                task: {"metric": row.criteria[task].name, "values": values, **_moments(values)}
                for task, values in row.scores.items()
            },
            "delta_m": {"values": row.gains, **_moments(row.gains)} if row.gains else None,
            "parameters": row.parameters,
            "multiply_adds": row.multiply_adds,
        }
        for rows in tables.values()
        for row, text in zip(rows, settings(rows), strict=True)
    ]


def _moments(values: Sequence[float]) -> dict[str, Any]:
    mean = statistics.fmean(values)
    spread = len(values) > 1 and math.isfinite(mean)
    return {"mean": mean, "std": statistics.stdev(values) if spread else None}


def _spread(values: Sequence[float], digits: int = 4, sign: str = "") -> str:
    moments = _moments(values)
    if not math.isfinite(moments["mean"]):
        return "nan"
    text = f"{moments['mean']:{sign}.{digits}f}"
    return text if moments["std"] is None else f"{text} ± {moments['std']:.{digits}f}"
