"""From logits to predictions, to files and back.

The forms of a prediction, with the batch axis on the device and without it for a single image on the host:

* class map: int32 `[B, H, W]` (activation "argmax");
* map in 0..255: `[B, H, W, 1]` ("sigmoid");
* unit vectors mapped to 0..255: `[B, H, W, 3]` ("unit_vector");
* plain values, metres for depth: `[B, H, W, 1]` ("identity").
"""

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import scipy.io

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import label_files
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import atomic_files, messages

OWNER = "predictions.json"  # in a folder of saved predictions: whose they are
_RGB = 2  # in a PNG's header
_logger = logging.getLogger(__name__)
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


def postprocess(outputs: Outputs, tasks: Iterable[str]) -> dict[str, jax.Array]:
    """Converts the final logits of a model to predictions.

    It works inside `jax.jit`, and computes at least in float32.

    Args:
        outputs: Outputs of a model for a batch.
        tasks: Names of the tasks to predict.

    Returns:
        {task: prediction} in the forms above.

    Raises:
        ValueError: The outputs lack one of the tasks.
    """
    tasks = tuple(tasks)
    if missing := [name for name in tasks if name not in outputs.logits]:
        raise ValueError(f"the outputs lack {', '.join(missing)}; they have: {', '.join(outputs.logits) or 'none'}")
    predictions = {}
    for name in tasks:
        logits = outputs.logits[name]
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
    """Stores one image's prediction, quantised, whole or not at all, and returns the file's path.

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
        content = io.BytesIO()
        scipy.io.savemat(content, {task: array})
        return atomic_files.write(target, content.getvalue())
    png = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1]  # OpenCV writes BGR
    return atomic_files.write(target, png.tobytes())


def save_all(
    directory: str | Path, image_id: str, maps: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Resizes one image's predictions to (height, width), stores them, and returns what was stored.

    Args:
        directory: the folder with a sub-folder for each task.
        image_id: of the image.
        maps: {task: prediction at any resolution}.
        size: the image's.
    """
    stored = {task: quantise(task, resize_prediction(task, value, size)) for task, value in maps.items()}
    for task, value in stored.items():
        save(task, value, file_path(directory, task, image_id))
    return stored


def load(task: str, path: str | Path, size: tuple[int, int] | None = None, classes: int | None = None) -> np.ndarray:
    """What `save` or another tool stored, in the form of a prediction: `[H, W]` for class maps, else `[H, W, C]`.

    Args:
        task: its name.
        path: without suffix, see `file_path`.
        size: height and width it must have.
        classes: of a class map, whose ids must be below; of no matter to others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds no prediction of this task: another size, number of channels or type,
            ids that are no class, values that are not finite. The message names the file.
    """
    row, target = task_table.get(task), _with_suffix(task, path)
    if not target.exists():
        raise FileNotFoundError(f"no prediction of task {task!r} at {target}")
    try:
        array = _plain_values(target, task) if _is_plain(task) else _image(target, row)
        if size is not None and array.shape[:2] != tuple(size):
            found, wanted = messages.size_text((array.shape[0], array.shape[1])), messages.size_text(size)
            raise ValueError(f"size {found}, the image is {wanted}: store predictions at that size")
        if classes is not None and row.activation == "argmax" and array.max(initial=0) >= classes:
            raise ValueError(f"class id {array.max()}, expected 0 to {classes - 1}")
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from error
    return array[..., 0] if row.activation == "argmax" else array


def _plain_values(path: Path, key: str) -> np.ndarray:
    array = label_files.mat(key)(path.read_bytes())
    if array.dtype.kind not in "fiu" or array.ndim != 2 or not array.size:
        raise ValueError(f"{key} is {array.dtype} with the shape {array.shape}, expected numbers [H, W]")
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{bad} values are NaN or infinite")
    return array.astype(np.float32)[..., None]


def _image(path: Path, row: task_table.Task) -> np.ndarray:
    data, channels = path.read_bytes(), row.label_channels
    class_map = row.activation == "argmax"
    array = pictures.decode_values(data) if class_map else pictures.decode(data, channels)
    bits, colour = data[24], data[25]  # of the PNG's header; OpenCV makes colours of greys, and 8 bits of 16
    if not data.startswith(pictures.PNG) or bits > 8 or (channels == 3 and colour != _RGB):
        raise ValueError(f"expected a PNG of 8 bits with {channels} channel(s)")
    if not class_map and pictures.has_palette(data):
        raise ValueError("a PNG with a palette, expected greys")
    return array


def saved(directory: str | Path, tasks: Iterable[str], image_id: str) -> bool:
    """Whether the predictions of all these tasks are there."""
    return all(_with_suffix(task, file_path(directory, task, image_id)).exists() for task in tasks)


def stamp(directory: str | Path, tasks: Iterable[str], image_id: str) -> str:
    """Another one as soon as one of the image's files is written again."""
    found = []
    for task in tasks:
        path = _with_suffix(task, file_path(directory, task, image_id))
        if path.exists():
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return repr(found)


def check_complete(directory: str | Path, tasks: Iterable[str], ids: Sequence[str]) -> None:
    """Makes sure that every prediction is there; those of other images are no matter, but their number is logged.

    Raises:
        FileNotFoundError: some are not; the message lists them.
    """
    missing, extra = [], 0
    for task in tasks:
        wanted = {_with_suffix(task, file_path(directory, task, name)) for name in ids}
        missing += sorted(str(path) for path in wanted if not path.exists())
        extra += len(set((Path(directory) / task).glob(f"**/*{_suffix(task)}")) - wanted)
    if missing:
        raise FileNotFoundError(f"{len(missing)} predictions are missing: {messages.listing(missing)}")
    if extra:
        _logger.warning("%d files in %s are predictions of other images and are ignored", extra, directory)


def claim(directory: str | Path, owner: Mapping[str, str], note: str) -> None:
    """Notes whose predictions a folder is about to hold, so that those of two models never mix.

    Args:
        directory: made where it is not.
        owner: tells the model and the data.
        note: where they come from, for people.

    Raises:
        ValueError: the folder holds the predictions of another, or files nobody knows of.
    """
    path = Path(directory) / OWNER
    if path.exists():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); delete {directory}, or give another folder") from error
        if any(found.get(name) != value for name, value in owner.items()):
            raise ValueError(
                f"{directory} holds the predictions of {found.get('from')}, these are of {note}, and the model or the "
                "data is another; give another folder"
            )
        return
    if path.parent.is_dir() and any(path.parent.iterdir()):
        raise ValueError(f"{directory} is not empty and has no {OWNER}: whose are the files? Give another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, {"from": note, **owner})


def _is_plain(task: str) -> bool:
    return task_table.get(task).activation == "identity"


def _with_suffix(task: str, path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name + _suffix(task))  # an ID may contain a dot


def _suffix(task: str) -> str:
    return ".mat" if _is_plain(task) else ".png"
