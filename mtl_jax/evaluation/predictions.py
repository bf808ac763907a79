"""From logits to predictions, to files and back.

The kind of a task's labels (`mtl_jax.labels`) says what a prediction is; it has a batch axis on the device and none for
a single image on the host:

* class map: int32 `[B, H, W]`;
* probability of the foreground as a map in 0..255: `[B, H, W, 1]`;
* unit vectors mapped to 0..255: `[B, H, W, 3]`;
* real values, metres for depth: `[B, H, W, 1]`.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.labels import INTERPOLATIONS
from mtl_jax.labels.kind import resize
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import atomic_files, messages

OWNER = "predictions.json"  # in a folder of saved predictions: whose they are
_logger = logging.getLogger(__name__)


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
        predictions[name] = task_table.get(name).kind.activate(logits)
    return predictions


def resize_prediction(task: str, prediction: Any, size: tuple[int, int]) -> np.ndarray:
    """One image's prediction, `[H, W]` or `[H, W, C]`, at (height, width) with the task's interpolation."""
    array = np.asarray(prediction)
    if array.ndim not in (2, 3):
        raise ValueError(f"{task}: expected one image, [H, W] or [H, W, C]; got the shape {array.shape}")
    interpolation = INTERPOLATIONS[task_table.get(task).kind.prediction_interpolation]
    return resize(array, int(size[0]), int(size[1]), interpolation)


def quantise(task: str, array: Any) -> np.ndarray:
    """The prediction as it is stored: truncated to uint8, not rounded; plain values (depth) as float32."""
    return task_table.get(task).kind.quantise(np.asarray(array))


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
    target = _with_suffix(task, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = task_table.get(task).kind.encode_prediction(quantise(task, array), task)
    return atomic_files.write(target, content)


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
    kind, target = task_table.get(task).kind, _with_suffix(task, path)
    if not target.exists():
        raise FileNotFoundError(f"no prediction of task {task!r} at {target}")
    try:
        array = kind.decode_prediction(target.read_bytes(), task)
        if size is not None and array.shape[:2] != tuple(size):
            given, wanted = messages.size_text((array.shape[0], array.shape[1])), messages.size_text(size)
            raise ValueError(f"size {given}, the image is {wanted}: store predictions at that size")
        kind.check_prediction(array, classes)
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from error
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


def _with_suffix(task: str, path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name + _suffix(task))  # an ID may contain a dot


def _suffix(task: str) -> str:
    return task_table.get(task).kind.suffix
