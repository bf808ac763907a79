"""Many evaluated runs in one table."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_jax import evaluate, experiment, summary
from mtl_jax.config import Config, main_tasks
from mtl_jax.metrics import deciding, delta_m
from mtl_jax.protocol import criteria as protocol_criteria
from mtl_jax.tasks import Criterion
from mtl_jax.train.writer import LOG

# What runs of one experiment may differ in: chance, and where and how fast they ran.
_LEFT_OUT = {"train.seed", "train.log_every", "train.checkpoint_every", "model.single_task"} | {
    f"data.{name}" for name in ("data_dir", "manual_dir", "num_workers")
}


@dataclass(frozen=True)
class Run:
    """An evaluated run.

    Attributes:
        workdir: its work directory.
        config: its configuration.
        reports: {"best" or "latest": what scripts/evaluate.py wrote}.
        log: the lines of its log.
    """

    workdir: Path
    config: Config
    reports: Mapping[str, Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]

    def protocol(self, which: str) -> str:
        """What a report's numbers have to share with others, as text."""
        return ", ".join(f"{name} {value}" for name, value in self.reports[which]["protocol"].items())

    def criteria(self, which: str) -> dict[str, Criterion]:
        """What decides, by the protocol the report was obtained under, whatever the configuration says."""
        saliency = self.reports[which]["protocol"]["saliency"]
        return protocol_criteria(main_tasks(self.config), saliency=saliency, final=True)

    @property
    def experiment(self) -> tuple[Any, ...]:
        """What runs that differ by their seed share."""
        settings = experiment.flat(self.config)
        return tuple((name, repr(value)) for name, value in sorted(settings.items()) if name not in _LEFT_OUT)


@dataclass(frozen=True)
class Row:
    """Runs of one experiment, at their best or at their latest checkpoint.

    Attributes:
        runs: they.
        which: "best" or "latest".
        scores: {task: value of what decides for each run}.
        gains: multi-task performance of each run, empty where it cannot be told.
        parameters: of the model.
        multiply_adds: of predicting one image.
    """

    runs: tuple[Run, ...]
    which: str
    scores: Mapping[str, list[float]]
    gains: list[float]
    parameters: int
    multiply_adds: int

    @property
    def criteria(self) -> dict[str, Criterion]:
        """What decides."""
        return self.runs[0].criteria(self.which)


def find_runs(directories: Iterable[str | Path]) -> list[Run]:
    """The evaluated runs below the directories.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file that cannot be read.
    """
    directories = list(directories)
    paths = {path.parent.resolve() for directory in directories for path in Path(directory).rglob(evaluate.RESULTS)}
    runs = []
    for workdir in sorted(path for path in paths if (path / experiment.CONFIG).is_file()):
        reports = {"best": evaluate.read_report(workdir / evaluate.RESULTS)}
        if (latest := workdir / evaluate.report_name("latest")).is_file():
            reports["latest"] = evaluate.read_report(latest)
        runs.append(Run(workdir, experiment.load_config(workdir), reports, read_log(workdir)))
    if not runs:
        raise FileNotFoundError(
            f"no evaluated run below {', '.join(map(str, directories))}; run scripts/evaluate.py --workdir on each"
        )
    return runs


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's log."""
    path = workdir / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # the run is being written, or was killed
    return found


def tabulate(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """{protocol: rows}; numbers of different protocols are never put into one table.

    The multi-task performance refers to the single-task runs among these with the same backbone, the mean over theirs
    where several differ by the seed only.
    """
    tables: dict[str, list[Row]] = {}
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        for which in run.reports:
            groups.setdefault((run.experiment, which, run.protocol(which)), []).append(run)
    counted = {found: summary.summarize(members[0].config) for (found, _, _), members in groups.items()}
    for (found, which, protocol), members in groups.items():
        size, scores, gains = counted[found], _scores(members, which), _gains(members, which, runs)
        row = Row(tuple(members), which, scores, gains, size.parameters, size.multiply_adds)
        tables.setdefault(protocol, []).append(row)
    return tables


def _scores(runs: Sequence[Run], which: str) -> dict[str, list[float]]:
    return {
        task: [deciding(run.reports[which]["results"], task, criterion) for run in runs]
        for task, criterion in runs[0].criteria(which).items()
    }


def _gains(runs: Sequence[Run], which: str, everything: Sequence[Run]) -> list[float]:
    first, criteria = runs[0], runs[0].criteria(which)
    if len(criteria) < 2:
        return []
    reference = {}
    for task, criterion in criteria.items():
        single = [
            deciding(run.reports["best"]["results"], task, criterion)
            for run in everything
            if main_tasks(run.config) == (task,)
            and run.config.model.name == "single_task"
            and run.protocol("best") == first.protocol(which)
            and run.config.model.backbone == first.config.model.backbone
        ]
        if not single or not math.isfinite(value := statistics.fmean(single)) or value == 0:
            return []
        reference[task] = {criterion.name: value}
    gains = [delta_m(run.reports[which]["results"], reference, criteria) for run in runs]
    return [gain for gain in gains if math.isfinite(gain)]


def markdown(tables: Mapping[str, Sequence[Row]]) -> str:
    """The tables as text: mean ± standard deviation over the seeds where there are several."""
    parts = []
    for protocol, rows in tables.items():
        columns = {(task, criterion) for row in rows for task, criterion in row.criteria.items()}
        order = list(experiment.tasks.TASKS)
        shown = sorted(columns, key=lambda column: (order.index(column[0]), column[1].name))
        head = [
            "model",
            "backbone",
            "checkpoint",
            *(f"{task} {c.name} {'↑' if c.sign > 0 else '↓'}" for task, c in shown),
        ]
        head += ["Δ_m %", "parameters", "multiply-adds", "seeds"]
        lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
        for row in rows:
            config = row.runs[0].config
            steps = sorted({run.reports[row.which]["step"] for run in row.runs})
            cells = [config.model.name, config.model.backbone, f"{row.which} (step {', '.join(map(str, steps))})"]
            for task, criterion in shown:
                has = row.criteria.get(task) == criterion
                cells.append(_spread(row.scores[task]) if has else "")
            cells += [_spread([100 * gain for gain in row.gains], 2, sign="+") if row.gains else ""]
            cells += [f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.1f} G", str(len(row.runs))]
            lines.append(cells)
        parts.append(f"Protocol: {protocol}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def as_dict(tables: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """The tables for other programs."""
    return [
        {
            "protocol": dict(row.runs[0].reports[row.which]["protocol"]),
            "model": row.runs[0].config.model.name,
            "backbone": row.runs[0].config.model.backbone,
            "checkpoint": row.which,
            "workdirs": [str(run.workdir) for run in row.runs],
            "seeds": [run.config.train.seed for run in row.runs],
            "steps": [run.reports[row.which]["step"] for run in row.runs],
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


def _moments(values: Sequence[float]) -> dict[str, float | None]:
    mean = statistics.fmean(values)
    spread = len(values) > 1 and math.isfinite(mean)
    return {"mean": mean, "std": statistics.stdev(values) if spread else None}


def _spread(values: Sequence[float], digits: int = 4, sign: str = "") -> str:
    found = _moments(values)
    text = f"{found['mean']:{sign}.{digits}f}"
    return text if found["std"] is None else f"{text} ± {found['std']:.{digits}f}"
