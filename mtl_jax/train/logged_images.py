"""Fixed validation images whose predictions a run logs at every evaluation."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mtl_jax import config as configs
from mtl_jax import tasks as task_table
from mtl_jax.data import datasets
from mtl_jax.data.split import Split
from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions, scoring
from mtl_jax.experiment import Experiment
from mtl_jax.loggers import LoggedImage
from mtl_jax.runtime import compilation, processes
from mtl_jax.train import inputs
from mtl_jax.train.step import make_predict_step

_LONG_SIDE = 1200  # pixels of a picture
_QUALITY = 90  # of the JPEG files, in percent
_LONGEST_NAME = 60  # characters


class LoggedImages:
    """Draws validation images beside the prediction and the truth of each task.

    The images are the same in every evaluation of a run. They are spread evenly over the split, because neighbours in a
    split are often alike; images with labels of more tasks come first. One predict step computes all predictions.

    Args:
        run: The experiment, whose field `train.log_images` is the number of images.
        source: Records of the validation split.
        graphdef: Static structure of the training state.
        mesh: Devices that share a batch.
    """

    def __init__(self, run: Experiment, source: Split, graphdef: nnx.GraphDef, mesh: Mesh):
        self._run, self._source, self._mesh = run, source, mesh
        step = make_predict_step(graphdef, run.main_tasks, mesh)
        self._step = compilation.announced(step, "the prediction of the logged images")

    @cached_property
    def _chosen(self) -> list[int]:
        labelled = datasets.labelled(self._run.prepare_data())
        partly = [set(labelled[task][self._source.split]) for task in self._run.main_tasks if task in labelled]
        labels = [-sum(position not in those for those in partly) for position in self._source.positions]
        return spread(labels, self._run.config.train.log_images)

    def draw(self, arrays: Any) -> list[LoggedImage]:
        """Returns the pictures of the predictions of a state; none in other processes than the first one.

        All processes call the method together.

        Args:
            arrays: Arrays of the state.
        """
        if not self._chosen:
            return []
        size = configs.eval_batch_size(self._run.config)  # as in `mtl evaluate`, so that both need one compiled program
        chosen = self._source.subset(self._chosen)
        batches = inputs.val_batches(self._run, chosen, size, labels=False, few=True)
        predicted = list(scoring.predict_images(self._step, arrays, batches, self._mesh))
        return [self._drawn(self._chosen[index], maps) for index, maps in predicted] if processes.first() else []

    def _drawn(self, index: int, maps: Mapping[str, np.ndarray]) -> LoggedImage:
        sample = self._source.sample(index, self._run.main_tasks, self._run.conventions)
        known = [task for task in self._run.main_tasks if task in sample]
        labels = {task: task_table.get(task).kind.mark_ignored(sample[task]) for task in known}
        picture = panels.panel(
            sample["image"],
            predictions.as_stored(maps, sample["image"].shape[:2], self._run.recipe.placement),
            labels,
            names=self._run.class_names,
            conventions=self._run.conventions,
            long_side=_LONG_SIDE,
            caption=sample["id"],
        )
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        return LoggedImage(name(index, sample["id"]), sample["id"], picture, jpeg)


def spread(labels: Sequence[int], number: int) -> list[int]:
    """Returns positions that are spread evenly over a split.

    The split is cut into `number` equal parts. Each part gives the first of its images with the most labels.

    Args:
        labels: For each image a number that is greater if it has labels of more tasks.
        number: Number of positions; all positions if there are fewer.
    """
    total = len(labels)
    number = min(number, total)
    parts = (range(i * total // number, (i + 1) * total // number) for i in range(number))
    return [max(part, key=labels.__getitem__) for part in parts]


def name(index: int, image_id: str) -> str:
    """Returns a name for files and services that begins with the index of an image in its split."""
    return f"{index}_{re.sub('[^A-Za-z0-9]+', '_', image_id)[:_LONGEST_NAME].strip('_')}".rstrip("_")
