"""Attention in windows, against loops over the pairs of tokens. `parity/test_hierarchies.py` compares with timm."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax.nn import WindowAttention, compute_dtype
from mtl_jax.nn.window_attention import by_pairs, merge, partition
from parity.interpreter import interpret
from tests.nn.test_transformer_layers import affine, filled, numbers, value

HEADS, WINDOW, FEATURES = 2, 3, 8


@pytest.fixture(scope="module")
def layer():
    return filled(WindowAttention(FEATURES, HEADS, WINDOW, rngs=nnx.Rngs(0)))


def by_loops(layer, x, shifted):
    """What the layer computes for maps `[B, H, W, C]`, window by window."""
    batch, height, width, _ = x.shape
    sides = min(height, WINDOW), min(width, WINDOW)
    shifts = [WINDOW // 2 if shifted and length > WINDOW else 0 for length in (height, width)]
    rolled = np.roll(x, [-shift for shift in shifts], (1, 2))
    padded = np.pad(rolled, [(0, 0), *((0, -n % side) for n, side in zip((height, width), sides, strict=True)), (0, 0)])
    table = value(layer.relative_position_bias_table).reshape(2 * WINDOW - 1, 2 * WINDOW - 1, HEADS)
    y = np.zeros(padded.shape)
    for top, left in itertools.product(*(range(0, n, s) for n, s in zip(padded.shape[1:3], sides, strict=True))):
        places = list(itertools.product(range(top, top + sides[0]), range(left, left + sides[1])))
        tokens = np.stack([padded[:, i, j] for i, j in places], axis=1)
        q, k, v = (
            part.reshape(batch, len(places), HEADS, -1) for part in np.split(affine(layer.qkv, tokens), 3, axis=-1)
        )
        scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(FEATURES // HEADS)
        for (n, a), (m, b) in itertools.product(enumerate(places), enumerate(places)):
            scores[:, :, n, m] += table[a[0] - b[0] + WINDOW - 1, a[1] - b[1] + WINDOW - 1]
            moved = [
                [i >= n - s for i, n, s in zip(p, padded.shape[1:3], shifts, strict=True) if s > 0] for p in (a, b)
            ]
            scores[:, :, n, m] -= 100 * (moved[0] != moved[1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = affine(layer.proj, np.einsum("bhnm,bmhd->bnhd", weights, v).reshape(batch, len(places), -1))
        for n, (i, j) in enumerate(places):
            y[:, i, j] = attended[:, n]
    return np.roll(y[:, :height, :width], shifts, (1, 2))


# Windows that divide the map, that do not, as large as the map, and larger in one direction or both.
@pytest.mark.parametrize("size", [(6, 9), (5, 7), (3, 4), (2, 5), (3, 3), (2, 1)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_by_loops(layer, size, shifted):
    x = np.float64(numbers(2, *size, FEATURES))
    graphdef, state = nnx.split(layer)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), nnx.as_pure(state))
        y = interpret(lambda state, x: nnx.merge(graphdef, state)(x, shifted))(double, x)
    np.testing.assert_allclose(y, by_loops(layer, x, shifted), atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_windows_in_fewer_bits(layer, dtype, tolerance):
    x = numbers(2, 5, 7, FEATURES)
    with compute_dtype(dtype):
        other = WindowAttention(FEATURES, HEADS, WINDOW, rngs=nnx.Rngs(0))
    nnx.update(other, nnx.state(layer))
    y = other(jnp.asarray(x, dtype), True)
    assert y.dtype == jnp.dtype(dtype)
    assert np.abs(y - by_loops(layer, np.float64(x), True)).mean() < tolerance


def test_a_map_of_one_window_is_not_shifted(layer):
    x = jnp.asarray(numbers(1, WINDOW, WINDOW, FEATURES))
    assert (layer(x, True) == layer(x, False)).all()


def test_opposite_edges_do_not_attend_to_each_other(layer):
    x = numbers(1, 6, 6, FEATURES)
    changed = x.copy()
    changed[:, 0, 0] += 1  # the shift puts it into the window of the opposite corner
    difference = np.abs(layer(jnp.asarray(changed), True) - layer(jnp.asarray(x), True)).max((0, 3))
    assert set(zip(*np.nonzero(difference > 1e-6), strict=True)) == {(0, 0)}


def test_partition_and_merge_undo_each_other():
    x = numbers(2, 6, 8, 3)
    windows = partition(x, (3, 2))
    assert windows.shape == (2, 8, 6, 3)
    np.testing.assert_array_equal(windows[:, 5], x[:, 3:6, 2:4].reshape(2, 6, 3))
    np.testing.assert_array_equal(merge(jnp.asarray(windows), (6, 8), (3, 2)), x)


def test_values_of_offsets_by_pairs():
    values = jnp.arange(7) - 3
    np.testing.assert_array_equal(by_pairs(values, 4), np.subtract.outer(np.arange(4), np.arange(4)))


def test_nothing_is_gathered(layer):
    """In the backward pass of a gather, numbers would be added up in an order that a GPU does not fix."""
    graphdef, state = nnx.split(layer)
    x = jax.ShapeDtypeStruct((1, 7, 8, FEATURES), jnp.float32)
    loss = lambda state, x: nnx.merge(graphdef, state)(x, True).sum()  # noqa: E731
    program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(state, x))
    assert "gather" not in program
    assert "scatter" not in program


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        WindowAttention(8, 3, WINDOW, rngs=nnx.Rngs(0))
