"""The trivial predictor that every trained model has to beat: the same answer everywhere."""

from collections.abc import Iterator, Mapping

import numpy as np

from mtl_jax import tasks
from mtl_jax.data.split import Split
from mtl_jax.evaluation import scoring
from mtl_jax.labels import Conventions
from mtl_jax.metrics import Metric


def score(train: Split, val: Split, metrics: Mapping[str, Metric], conventions: Conventions) -> scoring.Results:
    """Computes the final protocol's scores of constant predictions on a validation split.

    For class maps the constant is the validation split's most frequent class, which no other constant beats in mIoU;
    for continuous labels it is the mean of the training split. Images without a label of the task are left out.

    Args:
        train: Training split with the labels.
        val: Validation split with the labels.
        metrics: {task: metric of the final protocol}.
        conventions: Label conventions of the data set.
    """
    splits = {"train": train, "val": val}
    maps = {}
    for task in metrics:
        kind = tasks.get(task).kind
        # One pixel, which the final protocol resizes to every image.
        maps[task] = kind.best_constant(_labels(splits[kind.constant_from], task, conventions))
    images = scoring.at_size((index, maps) for index in range(len(val)))
    return scoring.final(images, val, metrics, conventions).results


def _labels(source: Split, task: str, conventions: Conventions) -> Iterator[np.ndarray]:
    """Yields the canonical labels of the images that have one."""
    for index in range(len(source)):
        label = source.labels(index, (task,), conventions).get(task)
        if label is not None:
            yield label
