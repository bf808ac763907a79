"""Training with the statistics of parts of the batch, as torch's data parallelism has per device."""

import inspect
import json
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
from mtl_jax.heads import DeepLabHead
from mtl_jax.losses import Objective
from mtl_jax.nn import BatchNorm, Conv, Sequential
from mtl_jax.outputs import Outputs
from mtl_jax.runtime import sharding
from mtl_jax.train import configured_step, initial_weights, loop
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from tests import tiny

ROOT = Path(__file__).parents[2]
MOMENTUM = 0.1


class Predictor(nnx.Module):
    """Depth from one normalised convolution and another one."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = Sequential([Conv(3, 4, 1, rngs=rngs), BatchNorm(4), nnx.relu, Conv(4, 1, 1, rngs=rngs)])

    def __call__(self, images):
        return Outputs({"depth": self.layers(images)})


def in_float64():
    model = Predictor()
    nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
    return model


def random_batch(dtype=np.float32):
    """Eight images that differ in brightness, so that statistics depend on which images they are of."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 6, 6, 3)) + 2 * rng.standard_normal((8, 1, 1, 3))
    return {"image": images.astype(dtype), "depth": rng.uniform(1, 9, (8, 6, 6, 1)).astype(dtype)}


def prepare(build, mesh, **options):
    """(state before the first step, step of sgd at rate 1)"""
    state = train_state.create(build, optax.sgd(1.0), mesh)
    return state, make_train_step(state.graphdef, Objective(["depth"]), **options)


def train(build, batch, mesh=None, **options):
    """(model after a step, what was logged)"""
    state, step = prepare(build, mesh or sharding.make_mesh(), **options)
    arrays, logged = step(state.arrays, batch)
    assert jax.tree.structure(arrays) == jax.tree.structure(state.arrays)
    return nnx.merge(state.graphdef, arrays)[0], logged


def by_hand(batch, parts):
    """(loss, parameters after a step, statistics of each part) where `parts` holds the images of each."""
    layers = in_float64().layers
    parameters = [layers[0].kernel[...][0, 0], layers[1].scale[...], layers[1].bias[...], layers[3].kernel[...][0, 0]]
    whole = np.concatenate(parts)

    def loss_fn(parameters):
        first, scale, bias, second = parameters
        outputs, statistics = [], []
        for images in parts:
            x = batch["image"][images] @ first
            flat = x.reshape(-1, 4)
            normal = (flat - flat.mean(0, keepdims=True)) / jnp.sqrt(flat.var(0, keepdims=True) + 1e-5)
            y = jax.nn.relu(normal * scale.reshape(1, 4) + bias.reshape(1, 4))
            outputs.append((y @ second).reshape(*x.shape[:3], 1))
            statistics.append((flat.mean(0), flat.var(0, ddof=1)))
        labels = {"depth": jnp.asarray(batch["depth"][whole])}
        return Objective(["depth"])(Outputs({"depth": jnp.concatenate(outputs)}), labels)[0], statistics

    (loss, statistics), grads = jax.value_and_grad(loss_fn, has_aux=True)(parameters)
    return loss, [p - g for p, g in zip(parameters, grads, strict=True)], statistics


# (options of the step, the images that are normalised together, those that move the running statistics in turn)
SPLITS = {
    "whole": ({}, [range(8)], [0]),
    "groups": ({"batch_norm_groups": 2}, [range(4), range(4, 8)], [0]),
    "groups of micro-batches": (
        {"batch_norm_groups": 2, "accumulate": 2},
        [(0, 2), (4, 6), (1, 3), (5, 7)],
        [0, 2],
    ),
}


