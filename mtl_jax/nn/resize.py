"""Bilinear interpolation as torch's `align_corners=False`: half-pixel centres, no antialiasing, edges clamped."""

import jax


def resize_bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`[B, H, W, C] -> [B, *size, C]`; the input itself when it already has the size."""
    if x.shape[1:3] == tuple(size):
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)


def resize_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """`resize_bilinear` to the height and width of `reference`, `[B, H, W, C]`."""
    return resize_bilinear(x, (reference.shape[1], reference.shape[2]))
