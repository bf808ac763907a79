"""The ranking of the checkpoints of a run: the tasks that can be scored, and the results that gains refer to."""

import logging
from collections.abc import Mapping

from mtl_jax.evaluation import scoring
from mtl_jax.experiment import Experiment
from mtl_jax.tasks import Criterion

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


def choose_reference(stored: scoring.Results | None, single_task: scoring.Results | None) -> scoring.Results | None:
    """Returns the results that the multi-task performance is relative to, the same over the whole run."""
    if stored is not None and single_task is not None and single_task != stored:
        raise ValueError(
            "the run has ranked its checkpoints by other results than the ones that --single_task gives now, and "
            "the two cannot be compared; continue without --single_task, or with the results given at first"
        )
    return stored or single_task