@pytest.mark.parametrize("split", SPLITS)
def test_a_step_is_the_one_made_by_hand(split):
    options, parts, firsts = SPLITS[split]
    with jax.enable_x64(True):
        batch = random_batch(np.float64)
        model, logged = train(in_float64, batch, **options)
        loss, parameters, statistics = by_hand(batch, [np.asarray(part) for part in parts])
        mean, var = np.zeros(4), np.ones(4)
        for first in firsts:
            mean = (1 - MOMENTUM) * mean + MOMENTUM * statistics[first][0]
            var = (1 - MOMENTUM) * var + MOMENTUM * statistics[first][1]
        conv, norm, _, last = list(model.layers)
        found = [conv.kernel[...][0, 0], norm.scale[...], norm.bias[...], last.kernel[...][0, 0]]
        pairs = [(logged["loss/total"], loss), (norm.mean[...], mean), (norm.var[...], var)]
        for got, wanted in [*pairs, *zip(found, parameters, strict=True)]:
            np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)


def test_a_view_has_the_whole_batch_unless_it_asks_for_groups():
    model = models.training_view(Predictor(), nnx.Rngs(dropout=0), batch_norm_groups=4)
    assert model.layers[1].batch_norm_groups == 4
    assert models.training_view(model, nnx.Rngs(dropout=0)).layers[1].batch_norm_groups == 1


def test_groups_of_one_image_are_too_little_for_deeplab(monkeypatch):
    tiny.register_backbones(monkeypatch)
    head = DeepLabHead((4,), 1, rngs=nnx.Rngs(0))
    maps = (jax.random.normal(jax.random.key(0), (4, 2, 2, 4)),)
    assert models.training_view(head, nnx.Rngs(dropout=0), batch_norm_groups=2)(maps).shape == (4, 2, 2, 1)
    message = r"groups of batch norm of one: .* times train\.batch_norm_groups"
    with pytest.raises(ValueError, match=message):
        models.training_view(head, nnx.Rngs(dropout=0), batch_norm_groups=4)(maps)

    config = tiny.config("", batch_size=8, accumulate=2, batch_norm_groups=4)
    initial_weights.check(config)
    config.model.head = "deeplab"
    with pytest.raises(ValueError, match=message):
        initial_weights.check(config)
    config.train.batch_norm_groups = 2
    initial_weights.check(config)


def test_a_run_takes_the_number_from_its_configuration(tmp_path, data_dir, monkeypatch):
    class Stop(Exception):
        """Before the first step."""

    def make(*args, **kwargs):
        assert inspect.signature(make_train_step).bind(*args, **kwargs).arguments["batch_norm_groups"] == 2
        raise Stop

    tiny.register_backbones(monkeypatch)
    monkeypatch.setattr(configured_step, "make_train_step", make)
    with pytest.raises(Stop):
        loop.fit(tiny.config(data_dir, batch_norm_groups=2), tmp_path)


_ON_FOUR_DEVICES = """
import json, math, re
import jax
jax.config.update("jax_num_cpu_devices", 4)
from tests.train.test_batch_norm_groups import *

batch, mesh = random_batch(), sharding.make_mesh()
one = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
found = {}
for groups in (1, 2, 4, 8):
    results = [train(Predictor, batch, one, batch_norm_groups=groups)]
    sharded = sharding.shard_batch(batch, mesh)
    results.append(train(Predictor, sharded, mesh, batch_norm_groups=groups))
    # float32 sums in another order
    arrays = [(nnx.as_pure(nnx.state(model)), logged) for model, logged in results]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *arrays)

    state, step = prepare(Predictor, mesh, batch_norm_groups=groups)
    program = step.lower(state.arrays, sharded).compile().as_text()
    collectives = re.findall(r"= (.*?) (all-\\w+|collective-\\w+|reduce-scatter)(?:-start)?\\(", program)
    shapes = [shape for shapes, _ in collectives for shape in re.findall(r"\\[([\\d,]*)\\]", shapes)]
    largest = max(math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes)
    found[groups] = [len(collectives), sorted({kind for _, kind in collectives}), largest]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_groups_on_four_devices():
    """The numbers of one device; no image moves, and with a group or more per device there is less to exchange."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _ON_FOUR_DEVICES]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert set(found) == {"1", "2", "4", "8"}
    for _, kinds, largest in found.values():
        assert kinds == ["all-reduce"]
        assert largest == 12  # the larger kernel's gradient; a device's share of the images has 216 elements
    assert max(found["4"][0], found["8"][0]) < found["1"][0]
