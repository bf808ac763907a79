"""The input pipeline as a plain `torch.utils.data.Dataset`: original files in, tensors out.

Written from the specification without regard to speed, but for what is usual: every sample opens its files, and every
map goes through the transforms on its own, as float32 (PASCAL's normals float64).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
from skimage.morphology import thin
from torch.utils.data import DataLoader, Dataset

Maps = dict[str, np.ndarray]

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
PERSON = 15
PARTS = (
    "",
    "hair head lear rear lebrow rebrow leye reye mouth nose",
    "neck torso",
    "luarm ruarm",
    "llarm rlarm lhand rhand",
    "luleg ruleg",
    "llleg rlleg lfoot rfoot",
)
GROUP = {name: group for group, names in enumerate(PARTS) for name in names.split()}


@dataclass(frozen=True)
class Item:
    """An image and what happens to it: the position of its id, flip, degrees, scale."""

    position: int
    flip: bool
    angle: float
    scale: float


@dataclass(frozen=True)
class Files(Dataset):
    """Samples of a data set.

    Attributes:
        read: (folder, id) -> the maps as they are stored.
        root: the data set's folder.
        ids: of its images.
        size: height and width delivered.
        survey: the survey's augmentation: depth is resampled by nearest neighbour and divided by the scale.
    """

    read: Callable[[Path, str], Maps]
    root: Path
    ids: Sequence[str]
    size: tuple[int, int]
    survey: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: Item) -> dict[str, torch.Tensor]:
        maps = transform(canonical(self.read(self.root, self.ids[item.position])), item, self.size, self.survey)
        return {name: torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))) for name, x in maps.items()}


# Files to stored maps


def nyud_astmt(root: Path, key: str) -> Maps:
    ids = scipy.io.loadmat(root / f"segmentation/{key}.mat")["segmentation"]
    return {
        "image": _colour(root / f"images/{key}.jpg"),
        "semseg": np.where(ids == 0, 255, ids.astype(np.int64) - 1).astype(np.uint8),
        "depth": scipy.io.loadmat(root / f"depth/{key}.mat")["depth"],
        "normals": _colour(root / f"normals/{key}.jpg"),
        "edge": _grey(root / f"edge/{key}.png"),
    }


def nyud_survey(root: Path, key: str) -> Maps:
    ids = _grey(root / f"segmentation/{key}.png")
    return {
        "image": _colour(root / f"images/{key}.jpg"),
        "semseg": np.where(ids == 0, 255, ids.astype(np.int64) - 1).astype(np.uint8),
        **{name: np.load(root / f"{name}/{key}.npy") for name in ("depth", "normals", "edge")},
    }


def pascal(root: Path, key: str) -> Maps:
    """Labels that are not stored are derived from those that are, as the data set leaves it to its users."""
    image = _colour(root / f"JPEGImages/{key}.jpg")
    voc = root / f"semseg/VOC12/{key}.png"
    context = scipy.io.loadmat(root / f"pascal-context/trainval/{key}.mat")["LabelMap"]
    normals = _colour(root / f"normals_distill/{key}.png")
    trusted = _indoor()[cv2.resize(context, normals.shape[1::-1], interpolation=cv2.INTER_NEAREST)]
    return {
        "image": image,
        "semseg": _indices(voc if voc.is_file() else root / f"semseg/pascal-context/{key}.png"),
        "human_parts": _human_parts(root / f"human_parts/{key}.mat", image.shape[:2]),
        "sal": _grey(root / f"sal_distill/{key}.png"),
        "normals": np.where(trusted[..., None], normals * (2 / 255) - 1, 0.0),
        "edge": thin(np.abs(cv2.Laplacian(context, cv2.CV_64F, ksize=1)) > 0).astype(np.float32),
    }


def decoded(root: Path, key: str) -> Maps:
    """What `store_decoded` wrote."""
    paths = sorted(root.glob(f"*/{key}.npy"))
    return {"image": _colour(root / f"image/{key}.png"), **{path.parent.name: np.load(path) for path in paths}}


def store_decoded(read: Callable[[Path, str], Maps], root: Path, ids: Sequence[str], folder: Path) -> None:
    """Writes the stored maps anew in the form that is quickest to read: labels as .npy, nothing left to derive."""
    for key in ids:
        for name, x in read(root, key).items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            if name == "image":
                cv2.imwrite(str(folder / f"image/{key}.png"), x[..., ::-1])
            else:
                np.save(folder / f"{name}/{key}.npy", x)


def _colour(path: Path) -> np.ndarray:
    return _image(path, cv2.IMREAD_COLOR)[..., ::-1]


def _grey(path: Path) -> np.ndarray:
    return _image(path, cv2.IMREAD_GRAYSCALE)


def _image(path: Path, mode: int) -> np.ndarray:
    image = cv2.imread(str(path), mode)
    if image is None:
        raise FileNotFoundError(path)
    return image


def _indices(path: Path) -> np.ndarray:
    """Class ids also where the file has colours for viewing them."""
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image)


def _human_parts(path: Path, size: tuple[int, int]) -> np.ndarray:
    out = np.zeros(size, np.uint8)
    annotation = scipy.io.loadmat(path)["anno"][0, 0]
    for thing in annotation["objects"].ravel():
        if thing["class_ind"].item() == PERSON:
            for part in thing["parts"].ravel():
                out[part["mask"] > 0] = GROUP[part["part_name"].item()]
    return out


@cache
def _indoor() -> np.ndarray:
    lines = files("mtl_jax.data").joinpath("pascal_normals_classes.txt").read_text().splitlines()
    listed = np.zeros(460, bool)
    listed[[int(line.split()[0]) for line in lines if not line.startswith("#")]] = True
    return listed


# Stored maps to delivered ones, [H, W, C] throughout


def canonical(stored: Mapping[str, np.ndarray]) -> Maps:
    """Floats of the image's size with their meaning: normals -1..1, edge 0..1, sal 0 or 1."""
    out = {}
    height, width = stored["image"].shape[:2]
    for name, x in stored.items():
        coded = x.dtype == np.uint8
        x = x if x.dtype == np.float64 and name == "normals" else x.astype(np.float32)
        if name == "normals" and coded:
            x = 2 * x / 255 - 1
        if name in ("edge", "sal") and coded:
            x = x / 255
        if name == "sal":
            x = (x > 0.5).astype(np.float32)
        if x.shape[:2] != (height, width):
            mode = cv2.INTER_CUBIC if name == "normals" else cv2.INTER_NEAREST
            x = cv2.resize(x, (width, height), interpolation=mode)
        out[name] = x if x.ndim == 3 else x[..., None]
    return out


