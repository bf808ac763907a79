"""Ground-truth boundaries."""

import numpy as np

from mtl_jax.boundaries.thinning import thin


def label_boundary(labels: np.ndarray) -> np.ndarray:
    """The boundary between the regions of a label map, thinned.

    A pixel is marked when its label differs from that of the right, the lower or the lower-right neighbour; in the last
    row only the right one counts, in the last column only the lower one. Unlabelled is a label like any other.

    Args:
        labels: integers `[H, W]`. A map of edges (0 and 255) is read the same way, as the published scores of NYUD do:
            both sides of every line are marked, and thinned.

    Returns:
        bool `[H, W]`.
    """
    return thin(mark(labels))


def mark(labels: np.ndarray) -> np.ndarray:
    """The boundary of `label_boundary` before it is thinned."""
    marked = np.zeros(labels.shape, bool)
    marked[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    marked[:-1] |= labels[:-1] != labels[1:]
    marked[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return marked
