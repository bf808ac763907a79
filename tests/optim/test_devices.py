"""A step of every optimiser on arrays that are split over devices is the step on one device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_ON_FOUR_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from mtl_jax import optim

rng = np.random.default_rng(0)
tree = lambda: {"kernel": rng.standard_normal((3, 3, 8, 4)), "linear": rng.standard_normal((8, 6)), "bias": np.ones(8)}
weights, gradients = tree(), [tree() for _ in range(3)]
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
axes = {4: PartitionSpec(None, None, "data"), 2: PartitionSpec("data"), 1: PartitionSpec("data"), 0: PartitionSpec()}

def steps(name, place):
    tx = optim.make_optimizer(name, 0.01, weight_decay=0.1, clip_norm=0.5, multipliers={"linear": 0.1})
    params, state = place(weights), place(tx.init(weights))
    for gradient in gradients:
        updates, state = jax.jit(tx.update)(place(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return params

for name in optim.OPTIMIZERS:
    whole = steps(name, lambda tree: tree)
    split = steps(name, lambda tree: jax.device_put(
        tree, jax.tree.map(lambda x: NamedSharding(mesh, axes[np.ndim(x)] if np.size(x) % 8 == 0 else axes[0]), tree)))
    assert not split["kernel"].sharding.is_fully_replicated
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name), split, whole)
print(*optim.OPTIMIZERS)
"""


@pytest.mark.slow
def test_split_arrays_make_the_same_steps():
    command, environment = [sys.executable, "-c", _ON_FOUR_DEVICES], os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.split()) > 6
