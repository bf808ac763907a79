"""Conversion of logits to predictions, and the files of predictions.

The kind of a task's labels (`mtl_jax.labels`) defines the form of a prediction. Predictions on the device have a batch
axis; the prediction of a single image on the host has none:

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
from mtl_jax.data import placing
from mtl_jax.data.placing import Placement
from mtl_jax.labels import INTERPOLATIONS
from mtl_jax.labels.sizes import resize
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import atomic_files, messages

OWNER = "predictions.json"  # file in a folder of saved predictions that names their model and data
_logger = logging.getLogger(__name__)


def postprocess(outputs: Outputs, tasks: Iterable[str]) -> dict[str, jax.Array]:
    """Converts the final logits of a model to predictions.

    The function works inside `jax.jit`. It computes in float32, or in the type of the logits if that is wider.

    Args:
        outputs: Outputs of a model for a batch.
        tasks: Names of the tasks to predict.

    Returns:
        {task: prediction}, in the forms that the module's docstring lists.

    Raises:
        ValueError: The outputs lack one of the tasks.
    """
    return {name: task_table.get(name).kind.activate(logits) for name, logits in _wide_logits(outputs, tasks)}


def soften(outputs: Outputs, tasks: Iterable[str]) -> dict[str, jax.Array]:
    """Converts the final logits of a model to values that may be resized and averaged before anything is decided.

    Args:
        outputs: Outputs of a model for a batch.
        tasks: Names of the tasks to predict.

    Returns:
        {task: values `[B, H, W, C]`}, see `LabelKind.soften`.

    Raises:
        ValueError: The outputs lack one of the tasks.
    """
    return {name: task_table.get(name).kind.soften(logits) for name, logits in _wide_logits(outputs, tasks)}


def _wide_logits(outputs: Outputs, tasks: Iterable[str]) -> list[tuple[str, jax.Array]]:
    """Returns (task, logits in float32 or a wider type) for every task."""
    tasks = tuple(tasks)
    if missing := [name for name in tasks if name not in outputs.logits]:
        raise ValueError(f"the outputs lack {', '.join(missing)}; they have: {', '.join(outputs.logits) or 'none'}")
    pairs = [(name, outputs.logits[name]) for name in tasks]
    return [(name, logits.astype(jnp.promote_types(logits.dtype, jnp.float32))) for name, logits in pairs]


def resize_prediction(task: str, prediction: Any, size: tuple[int, int]) -> np.ndarray:
    """Resizes one image's prediction with the interpolation of the task.

    Args:
        task: Name of the task.
        prediction: Prediction `[H, W]` or `[H, W, C]`.
        size: Height and width of the result.

    Raises:
        ValueError: The prediction has another number of dimensions.
    """
    array = np.asarray(prediction)
    if array.ndim not in (2, 3):
        raise ValueError(f"{task}: expected one image, [H, W] or [H, W, C]; got the shape {array.shape}")
    interpolation = INTERPOLATIONS[task_table.get(task).kind.prediction_interpolation]
    return resize(array, int(size[0]), int(size[1]), interpolation)


def quantise(task: str, array: Any) -> np.ndarray:
    """Returns a prediction in its stored form: truncated (not rounded) to uint8, or float32 for real values (depth)."""
    return task_table.get(task).kind.quantise(np.asarray(array))


def file_path(directory: str | Path, task: str, image_id: str) -> Path:
    """Returns the path DIRECTORY/TASK/ID of a prediction without its suffix, which is .png, or .mat for real values."""
    return Path(directory) / task_table.get(task).name / image_id


def save(task: str, array: Any, path: str | Path) -> Path:
    """Quantises one image's prediction and writes it to a file. A crash never leaves an incomplete file.

    The file is a PNG (vectors are stored as RGB). For real values it is a .mat file with the task's name as key.

    Args:
        task: Name of the task.
        array: Prediction `[H, W]` or `[H, W, C]`.
        path: Path without suffix, see `file_path`. Missing folders are created.

    Returns:
        The path of the file.
    """
    target = _with_suffix(task, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = task_table.get(task).kind.encode_prediction(quantise(task, array), task)
    return atomic_files.write(target, content, sync=False)  # there are thousands of them


def at_size(task: str, prediction: Any, size: tuple[int, int], placement: Placement = "stretch") -> np.ndarray:
    """Returns one image's prediction at the size of the image, without the padding of the network's input.

    Args:
        task: Name of the task.
        prediction: Prediction for the network's input, `[h, w]` or `[h, w, C]`.
        size: Height and width of the image.
        placement: How the image was placed in the input.
    """
    return resize_prediction(task, placing.content(np.asarray(prediction), size, placement), size)


def as_stored(
    maps: Mapping[str, Any], size: tuple[int, int], placement: Placement = "stretch"
) -> dict[str, np.ndarray]:
    """Returns one image's predictions as files hold them, at the size of the image and quantised.

    Args:
        maps: {task: prediction at any resolution}.
        size: Height and width of the image.
        placement: How the image was placed in the network's input.
    """
    return {task: quantise(task, at_size(task, value, size, placement)) for task, value in maps.items()}


def load(task: str, path: str | Path, size: tuple[int, int] | None = None, classes: int | None = None) -> np.ndarray:
    """Reads a prediction from a file of `save` or of another tool: `[H, W]` for class maps, otherwise `[H, W, C]`.

    Args:
        task: Name of the task.
        path: Path without suffix, see `file_path`.
        size: Height and width that the prediction must have. None means any size.
        classes: Number of classes, for a class map. All ids must be smaller. Other tasks do not use it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or holds no prediction of this task. The size, the number of channels or the
            type is wrong, an id is no class, or a value is not finite. The message names the file.
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
    """Returns True if the predictions of an image are stored for all these tasks.

    A file that is empty or begins with zeros, as after a power cut, does not count.
    """
    return all(_is_begun(_with_suffix(task, file_path(directory, task, image_id))) for task in tasks)


def _is_begun(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(1) not in (b"", b"\0")


def stamp(directory: str | Path, tasks: Iterable[str], image_id: str) -> str:
    """Returns a text that changes when one of the prediction files of an image is written again."""
    found = []
    for task in tasks:
        path = _with_suffix(task, file_path(directory, task, image_id))
        if path.exists():
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return repr(found)


def check_complete(directory: str | Path, tasks: Iterable[str], ids: Sequence[str]) -> None:
    """Checks that every prediction exists. Predictions of other images are ignored, and their number is logged.

    Args:
        directory: Folder with a sub-folder for each task.
        tasks: Names of the tasks.
        ids: Ids of the images.

    Raises:
        FileNotFoundError: Predictions are missing; the message lists them.
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
    """Records the model whose predictions a folder will hold, so that predictions of two models are never mixed.

    Args:
        directory: Folder of the predictions. It is created if it does not exist.
        owner: Entries that identify the model and the data.
        note: Origin of the predictions, for people.

    Raises:
        ValueError: The folder holds predictions of another model or of other data, or files of unknown origin.
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
    return path.with_name(path.name + _suffix(task))  # not `with_suffix`, because an id may contain a dot


def _suffix(task: str) -> str:
    return task_table.get(task).kind.suffix
