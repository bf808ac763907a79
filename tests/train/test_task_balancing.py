"""Task balancing within training: what it is of, what it logs, and what checkpoints keep of it."""

import jax
import numpy as np
import optax
import pytest

from mtl_jax import experiment, models
from mtl_jax.balancing import BALANCERS
from mtl_jax.inference.restored import Restored
from mtl_jax.losses import Objective
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train import task_balancing
from mtl_jax.train.loop import fit
from mtl_jax.train.step import make_train_step
from tests import tiny
from tests.train import runs


def config(data_dir, balancing, **train):
    found = tiny.config(data_dir, **train)
    found.data.tasks, found.data.aux_tasks = ("semseg", "depth"), ("semseg", "depth", "normals")
    found.model.name, found.balancing = "mti_net", balancing
    if balancing == "mgda_ub":
        found.model.name, found.model.backbone, found.data.aux_tasks = "baseline", "tiny_resnet", ()
    return found


@pytest.fixture(scope="module")
def step():
    """step(method) -> (arrays after a step of sgd, what it logged), from the same weights and batch."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        rng = np.random.default_rng(0)
        shape = (4, 64, 64)
        batch = {
            "image": rng.standard_normal((*shape, 3)).astype(np.float32),
            "semseg": rng.integers(0, 40, (*shape, 1)).astype(np.uint8),
            "depth": rng.uniform(1, 5, (*shape, 1)).astype(np.float32),
            "normals": rng.uniform(-1, 1, (*shape, 3)).astype(np.float32),
        }

        def run(method, weights=None):
            found = config("", method)
            balancing = task_balancing.from_config(found)
            build = lambda: models.build(found)  # noqa: E731
            state = train_state.create(build, optax.sgd(0.1), sharding.make_mesh(), balancing=balancing)
            objective = Objective(("semseg", "depth"), weights)
            return make_train_step(state.graphdef, objective, balancing=balancing)(state.arrays, batch)

        yield run


@pytest.mark.slow
def test_fixed_weights_give_the_step_of_the_objective(step):
    """The weights of the deep supervision are those of its tasks."""
    weights = {"semseg": 2.0, "depth": 0.5, "normals": 3.0}
    arrays, logged = step("fixed", weights)
    tasks = task_balancing.from_config(config("", "rlw")).tasks
    other, others = step("fixed:weights=" + "+".join(str(weights[task]) for task in tasks), weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5), arrays[0], other[0])
    assert {name: float(others[f"weight/{name}"]) for name in tasks} == weights
    for name in logged:
        np.testing.assert_allclose(others[name], logged[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_gradient_methods_log_cosines(step):
    _, logged = step("cagrad")
    cosines = {name: float(value) for name, value in logged.items() if name.startswith("cosine/")}
    assert sorted(cosines) == ["cosine/normals_depth", "cosine/semseg_depth", "cosine/semseg_normals"]
    assert all(-1 <= value <= 1 for value in cosines.values())
    assert any(abs(value) > 1e-4 for value in cosines.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(BALANCERS))
def test_every_method_trains_a_model(step, method):
    _, logged = step(method)
    assert all(np.isfinite(float(value)) for value in logged.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["famo", "db_mtl"])
def test_an_interrupted_run_remembers(tmp_path, data_dir, method):
    """FAMO learns from step to step, and from another forward pass after each; DB-MTL averages the gradients."""
    options = config(data_dir, method, checkpoint_every=2, eval_final_epochs=1)
    fit(options, tmp_path / "straight")
    runs.fit_and_kill(options, tmp_path / "killed", 5)
    fit(options, tmp_path / "killed")
    assert runs.log(tmp_path / "straight") == runs.log(tmp_path / "killed")
    weights = [line["weight/depth"] for line in runs.log(tmp_path / "killed") if line["kind"] == "train"]
    assert len(set(weights)) == len(weights) == 6
    assert Restored(experiment.load_config(tmp_path / "killed"), tmp_path / "killed", "latest").step == 6


@pytest.mark.slow
def test_features_are_those_of_models_that_have_them(step, tmp_path, data_dir):
    """The backbone's statistics move as well as the heads'."""
    arrays, logged = step("mgda_ub")
    assert np.isclose(float(logged["weight/semseg"]) + float(logged["weight/depth"]), 1)
    statistics = jax.tree_util.tree_leaves_with_path(arrays[0])
    means = {jax.tree_util.keystr(path): leaf for path, leaf in statistics if path[-1].key == "mean"}
    assert any("backbone" in path for path in means)
    assert any("decoders" in path for path in means)
    for path, mean in means.items():
        assert np.abs(mean).max() > 0, path
    other = config(data_dir, "mgda_ub")
    other.model.name = "mti_net"
    with pytest.raises(ValueError, match=r"MTINet does not have; use it with model.name=baseline"):
        fit(other, tmp_path / "run")


def test_bad_requests_are_refused_before_anything_starts(tmp_path, data_dir):
    with pytest.raises(ValueError, match="cagrd"):
        fit(config(data_dir, "cagrd"), tmp_path / "run")
    with pytest.raises(ValueError, match="gamma"):
        fit(config(data_dir, "cagrad:gamma=1"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"weights = \(1.0, 2.0\) for 3 tasks"):
        fit(config(data_dir, "fixed:weights=1+2"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"preference = \(1.0,\) for 3 tasks"):
        fit(config(data_dir, "aligned_mtl:preference=1"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"'mgda_ub' and train\.accumulate is 2; .* features .*balancing=mgda"):
        fit(config(data_dir, "mgda_ub", accumulate=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
