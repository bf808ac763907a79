"""Predicted maps: arrays at the size of their image, which draw and save themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.codecs import map_files
from mtl_jax.experiment import Experiment
from mtl_jax.labels import Conventions, LabelKind
from mtl_jax.labels.kind import plane
from mtl_jax.runtime import atomic_files


@dataclass(frozen=True)
class Map:
    """The prediction of one task for one image.

    Attributes:
        task: Name of the task.
        decided: The map as the kind of the task's labels decides it, `[H, W]` or `[H, W, C]`.
        num_classes: Number of logit channels of the task, which is the number of classes of class maps.
        class_names: Names of the classes by their ids; empty for other tasks.
        conventions: Conventions of the data set that the model learned from.
        confidence: Probability of the map's values, float32 `[H, W]`; None where nobody asked for it, or where the task
            predicts no probabilities.
    """

    task: str
    decided: np.ndarray = field(repr=False)
    num_classes: int
    class_names: tuple[str, ...] = field(default=(), repr=False)
    conventions: Conventions = field(default_factory=Conventions, repr=False)
    confidence: np.ndarray | None = field(default=None, repr=False)

    @property
    def kind(self) -> LabelKind:
        """The kind of the task's labels."""
        return task_table.get(self.task).kind

    @property
    def array(self) -> np.ndarray:
        """The values at the size of the image.

        Class ids int32 `[H, W]`, depth in metres `[H, W]`, probabilities from 0 to 1 `[H, W]`, unit vectors
        `[H, W, 3]` whose axes `meaning` names.
        """
        return plane(self.decided) if self.kind.channels == 1 else self.decided

    @property
    def meaning(self) -> str:
        """The meaning of the values of `array`, for people."""
        return self.kind.map_meaning(self.conventions)

    @property
    def prediction(self) -> np.ndarray:
        """The map as files of predictions hold it, see `mtl_jax.evaluation.predictions`; panels take it."""
        return self.kind.quantise(self.kind.as_prediction(self.decided))

    def picture(self) -> np.ndarray:
        """Draws the map for people, RGB uint8 `[H, W, 3]`."""
        return self.kind.paint(self.kind.as_prediction(self.decided), is_label=False)

    def save(self, path: str | Path) -> Path:
        """Writes the map to a file, and returns its path. The folder is made where it is missing.

        Args:
            path: Path whose suffix says the form: .npy for the array, or .png for class ids with a palette, depth as
                millimetres in 16 bits, probabilities p as 255 p, and vectors v as 255 (v + 1) / 2.

        Raises:
            ValueError: Maps of this task have no such form.
            OSError: The file cannot be written.
        """
        path = Path(path)
        forms = self.kind.map_files(self.decided, self.num_classes)
        forms.setdefault(".npy", map_files.npy(self.array))
        if path.suffix not in forms:
            raise ValueError(
                f"{path} ends in {path.suffix!r}; a map of {self.task} is saved as {' or '.join(sorted(forms))}. For "
                "a picture to look at, save what picture() returns"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        return atomic_files.write(path, forms[path.suffix], sync=False)


Maps = dict[str, Map]  # {task: its map} of one image, in task order


def of(experiment: Experiment, decided: Mapping[str, np.ndarray], confidence: Mapping[str, np.ndarray | None]) -> Maps:
    """Returns the maps of one image.

    Args:
        experiment: The experiment of the model that predicted them.
        decided: {task: map as its kind decides it}.
        confidence: {task: probability of the map's values}, where they are known.
    """
    names = class_names(experiment)
    return {
        task: Map(task, decided[task], channels, names.get(task, ()), experiment.conventions, confidence.get(task))
        for task, channels in experiment.channels.items()
    }


def class_names(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Returns {task: names of its classes} for the main tasks whose labels are class ids."""
    names = experiment.class_names
    return {task: names[task] for task in experiment.main_tasks if task in names}
