"""Stored records to canonical arrays.

A record is what a data source yields: `id`, `image` and labels, encoded (JPEG or PNG bytes) or as arrays. The canonical
sample has

    id           str
    image        uint8   [H, W, 3]  RGB
    semseg       uint8   [H, W, 1]  class ids, 255 ignored; human_parts alike
    sal          float32 [H, W, 1]  0 or 1
    edge         float32 [H, W, 1]  0..1
    depth        float32 [H, W, 1]  metres, 0 invalid
    normals      float32 [H, W, 3]  unit vectors, 0 invalid (float64 for PASCAL)

Where an image may lack labels, the record's text `labelled` names the tasks it has; the maps stored in place of the
others mean nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import catalogue
from mtl_jax.labels import INTERPOLATIONS

BOUNDARY = "boundary"  # a record's map of the boundaries that edges are scored against, where those are others
REBUILD = "Delete the prepared data set and build it again from intact files"


class CorruptRecordError(ValueError):
    """What is stored of one record cannot be used; the message names the record, what is wrong and what to do.

    Other records may well be intact, so training can pass over it (`loader.train_batches`, `skip_corrupt`). Takes the
    message alone, because it has to pickle: worker processes send it to the main one.
    """


def decode(
    record: Mapping[str, Any], tasks: Iterable[str], *, family: str = "nyud", where: str = "record"
) -> dict[str, Any]:
    """The canonical sample of a record, with those labels of `tasks` that the image has.

    Args:
        record: encoded images as bytes or arrays; see the module's docstring.
        tasks: labels to decode; the others are left out.
        family: Name of the data set, a key of `catalogue.DATASETS`.
        where: names the data set, the split and the position in error messages.

    Raises:
        CorruptRecordError: the image, a label or a text cannot be decoded, or has the wrong shape; the message says
            where.
        ValueError: unknown family, or a label that the data set does not have.
    """
    conventions = catalogue.get(family).conventions
    sample_id = text(record, "id", where)
    where = f"{where} (id {sample_id!r})"
    image = array(record, "image", 3, where)
    out: dict[str, Any] = {"id": sample_id, "image": image}
    for name in _labelled(record, tasks, where):
        kind = task_table.get(name).kind
        label = array(record, name, kind.channels, where)
        if label.shape[:2] != image.shape[:2] and not conventions.resize_labels:
            raise CorruptRecordError(
                f"{where}: label {name!r} is {_size(label)}, the image {_size(image)}. {REBUILD}, with labels of the "
                "image's size"
            )
        try:
            label = kind.decode(label, conventions)
        except ValueError as error:
            raise CorruptRecordError(f"{where}: label {name!r} {error}. {REBUILD}") from error
        if label.shape[:2] != image.shape[:2]:
            height, width = image.shape[:2]
            mode = INTERPOLATIONS[kind.fit_interpolation]
            label = cv2.resize(label, (width, height), interpolation=mode).reshape(height, width, label.shape[2])
        out[name] = label
    return out


def as_text(value: str | bytes) -> str:
    """A text as tfds hands it over (bytes) or as it is."""
    return value.decode() if isinstance(value, bytes) else str(value)


def text(record: Mapping[str, Any], name: str, where: str) -> str:
    """A text of a record, "" where it has none of that name.

    Raises:
        CorruptRecordError: the bytes are no UTF-8; the message starts with `where`.
    """
    try:
        return as_text(record.get(name, ""))
    except UnicodeDecodeError as error:
        raise CorruptRecordError(f"{where}: the text {name!r} is corrupt: {error}. {REBUILD}") from error


def array(record: Mapping[str, Any], name: str, channels: int, where: str) -> np.ndarray:
    """An image or a label of a record, decoded where it is encoded: `[H, W, channels]`.

    Raises:
        CorruptRecordError: it cannot be decoded, or has another shape; the message starts with `where`.
        ValueError: the record has none of that name.
    """
    if name not in record:
        have = [key for key in record if key == "image" or key in task_table.TASKS]
        raise ValueError(f"{where}: no {name!r} in this data set; it has {', '.join(have) or 'none'}: change the tasks")
    value = record[name]
    if isinstance(value, bytes | bytearray | memoryview | np.bytes_):
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


def _size(x: np.ndarray) -> str:
    return f"{x.shape[0]}x{x.shape[1]}"
