from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import (
    BasicBlock,
    BatchNorm,
    Bottleneck,
    Conv,
    Dropout,
    Sequential,
    SqueezeExcite,
    double_aligned,
    max_pool_2x2,
    max_pool_stem,
    resize_bilinear,
)
from mtl_jax.nn.conv import convolve_overlaps, overlap
from mtl_jax.nn.init import he_normal_fan_out, torch_uniform
from tests.marks import slow


@pytest.mark.parametrize("init", [torch_uniform, he_normal_fan_out])
def test_initial_values_are_the_same_under_jit(init):
    key, shape = jax.random.key(3), (3, 3, 2, 5)
    np.testing.assert_array_equal(init(key, shape), jax.jit(init, static_argnums=1)(key, shape))
    assert (init(key, shape) != init(jax.random.key(4), shape)).all()


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


def test_dilated_conv_by_hand():
    conv = Conv(1, 1, 3, dilation=2, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.arange(9.0).reshape(3, 3, 1, 1)
    x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
    expected = np.zeros((5, 5))
    expected[::2, ::2] = np.arange(9).reshape(3, 3)[::-1, ::-1]  # the taps are two pixels apart; the size stays
    np.testing.assert_array_equal(conv(x)[0, :, :, 0], expected)


def padded_convolution(x, kernel, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(dilation * (taps // 2),) * 2 for taps in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 3)])
@pytest.mark.parametrize("dilation", [1, slow(2), 3, slow(5), 12])
def test_sum_of_overlaps_equals_convolution(kernel_size, dilation):
    x, kernel, cotangent = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 6, 9, 3), (*kernel_size, 3, 4), (2, 6, 9, 4)])
    )
    results = []
    for function in (convolve_overlaps, padded_convolution):
        y, pullback = jax.vjp(partial(function, dilation=dilation), x, kernel)
        results.append((y, *pullback(cotangent)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)


def test_sum_of_overlaps_is_rounded_once():
    """Outputs and gradients of bfloat16 are those of float32, rounded, and no product is of float32."""
    inputs = [
        jax.random.normal(jax.random.key(i), shape).astype(jnp.bfloat16)
        for i, shape in enumerate([(1, 5, 5, 64), (3, 3, 64, 2), (1, 5, 5, 2)])
    ]

    def run(function, x, kernel, cotangent):
        y, pullback = jax.vjp(partial(function, dilation=2), x, kernel)
        return y, *pullback(cotangent)

    exact = run(padded_convolution, *(x.astype(jnp.float32) for x in inputs))
    for found, expected in zip(run(convolve_overlaps, *inputs), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)
    program = jax.jit(partial(run, convolve_overlaps)).lower(*inputs).as_text()
    operands = [line.rpartition(" : ")[2].partition("->")[0] for line in program.splitlines() if "dot_general" in line]
    assert len(operands) == 3 * 9
    assert not any("f32" in line for line in operands)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel_size is 2"):
        Conv(3, 4, 2, rngs=nnx.Rngs(0))


def test_share_of_products_with_the_image():
    assert overlap((3, 3), 1, (2, 4)) == (4 / 6) * (10 / 12)
    assert overlap((3, 3), 36, (30, 40)) == pytest.approx((1 / 3) * (48 / 120))
    assert overlap((3, 1), 36, (30, 40)) == pytest.approx(1 / 3)


def test_convolution_leaves_the_padding_out_where_most_is_padding():
    def program(size):
        conv = Conv(3, 4, 3, dilation=12, rngs=nnx.Rngs(0))
        return str(jax.make_jaxpr(conv)(jnp.zeros((1, *size, 3))))

    assert "conv_general_dilated" not in program((30, 40))
    assert "conv_general_dilated" in program((64, 64))


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8, 8, 1), (8, 8, 3), (2, 1, 8, 8, 3)])
def test_conv_refuses_another_layout(shape, kernel_size):
    conv = Conv(3, 4, kernel_size, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a convolution of 3 channels got an input of shape") as error:
        conv(jnp.zeros(shape))
    assert str(shape) in str(error.value)


def test_he_normal_fan_out():
    kernel = np.asarray(he_normal_fan_out(jax.random.key(0), (3, 3, 64, 32)))
    scaled = kernel / np.sqrt(2 / (9 * 32))  # by the fan out: the fan in is twice as large
    # Four standard errors of 18432 draws, and the shares of a normal distribution.
    assert abs(scaled.mean()) < 0.03
    assert abs(scaled.std() - 1) < 0.021
    assert abs((np.abs(scaled) < 1).mean() - 0.6827) < 0.014
    assert abs((np.abs(scaled) < 2).mean() - 0.9545) < 0.0062


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


def grouped_norm(groups, features):
    """In float64, which groups are compared in: one mistaken value is far above its rounding."""
    norm = BatchNorm(features)
    nnx.update(norm, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(norm)))
    return nnx.view(norm, batch_norm_groups=groups)


