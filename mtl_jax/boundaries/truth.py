"""Reading of true boundaries from the files of the data sets."""

import numpy as np

from mtl_jax.boundaries.labels import label_boundary
from mtl_jax.codecs import matlab, pictures

KINDS = ("labels", "boundaries")
_LABEL_MAP, _ANNOTATORS = "LabelMap", "groundTruth"


def read_truth(data: bytes, kind: str = "labels") -> list[np.ndarray]:
    """Reads the boundary of each annotator, bool `[H, W]`, from the content of a file.

    Args:
        data: Content of a PNG, of a .mat file of PASCAL-Context (`LabelMap`) or of a .mat file of BSDS500
            (`groundTruth`).
        kind: Meaning of a PNG. "labels" means a map of regions, or of edges (NYUD), whose thinned boundary is computed.
            "boundaries" means that the pixels that are set are the boundary. The boundaries of BSDS500 are never
            thinned.

    Raises:
        ValueError: the file is of another type, or damaged.
    """
    if data.startswith(b"\x89PNG"):
        image = decode_grey(data)
        return [label_boundary(image) if kind == "labels" else image > 0]
    try:
        name, value = matlab.variable(data, (_LABEL_MAP, _ANNOTATORS))
    except ValueError as error:
        raise ValueError(f"neither a PNG nor a .mat file with ground truth: {error}") from error
    if name == _LABEL_MAP:
        return [label_boundary(_plane(value, name))]
    try:
        maps = [entry["Boundaries"][0, 0] for entry in value.ravel()]
    except (IndexError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{name} is no list of annotators with Boundaries ({error})") from error
    return [_plane(boundary, "Boundaries") > 0 for boundary in maps]


def decode_grey(data: bytes) -> np.ndarray:
    """Decodes an image of one channel, `[H, W]`.

    Raises:
        ValueError: the image cannot be read, or has more channels or a palette.
    """
    if pictures.has_palette(data):
        raise ValueError("a palette of colours, expected 1 channel")
    try:
        return pictures.decode(data, 1)[..., 0]
    except ValueError as error:
        raise ValueError(f"no readable image of 1 channel: {error}") from error


def _plane(value: np.ndarray, name: str) -> np.ndarray:
    if value.ndim != 2 or not value.size:
        raise ValueError(f"{name} has the shape {value.shape}, expected [H, W]")
    return value
