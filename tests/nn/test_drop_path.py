"""Stochastic depth."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import DropPath, drop_path_rates


def view(layer, seed):
    return nnx.view(layer, deterministic=False, rngs=nnx.Rngs(dropout=seed))


def test_images_lose_a_branch_as_a_whole():
    y = np.asarray(view(DropPath(0.25), 0)(jnp.ones((400, 2, 3, 4))))
    dropped = (y == 0).all((1, 2, 3))
    assert 0.15 < dropped.mean() < 0.35
    np.testing.assert_allclose(y[~dropped], 1 / 0.75, rtol=1e-6)


def test_calls_drop_different_images_and_seeds_repeat_them():
    x = jnp.ones((50, 1, 1, 1))
    layer = view(DropPath(0.5), 3)
    first, second = layer(x), layer(x)
    assert (first != second).any()
    assert (first == view(DropPath(0.5), 3)(x)).all()


@pytest.mark.parametrize(("rate", "deterministic"), [(0.5, True), (0.0, False)])
def test_evaluation_and_a_rate_of_0_change_nothing(rate, deterministic):
    x = jnp.ones((2, 1, 1, 3))
    assert nnx.view(DropPath(rate), deterministic=deterministic)(x) is x


def test_rates_grow_from_block_to_block_over_all_stages():
    rates = drop_path_rates(0.4, (2, 1, 2))
    assert [len(stage) for stage in rates] == [2, 1, 2]
    np.testing.assert_allclose(np.concatenate(rates), [0, 0.1, 0.2, 0.3, 0.4])
    assert drop_path_rates(0.0, (1, 1)) == [[0.0], [0.0]]
