import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import BasicBlock, BatchNorm, Bottleneck, Conv, SqueezeExcite, resize_bilinear


def test_strided_conv_pads_symmetrically():
    conv = Conv(1, 1, 3, stride=2, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.ones((3, 3, 1, 1))
    out = conv(jnp.arange(16.0).reshape(1, 4, 4, 1))
    # "SAME" would start its windows at pixel 0; one pixel of padding on every side starts them at -1.
    np.testing.assert_array_equal(out[0, :, :, 0], [[0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7], [51, 90]])


def test_pointwise_conv_equals_convolution():
    conv = Conv(5, 7, 1, use_bias=True, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 3, 5))
    expected = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ) + conv.bias[...].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(conv(x), expected, rtol=1e-5, atol=1e-6)


def test_initial_weights_are_torch_uniform_and_reproducible():
    first, again, other = (Conv(8, 64, 3, use_bias=True, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1))
    bound = 1 / np.sqrt(9 * 8)
    kernel = np.asarray(first.kernel[...])
    assert np.abs(kernel).max() <= bound
    assert abs(kernel.std() - bound / np.sqrt(3)) < 0.02 * bound
    assert np.abs(first.bias[...]).max() <= bound
    np.testing.assert_array_equal(kernel, again.kernel[...])
    assert (kernel != np.asarray(other.kernel[...])).all()


def test_initial_weights_are_the_same_under_jit():
    def build():
        return nnx.as_pure(nnx.state(Conv(3, 4, 3, rngs=nnx.Rngs(0))))

    jax.tree.map(np.testing.assert_array_equal, jax.jit(build)(), build())


def test_batch_norm_tracks_unbiased_variance():
    norm = BatchNorm(3, momentum=0.25)
    x = 100 + jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    y = norm(x)
    flat = np.asarray(x, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(norm.mean[...], 0.25 * flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.75 + 0.25 * flat.var(0, ddof=1), rtol=1e-4)
    expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 3), expected, atol=1e-3)  # float32 around 100


def test_batch_norm_evaluates_with_running_statistics():
    norm = nnx.view(BatchNorm(2), use_running_average=True)
    norm.mean[...], norm.var[...] = jnp.array([1.0, 2.0]), jnp.array([4.0, 9.0])
    out = norm(jnp.array([[[[3.0, 5.0]]]]))
    np.testing.assert_allclose(out[0, 0, 0], [1, 1], rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], [1, 2])


def test_batch_norm_of_one_value_is_an_error():
    with pytest.raises(ValueError, match="at least 2 values per channel, got 1"):
        BatchNorm(4)(jnp.zeros((1, 1, 1, 4)))


def test_bfloat16_keeps_statistics_in_float32():
    norm = BatchNorm(4, dtype=jnp.bfloat16)
    out = norm(jax.random.normal(jax.random.key(0), (2, 4, 4, 4), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    assert norm.mean.dtype == norm.var.dtype == jnp.float32


def test_resize_uses_half_pixel_centres_and_clamps():
    out = resize_bilinear(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1), (1, 4))
    np.testing.assert_allclose(out.ravel(), [0, 1, 3, 4], atol=1e-6)
    down = resize_bilinear(jnp.arange(4.0).reshape(1, 1, 4, 1), (1, 2))
    np.testing.assert_allclose(down.ravel(), [0.5, 2.5], atol=1e-6)  # no antialiasing


@pytest.mark.parametrize(("block", "width"), [(BasicBlock, 8), (Bottleneck, 32)])
def test_blocks_change_width_and_resolution(block, width):
    out = block(4, 8, stride=2, rngs=nnx.Rngs(0))(jnp.ones((2, 8, 6, 4)))
    assert out.shape == (2, 4, 3, width)
    assert (out >= 0).all()


def test_squeeze_excite_scales_channels():
    layer = SqueezeExcite(32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 32))
    gates = layer(x) / x
    np.testing.assert_allclose(gates, np.broadcast_to(gates[:, :1, :1], gates.shape), rtol=1e-4)
    assert ((gates > 0) & (gates < 1)).all()
    with pytest.raises(ValueError, match="leaves no hidden unit"):
        SqueezeExcite(8, rngs=nnx.Rngs(0))
