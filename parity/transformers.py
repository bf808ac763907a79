"""The numbers recorded from DINOv2's own code, timm and InvPT: where they are, and the weights they were made with.

timm 1.0.31 and DINOv2 (commit b8931f7) are Apache-2.0. InvPT's code (commit 870c6be) does not allow its use here: the
numbers of a run are all that there is of it. `golden/transformers` holds what they returned for small transformers and
for DINOv2's dense heads on them: sums over complete arrays in float64, some complete arrays, gradients, and the keys of
published files.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).with_name("golden") / "transformers"
_TOKENS = (
    "cls_token",
    "reg_token",
    "pos_embed",
    "register_tokens",
    "mask_token",
    "relative_position_bias_table",
)
_SCALES = ("gamma", "gamma_1", "gamma_2")
_FACTORS = {"dinov2": 1.0, "timm": 0.5, "invpt": 0.5}


def weight(key: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    """The value of one entry of a state_dict, a function of its key and shape alone, and of who recorded it."""
    rng = np.random.default_rng(zlib.crc32(key.encode("utf-8")))
    last = key.rpartition(".")[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    values = rng.standard_normal(shape)
    if last in _TOKENS:
        values *= _FACTORS[source]
    elif last in _SCALES:
        values = _FACTORS[source] + 0.1 * values
    elif len(shape) >= 2:
        values *= np.sqrt(1 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    return values.astype(np.float32)


@cache
def keys(name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(key, shape) of every entry of a file of weights, in its order."""
    with gzip.open(ROOT / "keys" / f"{name}.txt.gz", "rt", encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("  ", 1) for line in lines]
    return tuple((key, tuple(json.loads(shape))) for key, shape in pairs)


def state_dict(name: str) -> dict[str, np.ndarray]:
    """The weights that a transformer was recorded with."""
    return {key: weight(key, shape, name.partition("_")[0]) for key, shape in keys(name)}


@cache
def recorded(name: str) -> dict[str, np.ndarray]:
    """All arrays of a recorded file."""
    with np.load(ROOT / f"{name}.npz") as data:
        return dict(data)


def image(height: int, width: int) -> np.ndarray:
    """The images of a recording, `[2, height, width, 3]` float32."""
    images = np.random.default_rng(0).standard_normal((2, 3, height, width)).astype(np.float32)
    return np.moveaxis(images, 1, -1)


def sums(key: str, value: np.ndarray, recorded: Mapping[str, np.ndarray]) -> float:
    """The deviation of a complete array from the recorded sums, relative to the sum of its absolute values."""
    assert value.shape == tuple(recorded[f"{key}#shape"])
    largest = recorded[f"{key}#abssum_f64"]
    differences = value.sum() - recorded[f"{key}#sum_f64"], np.abs(value).sum() - largest
    return float(np.abs(differences).max() / largest)
