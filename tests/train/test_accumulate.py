"""Gradients of a batch, from its micro-batches in turn."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.balancing import parse
from mtl_jax.losses import LOSSES, Objective
from mtl_jax.losses.registry import find
from mtl_jax.losses.terms import split
from mtl_jax.nn import BatchNorm, Conv, Dropout
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import sharding
from mtl_jax.tasks import IGNORE, TASKS
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from mtl_jax.train.task_balancing import Balancing
from tests.marks import slow

ROOT = Path(__file__).parents[2]
# Every loss but those of the task table.
LOSSES_BY_TASK = {
    "semseg": "ce:smoothing=0.1,class_weights=1/0.5/2/0/3+focal+dice+ohem:min_kept=9,thresh=0.2+lovasz",
    "sal": "bce:positive_weight=0.7+dice",
    "normals": "l2+cosine+angular",
    "edge": "0.5*edge_cross_entropy+bce",
    "depth": "l1+l2+berhu+silog:root=true+0.5*gradient:scales=2",
}
CHANNELS = {"semseg": 5, "sal": 1, "normals": 3, "edge": 1, "depth": 1}
# How much of each image's label is ignored: micro-batches, every second or fourth image, have unlike shares.
IGNORED = (0, 0.9, 0.1, 1, 0, 0.8, 0.3, 1)


class Predictor(nnx.Module):
    """An image's own predictions of all tasks, and intermediate ones at half the size."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.convs = nnx.Dict({task: Conv(3, n, 3, use_bias=True, rngs=rngs) for task, n in CHANNELS.items()})

    def __call__(self, images):
        out = {task: self.convs[task](images) for task in CHANNELS}
        return Outputs(out, {"deepsup": {task: nnx.tanh(x[:, ::2, ::2]) for task, x in out.items()}})


class Shared(models.MultiTaskModel):
    """All tasks from one shared map, without batch norm."""

    specific = ("convs",)

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.encoder = Conv(3, 4, 3, use_bias=True, rngs=rngs)
        self.convs = nnx.Dict({task: Conv(4, n, 1, use_bias=True, rngs=rngs) for task, n in CHANNELS.items()})

    def __call__(self, images):
        features = nnx.tanh(self.encoder(images))
        out = {task: self.convs[task](features) for task in CHANNELS}
        return Outputs(out, {"deepsup": {task: nnx.tanh(x[:, ::2, ::2]) for task, x in out.items()}})


class Normalised(nnx.Module):
    """Depth as a batch norm makes it of the image."""

    def __init__(self):
        self.norm = BatchNorm(3)

    def __call__(self, images):
        return Outputs({"depth": self.norm(images)[..., :1]})


class Dropped(nnx.Module):
    """Depth that depends on the place alone, with holes."""

    def __init__(self):
        self.depth = nnx.Param(jnp.ones((8, 8, 1)))
        self.dropout = Dropout(0.5)

    def __call__(self, images):
        return Outputs({"depth": self.dropout(jnp.broadcast_to(self.depth[...], (*images.shape[:3], 1)))})


def random_batch(dtype=np.float32):
    rng = np.random.default_rng(0)
    shape = (len(IGNORED), 8, 8)
    labels = {
        "semseg": rng.integers(0, 5, (*shape, 1)),
        "sal": rng.random((*shape, 1)) < np.linspace(0.1, 0.8, len(IGNORED)).reshape(-1, 1, 1, 1),
        "normals": rng.uniform(-1, 1, (*shape, 3)),
        "edge": rng.random((*shape, 1)) < 0.2,
        "depth": rng.uniform(1, 9, (*shape, 1)),
    }
    ignored = rng.random((*shape, 1)) < np.asarray(IGNORED).reshape(-1, 1, 1, 1)
    batch = {task: np.where(ignored, IGNORE, label).astype(dtype) for task, label in labels.items()}
    return batch | {"image": rng.standard_normal((*shape, 3)).astype(dtype)}


def train(build, batch, accumulate=1, arrays=None, lr=1.0, losses=None):
    """(model after a step of sgd, what was logged, arrays)"""
    state = train_state.create(build, optax.sgd(lr), sharding.make_mesh())
    objective = Objective([task for task in TASKS if task in batch], losses=losses)
    step = make_train_step(state.graphdef, objective, accumulate=accumulate)
    arrays, logged = step(state.arrays if arrays is None else arrays, batch)
    assert jax.tree.structure(arrays) == jax.tree.structure(state.arrays)
    return nnx.merge(state.graphdef, arrays)[0], logged, arrays


@pytest.mark.parametrize(("accumulate", "losses"), [(2, None), slow(8, None), slow(2, LOSSES_BY_TASK)])
def test_losses_and_gradients_are_those_of_the_whole_batch(accumulate, losses):
    with jax.enable_x64(True):
        batch = random_batch(np.float64)

        def build():
            model = Predictor()
            nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
            return model

        whole, logged, _ = train(build, batch, losses=losses)
        split, split_logged, _ = train(build, batch, accumulate, losses=losses)
        assert logged.keys() == split_logged.keys()
        assert {f"loss/{task}" for task in CHANNELS} < logged.keys()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-12), logged, split_logged)
        pairs = [nnx.as_pure(nnx.state(model)) for model in (whole, split)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-13), *pairs)


def test_every_loss_is_among_them():
    named = {find(term.name, TASKS[task].kind) for task, text in LOSSES_BY_TASK.items() for term in split(text)}
    assert named | {TASKS[task].loss for task in CHANNELS} == set(LOSSES)


