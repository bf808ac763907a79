"""Depthwise convolutions, and convolutions whose kernel is as large as their stride."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import DepthwiseConv, PatchProjection, compute_dtype, pad_to_multiples
from mtl_jax.nn.init import trunc_normal
from tests.nn.test_transformer_layers import filled, numbers, value


def test_depthwise_conv_by_taps():
    layer, x = filled(DepthwiseConv(4, 3, use_bias=True, rngs=nnx.Rngs(0))), numbers(2, 5, 6, 4)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = value(layer.kernel)
    expected = sum(padded[:, i : i + 5, j : j + 6] * kernel[i, j, 0] for i in range(3) for j in range(3))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected + value(layer.bias), atol=1e-4)


def test_depthwise_conv_computes_in_the_chosen_dtype():
    with compute_dtype(jnp.bfloat16):
        layer = DepthwiseConv(4, 3, rngs=nnx.Rngs(0))
    assert layer(jnp.ones((1, 3, 3, 4))).dtype == jnp.bfloat16
    assert layer.kernel.dtype == jnp.float32


def test_biases_follow_the_initialiser_of_kernels():
    for make in (
        lambda **init: DepthwiseConv(64, 3, use_bias=True, **init),
        lambda **init: PatchProjection(3, 64, 4, **init),
    ):
        assert not make(kernel_init=trunc_normal, rngs=nnx.Rngs(0)).bias[...].any()
        inputs = 9 if isinstance(make(rngs=nnx.Rngs(0)), DepthwiseConv) else 48
        largest = np.abs(make(rngs=nnx.Rngs(0)).bias[...]).max()
        assert 0.8 / np.sqrt(inputs) < largest <= 1 / np.sqrt(inputs)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (8, 8, 4)])
def test_inputs_of_another_layout_are_refused(shape):
    for layer in (DepthwiseConv(4, 3, rngs=nnx.Rngs(0)), PatchProjection(4, 8, 2, rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match=r"of 4 channels got an input of shape .* are \[B, H, W, C\]"):
            layer(jnp.zeros(shape))


def test_patches_leave_out_what_fills_no_kernel():
    layer, x = filled(PatchProjection(3, 5, 2, rngs=nnx.Rngs(0))), jnp.asarray(numbers(1, 5, 7, 3))
    np.testing.assert_array_equal(layer(x), layer(x[:, :4, :6]))


def test_zeros_are_added_below_and_to_the_right():
    x = jnp.asarray(numbers(1, 5, 6, 2))
    padded = pad_to_multiples(x, (4, 3))
    assert padded.shape == (1, 8, 6, 2)
    assert (padded[:, :5] == x).all()
    assert not padded[:, 5:].any()
    assert pad_to_multiples(x, (5, 2)) is x
