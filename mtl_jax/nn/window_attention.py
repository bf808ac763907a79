"""Self-attention inside the windows of a map."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.nn.conv import Linear
from mtl_jax.nn.init import trunc_normal
from mtl_jax.nn.pad import pad_to_multiples
from mtl_jax.nn.self_attention import attend

Array = TypeVar("Array", jax.Array, np.ndarray)
Size = tuple[int, int]

_APART = -100.0  # added to the scores of tokens that meet in a window by the shift alone


class WindowAttention(nnx.Module):
    """Multi-head self-attention in windows, with a bias for each offset of two tokens (arXiv 2103.14030, sec. 3.2).

    `[B, H, W, C] -> [B, H, W, C]`, for maps of any size. A map that windows do not divide is padded with zeros below
    and to the right. The zeros are attended to, as in timm.

    Shifted windows are those of the map rolled up and to the left by half a window, *before* the padding, as in timm.
    Tokens of opposite edges of the map, which the roll brings together, do not attend to each other. This holds for
    maps that windows divide; in padded ones timm separates tokens by their distance from the end of the padding, and
    some of opposite edges do attend to each other.

    A side of a map that is no longer than a window is one window, without padding and shift, as in a model that timm
    builds for images of this size. timm then stores fewer biases; here they are those of the same offsets.

    Args:
        features: Number of channels C.
        heads: Number of heads, which divides C.
        window: Side of the windows in tokens.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The number of heads does not divide the number of channels.
    """

    no_weight_decay = ("relative_position_bias_table",)

    def __init__(self, features: int, heads: int, window: int, *, rngs: nnx.Rngs):
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} channels")
        self.heads = heads
        self.window = window
        # The offset (down, right) of a query from a key has the row (down + window - 1) * (2 * window - 1) + right
        # + window - 1.
        table = trunc_normal(rngs.params(), ((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)
        self.qkv = Linear(features, 3 * features, kernel_init=trunc_normal, rngs=rngs)
        self.proj = Linear(features, features, kernel_init=trunc_normal, rngs=rngs)

    def __call__(self, x: jax.Array, shifted: bool) -> jax.Array:
        """Attends.

        Args:
            x: `[B, H, W, C]` map.
            shifted: True to shift the windows.

        Returns:
            `[B, H, W, C]`
        """
        height, width, features = x.shape[1:]
        sides = min(height, self.window), min(width, self.window)
        down, right = (self.window // 2 if shifted and length > self.window else 0 for length in (height, width))
        rolled = jnp.roll(x, (-down, -right), (1, 2)) if down or right else x
        padded = pad_to_multiples(rolled, sides)
        size = padded.shape[1], padded.shape[2]

        bias = self._bias(sides)[None]
        if down or right:
            bias = bias + _separation(size, sides, (down, right), bias.dtype)
        windows = partition(padded, sides)
        heads = (*windows.shape[:3], self.heads, features // self.heads)
        q, k, v = (y.reshape(heads) for y in jnp.split(self.qkv(windows), 3, axis=-1))
        attended = jax.vmap(attend, (0, 0, 0, None))(q, k, v, bias)  # all images share the biases of a window
        y = merge(self.proj(attended.reshape(windows.shape)), size, sides)[:, :height, :width]
        return jnp.roll(y, (down, right), (1, 2)) if down or right else y

    def _bias(self, sides: Size) -> jax.Array:
        """Returns the biases `[heads, N, N]` of all pairs of the N tokens of a window."""
        (rows, columns), offsets = sides, 2 * self.window - 1
        table = self.relative_position_bias_table[...].reshape(offsets, offsets, self.heads)
        table = table[self.window - rows : self.window + rows - 1, self.window - columns : self.window + columns - 1]
        by_columns = jnp.moveaxis(by_pairs(table, rows), 2, 0)  # [offset of columns, row, other row, heads]
        return by_pairs(by_columns, columns).transpose(4, 2, 0, 3, 1).reshape(self.heads, *[rows * columns] * 2)


def partition(x: Array, sides: Size) -> Array:
    """Cuts `[B, H, W, C]` into windows of (rows, columns): `[B, H W / N, N, C]`, where N = rows * columns."""
    batch, height, width, features = x.shape
    rows, columns = sides
    x = x.reshape(batch, height // rows, rows, width // columns, columns, features)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, rows * columns, features)


def merge(windows: jax.Array, size: Size, sides: Size) -> jax.Array:
    """Undoes `partition` of a map of a size (H, W): `[B, H W / N, N, C] -> [B, H, W, C]`."""
    (height, width), (rows, columns) = size, sides
    batch, _, _, features = windows.shape
    x = windows.reshape(batch, height // rows, width // columns, rows, columns, features)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, features)


def by_pairs(values: jax.Array, length: int) -> jax.Array:
    """Lays out values of offsets by pairs of positions: `[2 * length - 1, ...] -> [length, length, ...]`.

    Entry (i, j) of the result is the value of the offset i - j. The values are stored from the offset 1 - length on.

    Each row of the result is the row before it, moved by one to the right. Repeated rows that are one element too long
    come out like that when they are read as rows of the right length, so nothing is gathered here or, what is slower,
    scattered in the backward pass.
    """
    offsets, *others = values.shape
    row = jnp.concatenate([values[::-1], jnp.zeros_like(values[:1])])
    repeated = jnp.broadcast_to(row, (length, *row.shape)).reshape(-1, *others)
    return repeated[: length * offsets].reshape(length, offsets, *others)[:, length - 1 :]


def _separation(size: Size, sides: Size, shift: Size, dtype: np.dtype) -> jax.Array:
    """Returns what is added to the scores of a shifted map, `[windows, 1, N, N]`.

    Args:
        size: (height, width) of the padded map.
        sides: (rows, columns) of the windows.
        shift: How far the map was rolled (up, to the left).
        dtype: Dtype of the result.
    """
    # In a padded map the border between both edges lies further up, but timm has it here.
    below, beside = (np.arange(length) >= length - step for length, step in zip(size, shift, strict=True))
    edges = 2 * below[None, :, None, None] + beside[None, None, :, None]
    regions = jnp.asarray(partition(edges, sides)[0, :, :, 0])
    together = regions[:, None, :, None] == regions[:, None, None, :]
    return jnp.where(together, 0.0, _APART).astype(dtype)
