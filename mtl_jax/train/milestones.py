"""Messages of a run after each evaluation and at its end: deciding scores, the best so far, and what to do next."""

import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtl_jax import folders
from mtl_jax.evaluation.scoring import Results
from mtl_jax.loggers import EVALUATION
from mtl_jax.metrics import deciding
from mtl_jax.tasks import Criterion

# The commands that take a trained run, with their options beside --workdir.
_NEXT = {
    "evaluate by the final protocol": "mtl evaluate --workdir {workdir}",
    "predict on photographs": "mtl predict --workdir {workdir} --images {photos} --out {out}",
    "export as one file": "mtl export --workdir {workdir} --out {file}",
}


class Milestones:
    """The deciding scores of all evaluations of a run.

    Args:
        criteria: {task: metric that decides}.
        logged: Lines of the run's log, see `loggers.read`, for a run that continues.
    """

    def __init__(self, criteria: Mapping[str, Criterion], logged: Iterable[Mapping[str, Any]] = ()):
        self._criteria = criteria
        self._scores: dict[int, dict[str, float]] = {}  # {step: {task: deciding score}}
        for entry in logged:
            if entry["kind"] == EVALUATION:
                names = {task: f"{task}/{criterion.name}" for task, criterion in criteria.items()}
                self._scores[entry["step"]] = {task: entry[name] for task, name in names.items() if name in entry}

    def add(self, step: int, results: Results) -> None:
        """Adds the evaluation of a step."""
        scores = {task: deciding(results, task, criterion) for task, criterion in self._criteria.items()}
        self._scores[step] = {task: value for task, value in scores.items() if math.isfinite(value)}

    def scores(self, step: int) -> str:
        """Returns the deciding scores of a step as text, for example "semseg mIoU 0.3512, depth rmse 0.4101"."""
        scores = self._scores.get(step, {})
        return ", ".join(f"{task} {self._criteria[task].name} {value:.4f}" for task, value in scores.items())

    def table(self, step: int) -> str:
        """Returns a line for each task: the deciding score of a step, and how it compares with the best so far."""
        width = max(map(len, self._criteria), default=0)
        lines = []
        for task, criterion in self._criteria.items():
            value = self._scores[step].get(task)
            if value is None:
                lines.append(f"{task:<{width}}  {criterion.name} is not defined")
                continue
            best = max(
                (other for other in self._scores if task in self._scores[other]),
                key=lambda other: (criterion.sign * self._scores[other][task], other == step),
            )
            better = "higher" if criterion.higher_is_better else "lower"
            beside = f"best: {self._scores[best][task]:.4f} at step {best}; {better} is better"
            note = "* best so far" if best == step else beside
            lines.append(f"{task:<{width}}  {criterion.name} {value:.4f}  {note}")
        return "\n".join(lines)


def gain_line(score: float | None, best: int | None, step: int) -> str:
    """Returns the line about the number that ranks the checkpoints of several tasks.

    Args:
        score: Multi-task performance of the step, as a fraction; None where it is not defined.
        best: Step of the best checkpoint, None where no checkpoint has a score.
        step: The step.
    """
    if score is None:
        return "the multi-task gain is not defined, so the step is not ranked"
    note = "* best checkpoint so far" if best == step else f"best checkpoint: step {best}"
    return f"mean gain of the tasks {100 * score:+.2f} %  {note}"


def best_line(name: str, value: float, best: int | None, step: int) -> str:
    """Returns the line about the one score that ranks the checkpoints.

    Args:
        name: Name of the score: "semseg/mIoU" for example.
        value: Score of the step; NaN where it is not defined.
        best: Step of the best checkpoint, None where no checkpoint has a score.
        step: The step.
    """
    if not math.isfinite(value):
        return f"checkpoints are ranked by {name}, which is not defined, so the step is not ranked"
    note = "* best checkpoint so far" if best == step else f"best checkpoint: step {best}"
    return f"checkpoints are ranked by {name} {value:.4f}  {note}"


def patience_line(since_best: int, patience: int) -> str:
    """Returns the line that says how long the best score has not been exceeded.

    Args:
        since_best: Number of evaluations after the best one.
        patience: Number of such evaluations after which training ends.
    """
    return f"evaluations without a better score: {since_best} of {patience}, after which training ends early"


def ending(workdir: Path, step: int, best: bool, scores: str) -> str:
    """Returns what is said when training has ended: the best checkpoint, its scores and the next commands.

    Args:
        workdir: The work directory.
        step: Step of the best checkpoint, or of the latest one.
        best: True if the step is the best one; False if no checkpoint has a score.
        scores: Scores of the step as text; empty where there are none.
    """
    kind = "the best checkpoint is" if best else "no checkpoint has a score; the latest one is"
    head = f"{kind} {workdir / folders.CHECKPOINTS / str(step)}{f' ({scores})' if scores else ''}"
    places = {
        "workdir": workdir,
        "photos": Path("PHOTOS"),
        "out": workdir / "predictions",
        "file": workdir / "model.zip",
    }
    quoted = {name: shlex.quote(str(path)) for name, path in places.items()}
    width = max(map(len, _NEXT))
    commands = [f"{purpose:<{width}}  {command.format(**quoted)}" for purpose, command in _NEXT.items()]
    return "\n".join([head, "what you can do next:", *commands])
