"""The recorded numbers: where they are, and the weights, images and labels they were made with.

Everything here is numpy. Arrays keep the layout they were recorded in (images and labels NCHW); `golden/manifest.json`
describes versions, configurations and the meaning of every file.
"""

import gzip
import json
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import catalogue

ROOT = Path(__file__).with_name("golden")
DATASETS = {"NYUD": "nyud", "PASCALContext": "pascal"}


def weight(key: str, shape: tuple[int, ...], stitching: tuple[float, float] | None = None) -> np.ndarray:
    """The value of one entry of a torch state_dict, a function of its key and shape alone.

    Args:
        stitching: of a cross-stitch network (alpha, beta), the values around which its stitching parameters lie: those
            that weigh a task's own map, and the others.
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng(zlib.crc32(key.encode("utf-8")))
    if key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    elif key.endswith(".bias"):
        values = 0.1 * rng.standard_normal(shape)
    elif stitching is not None and key.endswith(".param"):
        task, other, _ = key.split(".")[-3:]
        initial = np.float32(stitching[0] if task == other else stitching[1])
        values = np.float64(initial) + 0.05 * rng.standard_normal(shape)
    else:
        raise ValueError(f"no rule for the weight {key!r} of shape {shape}")
    return np.asarray(values).astype(np.float32)


@cache
def keys(name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(key, shape) of every state_dict entry of a recorded network, in state_dict order."""
    with gzip.open(ROOT / "keys" / f"{name}.txt.gz", "rt", encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("  ", 1) for line in lines]
    return tuple((key, tuple(json.loads(shape))) for key, shape in pairs)


def fusion(name: str) -> tuple[float, float] | None:
    """(alpha, beta) of a cross-stitch or NDDR network: the initial weights of a task's own map and of the others."""
    for kwargs in (info(name).get("model_kwargs") or {}).values():
        if "alpha" in kwargs:
            return kwargs["alpha"], kwargs["beta"]
    return None


@lru_cache(maxsize=1)  # some networks have 80 million parameters
def state_dict(name: str) -> dict[str, np.ndarray]:
    """The weights and buffers a network was recorded with, `num_batches_tracked` included."""
    return {key: weight(key, shape, fusion(name)) for key, shape in keys(name)}


@cache
def arrays(file: str) -> dict[str, np.ndarray]:
    """All arrays of a recorded file, for example `losses.npz` or `models/mti_net_nyud_hrnet18.npz`."""
    with np.load(ROOT / file) as data:
        return dict(data)


def network(name: str) -> dict[str, np.ndarray]:
    """The recorded outputs, losses, gradients, buffers and steps of a network."""
    return arrays(f"models/{name}.npz")


@cache
def manifest() -> dict:
    """Versions, and what was recorded of every network and file."""
    return json.loads((ROOT / "manifest.json").read_text(encoding="utf-8"))


def info(name: str) -> dict:
    """The manifest's entry for a network: tasks, loss weights, optimiser groups."""
    return manifest()["models"][name]


def dataset(name: str) -> str:
    """The data set of a complete network, as it is called here."""
    return DATASETS[info(name)["db"]]


def image() -> np.ndarray:
    """The input of every network, `[2, 3, 64, 96]` float32."""
    return arrays("targets.npz")["image"]


def targets(names: tuple[str, ...], dataset: str) -> dict[str, np.ndarray]:
    """{task: label [2, C, 64, 96] float32} under a data set's label convention."""
    stored = {name: name for name in names}
    if "semseg" in stored:
        stored["semseg"] = f"semseg{len(catalogue.get(dataset).class_names['semseg'])}"
    return {name: arrays("targets.npz")[key] for name, key in stored.items()}


def batch(names: tuple[str, ...], dataset: str) -> dict[str, np.ndarray]:
    """Image and labels as our input pipeline delivers them: NHWC, in each task's label dtype."""
    labels = targets(names, dataset)
    out = {"image": np.moveaxis(image(), 1, -1)}
    for name, label in labels.items():
        out[name] = np.moveaxis(label, 1, -1).astype(task_table.get(name).kind.dtype)
    return out


def subsample(full: np.ndarray) -> np.ndarray:
    """What is stored of a network output: of maps `[B, C, H, W]` every fourth pixel each way, logits `[B, C]` whole."""
    return full[:, :, ::4, ::4] if full.ndim == 4 else full
