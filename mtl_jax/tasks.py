"""The tasks: everything that differs from one task to the next stands in its row, or in the kind of its labels.

`register` adds a task from outside of the package.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mtl_jax.labels import IGNORE, ClassIds, Foreground, LabelKind, RealValues, UnitVectors
from mtl_jax.registry import Registry

__all__ = ["IGNORE", "TASKS", "Criterion", "Task", "get", "ordered", "register"]


@dataclass(frozen=True)
class Criterion:
    """The score of a task that decides which of two models is better.

    Attributes:
        name: Name of the score in the results of the task.
        higher_is_better: True if higher scores are better, False if lower scores are.
    """

    name: str
    higher_is_better: bool

    @property
    def sign(self) -> int:
        """The sign 1 if higher scores are better, otherwise -1."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Task:
    """One dense prediction task.

    Attributes:
        name: Key of the task in batches, outputs, configurations and results.
        kind: Meaning of the values of labels and predictions: how they are decoded, moved, drawn and stored.
        loss: Name of the loss in `mtl_jax.losses.LOSSES`.
        loss_weight: Weight of the loss in the training objective (arXiv 2004.13379, grid-searched by its authors).
        metric: Name of the metric in `mtl_jax.metrics.METRICS`.
        criterion: Score that ranks models and enters the multi-task performance.
        streaming_criterion: The same while training, where that is another score.
    """

    name: str
    kind: LabelKind
    loss: str
    loss_weight: float
    metric: str
    criterion: Criterion
    streaming_criterion: Criterion | None = None


TASKS: Registry[Task] = Registry("task", "tasks", "mtl_jax.tasks.register")


def register(task: Task) -> Task:
    """Adds a task to the table, after those that are there.

    Raises:
        ValueError: Another task has this name.
    """
    return TASKS.register(task.name, task)


def get(name: str) -> Task:
    """Returns the row of a task.

    Raises:
        ValueError: There is no such task; the message lists those there are.
    """
    return TASKS[name]


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the tasks without repetition in the order of the table, which is the order used in every model.

    Raises:
        ValueError: A name is not a task.
    """
    wanted = {get(name).name for name in names}
    return tuple(name for name in TASKS if name in wanted)


register(
    Task(
        name="semseg",
        kind=ClassIds(),
        loss="softmax_cross_entropy",
        loss_weight=1.0,
        metric="semseg",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="human_parts",
        kind=ClassIds(),
        loss="softmax_cross_entropy",
        loss_weight=2.0,
        metric="human_parts",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="sal",
        kind=Foreground(),
        loss="balanced_cross_entropy",
        loss_weight=5.0,
        metric="saliency",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="normals",
        kind=UnitVectors(),
        loss="normals_l1",
        loss_weight=10.0,
        metric="normals",
        criterion=Criterion("mean", higher_is_better=False),
    )
)
register(
    Task(
        name="edge",
        kind=Foreground(binary=False, lines=True),
        loss="edge_cross_entropy",
        loss_weight=50.0,
        metric="edge",
        criterion=Criterion("odsF", higher_is_better=True),
        streaming_criterion=Criterion("loss", higher_is_better=False),  # matching boundaries takes too long
    )
)
register(
    Task(
        name="depth",
        kind=RealValues(
            unit="m",
            zero_is_unlabelled=True,
            distance=True,
            low=0.0,
            high=254.0,
            step=0.001,
            colors_mean="distance from the camera",
        ),
        loss="depth_l1",
        loss_weight=1.0,
        metric="depth",
        criterion=Criterion("rmse", higher_is_better=False),
    )
)
