"""A training step on eight devices is the step on one, for every model."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import experiment, models
from mtl_jax.config import PLAIN_BALANCING, Config, Data, Model
from mtl_jax.runtime import sharding
from mtl_jax.tasks import IGNORE, TASKS
from mtl_jax.train import state as train_state
from mtl_jax.train import task_balancing
from mtl_jax.train.ema import Ema
from mtl_jax.train.step import make_train_step

ROOT = Path(__file__).parents[2]
SIZE = (32, 32)
CLASSES = ("wall", "floor", "chair", "table", "lamp")
# How much of each image's label is ignored; one image is a device's share of the batch.
IGNORED = (0, 0.9, 0.1, 1, 0, 0.8, 0.3, 1)
ALL = ("semseg", "sal", "normals", "edge", "depth")  # every published loss, those with weights from the batch included
# {model: (tasks, auxiliary tasks, backbone, head)} where those are not `config`'s two tasks on the tiny backbone.
NETWORKS = {
    "single_task": (("sal",), (), "tiny", "deeplab"),  # the head that drops out and normalises over the batch alone
    "baseline": (ALL, (), "tiny", ""),
    "mtan": (("semseg", "sal"), (), "tiny_resnet", ""),
    "pad_net": (("semseg", "depth"), ("semseg", "sal", "depth"), "tiny", ""),
    "mti_net": (("semseg", "depth"), ("semseg", "sal", "depth"), "tiny", ""),
    "invpt": (("semseg", "sal"), (), "tiny_vit", ""),
}
# What a method keeps of the gradients is as large as the parameters, and split over the devices like them.
SPLIT = "baseline+db_mtl"
# A model and a method that balances its tasks: each kind of what methods read, a random one, and one that looks ahead.
BALANCED = ("baseline+uncertainty", "baseline+mgda_ub", "baseline+cagrad", "baseline+graddrop", "baseline+famo", SPLIT)
NAMES = (*models.MODELS, *BALANCED)
# What is left has batch norm and all losses, and takes the least time.
COSTLY = ("single_task", "cross_stitch", "nddr_cnn", "mtan", "pad_net", "mti_net", "invpt", *BALANCED)

# Eight devices on few cores have few threads, which wait in a reduction for the other devices. Where XLA schedules for
# concurrency, devices begin the reductions of InvPT in different orders, and some wait for each other for ever.
_IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

# The models share a process with its start-up.
all_models = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.xdist_group("devices"), *[pytest.mark.slow] * (n in COSTLY)]) for n in NAMES],
)


def config(name: str) -> Config:
    name, _, method = name.partition("+")
    tasks, aux_tasks, backbone, head = NETWORKS.get(name, (("semseg", "sal"), (), "tiny", ""))
    data = Data("folder", tasks, aux_tasks, class_names={"semseg": CLASSES})
    return Config(data, Model(name, backbone, head), balancing=method or PLAIN_BALANCING)


def random_batch() -> dict[str, np.ndarray]:
    """Images and labels with statistics that differ from one image to the next."""
    rng = np.random.default_rng(0)
    shape, each = (len(IGNORED), *SIZE), (-1, 1, 1, 1)
    rising = np.linspace(0.1, 0.8, len(IGNORED)).reshape(each)
    labels = {
        "semseg": rng.integers(0, len(CLASSES), (*shape, 1)),
        "sal": rng.random((*shape, 1)) < rising,
        "normals": rng.uniform(-1, 1, (*shape, 3)),
        "edge": rng.random((*shape, 1)) < rising / 4,
        "depth": rng.uniform(1, 9, (*shape, 1)) * rising,
    }
    ignored = rng.random((*shape, 1)) < np.reshape(IGNORED, each)
    batch = {task: np.where(ignored, IGNORE, label).astype(np.float64) for task, label in labels.items()}
    return batch | {"image": rng.normal(rising, 1 + rising, (*shape, 3))}


def build(name: str) -> models.MultiTaskModel:
    model = models.build(config(name))
    nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
    return model


def train(name: str, model: models.MultiTaskModel, devices: int) -> dict[str, np.ndarray]:
    """All that a step of sgd on so many devices leaves behind, by path, and how many images each device had.

    The learning rate leaves the gradient in the parameters, the momentum in the optimiser's state.
    """
    mesh = sharding.make_mesh(jax.devices()[:devices])
    batch = sharding.shard_batch(random_batch(), mesh)
    shares = [len(shard.data) for shard in batch["image"].addressable_shards]
    balancing = task_balancing.from_config(config(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "LEAST_SIZE", 64)  # the tiny model's arrays are small
        tx, split = optax.sgd(0.1, momentum=0.9), name == SPLIT
        state = train_state.create(lambda: model, tx, mesh, split=split, balancing=balancing, ema=Ema(0.9))
    shardings = jax.tree.map(lambda x: x.sharding, state.arrays) if split else None
    objective = experiment.make(config(name)).objective
    step = make_train_step(state.graphdef, objective, shardings=shardings, balancing=balancing)
    arrays, logged = step(state.arrays, batch)
    if split and devices > 1:
        for part in (train_state.MEMORY, train_state.AVERAGE):
            assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(arrays[part]))
    left = {"model": arrays[0], "optimizer": arrays[1], "logged": logged, "shares": np.array(shares)}
    left["average"] = arrays[train_state.AVERAGE]
    if train_state.MEMORY in arrays:  # of a method that remembers something
        left["memory"] = arrays[train_state.MEMORY]
    leaves = jax.tree_util.tree_leaves_with_path(left)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


_ON_EIGHT_DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
import numpy as np
import pytest
from tests import tiny
from tests.train.test_devices import build, train

with pytest.MonkeyPatch.context() as patch:
    tiny.register_backbones(patch)
    for name in sys.argv[2:]:
        model = build(name)
        for devices in (1, 8):
            np.savez(f"{sys.argv[1]}/{name}_{devices}.npz", **train(name, model, devices))
"""


@functools.cache
def trained(*names: str) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """{model: what a step leaves behind on one device, and on eight}"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _ON_EIGHT_DEVICES, folder, *names]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_IN_ORDER}",
        }
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
        assert process.returncode == 0, process.stderr
        return {name: tuple(dict(np.load(f"{folder}/{name}_{devices}.npz")) for devices in (1, 8)) for name in names}


@all_models
def test_eight_devices_take_the_step_of_one(name):
    together = [n for n in NAMES if (n in COSTLY) == (name in COSTLY)]
    one, eight = map(dict, trained(*together)[name])
    assert one.pop("shares").tolist() == [8]
    assert eight.pop("shares").tolist() == [1] * 8
    gradients = {path.partition("/trace/")[2] for path in one if "/trace/" in path}
    variances = {path for path in one if path.endswith("/var")}
    assert len(gradients) > len(variances) > 0
    assert {f"model/{path}" for path in gradients} | variances < one.keys()
    assert {f"logged/loss/{task}" for task in config(name).data.tasks} < one.keys()
    for path, value in one.items():
        positive = path.startswith(("logged/loss", "logged/gradient_norm"))
        assert value > 0 if positive else np.isfinite(value).all(), path
    assert eight.keys() == one.keys()
    for path, value in one.items():
        # Sums in another order move single elements by up to 2e-14, where the norm of the gradient is 25. The floor is
        # for what has to cancel out, like the gradient of a bias before a batch norm.
        np.testing.assert_allclose(eight[path], value, rtol=1e-9, atol=1e-12, err_msg=path)


def test_every_published_loss_is_among_them():
    assert {TASKS[task].loss for task in ALL} == {row.loss for row in TASKS.values()}
