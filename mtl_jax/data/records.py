"""Decoding of stored records into canonical arrays.

A record comes from a data source. It has `id`, `image` and labels, encoded (JPEG or PNG bytes) or as arrays. A
canonical sample has

    id           str
    image        uint8   [H, W, 3]  RGB
    semseg       uint8   [H, W, 1]  class ids, 255 ignored; the same for human_parts
    sal          float32 [H, W, 1]  0 or 1
    edge         float32 [H, W, 1]  0..1
    depth        float32 [H, W, 1]  metres, 0 invalid
    normals      float32 [H, W, 3]  unit vectors, 0 invalid (float64 for PASCAL)

If images of a data set may lack labels, the text `labelled` of a record names the tasks with a label. The maps stored
for the other tasks have no meaning.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.labels import INTERPOLATIONS, Conventions
from mtl_jax.runtime import messages

BOUNDARY = "boundary"  # field of a record with the boundaries that edges are scored against, if they are not the label
IMAGE_SIZE = "image_size"  # entry of a sample that has labels and no image, see `decode_labels`
_OWN = Conventions()  # of data of one's own
REBUILD = "Delete the prepared data set and build it again from intact files"


class CorruptRecordError(ValueError):
    """An error for a stored record that cannot be used. The message names the record, the fault and the remedy.

    Other records may be intact, so training can skip the record (`loader.train_batches`, `skip_corrupt`). The message
    is the only argument, because the error must pickle: worker processes send it to the main process.
    """


def decode(
    record: Mapping[str, Any], tasks: Iterable[str], *, conventions: Conventions = _OWN, where: str = "record"
) -> dict[str, Any]:
    """Decodes a record into a canonical sample. Labels of `tasks` that the image lacks are left out.

    Args:
        record: Record with images as encoded bytes or arrays, see the module's docstring.
        tasks: Names of the labels to decode. Other labels are left out.
        conventions: Label conventions of the data set.
        where: Data set, split and position of the record, for error messages.

    Raises:
        CorruptRecordError: The image, a label or a text cannot be decoded or has the wrong shape. The message starts
            with `where`.
        ValueError: The data set does not have a label.
    """
    sample_id = text(record, "id", where)
    where = f"{where} (id {sample_id!r})"
    image = array(record, "image", 3, where)
    size = (image.shape[0], image.shape[1])
    return {"id": sample_id, "image": image, **_labels(record, tasks, size, conventions, where)}


def decode_labels(
    record: Mapping[str, Any], tasks: Iterable[str], *, conventions: Conventions = _OWN, where: str = "record"
) -> dict[str, Any]:
    """Decodes a record without the pixels of its image, for scores: they need its size alone.

    The arguments are those of `decode`.

    Returns:
        The canonical sample with `IMAGE_SIZE`, the tuple (height, width), in place of `image`.

    Raises:
        CorruptRecordError: The header of the image, a label or a text cannot be decoded, or a label has the wrong
            shape. The message starts with `where`.
        ValueError: The data set does not have a label.
    """
    sample_id = text(record, "id", where)
    where = f"{where} (id {sample_id!r})"
    size = _image_size(record["image"], where)
    return {"id": sample_id, IMAGE_SIZE: size, **_labels(record, tasks, size, conventions, where)}


def _image_size(image: Any, where: str) -> tuple[int, int]:
    if not _is_encoded(image):
        return (image.shape[0], image.shape[1])
    try:
        return pictures.size(bytes(image))
    except ValueError as error:
        raise CorruptRecordError(f"{where}: 'image' is corrupt: {error}. {REBUILD}") from error


def _labels(
    record: Mapping[str, Any], tasks: Iterable[str], size: tuple[int, int], conventions: Conventions, where: str
) -> dict[str, np.ndarray]:
    """Returns {task: label `[H, W, C]`} of the tasks whose label the image has, at the size (height, width)."""
    out = {}
    for name in _labelled(record, tasks, where):
        kind = task_table.get(name).kind
        label = array(record, name, kind.channels, where)
        if label.shape[:2] != size and not conventions.resize_labels:
            raise CorruptRecordError(
                f"{where}: label {name!r} is {messages.size_text(label.shape[:2])}, the image "
                f"{messages.size_text(size)}. {REBUILD}, with labels of the image's size"
            )
        try:
            label = kind.decode(label, conventions)
        except ValueError as error:
            raise CorruptRecordError(f"{where}: label {name!r} {error}. {REBUILD}") from error
        if label.shape[:2] != size:
            height, width = size
            mode = INTERPOLATIONS[kind.fit_interpolation]
            label = cv2.resize(label, (width, height), interpolation=mode).reshape(height, width, label.shape[2])
        out[name] = label
    return out


def as_text(value: str | bytes) -> str:
    """Returns a text as `str`; tfds delivers texts as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def text(record: Mapping[str, Any], name: str, where: str) -> str:
    """Returns a text of a record, "" if the record has no field of this name.

    Args:
        record: The record.
        name: Name of the field.
        where: Data set, split and position of the record, for error messages.

    Raises:
        CorruptRecordError: The bytes are no UTF-8; the message starts with `where`.
    """
    try:
        return as_text(record.get(name, ""))
    except UnicodeDecodeError as error:
        raise CorruptRecordError(f"{where}: the text {name!r} is corrupt: {error}. {REBUILD}") from error


def array(record: Mapping[str, Any], name: str, channels: int, where: str) -> np.ndarray:
    """Returns an image or a label of a record as an array `[H, W, channels]`, decoded if it is encoded.

    Args:
        record: The record.
        name: Name of the field.
        channels: Number of channels that the array must have.
        where: Data set, split and position of the record, for error messages.

    Raises:
        CorruptRecordError: The bytes cannot be decoded, or the shape is wrong; the message starts with `where`.
        ValueError: The record has no field of this name.
    """
    if name not in record:
        have = [key for key in record if key == "image" or key in task_table.TASKS]
        raise ValueError(f"{where}: no {name!r} in this data set; it has {', '.join(have) or 'none'}: change the tasks")
    value = record[name]
    if _is_encoded(value):
        try:
            value = pictures.decode(bytes(value), channels)
        except ValueError as error:
            raise CorruptRecordError(f"{where}: {name!r} is corrupt: {error}. {REBUILD}") from error
    value = np.asarray(value)
    if value.ndim != 3 or value.shape[2] != channels or not value.size:
        shape = f"has shape {value.shape}, expected [H, W, {channels}]"
        raise CorruptRecordError(f"{where}: {name!r} {shape}. {REBUILD}")
    return value


def _labelled(record: Mapping[str, Any], tasks: Iterable[str], where: str) -> list[str]:
    if "labelled" not in record:
        return list(tasks)
    have = text(record, "labelled", where).split()
    return [name for name in tasks if name in have]


def _is_encoded(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview | np.bytes_)
