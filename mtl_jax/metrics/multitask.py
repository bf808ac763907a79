"""Multi-task performance."""

from collections.abc import Mapping
from typing import Any

from mtl_jax.tasks import Criterion

Results = Mapping[str, Mapping[str, Any]]  # {task: {metric: value}}


def delta_m(results: Results, reference: Results, criteria: Mapping[str, Criterion]) -> float:
    """Computes the mean over tasks of the relative gain over a reference, as a fraction (arXiv 2004.13379, sec. 4.1).

    delta_m = mean_t s_t (m_t - r_t) / r_t, where m_t and r_t are the scores of task t in `results` and `reference`, and
    s_t is +1 if a higher score is better, else -1. The reference is usually the set of single-task models.

    Args:
        results: {task: {metric: value}} of the model to compare.
        reference: {task: {metric: value}} of the reference.
        criteria: {task: criterion}, which names the score that decides, for example from `protocol.Protocol.criteria`.

    Raises:
        ValueError: no task is given, a task's criterion is missing, or its reference value is 0.
    """
    gains = []
    for task, criterion in criteria.items():
        value = deciding(results, task, criterion, "results")
        base = deciding(reference, task, criterion, "reference")
        if base == 0:
            raise ValueError(f"the reference has {criterion.name} = 0 for task {task!r}: no relative gain exists")
        gains.append(criterion.sign * (value - base) / base)
    if not gains:
        raise ValueError("delta_m needs at least one task")
    return sum(gains) / len(gains)


def deciding(results: Results, task: str, criterion: Criterion, what: str = "results") -> float:
    """Returns the score that decides a task.

    Args:
        results: {task: {metric: value}}.
        task: Name of the task.
        criterion: Criterion of the task, which names the score.
        what: Name of the results for error messages.

    Raises:
        ValueError: the results have no such task or score.
    """
    if task not in results:
        raise ValueError(f"the {what} lack task {task!r}; they have: {', '.join(results) or 'none'}")
    scores = results[task]
    if criterion.name not in scores:
        raise ValueError(f"the {what} of task {task!r} lack {criterion.name!r}; they have: {', '.join(scores)}")
    return float(scores[criterion.name])
