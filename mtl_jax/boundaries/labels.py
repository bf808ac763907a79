"""Ground-truth boundaries from label maps."""

import numpy as np

from mtl_jax.boundaries.thinning import thin


def label_boundary(labels: np.ndarray) -> np.ndarray:
    """Computes the thinned boundary between the regions of a label map.

    A pixel is marked if its label differs from the label of its right, lower or lower-right neighbour. In the last row
    only the right neighbour counts, and in the last column only the lower one. The label of unlabelled pixels is
    treated like any other.

    Args:
        labels: Label map, integers `[H, W]`. A map of edges (0 and 255) is treated as a label map, too, as for the
            published scores of NYUD: both sides of every line are marked, and then thinned.

    Returns:
        The boundary, bool `[H, W]`.
    """
    return thin(mark(labels))


def mark(labels: np.ndarray) -> np.ndarray:
    """Computes the boundary of `label_boundary` before it is thinned, bool `[H, W]`."""
    marked = np.zeros(labels.shape, bool)
    marked[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    marked[:-1] |= labels[:-1] != labels[1:]
    marked[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return marked
