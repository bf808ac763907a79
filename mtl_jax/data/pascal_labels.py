"""Labels that are computed from the files of PASCAL_MT: human parts, edges, and the mask of trusted normals.

Sources: the person parts of PASCAL-Part (arXiv 1406.2031) in the six groups of Xia et al. (arXiv 1708.03383), the 459
classes of PASCAL-Context (Mottaghi et al., CVPR 2014), edges and normals as in ASTMT (arXiv 1904.08918).
"""

import importlib.resources
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np

PERSON = 15  # class id in VOC
CONTEXT_CLASSES = 459
PARTS = {  # {part of a person in PASCAL-Part: group}
    **dict.fromkeys(("hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose"), 1),
    **dict.fromkeys(("neck", "torso"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), 6),
}


def human_parts(anno: Any, size: tuple[int, int]) -> np.ndarray:
    """Draws a map of the body parts of all people.

    Later objects cover earlier ones, and later parts of an object cover earlier ones.

    Args:
        anno: The struct `anno` of a PASCAL-Part file, as returned by `scipy.io.loadmat`, squeezed or not.
        size: Height and width of the image, used for an annotation without masks. Otherwise the map has the size of the
            masks.

    Returns:
        The groups of `PARTS`, uint8 `[H, W]`; 0 for all other pixels.

    Raises:
        ValueError: `anno` is no such struct, a person has unknown parts, or the masks have different sizes.
    """
    masks: list[tuple[str, np.ndarray]] = []  # (description for errors, mask)
    painted: list[tuple[int, np.ndarray]] = []
    unknown: set[str] = set()
    for index, thing in enumerate(_rows(_only(anno, "anno"), "objects", "anno")):
        where = f"object {index + 1}"
        masks.append((where, _mask(thing, where)))
        if _number(thing, "class_ind", where) != PERSON:
            continue
        for part in _rows(thing, "parts", where):
            name = _text(part, "part_name", where)
            mask = _mask(part, f"{where}, part {name!r}")
            masks.append((f"{where}, part {name!r}", mask))
            if name in PARTS:
                painted.append((PARTS[name], mask))
            else:
                unknown.add(name)
    if unknown:
        raise ValueError(
            f"unknown parts of a person: {', '.join(map(repr, sorted(unknown)))}; the parts are {', '.join(PARTS)}"
        )
    out = np.zeros(masks[0][1].shape if masks else size, np.uint8)
    for where, mask in masks:
        if mask.shape != out.shape:
            raise ValueError(f"the mask of {where} has shape {mask.shape}, the first mask {out.shape}")
    for group, mask in painted:
        out[mask] = group
    return out


def label_map(value: np.ndarray) -> np.ndarray:
    """Checks the `LabelMap` of a PASCAL-Context file.

    Returns:
        The class ids 1..459, uint16 `[H, W]`; 0 for pixels without a class.

    Raises:
        ValueError: the array is not `[H, W]`, or has values that are no class ids.
    """
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"shape {value.shape}, expected [H, W]")
    if value.dtype.kind not in "biuf":
        raise ValueError(f"values of type {value.dtype}, expected numbers")
    if value.dtype.kind == "f" and not np.array_equal(value, np.rint(value)):  # NaN counts as unequal, too
        wrong = value[value != np.rint(value)]
        raise ValueError(f"{wrong.size} values are no whole numbers, the first is {wrong[0]:g}")
    if value.min() < 0 or value.max() > CONTEXT_CLASSES:
        raise ValueError(f"class ids from {value.min():g} to {value.max():g}, expected 0 to {CONTEXT_CLASSES}")
    return value.astype(np.uint16)


def edges(labels: np.ndarray) -> np.ndarray:
    """Computes the thin boundaries between the classes of a label map `[H, W]`.

    Pixels whose Laplacian (4 neighbours, mirrored at the border) is not zero are marked, and thinned as by Guo and Hall
    (1989).

    Returns:
        0 or 1, uint8 `[H, W]`.
    """
    from mtl_jax.boundaries.thinning import thin  # imports Numba, which only building needs

    return thin(cv2.Laplacian(labels, cv2.CV_64F, ksize=1) != 0).astype(np.uint8)


def normals_mask(labels: np.ndarray) -> np.ndarray:
    """Returns a bool mask of the pixels whose distilled normals can be trusted.

    These are pixels of classes that also occur indoors, because the teacher network was trained on indoor images.

    Args:
        labels: Ids of the 459 classes, of any shape.
    """
    return _normals_classes()[labels]


@cache
def _normals_classes() -> np.ndarray:
    text = importlib.resources.files("mtl_jax.data").joinpath("pascal_normals_classes.txt").read_text("utf-8")
    listed = np.zeros(CONTEXT_CLASSES + 1, bool)
    listed[[int(line.split()[0]) for line in text.splitlines() if not line.startswith("#")]] = True
    return listed


# scipy returns MATLAB structs as arrays of records. The fields of a record are arrays again, which may be empty.


def _only(value: Any, what: str) -> Any:
    values = np.asarray(value).ravel()
    if values.size != 1 or not values.dtype.names:
        raise ValueError(f"{what} is no struct but {values.size} value(s) of type {values.dtype}")
    return values[0]


def _field(record: Any, name: str, where: str) -> np.ndarray:
    if name not in (record.dtype.names or ()):
        raise ValueError(f"{where} has no field {name!r}; it has {', '.join(record.dtype.names or ()) or 'none'}")
    return np.asarray(record[name])


def _rows(record: Any, name: str, where: str) -> Sequence[Any]:
    """Returns the elements of a field that is a struct array, which may be empty."""
    rows = _field(record, name, where).ravel()
    if rows.size and not rows.dtype.names:
        raise ValueError(f"{name} of {where} is no struct but {rows.size} value(s) of type {rows.dtype}")
    return list(rows)


def _mask(record: Any, where: str) -> np.ndarray:
    mask = _field(record, "mask", where)
    if mask.ndim != 2 or 0 in mask.shape or mask.dtype.kind not in "biuf":
        raise ValueError(f"the mask of {where} has shape {mask.shape} and type {mask.dtype}, expected numbers [H, W]")
    return mask != 0


def _number(record: Any, name: str, where: str) -> float:
    value = _field(record, name, where)
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise ValueError(f"{name} of {where} is {value!r}, expected a number")
    return float(value.item())


def _text(record: Any, name: str, where: str) -> str:
    value = _field(record, name, where)
    if value.size != 1 or value.dtype.kind != "U":
        raise ValueError(f"{name} of {where} is {value!r}, expected a text")
    return str(value.item())
