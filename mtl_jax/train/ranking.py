"""The ranking of the checkpoints of a run: the scores that rank them, and the results that gains refer to."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax.evaluation import scoring
from mtl_jax.experiment import Experiment
from mtl_jax.registry import did_you_mean
from mtl_jax.tasks import Criterion
from mtl_jax.train.checkpoint_parts import Evaluation

Scores = Sequence[tuple[int, float | None]]  # (step, score) of each evaluation of a run; higher scores are better
_SCORES, _RANKED_BY = "scores", "ranked_by"  # keys of a checkpoint's progress

logger = logging.getLogger(__name__)


def scorable(run: Experiment, labelled: Mapping[str, Mapping[str, int]]) -> dict[str, Criterion]:
    """Returns {main task: deciding metric} of the tasks that the validation split can score.

    A warning names the other tasks.

    Args:
        run: The experiment.
        labelled: {"train" and "val": {task: number of images with a label of it}}.

    Raises:
        ValueError: No training image has a label of one of the tasks.
    """
    if lost := [task for task, count in labelled["train"].items() if not count]:
        raise ValueError(
            f"no training image of {run.builder_name} has a label of {', '.join(lost)}; leave the task out of "
            "data.tasks and data.aux_tasks, or correct where its labels are and build the data set again"
        )
    criteria = {task: each for task, each in run.streaming_criteria.items() if labelled["val"][task]}
    if lost := [task for task in run.main_tasks if task not in criteria]:
        ranked = f"{', '.join(criteria)} alone" if criteria else "nothing, and the latest one is the best"
        logger.warning(
            "no validation image has a label of %s, which cannot be scored; checkpoints are ranked by %s",
            ", ".join(lost),
            ranked,
        )
    return criteria


def rankable(run: Experiment) -> dict[str, dict[str, Criterion]]:
    """Returns {main task: {score: criterion}} of all scores by which evaluations during training may rank."""
    scores = {}
    for task, deciding in run.streaming_criteria.items():
        declared = run.streaming_metrics[task].higher_is_better
        scores[task] = {deciding.name: deciding} | {name: Criterion(name, up) for name, up in declared.items()}
    return scores


def chosen(run: Experiment) -> dict[str, Criterion]:
    """Returns {task: score} of the one score by which `train.best` ranks the checkpoints; {} where it is empty.

    Raises:
        ValueError: Evaluations during training have no such score; the message lists those that they have.
    """
    best = run.config.train.best
    if not best:
        return {}
    known = {
        f"{task}/{name}": {task: criterion}
        for task, scores in rankable(run).items()
        for name, criterion in scores.items()
    }
    if best not in known:
        hint = did_you_mean(best, known, before=" ")
        raise ValueError(
            f"train.best is {best!r}; evaluations during training have the scores {', '.join(known)}.{hint} Leave "
            "train.best empty to rank checkpoints by the gain of all tasks"
        )
    return known[best]


def ranked(run: Experiment, criteria: dict[str, Criterion]) -> dict[str, Criterion]:
    """Returns {task: score} of the scores that rank the checkpoints.

    Args:
        run: The experiment.
        criteria: {task: deciding score} from `scorable`, which rank the checkpoints where `train.best` is empty.

    Raises:
        ValueError: No validation image has a label of the task that `train.best` names, or of any task where
            `train.patience` needs scores.
    """
    best, patience = chosen(run), run.config.train.patience
    if lost := [task for task in best if task not in criteria]:
        raise ValueError(
            f"train.best is {run.config.train.best!r}, and no validation image has a label of {', '.join(lost)}; rank "
            "by another task, or leave train.best empty"
        )
    if patience and not criteria:
        raise ValueError(
            f"train.patience is {patience}, and no validation image has a label of {', '.join(run.main_tasks)}, so no "
            "evaluation has a score to wait for; set train.patience to 0"
        )
    return best or criteria


def stored_scores(progress: Mapping[str, Any], evaluation: Evaluation | None, best: str) -> Scores:
    """Returns the scores of all evaluations of the run that a checkpoint belongs to, up to that of the checkpoint.

    Args:
        progress: Progress that is stored in the checkpoint, from `progress_of_scores`.
        evaluation: Evaluation of the checkpoint; None where it was not evaluated.
        best: Value of `train.best` now.

    Raises:
        ValueError: The scores are those of another value of `train.best`; the two cannot be compared.
    """
    earlier = [(step, score) for step, score in progress.get(_SCORES, ())]
    # A run of an older version, whose checkpoints have no such list, may have evaluations.
    ranked = bool(earlier) or evaluation is not None or (progress["step"] > 0 and _SCORES not in progress)
    if ranked and (before := progress.get(_RANKED_BY, "")) != best:
        raise ValueError(
            f"the run has ranked its checkpoints with train.best={before!r}, and train.best is {best!r} now; the two "
            "scores cannot be compared, so continue with the old value, or start a run in another workdir"
        )
    return earlier if evaluation is None else [*earlier, (progress["step"], evaluation.score)]


def progress_of_scores(scores: Scores, best: str) -> dict[str, Any]:
    """Returns the part of a checkpoint's progress, ready for JSON, from which `stored_scores` reads the scores."""
    return {_RANKED_BY: best, _SCORES: [list(each) for each in scores]}


def evaluations_since_best(scores: Scores) -> int:
    """Returns the number of evaluations after the one with the best score, the first of equal ones.

    A score that is not defined is never the best one. Before the first defined score the number is 0.
    """
    values = [score for _, score in scores]
    defined = [score for score in values if score is not None]
    return len(values) - 1 - values.index(max(defined)) if defined else 0


def choose_reference(
    stored: scoring.Results | None, single_task: scoring.Results | None, best: str = ""
) -> scoring.Results | None:
    """Returns the results that the multi-task performance is relative to, the same over the whole run.

    Args:
        stored: Results that the run has referred to so far.
        single_task: Results of single-task models that are given now.
        best: Value of `train.best`. Where it is not empty, checkpoints are not ranked by gains.

    Raises:
        ValueError: Results are given, and are not those of the run so far, or the run does not need any.
    """
    if best and single_task is not None:
        raise ValueError(
            f"train.best is {best!r}, so that no gain over single-task results ranks the checkpoints; leave out "
            "--single_task, or leave train.best empty"
        )
    if stored is not None and single_task is not None and single_task != stored:
        raise ValueError(
            "the run has ranked its checkpoints by other results than the ones that --single_task gives now, and "
            "the two cannot be compared; continue without --single_task, or with the results given at first"
        )
    return stored or single_task
