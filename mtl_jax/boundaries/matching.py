"""One-to-one matching of predicted with true boundary pixels."""

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from mtl_jax.boundaries.compiled import compiled

_FREE = -1
_COST_PER_PIXEL = 100  # costs are rounded to hundredths of a pixel
_OUTLIER_PIXELS = 100  # an unmatched pixel costs as much as a match at this multiple of the radius


def tolerance(max_dist: float, size: tuple[int, int]) -> float:
    """Returns the largest permitted distance of matched pixels, in pixels.

    Args:
        max_dist: The distance as a fraction of the diagonal of the image.
        size: Height and width of the image, in pixels.
    """
    return max_dist * math.hypot(*size)


def count_pairs(prediction: np.ndarray, truth: np.ndarray, radius: float) -> int:
    """Counts the pairs of a largest matching of predicted and true pixels that are at most `radius` apart.

    Uses the algorithm of Hopcroft and Karp, started from the nearest free pairs. The count is exact and deterministic.
    The official program of the Berkeley benchmark finds 0.05 % fewer pairs, because it restricts the search at random.

    Args:
        prediction: Predicted boundary, bool `[H, W]`.
        truth: True boundary, bool `[H, W]`.
        radius: Largest distance of matched pixels, in pixels.

    Raises:
        ValueError: the maps differ in size.
    """
    starts, neighbours, mate, mate_of_truth = _candidates(prediction, truth, radius)
    _hopcroft_karp(starts, neighbours, mate, mate_of_truth)
    return int((mate != _FREE).sum())


