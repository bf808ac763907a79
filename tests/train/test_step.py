import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_jax import experiment, models
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step
from tests import tiny


@pytest.fixture(scope="module")
def losses():
    """losses(seed, steps): of a DeepLab model whose parameters stand still, so that only dropout tells steps apart."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        config = tiny.config("")
        config.model.head = "deeplab"
        initial = train_state.create(lambda: models.build(config), optax.sgd(0.0), sharding.make_mesh())
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.standard_normal((4, 32, 32, 3)), jnp.float32),
        "depth": jnp.asarray(rng.uniform(1, 5, (4, 32, 32, 1)), jnp.float32),
    }
    step = make_train_step(initial.graphdef, experiment.make(config).objective)

    def run(seed, steps):
        arrays, found = jax.tree.map(jnp.copy, initial.arrays), []  # the step donates them
        for _ in range(steps):
            arrays, scalars = step(arrays, batch, np.uint32(seed))
            found.append(float(scalars["loss/total"]))
        # What goes out can go in again, and into a checkpoint: no generator has slipped in.
        assert jax.tree.structure(arrays) == jax.tree.structure(initial.arrays)
        # The parameters stood still, the running statistics did not.
        norm, before = (nnx.merge(initial.graphdef, a)[0].decoder[2] for a in (arrays, initial.arrays))
        np.testing.assert_array_equal(norm.scale[...], before.scale[...])
        assert (norm.mean[...] != before.mean[...]).all()
        return found

    run.step = step
    return run


def test_dropout_differs_between_steps_and_repeats_with_them(losses):
    first = losses(0, 3)
    assert len(set(first)) == 3
    assert losses(0, 3) == first


def test_dropout_depends_on_the_seed(losses):
    assert losses(1, 1) != losses(0, 1)
    assert losses.step._cache_size() == 1  # one program for all seeds