@pytest.mark.parametrize(
    "method", ["geometric", "famo", "gradnorm", slow("uncertainty"), slow("cagrad"), slow("db_mtl")]
)
def test_balanced_gradients_are_those_of_the_whole_batch(method):
    """Model, memory of the method, losses, weights and cosines, after two steps."""
    with jax.enable_x64(True):
        batch = random_batch(np.float64)
        balancing = Balancing(parse(method), tuple(task for task in TASKS if task in CHANNELS))

        def build():
            model = Shared()
            nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
            return model

        def steps(accumulate):
            state = train_state.create(build, optax.sgd(0.1), sharding.make_mesh(), balancing=balancing)
            objective = Objective(balancing.tasks)
            step = make_train_step(state.graphdef, objective, accumulate=accumulate, balancing=balancing)
            arrays, _ = step(state.arrays, batch)
            return step(arrays, batch)

        whole, parts = steps(1), steps(4)
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    assert f"weight/{balancing.tasks[0]}" in parts[1]
    # Methods keep float32 arrays, and solvers iterate.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9), whole, parts)


def test_batch_norm_takes_every_micro_batch_for_a_balanced_batch_too():
    """The running statistics move micro-batch by micro-batch, as without balancing."""

    class Model(models.MultiTaskModel):
        specific = ("head",)

        def __init__(self):
            self.norm, self.head = BatchNorm(3), nnx.Param(jnp.ones(()))

        def __call__(self, images):
            return Outputs({"depth": self.norm(images)[..., :1] * self.head[...]})

    batch = {key: x for key, x in random_batch().items() if key in ("image", "depth")}
    plain, _, _ = train(Model, batch, accumulate=2)
    balancing = Balancing(parse("geometric"), ("depth",))  # its weights need the losses first
    state = train_state.create(Model, optax.sgd(1.0), sharding.make_mesh(), balancing=balancing)
    step = make_train_step(state.graphdef, Objective(["depth"]), accumulate=2, balancing=balancing)
    balanced = nnx.merge(state.graphdef, step(state.arrays, batch)[0])[0]
    assert np.abs(plain.norm.mean[...]).min() > 1e-4
    np.testing.assert_allclose(balanced.norm.mean[...], plain.norm.mean[...], rtol=1e-5)
    np.testing.assert_allclose(balanced.norm.var[...], plain.norm.var[...], rtol=1e-5)


def test_batch_norm_takes_every_micro_batch_for_a_batch():
    batch = {key: x for key, x in random_batch().items() if key in ("image", "depth")}
    batch["image"] += np.arange(8, dtype=np.float32).reshape(-1, 1, 1, 1)
    split, _, _ = train(Normalised, batch, accumulate=2, lr=0.0)
    arrays = None
    for i in range(2):  # batches of the same images, one step after the other
        in_turn, _, arrays = train(Normalised, {key: x[i::2] for key, x in batch.items()}, arrays=arrays, lr=0.0)
    np.testing.assert_allclose(split.norm.mean[...], in_turn.norm.mean[...], rtol=1e-6)
    np.testing.assert_allclose(split.norm.var[...], in_turn.norm.var[...], rtol=1e-6)
    whole, _, _ = train(Normalised, batch, lr=0.0)
    assert (abs(split.norm.mean[...] / whole.norm.mean[...] - 1) > 0.1).all()


def test_dropout_draws_another_mask_for_every_micro_batch():
    batch = {"image": np.zeros((2, 8, 8, 3), np.float32), "depth": np.full((2, 8, 8, 1), 9, np.float32)}
    model, _, _ = train(Dropped, batch, accumulate=2)
    # How many of the two masks keep a pixel: its gradient is as many times -2 / 128.
    kept = np.unique(np.round((model.depth[...] - 1) * 64, 4))
    np.testing.assert_array_equal(kept, [0, 1, 2])


@pytest.mark.slow
def test_micro_batches_take_less_memory():
    def temporary(accumulate):
        state = train_state.create(Predictor, optax.sgd(1.0), sharding.make_mesh())
        step = make_train_step(state.graphdef, Objective(list(CHANNELS)), accumulate=accumulate)
        batch = {key: np.repeat(x, 8, axis=0) for key, x in random_batch().items()}
        return step.lower(state.arrays, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < temporary(1) / 2


_ON_FOUR_DEVICES = """
import re
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from mtl_jax.runtime import sharding
from tests.train.test_accumulate import *

batch = random_batch()
mesh = sharding.make_mesh()
model, logged, _ = train(Predictor, sharding.shard_batch(batch, mesh), accumulate=2)
# One device's numbers, on a mesh of one.
sharding.make_mesh = lambda: jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
one, one_logged, _ = train(Predictor, batch, accumulate=2)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), logged, one_logged)

state = train_state.create(Predictor, optax.sgd(1.0), mesh)
step = make_train_step(state.graphdef, Objective(list(CHANNELS)), accumulate=2)
text = step.lower(state.arrays, sharding.shard_batch(batch, mesh)).compile().as_text()
print(sorted(set(re.findall(r" (all-\\w+|collective-\\w+|reduce-scatter)(?:-start)?\\(", text))))
"""


@pytest.mark.slow
def test_no_image_moves_between_devices():
    """Only sums do; and the numbers are those of one device."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _ON_FOUR_DEVICES]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "['all-reduce']"