def cheapest_pairs(prediction: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """Finds the predicted pixels of the cheapest matching.

    The matching minimises the sum of rint(100 distance) - U over its pairs, with U = ceil(10000 radius). This is the
    objective of the official program of the Berkeley benchmark, without the noise that this program adds. It is needed
    for several annotators, for which it matters which pixels are matched and not only how many. It is much slower than
    `count_pairs`.

    Args:
        prediction: Predicted boundary, bool `[H, W]`.
        truth: True boundary, bool `[H, W]`.
        radius: Largest distance of matched pixels, in pixels.

    Returns:
        The matched pixels of the prediction, bool `[H, W]`.
    """
    starts, neighbours, _, _ = _candidates(prediction, truth, radius)
    predicted, true = np.argwhere(prediction), np.argwhere(truth)
    n, m = len(predicted), len(true)
    matched = np.zeros(prediction.shape, bool)
    if not len(neighbours):
        return matched
    i, j = np.repeat(np.arange(n), np.diff(starts)), neighbours
    distance = np.sqrt(((predicted[i] - true[j]) ** 2).sum(axis=1))
    alone = math.ceil(_COST_PER_PIXEL * _OUTLIER_PIXELS * radius)
    # In the mirrored graph every pixel has a dummy partner that stands for "unmatched". The dummies of two matched
    # pixels match each other.
    rows = np.concatenate([i, np.arange(n), n + np.arange(m), n + j])
    columns = np.concatenate([j, m + np.arange(n), np.arange(m), m + i])
    costs = np.full(len(rows), float(alone))
    costs[: len(i)] = np.rint(_COST_PER_PIXEL * distance)
    graph = csr_array((costs + 1, (rows, columns)), shape=(n + m, n + m))  # + 1, because zeros are not stored
    left, right = min_weight_full_bipartite_matching(graph)
    pairs = left[(left < n) & (right < m)]
    matched[tuple(predicted[pairs].T)] = True
    return matched


def _candidates(
    prediction: np.ndarray, truth: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Finds the true pixels with which each predicted pixel may be matched, nearest first, and a first matching.

    Returns:
        The tuple (starts, neighbours, mate, mate_of_truth). Predicted pixel i may be matched with the true pixels
        neighbours[starts[i] : starts[i + 1]]. `mate` holds the partner of each predicted pixel in the first matching
        and `mate_of_truth` that of each true pixel; -1 stands for no partner.
    """
    if prediction.shape != truth.shape or prediction.ndim != 2:
        raise ValueError(f"expected two maps [H, W] of one size, got {prediction.shape} and {truth.shape}")
    reach = int(radius)
    height, width = truth.shape
    stride = width + 2 * reach
    ids = np.full((height + 2 * reach, stride), _FREE, np.int32)
    count = int(truth.sum())
    ids[reach : reach + height, reach : reach + width][truth.astype(bool)] = np.arange(count, dtype=np.int32)
    y, x = np.nonzero(prediction)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = dy**2 + dx**2
    near = squared <= radius**2
    order = np.argsort(squared[near], kind="stable")
    offsets = (dy * stride + dx)[near][order].astype(np.int64)
    positions = ((y + reach) * stride + x + reach).astype(np.int64)
    return _collect(ids.ravel(), positions, offsets, count)


@compiled
def _collect(
    ids: np.ndarray, positions: np.ndarray, offsets: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Collects the neighbours of every position, and a matching that takes the nearest free pairs first."""
    n = len(positions)
    starts = np.zeros(n + 1, np.int64)
    mate, mate_of_truth = np.full(n, -1, np.int32), np.full(count, -1, np.int32)
    for offset in offsets:  # the outer loop, so that the nearest pairs of all pixels come first
        for i in range(n):
            j = ids[positions[i] + offset]
            if j >= 0:
                starts[i + 1] += 1
                if mate[i] < 0 and mate_of_truth[j] < 0:
                    mate[i] = j
                    mate_of_truth[j] = i
    for i in range(n):
        starts[i + 1] += starts[i]
    neighbours = np.empty(starts[n], np.int32)
    for i in range(n):
        k = starts[i]
        for offset in offsets:
            j = ids[positions[i] + offset]
            if j >= 0:
                neighbours[k] = j
                k += 1
    return starts, neighbours, mate, mate_of_truth


@compiled
def _hopcroft_karp(starts: np.ndarray, neighbours: np.ndarray, mate: np.ndarray, mate_of_truth: np.ndarray) -> None:
    """Enlarges a matching in place until it has the largest number of pairs."""
    n = len(mate)
    level, queue, cursor, path = (
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int64),
        np.empty(n, np.int32),
    )
    while True:
        # Computes the levels of the predicted pixels on alternating paths from the free ones, until the paths reach a
        # free true pixel.
        tail = 0
        for i in range(n):
            level[i] = -1
            if mate[i] < 0 and starts[i] < starts[i + 1]:
                level[i] = 0
                queue[tail] = i
                tail += 1
        head, free_level = 0, -1
        while head < tail:
            i = queue[head]
            head += 1
            if free_level >= 0 and level[i] > free_level:
                break
            for k in range(starts[i], starts[i + 1]):
                other = mate_of_truth[neighbours[k]]
                if other < 0:
                    free_level = level[i]
                elif level[other] < 0:
                    level[other] = level[i] + 1
                    queue[tail] = other
                    tail += 1
        if free_level < 0:
            return
        # Finds disjoint shortest augmenting paths by depth-first search; a cursor never returns to a dead end.
        for i in range(n):
            cursor[i] = starts[i]
        for root in range(n):
            if mate[root] >= 0 or level[root] != 0:
                continue
            depth = 0
            path[0] = root
            while depth >= 0:
                i = path[depth]
                if cursor[i] == starts[i + 1]:
                    depth -= 1
                    if depth >= 0:
                        cursor[path[depth]] += 1
                    continue
                other = mate_of_truth[neighbours[cursor[i]]]
                if other < 0:
                    for d in range(depth, -1, -1):
                        j = neighbours[cursor[path[d]]]
                        mate[path[d]] = j
                        mate_of_truth[j] = path[d]
                        level[path[d]] = -1  # used up in this round
                    break
                if level[other] == level[i] + 1:
                    depth += 1
                    path[depth] = other
                else:
                    cursor[i] += 1
