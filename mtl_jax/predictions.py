"""From logits to predictions, to files and back.

The forms of a prediction, with the batch axis on the device and without it for a single image on the host:

* class map: int32 `[B, H, W]` (activation "argmax");
* map in 0..255: `[B, H, W, 1]` ("sigmoid");
* unit vectors mapped to 0..255: `[B, H, W, 3]` ("unit_vector");
* plain values, metres for depth: `[B, H, W, 1]` ("identity").
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import scipy.io

from mtl_jax import tasks as task_table

INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def _argmax(logits: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _sigmoid(logits: jax.Array) -> jax.Array:
    return 255 * jax.nn.sigmoid(logits)


def _unit_vector(logits: jax.Array) -> jax.Array:
    norm = jnp.sqrt((logits * logits).sum(axis=-1, keepdims=True))
    return 255 * (logits / jnp.maximum(norm, 1e-12) + 1) / 2


def _identity(logits: jax.Array) -> jax.Array:
    return logits


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "argmax": _argmax,
    "sigmoid": _sigmoid,
    "unit_vector": _unit_vector,
    "identity": _identity,
}


def postprocess(outputs: Mapping[str, jax.Array], tasks: Iterable[str]) -> dict[str, jax.Array]:
    """{task: logits [B, H, W, C]} -> {task: prediction}, at least in float32; works inside `jax.jit`.

    Raises:
        ValueError: the outputs lack one of the tasks.
    """
    tasks = tuple(tasks)
    if missing := [name for name in tasks if name not in outputs]:
        raise ValueError(f"the outputs lack {', '.join(missing)}; they have: {', '.join(outputs) or 'none'}")
    predictions = {}
    for name in tasks:
        logits = outputs[name]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        predictions[name] = ACTIVATIONS[task_table.get(name).activation](logits)
    return predictions


def resize_prediction(task: str, prediction: Any, size: tuple[int, int]) -> np.ndarray:
    """One image's prediction, `[H, W]` or `[H, W, C]`, at (height, width) with the task's interpolation."""
    array = np.asarray(prediction)
    if array.ndim not in (2, 3):
        raise ValueError(f"{task}: expected one image, [H, W] or [H, W, C]; got the shape {array.shape}")
    interpolation = INTERPOLATIONS[task_table.get(task).prediction_interpolation]
    height, width = size
    resized = cv2.resize(np.ascontiguousarray(array), (int(width), int(height)), interpolation=interpolation)
    return resized.reshape(int(height), int(width), *array.shape[2:])  # OpenCV drops a last axis of length 1


def quantise(task: str, array: Any) -> np.ndarray:
    """The prediction as it is stored: truncated to uint8, not rounded; plain values (depth) as float32."""
    array = np.asarray(array)
    if _is_plain(task):
        return array.astype(np.float32)
    return np.clip(array, 0, 255).astype(np.uint8)


def file_path(directory: str | Path, task: str, image_id: str) -> Path:
    """Where a prediction lies without its suffix: DIRECTORY/TASK/ID, stored as .png or, plain values, as .mat."""
    return Path(directory) / task_table.get(task).name / image_id


def save(task: str, array: Any, path: str | Path) -> Path:
    """Stores one image's prediction, quantised, and returns the file's path.

    PNG (vectors as RGB), or for plain values a .mat file with the task's name as key.

    Args:
        task: its name.
        array: `[H, W]` or `[H, W, C]`.
        path: without suffix, see `file_path`; missing folders are made.
    """
    array = quantise(task, array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    target = _with_suffix(task, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_plain(task):
        scipy.io.savemat(target, {task: array})
    elif not cv2.imwrite(str(target), array[..., ::-1] if array.ndim == 3 else array):  # OpenCV writes BGR
        raise OSError(f"cannot write {target}")
    return target


def load(task: str, path: str | Path) -> np.ndarray:
    """What `save` stored, in the form of a prediction: `[H, W]` for class maps, else `[H, W, C]`."""
    target = _with_suffix(task, path)
    if not target.exists():
        raise FileNotFoundError(f"no prediction of task {task!r} at {target}")
    if _is_plain(task):
        return np.asarray(scipy.io.loadmat(target)[task], np.float32)[..., None]
    array = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise OSError(f"cannot read {target}")
    if array.ndim == 3:
        return np.ascontiguousarray(array[..., ::-1])
    return array if task_table.get(task).activation == "argmax" else array[..., None]


def _is_plain(task: str) -> bool:
    return task_table.get(task).activation == "identity"


def _with_suffix(task: str, path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name + (".mat" if _is_plain(task) else ".png"))  # an ID may contain a dot
