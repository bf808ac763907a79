"""Times one training step of MTI-Net here and in the PyTorch twin, alternating in one process.

    python -m parity.benchmark --batch 2 --height 240 --width 320

Same weights' shapes, batch, losses and optimiser (Adam) on both sides, float32; the twin runs eagerly in NCHW.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch

from mtl_jax import experiment, initial, parallel
from mtl_jax.config import main_tasks
from mtl_jax.losses import Objective
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from parity import flax_run
from parity.reference import run
from parity.reference.train_step import make_step

NETWORK = "mti_net_nyud_hrnet18_aux"


def batch(size: int, height: int, width: int) -> dict[str, np.ndarray]:
    """A batch of NYUD's tasks, NHWC."""
    rng = np.random.default_rng(0)
    shape = (size, height, width)
    normals = rng.standard_normal((*shape, 3))
    return {
        "image": rng.standard_normal((*shape, 3), np.float32),
        "semseg": rng.integers(0, 40, (*shape, 1), np.int32),
        "normals": (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32),
        "edge": (rng.random((*shape, 1)) < 0.05).astype(np.float32),
        "depth": rng.uniform(1, 9, (*shape, 1)).astype(np.float32),
    }


def jax_step(arrays: dict[str, np.ndarray]) -> Callable[[], float]:
    """One training step of this project, on its own growing state."""
    config = flax_run.config(NETWORK)
    mesh = parallel.make_mesh()
    tx = experiment.build_optimizer(config, steps_per_epoch=100)
    state = train_state.create(lambda: initial.build_model(config), tx, mesh)
    step = make_train_step(state.graphdef, Objective(main_tasks(config)))
    on_device = parallel.shard_batch(arrays, mesh)
    current = state.arrays

    def once() -> float:
        nonlocal current
        current, losses = step(current, on_device)
        return float(losses["loss/total"])

    return once


def torch_step(arrays: dict[str, np.ndarray]) -> Callable[[], float]:
    """One training step of the twin."""
    model = run.network(NETWORK)
    step = make_step(model, run.objective(NETWORK), run.optimizer(NETWORK, model))
    labels = {name: torch.from_numpy(value.transpose(0, 3, 1, 2).copy()) for name, value in arrays.items()}
    image = labels.pop("image")
    return lambda: float(step(image, labels)["total"])


def timed(function: Callable[[], float]) -> float:
    """Seconds of one call; the result is a host number, so the work is done."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"batch": 2, "height": 240, "width": 320, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    arrays = batch(args.batch, args.height, args.width)
    steps = {"mtl_jax": jax_step(arrays), "PyTorch twin": torch_step(arrays)}
    first = {name: timed(step) for name, step in steps.items()}
    times = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, step in steps.items():
            times[name].append(timed(step))
    print(f"{NETWORK}, batch {args.batch}, {args.height}x{args.width}, {jax.devices()[0].device_kind}")
    for name, values in times.items():
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:<14} median {statistics.median(values):.3f} s ({spread}), first step {first[name]:.1f} s")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
