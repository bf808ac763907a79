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
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures

BOUNDARY = "boundary"  # a record's map of the boundaries that edges are scored against, where those are others
REBUILD = "Delete the prepared data set and build it again from intact files"


class CorruptRecordError(ValueError):
    """What is stored of one record cannot be used; the message names the record, what is wrong and what to do.

    Other records may well be intact, so training can pass over it (`loader.train_batches`, `skip_corrupt`). Takes the
    message alone, because it has to pickle: worker processes send it to the main one.
    """


@dataclass(frozen=True)
class Conventions:
    """How a family of data sets treats its labels.

    Attributes:
        resize_labels: labels of another size than the image are resized to it; otherwise they are an error.
        normals_dtype: what the transforms compute normals in.
        normals_void: in 8-bit normals the code (0, 0, 0) marks invalid pixels.
    """

    resize_labels: bool = False
    normals_dtype: str = "float32"
    normals_void: bool = False


CONVENTIONS = {
    "nyud": Conventions(),
    "pascal": Conventions(resize_labels=True, normals_dtype="float64", normals_void=True),
    "folder": Conventions(normals_void=True),
}


def decode(
    record: Mapping[str, Any], tasks: Iterable[str], *, family: str = "nyud", where: str = "record"
) -> dict[str, Any]:
    """The canonical sample of a record, with those labels of `tasks` that the image has.

    Args:
        record: encoded images as bytes or arrays; see the module's docstring.
        tasks: labels to decode; the others are left out.
        family: key of `CONVENTIONS`.
        where: names the data set, the split and the position in error messages.

    Raises:
        CorruptRecordError: the image, a label or a text cannot be decoded, or has the wrong shape; the message says
            where.
        ValueError: unknown family, or a label that the data set does not have.
    """
    if family not in CONVENTIONS:
        raise ValueError(f"unknown family of data sets {family!r}; there are {', '.join(CONVENTIONS)}")
    conventions = CONVENTIONS[family]
    sample_id = text(record, "id", where)
    where = f"{where} (id {sample_id!r})"
    image = array(record, "image", 3, where)
    out: dict[str, Any] = {"id": sample_id, "image": image}
    for name in _labelled(record, tasks, where):
        label = array(record, name, task_table.get(name).label_channels, where)
        if label.shape[:2] != image.shape[:2] and not conventions.resize_labels:
            raise CorruptRecordError(
                f"{where}: label {name!r} is {_size(label)}, the image {_size(image)}. {REBUILD}, with labels of the "
                "image's size"
            )
        label = _canonical(name, label, conventions)
        if label.shape[:2] != image.shape[:2]:
            label = _fit(name, label, image)
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


def _canonical(name: str, label: np.ndarray, conventions: Conventions) -> np.ndarray:
    """Stored values to those of the module's docstring."""
    if label.dtype != np.uint8 or np.issubdtype(np.dtype(task_table.get(name).label_dtype), np.integer):
        return _values(name, label, conventions)
    out = cv2.LUT(label, _code_values(name, conventions))  # one pass over the map instead of one for each operation
    if name == "normals" and conventions.normals_void:
        out = cv2.copyTo(out, cv2.bitwise_not(cv2.inRange(label, (0, 0, 0), (0, 0, 0))))
    return out.reshape(label.shape)


@cache
def _code_values(name: str, conventions: Conventions) -> np.ndarray:
    """What the codes 0..255 of a stored map mean."""
    return _values(name, np.arange(256, dtype=np.uint8), conventions)


def _values(name: str, label: np.ndarray, conventions: Conventions) -> np.ndarray:
    coded = label.dtype == np.uint8
    if name == "normals":
        dtype = np.dtype(conventions.normals_dtype)
        return label.astype(dtype) * dtype.type(2) / dtype.type(255) - 1 if coded else label.astype(dtype)
    if name in ("edge", "sal"):
        value = label.astype(np.float32) / np.float32(255) if coded else label.astype(np.float32)
        return (value > 0.5).astype(np.float32) if name == "sal" else value
    if name == "depth":
        return label.astype(np.float32)
    return label.astype(np.uint8)


def _fit(name: str, label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The label at the image's size: normals by cubic interpolation, the others nearest."""
    height, width = image.shape[:2]
    mode = cv2.INTER_CUBIC if name == "normals" else cv2.INTER_NEAREST
    return cv2.resize(label, (width, height), interpolation=mode).reshape(height, width, label.shape[2])


def _size(x: np.ndarray) -> str:
    return f"{x.shape[0]}x{x.shape[1]}"
