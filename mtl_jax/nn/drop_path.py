"""Stochastic depth."""

from collections.abc import Sequence

import numpy as np

from mtl_jax.nn.dropout import Dropout


class DropPath(Dropout):
    """Drops a residual branch for single images in training (arXiv 1603.09382): `[B, ..., C] -> [B, ..., C]`.

    Each image loses the whole branch with probability `rate`, and the others are scaled by 1 / (1 - rate). The random
    numbers come from the view, see `Dropout`.

    Args:
        rate: Probability.
        ndim: Number of axes of the branch: 4 for maps, 3 for tokens.
    """

    def __init__(self, rate: float, ndim: int = 4):
        super().__init__(rate)
        self.broadcast_dims = tuple(range(1, ndim))


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Returns the rate of each block of each stage, which grows linearly from 0 in the first block of the network.

    Args:
        last: Rate of the last block.
        depths: Number of blocks of each stage.
    """
    rates = np.linspace(0, last, sum(depths))
    return [stage.tolist() for stage in np.split(rates, np.cumsum(depths)[:-1])]
