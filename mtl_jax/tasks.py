"""The tasks: everything that differs from one task to the next stands in its row here.

Adding a task is adding a row and, if they are new, a loss (`mtl_jax.losses`), a metric (`mtl_jax.metrics`) and an
activation (`mtl_jax.evaluation.predictions`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

IGNORE = 255  # label value that no loss and no metric counts
FROM_DATA = 0  # in `Task.channels`: the data set says itself how many classes it has


@dataclass(frozen=True)
class Criterion:
    """The entry of a task's results that decides which of two models is better, and its direction."""

    name: str
    higher_is_better: bool

    @property
    def sign(self) -> int:
        """+1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Task:
    """One dense prediction task.

    Attributes:
        name: key of the task in batches, outputs, configs and results.
        channels: number of logit channels for each data set's label convention, or `FROM_DATA`.
        label_channels: last dimension of the label, `[H, W, label_channels]`.
        label_dtype: what the input pipeline delivers.
        loss: name in `mtl_jax.losses.LOSSES`.
        loss_weight: weight in the training objective (arXiv 2004.13379, grid-searched by its authors).
        metric: name in `mtl_jax.metrics.METRICS`.
        criterion: what ranks models and enters the multi-task performance.
        streaming_criterion: the same while training, where that is another.
        activation: name in `mtl_jax.evaluation.predictions.ACTIVATIONS`: logits to what is saved and scored.
        label_interpolation: how training transforms resample the label: "nearest", "linear" or "cubic".
        prediction_interpolation: how a prediction is resized to the original image.
    """

    name: str
    channels: Mapping[str, int]
    loss: str
    loss_weight: float
    metric: str
    criterion: Criterion
    activation: str
    label_interpolation: str
    prediction_interpolation: str
    label_channels: int = 1
    label_dtype: str = "float32"
    streaming_criterion: Criterion | None = None


_ROWS = (
    Task(
        name="semseg",
        channels={"nyud": 40, "pascal": 21, "folder": FROM_DATA},
        loss="softmax_cross_entropy",
        loss_weight=1.0,
        metric="semseg",
        criterion=Criterion("mIoU", higher_is_better=True),
        activation="argmax",
        label_interpolation="nearest",
        prediction_interpolation="nearest",
        label_dtype="uint8",
    ),
    Task(
        name="human_parts",
        channels={"pascal": 7, "folder": FROM_DATA},
        loss="softmax_cross_entropy",
        loss_weight=2.0,
        metric="human_parts",
        criterion=Criterion("mIoU", higher_is_better=True),
        activation="argmax",
        label_interpolation="nearest",
        prediction_interpolation="nearest",
        label_dtype="uint8",
    ),
    Task(
        name="sal",
        channels={"pascal": 1, "folder": 1},
        loss="balanced_cross_entropy",
        loss_weight=5.0,
        metric="saliency",
        criterion=Criterion("mIoU", higher_is_better=True),
        activation="sigmoid",
        label_interpolation="nearest",
        prediction_interpolation="linear",
    ),
    Task(
        name="normals",
        channels={"pascal": 3, "nyud": 3, "folder": 3},
        loss="normals_l1",
        loss_weight=10.0,
        metric="normals",
        criterion=Criterion("mean", higher_is_better=False),
        activation="unit_vector",
        label_interpolation="cubic",
        prediction_interpolation="linear",
        label_channels=3,
    ),
    Task(
        name="edge",
        channels={"pascal": 1, "nyud": 1, "folder": 1},
        loss="edge_cross_entropy",
        loss_weight=50.0,
        metric="edge",
        criterion=Criterion("odsF", higher_is_better=True),
        streaming_criterion=Criterion("loss", higher_is_better=False),  # matching boundaries takes too long
        activation="sigmoid",
        label_interpolation="nearest",
        prediction_interpolation="linear",
    ),
    Task(
        name="depth",
        channels={"nyud": 1, "folder": 1},
        loss="depth_l1",
        loss_weight=1.0,
        metric="depth",
        criterion=Criterion("rmse", higher_is_better=False),
        activation="identity",
        label_interpolation="linear",
        prediction_interpolation="linear",
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ROWS}


def get(name: str) -> Task:
    """The row of a task.

    Raises:
        ValueError: no such task; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The given tasks without repetition in the order of the table, which is the order used in every model.

    Raises:
        ValueError: a name is not a task.
    """
    wanted = {get(name).name for name in names}
    return tuple(name for name in TASKS if name in wanted)


def num_channels(names: Iterable[str], dataset: str, classes: Mapping[str, int] | None = None) -> dict[str, int]:
    """{task: logit channels} under a data set's label convention.

    Args:
        names: of the tasks.
        dataset: key of `Task.channels`.
        classes: {task: number of classes} of a data set that says so itself.

    Raises:
        ValueError: the data set has no labels for one of the tasks, or does not say how many classes it has.
    """
    names = tuple(names)
    if wrong := [name for name in names if dataset not in get(name).channels]:
        known = [task.name for task in TASKS.values() if dataset in task.channels]
        raise ValueError(f"data set {dataset!r} has no task {', '.join(wrong)}; it has: {', '.join(known) or 'none'}")
    channels = {name: get(name).channels[dataset] for name in names}
    channels |= {name: (classes or {}).get(name, 0) for name, n in channels.items() if n == FROM_DATA}
    if unknown := [name for name, n in channels.items() if n < 1]:
        raise ValueError(f"the number of classes of {', '.join(unknown)} is not known; describe the data set")
    return channels