def transform(maps: Mapping[str, np.ndarray], item: Item, size: tuple[int, int], survey: bool) -> Maps:
    """Flip, scale and rotation, resize, ignored regions, normalisation, one map after another."""
    out = {}
    for name, x in maps.items():
        channels = x.shape[2]
        if item.flip:
            x = _flipped(name, x)
        x = _warped(name, x, item.angle, item.scale, survey)
        x = cv2.resize(x, size[::-1], interpolation=_mode(name, survey)).reshape(*size, channels)
        out[name] = _finished(name, x)
    return out


def _mode(name: str, survey: bool) -> int:
    if name == "depth":
        return cv2.INTER_NEAREST if survey else cv2.INTER_LINEAR
    return cv2.INTER_CUBIC if name in ("image", "normals") else cv2.INTER_NEAREST


def _flipped(name: str, x: np.ndarray) -> np.ndarray:
    x = x[:, ::-1].copy()
    if name == "normals":
        x[..., 0] *= -1
    return x


def _warped(name: str, x: np.ndarray, angle: float, scale: float, survey: bool) -> np.ndarray:
    height, width = x.shape[:2]
    if name == "normals":
        sin, cos = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
        x, before = x.copy(), x
        x[..., 0] = before[..., 0] * cos + before[..., 1] * sin
        x[..., 1] = before[..., 1] * cos - before[..., 0] * sin
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    x = cv2.warpAffine(x, matrix, (width, height), flags=_mode(name, survey))
    return x / np.float32(scale) if name == "depth" and survey else x


def _finished(name: str, x: np.ndarray) -> np.ndarray:
    if name == "image":
        return (x.clip(0, 255).astype(np.uint8).astype(np.float32) / 255 - MEAN) / STD
    if name == "normals":
        x = x / (np.sqrt((x**2).sum(axis=2, keepdims=True)) + np.finfo(np.float32).eps)
        x = np.where((x == 0).all(axis=2, keepdims=True), 255, x)
    elif name == "depth":
        x = np.where(x == 0, 255, x)
    elif name == "human_parts" and not ((x > 0) & (x < 255)).any():
        x = np.full_like(x, 255)
    return x.astype(np.float32)


def load(dataset: Files, batch_size: int, items: Sequence[Item], num_workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of these items from a `DataLoader`."""
    return iter(
        DataLoader(
            dataset,
            batch_size,
            sampler=items,
            num_workers=num_workers,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn" if num_workers else None,
        )
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