def test_batch_norm_of_groups_by_hand():
    with jax.enable_x64(True):
        norm = grouped_norm(2, 1)
        out = norm(jnp.array([1.0, 3.0, 10.0, 20.0]).reshape(4, 1, 1, 1))
        # Means 2 and 15, biased variances 1 and 25.
        expected = [-1 / np.sqrt(1 + 1e-5), 1 / np.sqrt(1 + 1e-5), -5 / np.sqrt(25 + 1e-5), 5 / np.sqrt(25 + 1e-5)]
        np.testing.assert_allclose(out.ravel(), expected, rtol=1e-14)
        # Of the first group alone, whose unbiased variance is 2.
        np.testing.assert_allclose(norm.mean[...], [0.1 * 2], rtol=1e-14)
        np.testing.assert_allclose(norm.var[...], [0.9 + 0.1 * 2], rtol=1e-14)


@pytest.mark.parametrize("groups", [slow(2), 3])
def test_groups_of_batch_norm_know_nothing_of_each_other(groups):
    """Outputs and gradients are those of the parts, one by one; the statistics follow the first."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.standard_normal((6, 2, 3, 4)) + 5 * rng.standard_normal((6, 1, 1, 4)))
        cotangent = jnp.asarray(rng.standard_normal(x.shape))
        scale, bias = (jnp.asarray(rng.uniform(1, 2, 4)) for _ in range(2))

        def run(x, cotangent, groups):
            norm = grouped_norm(groups, 4)
            norm.scale[...], norm.bias[...] = scale, bias

            def loss_fn(norm, x):
                out = norm(x)
                return (out * cotangent).sum(), out

            (_, out), grads = nnx.compat.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)(norm, x)
            return out, grads[1], [grads[0].scale[...], grads[0].bias[...]], [norm.mean[...], norm.var[...]]

        found = run(x, cotangent, groups)
        parts = [run(*part, 1) for part in zip(jnp.split(x, groups), jnp.split(cotangent, groups), strict=True)]
        outs, x_grads, parameter_grads, statistics = zip(*parts, strict=True)
        sums = jax.tree.map(lambda *grads: sum(grads), *parameter_grads)
        expected = (jnp.concatenate(outs), jnp.concatenate(x_grads), sums, statistics[0])
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13), found, expected)


def test_groups_of_batch_norm_that_cannot_be():
    norm = nnx.view(BatchNorm(4), batch_norm_groups=3)
    with pytest.raises(
        ValueError,
        match=r"train\.batch_norm_groups is 3, which does not divide a batch of 8 images .* a multiple of it",
    ):
        norm(jnp.zeros((8, 2, 2, 4)))
    with pytest.raises(
        ValueError, match=r"at least 2 values per channel, got 1 .* in each of 3 groups\); .* train\.batch_norm_groups"
    ):
        norm(jnp.zeros((3, 1, 1, 4)))
    assert nnx.view(norm, use_running_average=True)(jnp.zeros((1, 1, 1, 4))).shape == (1, 1, 1, 4)


def test_one_group_of_batch_norm_adds_no_operation():
    def reshapes(**view):
        """Whether the input is given another shape."""
        graphdef, state = nnx.split(nnx.view(BatchNorm(3), **view))
        program = jax.make_jaxpr(lambda state, x: nnx.merge(graphdef, state)(x))(
            nnx.as_pure(state), jnp.zeros((4, 5, 3))
        )
        return any(eqn.primitive.name == "reshape" and eqn.invars[0].aval.size == 4 * 5 * 3 for eqn in program.eqns)

    assert not reshapes()
    assert not reshapes(batch_norm_groups=1)
    assert not reshapes(batch_norm_groups=2, use_running_average=True)
    assert reshapes(batch_norm_groups=2)


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


@pytest.mark.parametrize("factors", [(2, 2), slow((4, 1)), (3, 5), slow((30, 32)), (1.5, 2)])
@pytest.mark.parametrize("sides", [(8, 10), (1, 2)])
def test_resize_and_its_gradient_are_those_of_jax(factors, sides):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, *sides, 3), jnp.float64)
        size = tuple(round(side * factor) for side, factor in zip(sides, factors, strict=True))

        def reference(x):
            return jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)

        out, pull = jax.vjp(lambda x: resize_bilinear(x, size), x)
        wanted, wanted_pull = jax.vjp(reference, x)
        np.testing.assert_allclose(out, wanted, atol=1e-12)
        g = jax.random.normal(jax.random.key(1), out.shape, jnp.float64)
        np.testing.assert_allclose(pull(g)[0], wanted_pull(g)[0], atol=1e-11)


@pytest.mark.parametrize("sides", [(3, 4), (1, 2)])
def test_doubling_keeps_corners_and_is_linear_between_them(sides):
    rows, columns = (np.linspace(0, side - 1, 2 * side) for side in sides)
    x = np.add.outer(2 * np.arange(sides[0]), -np.arange(sides[1])).astype(np.float32)
    out = double_aligned(jnp.asarray(x)[None, ..., None])
    np.testing.assert_allclose(out[0, ..., 0], np.add.outer(2 * rows, -columns), atol=1e-6)


def test_doubling_interpolates_between_neighbours_alone():
    out = double_aligned(jnp.array([0.0, 5.0, 0.0]).reshape(1, 1, 3, 1))
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 2, 4, 4, 2, 0], atol=1e-6)


def test_resize_of_bfloat16_rounds_once():
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 7), jnp.bfloat16)
    out = resize_bilinear(x, (20, 48))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, resize_bilinear(x.astype(jnp.float32), (20, 48)).astype(jnp.bfloat16))


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


def image(rows):
    return jnp.array(rows, jnp.float32)[None, :, :, None]


def test_max_pool_of_the_stem_by_hand():
    # Windows start at pixel -1; what lies outside is minus infinity, not zero.
    even = max_pool_stem(image([[-1, -2, -3, -4], [-5, -6, -7, -8], [-9, -10, -11, -12], [-13, -14, -15, -16]]))
    np.testing.assert_array_equal(even[0, :, :, 0], [[-1, -2], [-5, -6]])
    odd = max_pool_stem(image([[-1, -2, -3], [-4, -5, -6], [-7, -8, -9]]))
    np.testing.assert_array_equal(odd[0, :, :, 0], [[-1, -2], [-4, -5]])


def test_max_pool_2x2_by_hand():
    even = max_pool_2x2(image([[-1, -2, -3, -4], [-5, -6, -7, -8]]))
    np.testing.assert_array_equal(even[0, :, :, 0], [[-1, -3]])
    odd = max_pool_2x2(image([[-1, -2, -3], [-4, -5, -6], [-7, -8, -9]]))  # rounded up
    np.testing.assert_array_equal(odd[0, :, :, 0], [[-1, -3], [-7, -9]])


def training(module, seed):
    return nnx.view(module, deterministic=False, rngs=nnx.Rngs(dropout=seed))


def test_dropout_zeroes_its_share_and_scales_the_rest():
    x = jnp.full((100, 100), 3.0)
    out = np.asarray(training(Dropout(0.25), 0)(x))
    np.testing.assert_allclose(np.unique(out), [0, 4])
    assert abs((out == 0).mean() - 0.25) < 0.018  # four standard errors
    np.testing.assert_array_equal(nnx.view(Dropout(0.25), deterministic=True)(x), x)


def test_dropout_depends_on_the_views_generator_alone():
    module, x = Dropout(0.5), jnp.ones((10, 10))
    first, again, other = (training(module, seed)(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert not nnx.to_flat_state(nnx.state(module))  # nothing for checkpoints
    # Without a generator it cannot train, which must not go unnoticed.
    with pytest.raises(ValueError, match="no `rngs` argument"):
        module(x)


def test_two_dropouts_of_a_model_differ():
    layers = training(Sequential([Dropout(0.5), Dropout(0.5)]), 0)
    x = jnp.ones((10, 10))
    assert (layers[0](x) != layers[1](x)).any()


@pytest.mark.parametrize(("block", "convs"), [(BasicBlock, (3, 5)), (Bottleneck, (3,))])
def test_blocks_dilate_their_3x3_convolutions(block, convs):
    layer = block(4, 4, dilation=5, first_dilation=3, rngs=nnx.Rngs(0))
    modules = [layer.conv1, layer.conv2] if block is BasicBlock else [layer.conv2]
    assert tuple(conv.dilation for conv in modules) == convs
    if block is Bottleneck:
        assert layer.conv1.dilation == layer.conv3.dilation == 1
    assert layer(jnp.ones((2, 8, 6, 4))).shape == (2, 8, 6, 4 * block.expansion)
    default = block(4, 4, dilation=5, rngs=nnx.Rngs(0))
    assert (default.conv1 if block is BasicBlock else default.conv2).dilation == 5
