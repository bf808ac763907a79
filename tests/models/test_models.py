"""What holds for every model, on a tiny network of each."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.config import Config, Data, Model, aux_tasks, main_tasks
from mtl_jax.data import catalogue
from mtl_jax.losses import Objective

# Odd at most halvings: 17x24, 9x12, 5x6, 3x3, 2x2. InvPT takes multiples of 32 on its backbone.
SIZES = {"invpt": (32, 64)}
SIZE = (33, 47)
# DeepLab's pooled branch normalises over the batch alone: two images would become +1 and -1 whatever the weights, and
# leave them no gradient.
BATCH_SIZE = 3
# What stands between all models and both heads, all strides and dilations, one map and several.
BACKBONES = {
    "single_task": "tiny_resnet_dilated",
    "baseline": "tiny_resnet",
    "cross_stitch": "tiny",
    "nddr_cnn": "tiny",
    "mtan": "tiny_resnet_dilated",
    "pad_net": "tiny",
    "mti_net": "tiny",
    "invpt": "tiny_vit",
}
OPTIONS = {"invpt": {"features": 8, "extra": 8}}


# The tests of one model share its compiled programs.
def over(quick):
    """Over all models, of which only some are quick enough to be tested every time."""
    groups = {name: [pytest.mark.xdist_group(name)] for name in BACKBONES}
    marks = {name: group if name in quick else [*group, pytest.mark.slow] for name, group in groups.items()}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in BACKBONES])


all_models = over(BACKBONES)
# A compiled training step takes XLA seconds; `parity/test_methods.py` shows the same of complete networks.
trained_models = over(("cross_stitch", "nddr_cnn", "pad_net"))


def config(name: str, dtype: str = "float32") -> Config:
    main = ("depth",) if name == "single_task" else ("semseg", "depth")
    aux = ("semseg", "edge", "depth") if name in ("pad_net", "mti_net") else ()
    head = "hrnet" if name == "mtan" else ""  # one model with the slow DeepLab head is enough
    data = Data("nyud", main, aux, image_size=SIZES.get(name, (0, 0)))
    return Config(data, Model(name, BACKBONES[name], head, dtype=dtype, options=OPTIONS.get(name, {})))


@functools.cache
def batch(name: str = "") -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shape = (BATCH_SIZE, *SIZES.get(name, SIZE))
    return {
        "image": jnp.asarray(rng.standard_normal((*shape, 3)), jnp.float32),
        "semseg": jnp.asarray(rng.integers(0, 40, (*shape, 1))),
        "edge": jnp.asarray(rng.random((*shape, 1)) < 0.1, jnp.float32),
        "depth": jnp.asarray(rng.uniform(1, 5, (*shape, 1)), jnp.float32),
    }


class Network:
    """A fresh model and its compiled programs; `arrays` are its variables."""

    def __init__(self, name: str, dtype: str = "float32"):
        self.config, self.batch = config(name, dtype), batch(name)
        self.graphdef, state = nnx.split(models.build(self.config))
        self.arrays = nnx.as_pure(state)
        self.compiled_evaluate = jax.jit(self.evaluate)

    def model(self, arrays) -> models.MultiTaskModel:
        return nnx.merge(self.graphdef, arrays)

    def evaluate(self, arrays, images, seed):
        """Outputs, and the running statistics after them."""
        model = models.training_view(self.model(arrays), nnx.Rngs(dropout=jax.random.key(seed)))
        outputs = models.evaluation_view(model)(images)
        return outputs, nnx.as_pure(nnx.state(model, nnx.BatchStat))

    @functools.cached_property
    def evaluated(self):
        return self.compiled_evaluate(self.arrays, self.batch["image"], 0)

    @functools.cached_property
    def trained(self):
        """The gradient, and the running statistics after the step, as {path: array}."""
        objective = Objective(main_tasks(self.config))

        def train(arrays, batch):
            model = models.training_view(self.model(arrays), nnx.Rngs(dropout=0))
            gradient = nnx.compat.grad(lambda model: objective(model(batch["image"]), batch)[0])(model)
            return nnx.as_pure(gradient), nnx.as_pure(nnx.state(model, nnx.BatchStat))

        gradient, statistics = jax.jit(train)(self.arrays, self.batch)
        return flat(gradient), flat(statistics)


def flat(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in leaves}


@functools.cache
def network(name: str, dtype: str = "float32") -> Network:
    return Network(name, dtype)


@all_models
def test_outputs(name):
    outputs = network(name).evaluated[0]
    cfg = config(name)
    aux = catalogue.get("nyud").num_logits(aux_tasks(cfg))
    every = {
        "pad_net": {"deepsup": (9, 12)},
        "mti_net": {"scale_0": (9, 12), "scale_1": (5, 6)},
        "invpt": {"inter": (2, 4)},
    }
    sizes = every.get(name, {})
    assert jax.tree.map(jnp.shape, outputs.intermediate) == {
        stage: {task: (BATCH_SIZE, *size, channels) for task, channels in aux.items()} for stage, size in sizes.items()
    }
    main = catalogue.get("nyud").num_logits(main_tasks(cfg))
    assert {task: x.shape for task, x in outputs.logits.items()} == {
        t: (BATCH_SIZE, *SIZES.get(name, SIZE), n) for t, n in main.items()
    }


# A batch norm takes away what a bias before it adds.
BIAS_BEFORE_NORM = re.compile(r"(last_layer/0|attention_\d/\w+/[03]|mt_proj/\w+/0)/bias$")
# The only hidden unit of a tiny squeeze-and-excitation may be off for all images; the layer's last bias learns anyway.
MAY_BE_OFF = re.compile(r"squeeze/(0/(kernel|bias)|2/kernel)$")


@trained_models
def test_every_parameter_gets_a_finite_gradient(name):
    gradient, _ = network(name).trained
    parameters = nnx.to_flat_state(nnx.state(network(name).model(network(name).arrays), nnx.Param))
    assert len(gradient) == len(parameters)
    for path, leaf in gradient.items():
        assert np.isfinite(leaf).all(), path
        size = np.abs(leaf).max()
        if BIAS_BEFORE_NORM.search(path):
            # Rounding errors of float32 summed over some hundred pixels.
            assert size < 1e-4 * np.abs(gradient[path.removesuffix("bias") + "kernel"]).max(), path
        else:
            assert size > 0 or MAY_BE_OFF.search(path), path


@all_models
def test_specific_parts_serve_a_single_task(name):
    """What is broken in the parts of other tasks does not reach a task; without its own it comes to nothing."""
    net = network(name)
    serving = net.model(net.arrays).specific
    assert set(serving) <= set(net.arrays), serving

    def breaks(path, leaf, task, own):
        keys = [entry.key for entry in path]
        mine = task in keys or name == "single_task"
        return leaf * jnp.nan if keys[0] in serving and mine == own else leaf

    for task in main_tasks(net.config):
        for own in (False, True):
            arrays = jax.tree_util.tree_map_with_path(functools.partial(breaks, task=task, own=own), net.arrays)
            outputs, _ = net.compiled_evaluate(arrays, net.batch["image"], 0)
            assert bool(jnp.isnan(outputs.logits[task]).any()) == own, (task, own)


@over(("nddr_cnn", "pad_net"))
def test_eager_equals_jit(name):
    net = network(name)
    compiled, eager = net.evaluated[0], net.evaluate(net.arrays, net.batch["image"], 0)[0]
    # float32 sums in another order, through tens of layers.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), compiled, eager)


@all_models
def test_evaluation_is_deterministic_and_changes_nothing(name):
    net = network(name)
    other_dropout = net.compiled_evaluate(net.arrays, net.batch["image"], 1)
    jax.tree.map(np.testing.assert_array_equal, net.evaluated, other_dropout)
    before = flat(nnx.as_pure(nnx.state(net.model(net.arrays), nnx.BatchStat)))
    after = flat(net.evaluated[1])
    assert before.keys() == after.keys()
    for path, statistics in before.items():
        np.testing.assert_array_equal(statistics, after[path], err_msg=path)


@trained_models
def test_training_updates_every_running_statistic(name):
    _, statistics = network(name).trained
    assert statistics.keys() == flat(network(name).evaluated[1]).keys()
    for path, after in statistics.items():
        assert np.isfinite(after).all(), path
        assert (after != (0 if path.endswith("mean") else 1)).all(), path


@over(("nddr_cnn",))
def test_bfloat16_is_close_to_float32(name):
    exact, rough = (network(name, dtype).evaluated[0] for dtype in ("float32", "bfloat16"))

    def compare(a, b):
        assert b.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).mean() < 0.05 * a.std()  # 8 bits of mantissa through tens of layers

    jax.tree.map(compare, exact, rough)
