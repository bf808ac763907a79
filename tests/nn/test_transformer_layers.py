"""The layers of transformers, against formulas written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import (
    DepthwiseConv,
    DoublingConv,
    DropPath,
    Frozen,
    LayerNorm,
    LayerScale,
    Linear,
    Mlp,
    PackedSwiGLU,
    PatchEmbed,
    SelfAttention,
    SwiGLU,
    TransposedConv,
    compute_dtype,
    drop_path_rates,
    freeze_parameters,
)
from mtl_jax.nn.rotary import angles, rotate
from mtl_jax.nn.self_attention import attend, attend_by_cudnn, implementation

RNGS = nnx.Rngs(0)


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def filled(module):
    """The module with random numbers in place of its initial weights, and {name: array}."""
    rng = np.random.default_rng(1)
    for _, variable in nnx.iter_graph(module):
        if isinstance(variable, nnx.Param):
            variable.set_value(jnp.asarray(rng.standard_normal(variable.shape), jnp.float32))
    return module


def value(parameter):
    return np.asarray(parameter[...], np.float64)


def affine(layer, x):
    return x @ value(layer.kernel) + (0 if layer.bias is None else value(layer.bias))


def silu(x):
    return x / (1 + np.exp(-x))


def test_layer_norm():
    layer, x = filled(LayerNorm(5, epsilon=0.1)), numbers(2, 3, 5)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(layer(x), normed * value(layer.scale) + value(layer.bias), rtol=1e-5, atol=1e-5)


def test_layer_norm_in_16_bits_has_statistics_in_32():
    """The mean of 257 ones beside a large number is no number of bfloat16."""
    with compute_dtype(jnp.bfloat16):
        layer = LayerNorm(256, epsilon=1e-6)
    x = jnp.concatenate([jnp.full((1, 255), 256.0), jnp.full((1, 1), 258.0)], axis=1).astype(jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    exact = (np.asarray(x, np.float64) - np.float64(256 + 2 / 256)) / np.asarray(x, np.float64).std()
    np.testing.assert_allclose(np.asarray(layer(x), np.float64), exact, rtol=1e-2)


def test_perceptrons():
    x = numbers(2, 3, 4)
    mlp = filled(Mlp(4, 6, rngs=RNGS))
    hidden = affine(mlp.fc1, x)
    gelu = hidden * np.asarray(jax.scipy.stats.norm.cdf(hidden))
    np.testing.assert_allclose(mlp(x), affine(mlp.fc2, gelu), rtol=1e-4, atol=1e-4)
    packed = filled(PackedSwiGLU(4, 6, rngs=RNGS))
    both = affine(packed.w12, x)
    expected = affine(packed.w3, silu(both[..., :6]) * both[..., 6:])
    np.testing.assert_allclose(packed(x), expected, rtol=1e-4, atol=1e-4)
    gated = filled(SwiGLU(4, 6, rngs=RNGS))
    expected = affine(gated.fc2, silu(affine(gated.fc1_g, x)) * affine(gated.fc1_x, x))
    np.testing.assert_allclose(gated(x), expected, rtol=1e-4, atol=1e-4)


def softmax_attention(q, k, v):
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", scores / scores.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("biases", ["qkv", "q_and_v", "none"])
def test_self_attention(biases):
    layer, x = filled(SelfAttention(8, 2, biases=biases, rngs=RNGS)), numbers(2, 7, 8)
    q, k, v = np.split(affine(layer.qkv, x), 3, axis=-1)
    if biases == "q_and_v":
        q, v = q + value(layer.q_bias), v + value(layer.v_bias)
    attended = softmax_attention(*(y.reshape(2, 7, 2, 4) for y in (q, k, v))).reshape(2, 7, 8)
    np.testing.assert_allclose(layer(x), affine(layer.proj, attended), rtol=1e-4, atol=1e-4)
    assert (layer.qkv.bias is None) == (biases != "qkv")


def test_attention_in_float64_is_exact_to_float64():
    with jax.enable_x64(True):
        q, k, v = (jnp.asarray(numbers(1, 5, 2, 4) + i, jnp.float64) for i in range(3))
        np.testing.assert_allclose(attend(q, k, v), softmax_attention(*map(np.asarray, (q, k, v))), rtol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "features", "backend", "expected"),
    [
        ("bfloat16", 64, "gpu", "cudnn"),
        ("float16", 128, "gpu", "cudnn"),
        ("float32", 64, "gpu", "xla"),
        ("bfloat16", 12, "gpu", "xla"),
        ("bfloat16", 136, "gpu", "xla"),
        ("bfloat16", 64, "cpu", "xla"),
        ("bfloat16", 64, "tpu", "xla"),
    ],
)
def test_cudnn_attends_where_it_can(dtype, features, backend, expected):
    assert implementation(jax.ShapeDtypeStruct((2, 1025, 3, features), jnp.dtype(dtype)), backend) == expected


def test_rotation_depends_on_differences_of_places_alone_and_leaves_other_tokens():
    turns = angles(1, 9, 8)
    q, k = (np.broadcast_to(numbers(8) + i, (1, 11, 1, 8)) for i in range(2))
    turned_q, turned_k = (np.asarray(rotate(jnp.asarray(x), turns)) for x in (q, k))
    assert (turned_q[:, :2] == q[:, :2]).all()
    scores = np.einsum("nd,md->nm", turned_q[0, 2:, 0], turned_k[0, 2:, 0])
    for offset in range(-8, 9):
        assert np.ptp(np.diagonal(scores, offset)) < 1e-4
    assert np.ptp(scores) > 0.1


def test_angles_need_pairs_by_rows_and_columns():
    with pytest.raises(ValueError, match="turns pairs by rows and by columns; 6 channels do not do"):
        angles(2, 2, 6)


def test_heads_divide_channels():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        SelfAttention(8, 3, biases="none", rngs=RNGS)


def test_patches():
    layer, x = filled(PatchEmbed(5, 4, rngs=RNGS)), numbers(2, 8, 12, 3)
    kernel = value(layer.proj.kernel)
    y = np.asarray(layer(x))
    assert y.shape == (2, 2, 3, 5)
    corner = np.einsum("bpqi,pqio->bo", x[:, 4:8, 8:12], kernel) + value(layer.proj.bias)
    np.testing.assert_allclose(y[:, 1, 2], corner, rtol=1e-4, atol=1e-4)


def test_transposed_convolution():
    layer, x = filled(TransposedConv(3, 5, 2, rngs=RNGS)), numbers(2, 3, 4, 3)
    y = np.asarray(layer(x))
    assert y.shape == (2, 6, 8, 5)
    pixel = x[:, 1, 2] @ value(layer.kernel)[1, 0] + value(layer.bias)
    np.testing.assert_allclose(y[:, 3, 4], pixel, rtol=1e-4, atol=1e-4)


def test_layer_scale_and_linear_without_bias():
    x = numbers(2, 3)
    np.testing.assert_allclose(LayerScale(3, 0.5)(x), 0.5 * x)
    linear = Linear(3, 4, use_bias=False, rngs=RNGS)
    assert linear.bias is None
    np.testing.assert_allclose(linear(x), x @ value(linear.kernel), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [6, 7])
def test_sequences_that_cudnn_gets_have_an_even_length(monkeypatch, length):
    """XLA's attention stands for cuDNN's; a token that an odd sequence gets changes nothing."""
    original, lengths = jax.nn.dot_product_attention, []

    def stand_in(q, k, v, *, implementation, **options):
        assert implementation == "cudnn"
        lengths.append(q.shape[1])
        return original(q, k, v, implementation="xla", **options)

    q, k, v = (jnp.asarray(numbers(1, length, 2, 4) + i) for i in range(3))
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    y = attend_by_cudnn(q, k, v)
    assert lengths[0] % 2 == 0
    np.testing.assert_allclose(y, softmax_attention(*map(np.asarray, (q, k, v))), rtol=1e-4, atol=1e-5)


def test_doubling_conv_is_the_gradient_of_a_strided_convolution():
    """That is what a transposed convolution is."""
    layer, y = filled(DoublingConv(3, 2, rngs=RNGS)), numbers(1, 3, 4, 3)

    def strided(x):
        numbers_of = ("NHWC", "HWOI", "NHWC")
        return jax.lax.conv_general_dilated(x, layer.kernel[...], (2, 2), [(1, 1)] * 2, dimension_numbers=numbers_of)

    _, pull = jax.vjp(strided, jnp.zeros((1, 6, 8, 2)))
    (expected,) = pull(jnp.asarray(y))
    np.testing.assert_allclose(layer(jnp.asarray(y)), np.asarray(expected) + value(layer.bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv(stride):
    layer, x = filled(DepthwiseConv(3, 3, stride=stride, use_bias=stride == 1, rngs=RNGS)), numbers(1, 5, 6, 3)
    padded, kernel = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), value(layer.kernel)[:, :, 0]
    wanted = sum(padded[:, i : i + 5, j : j + 6] * kernel[i, j] for i in range(3) for j in range(3))
    bias = 0 if layer.bias is None else value(layer.bias)
    np.testing.assert_allclose(layer(x), wanted[:, ::stride, ::stride] + bias, rtol=1e-4, atol=1e-4)


def test_a_dropped_path_is_lost_for_a_whole_image_in_training_alone():
    layer, x = DropPath(0.5, ndim=3), jnp.ones((64, 2, 3))
    assert (nnx.view(layer, deterministic=True)(x) == x).all()
    dropped = np.asarray(nnx.view(layer, deterministic=False, rngs=nnx.Rngs(dropout=0))(x))
    assert set(dropped[:, 0, 0].tolist()) == {0, 2}  # the others are scaled by 1 / (1 - rate)
    assert (dropped == dropped[:, :1, :1]).all()
    assert drop_path_rates(0.3, (1, 3)) == [[0], pytest.approx([0.1, 0.2, 0.3])]


def test_frozen_parameters_are_no_parameters_of_the_optimiser():
    layer = freeze_parameters(nnx.List([Linear(2, 3, rngs=RNGS)]))
    assert not nnx.to_flat_state(nnx.state(layer, nnx.Param))
    assert len(nnx.to_flat_state(nnx.state(layer, Frozen))) == 2
    assert layer[0](jnp.ones((1, 2))).shape == (1, 3)
