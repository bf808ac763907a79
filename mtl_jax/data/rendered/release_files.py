"""Rendered scenes in the file layouts of the original releases, which the builders `nyud_mt` and `pascal_mt` read.

They serve to test the builders, and to measure them at full size. An image depends only on the seed, its id and its
size.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io

from mtl_jax.codecs import pictures
from mtl_jax.data.rendered import people, rooms
from mtl_jax.data.rendered.raycast import VOID
from mtl_jax.runtime import messages, workers

PERSON = people.CLASSES["person"]
UNKNOWN, SKY, FLOOR, GROUND, CEILING, WALL, BUILDING = 431, 360, 158, 189, 68, 440, 44
CONTEXT_IDS = {  # {class id in VOC: class id among the 459 of PASCAL-Context}
    VOID: UNKNOWN,
    people.CLASSES["boat"]: 31,
    people.CLASSES["bottle"]: 34,
    people.CLASSES["bus"]: 45,
    people.CLASSES["car"]: 59,
    people.CLASSES["chair"]: 72,
    people.CLASSES["cow"]: 98,
    people.CLASSES["table"]: 397,
    people.CLASSES["dog"]: 113,
    people.CLASSES["horse"]: 207,
    PERSON: 284,
    people.CLASSES["plant"]: 308,
    people.CLASSES["sheep"]: 347,
    people.CLASSES["sofa"]: 368,
    people.CLASSES["television"]: 427,
}
PART_NAMES = {  # {group: its parts in PASCAL-Part, from left to right}
    1: ("hair", "head"),
    2: ("torso", "neck"),
    3: ("luarm", "ruarm"),
    4: ("lhand", "llarm", "rlarm", "rhand"),
    5: ("luleg", "ruleg"),
    6: ("lfoot", "llleg", "rlleg", "rfoot"),
}
_ANIMALS = {people.CLASSES[name] for name in ("cow", "dog", "horse", "sheep")}
_FEWEST_FOR_POOL = 32  # starting worker processes costs about as much as drawing this many images


def write_nyud(
    folder: Path,
    release: str,
    ids: Mapping[str, Sequence[str]],
    *,
    height: int = 480,
    width: int = 640,
    seed: int = 0,
) -> Path:
    """Writes rooms as the data set NYUD_MT.

    Args:
        folder: Folder in which the folder NYUD_MT is made.
        release: Name of the release, "astmt" or "survey".
        ids: {split: ids of its images}.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        seed: Seed of the random numbers.

    Returns:
        The path of the folder NYUD_MT.

    Raises:
        ValueError: there is no release of this name.
    """
    if release not in ("astmt", "survey"):
        raise ValueError(f"release is {release!r}; it must be 'astmt' or 'survey'")
    root = folder / "NYUD_MT"
    jobs = [key for names in ids.values() for key in names]
    _write(root, {f"gt_sets/{split}.txt": names for split, names in ids.items()})
    _run(partial(_write_room, root, release, height, width, seed), jobs)
    return root


def write_pascal(
    folder: Path, ids: Mapping[str, Sequence[str]], *, height: int = 375, width: int = 500, seed: int = 0
) -> Path:
    """Writes pictures of people, animals and things as the data set PASCAL_MT.

    Every second image of a split has its classes in semseg/VOC12, the others in semseg/pascal-context.

    Args:
        folder: Folder in which the folder PASCAL_MT is made.
        ids: {split: ids of its images}.
        height: Height of the images in pixels; each image is up to an eighth smaller or larger.
        width: Width of the images in pixels; each image is up to an eighth smaller or larger.
        seed: Seed of the random numbers.

    Returns:
        The path of the folder PASCAL_MT.
    """
    root = folder / "PASCAL_MT"
    jobs = [(key, position % 2 == 0) for names in ids.values() for position, key in enumerate(names)]
    _write(root, {f"ImageSets/Context/{split}.txt": names for split, names in ids.items()})
    _run(partial(_write_picture, root, height, width, seed), jobs)
    return root


def _run(job: Callable[[Any], None], items: Sequence[Any]) -> None:
    for _ in workers.map_ordered(job, items, fewest=_FEWEST_FOR_POOL):
        pass


def _write_room(root: Path, release: str, height: int, width: int, seed: int, key: str) -> None:
    x = rooms.sample(_rng(seed, key), height, width)
    raw = np.where(x["semseg"] == VOID, 0, x["semseg"] + 1).astype(np.uint8)  # 0 is void
    if release == "astmt":
        labels = {
            f"segmentation/{key}.mat": _mat(segmentation=raw[..., 0]),
            f"depth/{key}.mat": _mat(depth=x["depth"][..., 0]),
            f"normals/{key}.jpg": _jpeg(_coded(x["normals"])),
            f"edge/{key}.png": pictures.encode_png(x["edge"]),
        }
    else:
        labels = {
            f"segmentation/{key}.png": pictures.encode_png(raw),
            f"depth/{key}.npy": _npy(x["depth"][..., 0]),
            f"normals/{key}.npy": _npy(x["normals"]),
            f"edge/{key}.npy": _npy((x["edge"][..., 0] / 255).astype(np.float32)),
        }
    _write(root, {f"images/{key}.jpg": _jpeg(x["image"]), **labels})


def _write_picture(root: Path, height: int, width: int, seed: int, job: tuple[str, bool]) -> None:
    key, in_voc = job
    rng = _rng(seed, key)
    height, width = (int(side + rng.integers(-(side // 8), side // 8 + 1)) for side in (height, width))
    x = people.sample(rng, height, width)
    normals = np.where(x["normals"].any(axis=2, keepdims=True), x["normals"], (0, -1, 0))  # the sky faces the camera
    semseg = pictures.encode_png(x["semseg"])
    classes = (
        {f"semseg/VOC12/{key}.png": _with_palette(semseg)} if in_voc else {f"semseg/pascal-context/{key}.png": semseg}
    )
    labels = {
        f"pascal-context/trainval/{key}.mat": _mat(LabelMap=label_map(x)),
        f"human_parts/{key}.mat": _mat(anno=_annotation(key, x)),
        # Distilled labels are predictions of a network, which cover all pixels and have soft transitions.
        f"normals_distill/{key}.png": pictures.encode_png(_coded(normals)),
        f"sal_distill/{key}.png": pictures.encode_png(cv2.GaussianBlur(x["sal"], (0, 0), 1.0)),
    }
    _write(root, {f"JPEGImages/{key}.jpg": _jpeg(x["image"]), **classes, **labels})


def label_map(x: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes the class ids of PASCAL-Context, uint16 `[H, W]`, for a picture from `people.sample`.

    The background of VOC is divided into classes by the direction of its normals.
    """
    up, sky = x["normals"][..., 2], ~x["normals"].any(axis=2)
    floor, ceiling, wall = (GROUND, BUILDING, BUILDING) if sky.any() else (FLOOR, CEILING, WALL)
    background = np.select([sky, up > 0.7, up < -0.7], [SKY, floor, ceiling], wall)
    table = np.zeros(VOID + 1, np.int64)
    for voc, context in CONTEXT_IDS.items():
        table[voc] = context
    classes = table[x["semseg"][..., 0]]
    return np.where(classes > 0, classes, background).astype(np.uint16)


