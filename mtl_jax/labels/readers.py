"""Readers of the original files of a data set, with errors that describe the fault of a file.

A reader takes the bytes of a file and returns (value stored in the record, (height, width)). It raises ValueError for a
faulty file. `read` runs a reader and adds its error to a list of problems instead.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtl_jax.codecs import matlab, pictures
from mtl_jax.runtime import messages

Size = tuple[int, int]
Reader = Callable[[bytes], tuple[Any, Size]]
Load = Callable[[bytes], np.ndarray]
Reading = tuple[dict[str, Any], list[str]]  # (record, problems with its files)
_SHOWN = 5  # values listed in an error


def read(root: Path, name: str, reader: Reader, problems: list[str]) -> tuple[Any, Size] | None:
    """Returns the result of a reader for the file `name` in `root`, or adds a problem and returns None."""
    try:
        return reader((root / name).read_bytes())
    except FileNotFoundError:
        problems.append(f"{name} is missing")
    except (ValueError, OSError) as error:
        problems.append(f"{name}: {error}")
    return None


def check_size(name: str, size: Size, expected: Size, reason: str, problems: list[str]) -> None:
    """Adds a problem if the size differs from the expected size.

    Args:
        name: Name of the file.
        size: Height and width of the map in the file.
        expected: Height and width that the map must have.
        reason: Text before the expected size in the problem.
        problems: List that receives the problem.
    """
    if size != expected:
        problems.append(f"{name}: size {messages.size_text(size)}, {reason} {messages.size_text(expected)}")


# Readers


def encoded(channels: int) -> Reader:
    """Returns a reader of JPEG or PNG files that keeps the bytes and checks that they decode to `channels` channels.

    Images in colour are stored as `photograph` stores them. Damage that decoders repair is a note, not an error: the
    files are those of a published release, which nobody can mend.
    """

    def reader(data: bytes) -> tuple[bytes, Size]:
        image = pictures.decode(data, channels)
        if reason := pictures.damage(data):
            pictures.note(reason)
        return (pictures.as_rgb(data, image) if channels == 3 else data), (image.shape[0], image.shape[1])

    return reader


def photograph(orientation: str) -> Reader:
    """Returns a reader of images in colour, JPEG or PNG.

    RGB images of 8 bits keep their bytes. Others (grey, CMYK, with a palette, with transparency, of 16 bits) become
    PNGs in RGB, so that every decoder returns the same three channels. Damage that decoders repair is an error.

    Args:
        orientation: What happens to images that are to be turned by their EXIF data before they are seen: "upright"
            turns them, "stored" leaves them, and "" refuses them, since nobody knows whether their labels are turned.
    """

    def reader(data: bytes) -> tuple[bytes, Size]:
        image, turned = pictures.photograph(data), pictures.orientation(data)
        if reason := pictures.damage(data):
            raise ValueError(f"{reason}. Replace the file; if the image looks right, save it anew")
        if turned == 1 or orientation == "stored":
            return pictures.as_rgb(data, image), (image.shape[0], image.shape[1])
        if orientation != "upright":
            raise ValueError(
                f"its EXIF orientation is {turned}: viewers show it otherwise than its pixels lie. Say how the labels "
                'lie: orientation = "upright" (as viewers show the image) or "stored" (as the pixels lie)'
            )
        image = pictures.upright(image, turned)
        return pictures.encode_png(image), (image.shape[0], image.shape[1])

    return reader


def grey(data: bytes) -> tuple[bytes, Size]:
    """Reads a picture with grey levels of 8 bits. A picture with colours or a palette is converted to grey."""
    try:
        value = None if pictures.has_palette(data) else pictures.decode(data, 1)
    except ValueError:
        value = None  # decoding in colour, below, raises again unless only the number of channels was wrong
    if value is None:
        value = cv2.cvtColor(pictures.decode(data, 3), cv2.COLOR_RGB2GRAY)
    if value.dtype != np.uint8:
        raise ValueError(f"values of type {value.dtype}, expected grey levels in 8 bits")
    return pictures.encode_png(value), (value.shape[0], value.shape[1])


def class_ids(
    load: Load, ids: Mapping[int, int], expected: str, show: Callable[[float], str] = "{:g}".format
) -> Reader:
    """Returns a reader of maps of raw class ids, which are stored as PNG.

    Args:
        load: Function that turns the bytes of a file into an array.
        ids: {raw id: stored id}. Other raw ids are errors.
        expected: Description of the allowed raw ids, for the error message.
        show: Function that formats a raw id for the error message.
    """

    def reader(data: bytes) -> tuple[bytes, Size]:
        raw = as_map(load(data), 1)
        stored = translated(raw, ids, "class ids", expected, show)
        return pictures.encode_png(stored), (raw.shape[0], raw.shape[1])

    return reader


def translated(
    raw: np.ndarray,
    meanings: Mapping[int, int],
    name: str,
    expected: str,
    show: Callable[[float], str] = "{:g}".format,
) -> np.ndarray:
    """Returns what the values of a file mean, uint8 in the shape of `raw`.

    Args:
        raw: Values of the file.
        meanings: {value: stored value}.
        name: Description of such values, for the error message.
        expected: Description of the allowed values, for the error message.
        show: Function that formats a value for the error message.

    Raises:
        ValueError: A value has no meaning.
    """
    values, inverse = np.unique(raw, return_inverse=True)
    if wrong := [show(value) for value in values.tolist() if value not in meanings]:
        listed = f"{', '.join(wrong[:_SHOWN])}{', ...' if len(wrong) > _SHOWN else ''}"
        raise ValueError(f"{name} {listed}, expected {expected}")
    return np.array([meanings[int(value)] for value in values], np.uint8)[inverse].reshape(raw.shape)


def floats(load: Load, channels: int, low: float, high: float, void: float | None = None) -> Reader:
    """Returns a reader of maps of finite numbers from `low` to `high`, which are stored as float32.

    Args:
        load: Function that turns the bytes of a file into an array.
        channels: Last dimension of the map.
        low: Least value.
        high: Greatest value.
        void: Stored value of pixels that hold NaN. None means that NaN is an error.
    """

    def reader(data: bytes) -> tuple[np.ndarray, Size]:
        value = as_map(load(data), channels).astype(np.float32)
        unlabelled = np.isnan(value).any(axis=2) if void is not None else np.zeros(value.shape[:2], bool)
        labels = value[~unlabelled]
        if bad := int(np.sum(~np.isfinite(labels))):
            raise ValueError(f"{bad} values are infinite" if void is not None else f"{bad} values are NaN or infinite")
        if labels.size and (labels.min() < low or labels.max() > high):
            raise ValueError(f"values from {labels.min():g} to {labels.max():g}, expected {low:g} to {high:g}")
        if void is not None:
            value[unlabelled] = void
        return value, (value.shape[0], value.shape[1])

    return reader


def probabilities(load: Load) -> Reader:
    """Returns a reader of maps of numbers from 0 to 1, which are stored as PNG in 255 steps."""

    def reader(data: bytes) -> tuple[bytes, Size]:
        value, size = floats(load, 1, 0, 1)(data)
        return pictures.encode_png(np.rint(value * 255).astype(np.uint8)), size

    return reader


def check_unit_length(vectors: np.ndarray) -> None:
    """Checks that most of the vectors `[..., 3]` are unit vectors.

    Vectors near zero, and vectors decoded from black, mark pixels without a label and do not count.

    Raises:
        ValueError: Less than half of the vectors have a length near 1.
    """
    lengths = np.linalg.norm(vectors.reshape(-1, 3), axis=1)
    lengths = lengths[(lengths > 0.1) & (lengths < 1.6)]
    if lengths.size and (share := float(np.mean(np.abs(lengths - 1) < 0.1))) < 0.5:
        raise ValueError(f"only {share:.0%} of the vectors have length 1: are these surface normals, coded 2x/255 - 1?")


# Loaders: bytes -> array


def mat(key: str) -> Load:
    """Returns a loader of the variable `key` of MATLAB files."""

    return lambda data: matlab.variable(data, (key,))[1]


def npy(data: bytes) -> np.ndarray:
    """Returns the array of a NumPy file.

    Raises:
        ValueError: The file is not readable.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # the type of NumPy's exception depends on the damage
        raise ValueError(f"not a readable .npy file ({error})") from error


def as_map(value: np.ndarray, channels: int) -> np.ndarray:
    """Returns an array `[H, W, channels]`, or `[H, W]` if `channels` is 1, in the shape `[H, W, channels]`.

    Raises:
        ValueError: The array has another shape or holds no numbers.
    """
    shape = value.shape
    if channels == 1 and value.ndim == 2:
        value = value[..., None]
    if value.ndim != 3 or value.shape[2] != channels or 0 in value.shape:
        raise ValueError(f"shape {shape}, expected [H, W{'' if channels == 1 else f', {channels}'}]")
    if value.dtype.kind not in "biuf":
        raise ValueError(f"values of type {value.dtype}, expected numbers")
    return value
