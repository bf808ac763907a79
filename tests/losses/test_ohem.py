"""Online hard example mining where probabilities tie or nothing may be kept."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.losses.ohem import ohem_cross_entropy


@pytest.mark.parametrize("thresh", [None, 0.0, 0.5])
def test_pixels_as_hard_as_the_last_kept_one_are_kept_too(thresh):
    logits, label = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4, 1))
    np.testing.assert_allclose(ohem_cross_entropy(logits, label, thresh, 4), np.log(3), rtol=1e-6)


def test_without_hard_pixels_the_loss_is_0():
    logits, label = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4, 1))
    assert ohem_cross_entropy(logits, label, 0.1, 0) == 0