def _annotation(key: str, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the struct `anno` of PASCAL-Part, with the connected regions of each class as objects."""
    parts, semseg = x["human_parts"][..., 0], x["semseg"][..., 0]
    objects = []
    for name, voc in sorted(people.CLASSES.items(), key=lambda item: item[1]):
        if voc in (0, VOID):
            continue
        # People are found by their parts, which void outlines of annotators do not divide.
        count, regions = cv2.connectedComponents(((parts > 0) if voc == PERSON else (semseg == voc)).astype(np.uint8))
        for index in range(1, count):
            mask = (regions == index).astype(np.uint8)
            if voc == PERSON:
                named = [
                    (part, piece)
                    for group, names in PART_NAMES.items()
                    for part, piece in _pieces(mask * (parts == group), names)
                ]
            else:  # animals have parts, too, but these belong to no group
                named = _pieces(mask, ("head", "tail")) if voc in _ANIMALS else []
            objects.append((name, np.uint8(voc), mask, _struct(("part_name", "mask"), named)))
    return _struct(("imname", "objects"), [(key, _struct(("class", "class_ind", "mask", "parts"), objects))])


def _pieces(mask: np.ndarray, names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Cuts a mask into vertical stripes, one for each name, and drops stripes without pixels."""
    columns = np.flatnonzero(mask.any(axis=0))
    pieces = []
    for name, stripe in zip(names, np.array_split(columns, len(names)), strict=True):
        if stripe.size:
            piece = np.zeros_like(mask)
            piece[:, stripe] = mask[:, stripe]
            pieces.append((name, piece))
    return pieces


def _struct(fields: Sequence[str], rows: Sequence[tuple]) -> np.ndarray:
    """Returns a MATLAB struct array, 1 x n, or 0 x 0 without rows."""
    out = np.empty((1, len(rows)) if rows else (0, 0), [(field, object) for field in fields])
    for index, row in enumerate(rows):
        out[0, index] = row
    return out


def _rng(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng([seed, *key.encode()])


def _coded(normals: np.ndarray) -> np.ndarray:
    return np.clip(np.rint((normals + 1) * 127.5), 0, 255).astype(np.uint8)


def _jpeg(x: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", x[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _mat(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=True)
    return file.getvalue()


def _npy(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def _with_palette(png: bytes) -> bytes:
    """Adds VOC's palette to a grey PNG.

    The bits of an index, from the lowest one, become the high bits of R, G and B in turn.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= (((index >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)

    def chunk(content: bytes) -> bytes:  # the first four bytes of the content are the type of the chunk
        return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")

    header = png[12:24] + png[24:25] + b"\x03" + png[26:29]  # the colour type follows the bit depth
    return png[:8] + chunk(header) + chunk(b"PLTE" + palette.tobytes()) + png[33:]


def _write(root: Path, content: Mapping[str, bytes | Sequence[str]]) -> None:
    """Writes files, given as {path below root: bytes or lines}."""
    for name, data in content.items():
        path = root / name
        with messages.writing("a rendered file", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else "".join(f"{line}\n" for line in data).encode())
