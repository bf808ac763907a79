"""Multi-task performance."""

from collections.abc import Iterable, Mapping
from typing import Any

from mtl_jax import tasks as task_table

Results = Mapping[str, Mapping[str, Any]]  # {task: {metric: value}}


def delta_m(results: Results, reference: Results, tasks: Iterable[str]) -> float:
    """Mean over tasks of the relative gain over a reference, as a fraction (arXiv 2004.13379, sec. 4.1).

    delta_m = mean_t s_t (m_t - r_t) / r_t with m_t and r_t the task's criterion in `results` and `reference`, and
    s_t = +1 if higher is better, else -1. The reference is usually the single-task models.

    Raises:
        ValueError: no task is given, a task's criterion is missing, or its reference value is 0.
    """
    gains = []
    for task in (task_table.get(name) for name in tasks):
        value = _criterion(results, task, "results")
        base = _criterion(reference, task, "reference")
        if base == 0:
            raise ValueError(f"the reference has {task.criterion} = 0 for task {task.name!r}: no relative gain exists")
        gains.append((value - base) / base * (1 if task.higher_is_better else -1))
    if not gains:
        raise ValueError("delta_m needs at least one task")
    return sum(gains) / len(gains)


def _criterion(results: Results, task: task_table.Task, what: str) -> float:
    if task.name not in results:
        raise ValueError(f"the {what} lack task {task.name!r}; they have: {', '.join(results) or 'none'}")
    scores = results[task.name]
    if task.criterion not in scores:
        raise ValueError(f"the {what} of task {task.name!r} lack {task.criterion!r}; they have: {', '.join(scores)}")
    return float(scores[task.criterion])
