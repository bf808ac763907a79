"""Small folders of images and labels that describe themselves, for tests."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.codecs import pictures
from mtl_jax.data import datasets

H, W = 40, 56
IDS = {"train": ["a", "b"], "val": ["c"]}


def encoded(value: np.ndarray, suffix: str = ".png") -> bytes:
    """The content of a file with an array."""
    if suffix == ".png":
        return pictures.encode_png(value)
    content = io.BytesIO()
    np.save(content, value)
    return content.getvalue()


def write(root: Path, toml: str, labels: dict[str, bytes], ids: dict[str, list[str]] = IDS) -> Path:
    """Writes images, lists of ids, `dataset.toml`, and the same label files FOLDER.SUFFIX for every image.

    Args:
        root: Folder to write.
        toml: Tasks of the description.
        labels: {"FOLDER.SUFFIX": content of each file in the folder}.
        ids: {split: ids}.
    """
    root.mkdir(parents=True)
    (root / "dataset.toml").write_text(f'name = "own"\nimage_size = [32, 48]\n{toml}')
    contents = {"images.png": pictures.encode_png(np.full((H, W, 3), 90, np.uint8)), **labels}
    for name, content in contents.items():
        folder, _, suffix = name.partition(".")
        for key in (key for keys in ids.values() for key in keys):
            path = root / folder / f"{key}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (root / "splits").mkdir()
    for split, keys in ids.items():
        (root / "splits" / f"{split}.txt").write_text("\n".join(keys))
    return root


def build(root: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    """Builds the data set in this process."""
    return datasets.prepare("folder_mt/own", data_dir, root, num_workers=0)
