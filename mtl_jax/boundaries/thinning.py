"""Thinning of binary maps to lines one pixel wide."""

import numpy as np

from mtl_jax.boundaries.compiled import compiled

# The eight neighbours, counter-clockwise from the east: x1 ... x8 of the conditions below.
_ROWS = (0, -1, -1, -1, 0, 1, 1, 1)
_COLUMNS = (1, 1, 0, -1, -1, -1, 0, 1)


def thin(mask: np.ndarray) -> np.ndarray:
    """The skeleton that is left when nothing more can be taken from the borders.

    Guo and Hall's parallel algorithm (Communications of the ACM 32, 1989, A1), the same as MATLAB's
    `bwmorph(mask, "thin", inf)` and `skimage.morphology.thin`.

    Args:
        mask: bool `[H, W]`; what lies outside counts as unset.

    Returns:
        bool `[H, W]`, a subset of the mask.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    flat = padded.ravel()
    offsets = np.array([row * (width + 2) + column for row, column in zip(_ROWS, _COLUMNS, strict=True)], np.int64)
    _thin(flat, np.flatnonzero(flat), offsets, _DELETED)
    return padded[1:-1, 1:-1].astype(bool)


def _deleted() -> np.ndarray:
    """bool `[2, 256]`: whether the first and the second sub-pass delete a pixel with these neighbours set."""
    x = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)

    def neighbour(i: int) -> np.ndarray:  # x1 ... x8, and on around
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
            for i in range(count):  # only now: all decisions see the same image
                if chosen[i]:
                    image[pixels[i]] = 0
                    changed = True
                else:
                    pixels[kept] = pixels[i]
                    kept += 1
            count = kept
