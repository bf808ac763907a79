"""The IoU of each class at the best checkpoints of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_jax.evaluation import result_files
from mtl_jax.reports.run_table import EvaluatedRun, ScoredCheckpoint

_IOU = "per_class_IoU"


@dataclass(frozen=True)
class ClassScores:
    """The IoU of each class of a task, at the best checkpoint of a run.

    Attributes:
        run: The run.
        task: Name of the task.
        names: Names of the classes.
        values: IoU of each class, from 0 to 1.
        step: Number of the checkpoint's step.
        protocol: Description of the run's own protocol as text.
    """

    run: EvaluatedRun
    task: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    step: int
    protocol: str


def of_run(run: EvaluatedRun) -> list[ClassScores]:
    """Returns the IoU of the classes at the run's best checkpoint by its own protocol, for each task that has them."""
    own = run.experiment.protocol_description
    scored: dict[str, ClassScores] = {}
    for report in run.reports:
        if report["checkpoint"] != result_files.BEST or report["protocol"] != own:
            continue
        for task, scores in report["results"].items():
            if _IOU in scores:
                names, values = _names(run, task, len(scores[_IOU])), tuple(scores[_IOU])
                protocol = ScoredCheckpoint(run, report).protocol
                scored[task] = ClassScores(run, task, names, values, report["step"], protocol)
    return list(scored.values())


def grouped(runs: Sequence[EvaluatedRun]) -> dict[tuple[str, str], list[ClassScores]]:
    """Returns {(name of the data, task): IoU of the classes for each run}, in order."""
    groups: dict[tuple[str, str], list[ClassScores]] = {}
    for run in runs:
        for scores in of_run(run):
            groups.setdefault((run.experiment.builder_name, scores.task), []).append(scores)
    return dict(sorted(groups.items()))


def _names(run: EvaluatedRun, task: str, number: int) -> tuple[str, ...]:
    """Returns the names of the classes; a class that has none is called by its number."""
    known = run.experiment.class_names.get(task, ())
    return tuple(known[i] if i < len(known) else f"class {i}" for i in range(number))
