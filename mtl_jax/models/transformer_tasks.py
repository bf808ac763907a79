"""What InvPT (arXiv 2203.07997) and models after it have in common: the order of tasks, and logits of saliency."""

from collections.abc import Iterable, Mapping

import jax

from mtl_jax import tasks as task_table
from mtl_jax.labels import Foreground

# Layers are shared by the channels of all tasks in this order, which published weights have. Depth comes second.
ORDER = ("semseg", "depth", "human_parts", "sal", "normals", "edge")


def published_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns tasks in the order of published weights. Tasks that these do not have follow in their own order."""
    names = tuple(names)
    return (*(task for task in ORDER if task in names), *(task for task in names if task not in ORDER))


def check_two_logits(text: str) -> None:
    """Checks the option `two_logits` of a model: tasks with a foreground, joined by "+".

    Raises:
        ValueError: A task is unknown, or its labels are no foreground.
    """
    for name in filter(None, text.split("+")):
        if not isinstance(task_table.get(name).kind, Foreground):
            foreground = [task.name for task in task_table.TASKS.values() if isinstance(task.kind, Foreground)]
            raise ValueError(
                f"model.options.two_logits names {name}, whose labels are no foreground; it may name "
                f"{' and '.join(foreground)}"
            )


def with_two_logits(num_outputs: Mapping[str, int], text: str) -> dict[str, int]:
    """Returns the numbers of logit channels {task: number} with 2 for the tasks that the option `two_logits` names."""
    return {task: 2 if task in text.split("+") else number for task, number in num_outputs.items()}


def as_outputs(logits: Mapping[str, jax.Array], num_outputs: Mapping[str, int]) -> dict[str, jax.Array]:
    """Joins the two logits of a task, of background and foreground, to the one that losses and metrics read.

    It is the logit of the foreground minus that of the background: its sigmoid is the softmax of the two, and its
    sigmoid cross-entropy is their softmax cross-entropy.

    Args:
        logits: {task: `[B, h, w, channels]`}.
        num_outputs: {task: number of channels that losses and metrics read}.
    """
    return {task: x if x.shape[-1] == num_outputs[task] else x[..., 1:] - x[..., :1] for task, x in logits.items()}
