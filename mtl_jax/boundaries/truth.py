"""Reading true boundaries from the files in which data sets keep them."""

import io

import numpy as np
import scipy.io

from mtl_jax.boundaries.labels import label_boundary
from mtl_jax.data import records

KINDS = ("labels", "boundaries")
_LABEL_MAP, _ANNOTATORS = "LabelMap", "groundTruth"


def read_truth(data: bytes, kind: str = "labels") -> list[np.ndarray]:
    """The boundary of each annotator in a file, bool `[H, W]`.

    Args:
        data: the file's content: a PNG, PASCAL-Context's .mat (`LabelMap`), or BSDS500's .mat (`groundTruth`).
        kind: "labels" takes a PNG for a map of regions, also one of edges (NYUD), whose boundary is thinned;
            "boundaries" takes everything set in it as it is. BSDS500's boundaries always are as they are.

    Raises:
        ValueError: neither of these files, or a damaged one.
    """
    if data.startswith(b"\x89PNG"):
        image = decode_grey(data)
        return [label_boundary(image) if kind == "labels" else image > 0]
    try:
        content = scipy.io.loadmat(io.BytesIO(data))
    except Exception as error:  # scipy raises whatever the bytes lead to
        raise ValueError(f"neither a PNG nor a readable .mat file ({error})") from error
    if _LABEL_MAP in content:
        return [label_boundary(_plane(content[_LABEL_MAP], _LABEL_MAP))]
    if _ANNOTATORS in content:
        try:
            maps = [entry["Boundaries"][0, 0] for entry in content[_ANNOTATORS].ravel()]
        except (IndexError, TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{_ANNOTATORS} is no list of annotators with Boundaries ({error})") from error
        return [_plane(value, "Boundaries") > 0 for value in maps]
    found = [name for name in content if not name.startswith("__")]
    raise ValueError(f"a .mat file with {', '.join(found) or 'nothing'}, expected {_LABEL_MAP} or {_ANNOTATORS}")


def decode_grey(data: bytes) -> np.ndarray:
    """An image of one channel, `[H, W]`.

    Raises:
        ValueError: no readable image, or one with more channels.
    """
    if records.has_palette(data):
        raise ValueError("a palette of colours, expected 1 channel")
    try:
        return records.decode_image(data, 1)[..., 0]
    except ValueError as error:
        raise ValueError(f"no readable image of 1 channel: {error}") from error


def _plane(value: np.ndarray, name: str) -> np.ndarray:
    if value.ndim != 2 or not value.size:
        raise ValueError(f"{name} has the shape {value.shape}, expected [H, W]")
    return value
