"""Training with frozen parts, and runs with the other options of the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.config import Optim
from mtl_jax.images import normalise
from mtl_jax.losses import Objective
from mtl_jax.runtime import sharding
from mtl_jax.train import initial_weights, task_balancing
from mtl_jax.train import state as train_state
from mtl_jax.train.loop import fit
from mtl_jax.train.step import make_train_step
from tests import tiny
from tests.marks import slow
from tests.train import runs

STEM = ("backbone.conv1", "backbone.bn1")


@pytest.fixture(autouse=True)
def _backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


def config(*frozen, balancing="fixed"):
    found = tiny.config("")
    found.data.tasks, found.balancing = ("normals", "depth"), balancing
    found.model.name, found.model.backbone, found.model.head = "baseline", "tiny_resnet", "hrnet"
    found.optim.freeze = frozen
    return found


def build(config):
    """The model in float64, with batch norms that differ."""
    model = initial_weights.build_untrained(config)
    tiny.randomise_batch_norms(model)
    nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model)))
    return model


def random_batch():
    rng = np.random.default_rng(0)
    shape = (4, 32, 32)
    return {
        "image": rng.standard_normal((*shape, 3)),
        "normals": rng.uniform(-1, 1, (*shape, 3)),
        "depth": rng.uniform(1, 5, (*shape, 1)),
    }


def by_path(arrays):
    leaves = jax.tree.leaves_with_path(arrays)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def frozen_step():
    """(model before a step of sgd with the learning rate 1, model after it, optimiser, what was logged)"""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        options = config(*STEM)
        state = train_state.create(lambda: build(options), optax.sgd(1.0, momentum=0.5), sharding.make_mesh())
        before = jax.tree.map(np.asarray, state.arrays)
        step = make_train_step(state.graphdef, Objective(("normals", "depth")))
        after, logged = step(state.arrays, random_batch())
        return by_path(before[0]), by_path(after[0]), by_path(after[1]), jax.tree.map(float, logged)


def is_frozen(path):
    return any(path.startswith(f"{part}.") for part in STEM)


def test_parameters_and_statistics_of_frozen_parts_stay(frozen_step):
    before, after, optimizer, _ = frozen_step
    assert before.keys() == after.keys()
    frozen = {path for path in before if is_frozen(path)}
    assert frozen == {"backbone.conv1.kernel", *(f"backbone.bn1.{name}" for name in ("bias", "mean", "scale", "var"))}
    for path, value in before.items():
        assert np.array_equal(after[path], value) == (path in frozen), path
    traces = {path.partition("trace.")[2] for path in optimizer if "trace." in path}
    assert traces == {path for path in before if not is_frozen(path) and not path.endswith((".mean", ".var"))}


def test_gradients_of_the_other_parts_are_those_behind_a_constant_stem(frozen_step):
    """The stem, in evaluation mode, is computed apart from the rest, which is trained."""
    before, after, _, logged = frozen_step
    with jax.enable_x64(True):
        model, batch = build(config()), random_batch()
        images = normalise(jnp.asarray(batch["image"]))
        stem = models.evaluation_view(model).backbone.run_stage("conv", (images,))

        graphdef, parameters, others = nnx.split(model, nnx.Param, ...)

        @jax.jit
        def loss(parameters):
            view = models.training_view(nnx.merge(graphdef, parameters, others, copy=True), nnx.Rngs(dropout=0))
            maps, outputs = stem, {}
            for stage in view.backbone.stages[1:]:
                maps = outputs[stage] = view.backbone.run_stage(stage, maps)
            return Objective(("normals", "depth"))(view.decode(view.backbone.select(outputs), images), batch)[0]

        gradients = by_path(nnx.as_pure(jax.grad(loss)(parameters)))
    squares = 0.0
    for path, gradient in gradients.items():
        if not is_frozen(path):
            np.testing.assert_allclose(before[path] - after[path], gradient, rtol=1e-8, atol=1e-11, err_msg=path)
            squares += float((gradient**2).sum())
    np.testing.assert_allclose(logged["gradient_norm"], np.sqrt(squares), rtol=1e-9)


def test_a_gradient_method_without_shared_parameters_is_refused():
    options = config("backbone", balancing="cagrad")
    message = r"no shared parameters.*optim\.freeze"
    with pytest.raises(ValueError, match=message):
        initial_weights.check(options)
    options.balancing = "uncertainty"  # reads losses alone
    initial_weights.check(options)
    options.balancing, options.optim.freeze = "cagrad", STEM
    initial_weights.check(options)
    assert task_balancing.from_config(options) is not None


@pytest.mark.parametrize("name", [slow("muon"), slow("adamw")])
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path, data_dir, name):
    options = tiny.config(data_dir, checkpoint_every=2, eval_final_epochs=1)
    options.optim = Optim(
        name,
        lr=1e-3,
        options={"b2": 0.95},
        clip_norm=0.5,
        layer_decay=0.8,
        multipliers={"heads": 2.0},
        freeze=("backbone.stem",),
    )
    fit(options, tmp_path / "straight")
    runs.fit_and_kill(options, tmp_path / "killed", 5)
    fit(options, tmp_path / "killed")
    assert runs.log(tmp_path / "straight") == runs.log(tmp_path / "killed")


def test_an_unknown_part_is_refused_before_anything_starts(tmp_path, data_dir):
    options = tiny.config(data_dir)
    options.optim.multipliers = {"bakbone": 0.1}
    with pytest.raises(ValueError, match=r"optim\.multipliers names 'bakbone'.*nearest are backbone"):
        fit(options, tmp_path / "run")
    options.optim.multipliers, options.optim.freeze = {}, ("backbone.convs.7",)
    with pytest.raises(ValueError, match=r"optim\.freeze names 'backbone\.convs\.7'"):
        fit(options, tmp_path / "run")
    assert not (tmp_path / "run").exists()
