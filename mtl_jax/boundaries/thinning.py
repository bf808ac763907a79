"""Thinning of binary maps to lines one pixel wide."""

import numpy as np

from mtl_jax.boundaries.compiled import compiled

# Offsets of the eight neighbours x1 ... x8 in the conditions below, counter-clockwise from the east.
_ROWS = (0, -1, -1, -1, 0, 1, 1, 1)
_COLUMNS = (1, 1, 0, -1, -1, -1, 0, 1)


def thin(mask: np.ndarray) -> np.ndarray:
    """Thins a mask until no pixel can be removed from its borders.

    Uses the parallel algorithm of Guo and Hall (Communications of the ACM 32, 1989, A1). The result equals that of
    MATLAB's `bwmorph(mask, "thin", inf)` and of `skimage.morphology.thin`.

    Args:
        mask: Mask, bool `[H, W]`. Pixels outside of the image count as not set.

    Returns:
        The skeleton, bool `[H, W]`, a subset of the mask.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    flat = padded.ravel()
    offsets = np.array([row * (width + 2) + column for row, column in zip(_ROWS, _COLUMNS, strict=True)], np.int64)
    _thin(flat, np.flatnonzero(flat), offsets, _DELETED)
    return padded[1:-1, 1:-1].astype(bool)


def _deleted() -> np.ndarray:
    """Returns a bool `[2, 256]`: True if sub-pass 1 or 2 deletes a pixel whose 8 neighbours have this bit pattern."""
    x = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)

    def neighbour(i: int) -> np.ndarray:  # x_i; the indices are cyclic, so x9 is x1
        return x[:, (i - 1) % 8]

    crossings = sum(~neighbour(i) & (neighbour(i + 1) | neighbour(i + 2)) for i in (1, 3, 5, 7))
    first = sum((neighbour(2 * k - 1) | neighbour(2 * k)).astype(int) for k in (1, 2, 3, 4))
    second = sum((neighbour(2 * k) | neighbour(2 * k + 1)).astype(int) for k in (1, 2, 3, 4))
    fewer = np.minimum(first, second)
    at_border = (crossings == 1) & (fewer >= 2) & (fewer <= 3)
    north_east = (neighbour(2) | neighbour(3) | ~neighbour(8)) & neighbour(1)
    south_west = (neighbour(6) | neighbour(7) | ~neighbour(4)) & neighbour(5)
    return np.stack([at_border & ~north_east, at_border & ~south_west])


_DELETED = _deleted()


@compiled
def _thin(image: np.ndarray, pixels: np.ndarray, offsets: np.ndarray, deleted: np.ndarray) -> None:
    """Thins the flat padded image in place; `pixels` are the indices of its set pixels."""
    count, chosen = len(pixels), np.empty(len(pixels), np.bool_)
    changed = True
    while changed:
        changed = False
        for sub_pass in range(2):
            for i in range(count):
                code = 0
                for k in range(8):
                    code |= image[pixels[i] + offsets[k]] << k
                chosen[i] = deleted[sub_pass, code]
            kept = 0
            for i in range(count):  # a separate loop, so that all decisions are made on the same image
                if chosen[i]:
                    image[pixels[i]] = 0
                    changed = True
                else:
                    pixels[kept] = pixels[i]
                    kept += 1
            count = kept
