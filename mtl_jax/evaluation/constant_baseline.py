"""The trivial predictor every trained model has to beat: the same answer everywhere."""

from collections.abc import Mapping

import numpy as np

from mtl_jax import tasks
from mtl_jax.data.split import Split
from mtl_jax.evaluation import predictions, scoring
from mtl_jax.metrics import Metric

EPS = float(np.finfo(np.float32).eps)


def score(train: Split, val: Split, metrics: Mapping[str, Metric], family: str) -> scoring.Results:
    """The final protocol's scores of constant predictions on a validation split.

    For class maps the constant is the validation split's most frequent class, which no other constant beats in mIoU;
    for continuous labels it is the mean of the training split. Images without a label of the task are left out.

    Args:
        metrics: {task: metric of the final protocol}.
        family: label conventions, a key of `records.CONVENTIONS`.
    """
    constants = {task: _constant(task, val if _is_class_map(task) else train, family) for task in metrics}
    maps = {task: _as_prediction(task, value) for task, value in constants.items()}
    images = scoring.at_size((index, maps) for index in range(len(val)))
    return scoring.final(images, val, metrics, family).results


def _constant(task: str, source: Split, family: str) -> np.ndarray:
    counts = np.zeros(tasks.IGNORE + 1, np.int64)
    total, pixels = np.zeros(tasks.get(task).label_channels), 0
    for index in range(len(source)):
        label = source.sample(index, (task,), family).get(task)
        if label is None:
            continue
        if _is_class_map(task):
            counts += np.bincount(label.reshape(-1), minlength=len(counts))
        else:
            # Invalid depth and normals are stored as zeros; saliency and edge have no invalid pixels.
            valid = label.any(-1) if tasks.get(task).activation in ("identity", "unit_vector") else slice(None)
            values = label[valid].reshape(-1, label.shape[-1])
            total, pixels = total + values.sum(0, dtype=np.float64), pixels + len(values)
    if _is_class_map(task):
        return np.asarray(np.argmax(counts[: tasks.IGNORE]))
    return total / max(pixels, 1)


def _as_prediction(task: str, value: np.ndarray) -> np.ndarray:
    """One pixel that the final protocol resizes to every image, in the form that `predictions.postprocess` returns."""
    if _is_class_map(task):
        return np.full((1, 1), value, np.int32)
    pixel = np.asarray(value, np.float32).reshape(1, 1, 1, -1)
    inverse = {"identity": lambda x: x, "unit_vector": lambda x: x, "sigmoid": _logit}
    logits = inverse[tasks.get(task).activation](pixel)
    return np.asarray(predictions.ACTIVATIONS[tasks.get(task).activation](logits))[0]


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, EPS, 1 - EPS)  # 0 and 1 have none: nothing, or everything, is foreground or an edge
    return np.log(p / (1 - p))


def _is_class_map(task: str) -> bool:
    return tasks.get(task).activation == "argmax"
