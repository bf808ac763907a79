"""Many evaluated runs in one table."""

import logging
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_jax import experiment
from mtl_jax.config import PLAIN_BALANCING, Config, main_tasks
from mtl_jax.evaluation import result_files
from mtl_jax.metrics import deciding, delta_m
from mtl_jax.protocol import criteria as protocol_criteria
from mtl_jax.reports import cost
from mtl_jax.tasks import TASKS, Criterion
from mtl_jax.train.writer import LOG, whole_lines

# What runs of one experiment may differ in: chance, and where and how fast they ran.
_LEFT_OUT = {"train.seed", "train.log_every", "train.checkpoint_every", "model.options.single_task"} | {
    f"data.{name}" for name in ("data_dir", "manual_dir", "num_workers")
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluated run.

    Attributes:
        workdir: its work directory.
        config: its configuration.
        reports: what scripts/evaluate.py wrote, one for each checkpoint and protocol.
        log: the lines of its log.
    """

    workdir: Path
    config: Config
    reports: Sequence[result_files.Report]
    log: Sequence[Mapping[str, Any]]

    @property
    def experiment(self) -> tuple[Any, ...]:
        """What runs that differ by their seed share."""
        settings = experiment.flat(self.config)
        return tuple((name, repr(value)) for name, value in sorted(settings.items()) if name not in _LEFT_OUT)


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A run at one of its checkpoints, by one protocol.

    Attributes:
        run: it.
        report: one of its.
    """

    run: EvaluatedRun
    report: result_files.Report

    @property
    def protocol(self) -> str:
        """What its numbers have to share with others, as text."""
        return ", ".join(f"{name} {value}" for name, value in self.report["protocol"].items())

    @property
    def criteria(self) -> dict[str, Criterion]:
        """What decides, by the protocol the report was obtained under, whatever the configuration says."""
        saliency = self.report["protocol"]["saliency"]
        return protocol_criteria(main_tasks(self.run.config), saliency=saliency, final=True)

    def value(self, task: str) -> float:
        """What decides a task."""
        return deciding(self.report["results"], task, self.criteria[task])


@dataclass(frozen=True)
class Row:
    """Runs of one experiment at the same checkpoint: "best", "latest" or a number.

    Attributes:
        members: they.
        gains: multi-task performance of each, empty without single-task results.
        parameters: of the model.
        multiply_adds: of predicting one image.
    """

    members: tuple[ScoredCheckpoint, ...]
    gains: list[float]
    parameters: int
    multiply_adds: int

    @property
    def criteria(self) -> dict[str, Criterion]:
        """What decides."""
        return self.members[0].criteria

    @property
    def config(self) -> Config:
        """The first run's."""
        return self.members[0].run.config

    @property
    def checkpoint(self) -> str:
        """Which."""
        return str(self.members[0].report["checkpoint"])

    @property
    def scores(self) -> dict[str, list[float]]:
        """{task: value of what decides for each run}."""
        return {task: [member.value(task) for member in self.members] for task in self.criteria}


def find_runs(directories: Iterable[str | Path]) -> list[EvaluatedRun]:
    """The evaluated runs below the directories.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file that cannot be read.
    """
    directories = list(directories)
    found: dict[Path, list[Path]] = {}
    for path in result_files.find(directories):
        found.setdefault(path.parent, []).append(path)
    runs = [
        EvaluatedRun(
            workdir,
            experiment.load_config(workdir),
            [result_files.read(path) for path in paths],
            [content for _, content in whole_lines(workdir / LOG)],
        )
        for workdir, paths in found.items()
        if (workdir / experiment.CONFIG).is_file()
    ]
    if not runs:
        raise FileNotFoundError(
            f"no evaluated run below {', '.join(map(str, directories))}; run scripts/evaluate.py --workdir on each"
        )
    return runs


def tabulate(runs: Sequence[EvaluatedRun]) -> dict[str, list[Row]]:
    """{protocol: rows}; numbers of different protocols are never put into one table.

    The multi-task performance refers to the best checkpoints of the single-task runs among these with the same
    backbone, the mean over theirs where several differ by the seed only; where they differ by more, none is given.
    """
    everything = [ScoredCheckpoint(run, content) for run in runs for content in run.reports]
    groups: dict[tuple[Any, ...], list[ScoredCheckpoint]] = {}
    for item in everything:
        key = (item.run.experiment, item.report["checkpoint"], item.protocol)
        groups.setdefault(key, []).append(item)
    configs = {run.experiment: run.config for run in runs}
    counted = {found: cost.summarize(config) for found, config in configs.items()}
    tables: dict[str, list[Row]] = {}
    for (found, _, protocol), members in groups.items():
        size = counted[found]
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
            if main_tasks(other.run.config) == (task,)
            and other.run.config.model.name == "single_task"
            and other.report["checkpoint"] == result_files.BEST
            and other.protocol == first.protocol
            and other.run.config.model.backbone == first.run.config.model.backbone
        ]
        if len({other.run.experiment for other in single}) > 1:
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


def markdown(tables: Mapping[str, Sequence[Row]]) -> str:
    """The tables as text: mean ± standard deviation over the seeds where there are several."""
    parts = []
    for protocol, rows in tables.items():
        columns = {(task, criterion) for row in rows for task, criterion in row.criteria.items()}
        order = list(TASKS)
        shown = sorted(columns, key=lambda column: (order.index(column[0]), column[1].name))
        balanced = any(row.config.balancing != PLAIN_BALANCING for row in rows)
        names = ["model", "backbone", *["balancing"] * balanced, "checkpoint"]
        head = [
            *names,
            *(f"{task} {c.name} {'↑' if c.sign > 0 else '↓'}" for task, c in shown),
        ]
        head += ["Δ_m %", "parameters", "multiply-adds", "seeds"]
        lines = [head, ["---"] * len(names) + ["---:"] * (len(head) - len(names))]
        for row in rows:
            model, steps = row.config.model, sorted({member.report["step"] for member in row.members})
            cells = [model.name, model.backbone, *[row.config.balancing] * balanced]
            cells += [f"{row.checkpoint} (step {', '.join(map(str, steps))})"]
            for task, criterion in shown:
                has = row.criteria.get(task) == criterion
                cells.append(_spread(row.scores[task]) if has else "")
            cells += [_spread([100 * gain for gain in row.gains], 2, sign="+") if row.gains else ""]
            cells += [f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.1f} G", str(len(row.members))]
            lines.append(cells)
        parts.append(f"Protocol: {protocol}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def as_dict(tables: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """The tables for other programs."""
    return [
        {
            "protocol": dict(row.members[0].report["protocol"]),
            "model": row.config.model.name,
            "backbone": row.config.model.backbone,
            "balancing": row.config.balancing,
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
        for row in rows
    ]


def _moments(values: Sequence[float]) -> dict[str, Any]:
    mean = statistics.fmean(values)
    spread = len(values) > 1 and math.isfinite(mean)
    return {"mean": mean, "std": statistics.stdev(values) if spread else None}


def _spread(values: Sequence[float], digits: int = 4, sign: str = "") -> str:
    found = _moments(values)
    if not math.isfinite(found["mean"]):
        return "nan"
    text = f"{found['mean']:{sign}.{digits}f}"
    return text if found["std"] is None else f"{text} ± {found['std']:.{digits}f}"
