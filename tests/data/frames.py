"""Stored records of small images, and their batches."""

from dataclasses import dataclass

import cv2
import numpy as np

from mtl_jax.data import catalogue, loader

NYUD = catalogue.FAMILIES["nyud"]

H, W = 24, 32
TASKS = ("semseg", "depth")


@dataclass
class Frames:
    """Picklable stored records; `broken` has half a JPEG."""

    length: int
    broken: int = -1
    name: str = "frames"
    split: str = "train"

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(int(index))
        image = cv2.imencode(".jpg", rng.integers(0, 256, (H, W, 3), dtype=np.uint8))[1].tobytes()
        return {
            "id": f"f{index}".encode(),
            "image": image[: len(image) // 2] if index == self.broken else image,
            "semseg": cv2.imencode(".png", rng.integers(0, 40, (H, W), dtype=np.uint8))[1].tobytes(),
            "depth": rng.uniform(0.5, 9, (H, W, 1)).astype(np.float32),
        }


def train(length=11, **kwargs):
    defaults = {
        "conventions": NYUD,
        "tasks": TASKS,
        "recipe": "astmt",
        "size": (H, W),
        "batch_size": 4,
        "seed": 3,
    }
    source = kwargs.pop("source", None) or Frames(length)
    return loader.train_batches(source, **(defaults | kwargs))


def val(length=11, **kwargs):
    defaults = {"conventions": NYUD, "tasks": TASKS, "size": (H, W), "batch_size": 4}
    source = kwargs.pop("source", None) or Frames(length)
    return list(loader.val_batches(source, **(defaults | kwargs)))


def take(batches, count):
    got = [next(batches) for _ in range(count)]
    batches.close()
    return got


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
