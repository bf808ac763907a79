"""Layers of networks for phones: both ways of computing depthwise convolutions, paddings, activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mtl_jax.nn import Conv, DepthwiseConv, InitialKeys, depthwise_conv, isolate
from mtl_jax.nn.activations import hard_sigmoid, hard_swish, relu6
from mtl_jax.nn.padding import same_margins

RNG = np.random.default_rng(0)


def loop(x, kernel, stride, margins):
    """Computes the sums of the definition one by one."""
    padded = np.pad(x, [(0, 0), *margins, (0, 0)])
    size = kernel.shape[0]
    rows, columns = ((side - size) // stride + 1 for side in padded.shape[1:3])
    y = np.zeros((x.shape[0], rows, columns, x.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            window = padded[:, row * stride : row * stride + size, column * stride : column * stride + size]
            y[:, row, column] = (window * kernel[:, :, 0]).sum((1, 2))
    return y


@pytest.mark.parametrize(("size", "kernel_size", "stride"), [((5, 6), 3, 1), ((6, 7), 5, 2), ((1, 4), 5, 2)])
@pytest.mark.parametrize("same_padding", [False, True])
def test_both_ways_compute_the_definition_and_its_gradient(size, kernel_size, stride, same_padding):
    conv = DepthwiseConv(3, kernel_size, stride=stride, same_padding=same_padding, use_bias=True, rngs=InitialKeys(0))
    x = jnp.asarray(RNG.standard_normal((2, *size, 3)), jnp.float32)
    margins = same_margins(size, kernel_size, stride) if same_padding else [(kernel_size // 2,) * 2] * 2
    expected = loop(np.asarray(x, np.float64), np.asarray(conv.kernel[...]), stride, margins)
    expected += np.asarray(conv.bias[...])
    assert expected.shape[1:3] == tuple(-(-side // stride) for side in size)
    weigh = jnp.asarray(RNG.standard_normal(expected.shape), jnp.float32)

    def gradients(x, kernel):
        y = depthwise_conv.convolve_depthwise(x, kernel, stride, margins)
        return (y * weigh).sum()

    results = []
    for context in (depthwise_conv.sums_of_taps, isolate.fused):
        with context():
            np.testing.assert_allclose(conv(x), expected, atol=1e-5)
            results.append(jax.grad(gradients, (0, 1))(x, conv.kernel[...]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_programs_for_other_devices_have_convolutions_unless_they_run_on_cpus_too():
    conv, x = DepthwiseConv(3, 3, rngs=InitialKeys(0)), jnp.zeros((1, 4, 4, 3))

    def program():
        return str(jax.make_jaxpr(lambda x: conv(x))(x))  # a new function, which JAX has not traced

    assert "conv_general_dilated" not in program()
    with isolate.fused():
        assert "feature_group_count=3" in program()
        with depthwise_conv.sums_of_taps():
            assert "conv_general_dilated" not in program()


def test_sums_in_16_bits_are_rounded_once():
    conv = DepthwiseConv(8, 5, dtype=jnp.bfloat16, rngs=InitialKeys(0))
    x = jnp.asarray(RNG.standard_normal((1, 9, 9, 8)), jnp.bfloat16)
    kernel = np.asarray(conv.kernel[...].astype(jnp.bfloat16), np.float64)
    exact = loop(np.asarray(x, np.float64), kernel, 1, [(2, 2)] * 2)
    assert conv(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(conv(x), np.float64), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [(7, 8), (9, 6)])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_same_padding_is_that_of_xla(size, kernel_size, stride, dilation):
    ours = same_margins(size, kernel_size, stride, dilation)
    reach = dilation * (kernel_size - 1) + 1
    assert ours == list(lax.padtype_to_pads(size, (reach, reach), (stride, stride), "SAME"))


def test_a_convolution_with_same_padding_reads_a_zero_after_the_map_alone():
    conv = Conv(1, 1, 3, stride=2, same_padding=True, rngs=InitialKeys(0))
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    corner = (np.asarray(conv.kernel[..., 0, 0]) * np.arange(16.0).reshape(4, 4)[:3, :3]).sum()
    np.testing.assert_allclose(conv(x)[0, 0, 0, 0], corner, rtol=1e-5)


def test_activations():
    x = jnp.asarray([-4.0, -3, -1, 0, 2, 3, 7])
    np.testing.assert_allclose(relu6(x), [0, 0, 0, 0, 2, 3, 6])
    np.testing.assert_allclose(hard_sigmoid(x), [0, 0, 1 / 3, 0.5, 5 / 6, 1, 1])
    np.testing.assert_allclose(hard_swish(x), [0, 0, -1 / 3, 0, 5 / 3, 3, 7], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(relu6))(x), [0, 0, 0, 0, 1, 1, 0])  # at 0 as in torch
