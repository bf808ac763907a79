"""Thinning, suppression and matching on their own, against other implementations and by their geometry."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.morphology import thin as skimage_thin

from mtl_jax import boundaries
from mtl_jax.boundaries.labels import mark
from mtl_jax.boundaries.matching import cheapest_pairs, count_pairs, tolerance


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_thinning_is_that_of_skimage(density):
    rng = np.random.default_rng(int(10 * density))
    for size in ((1, 1), (1, 9), (7, 1), (23, 31)):
        mask = rng.random(size) < density
        np.testing.assert_array_equal(boundaries.thin(mask), skimage_thin(mask))


def test_thinning_leaves_its_input():
    mask = np.ones((5, 5), bool)
    boundaries.thin(mask)
    assert mask.all()


def test_marks():
    labels = np.array([[0, 0, 1], [0, 2, 1], [3, 3, 1]])
    want = [[1, 1, 1], [1, 1, 0], [0, 1, 0]]
    # Last column: only the lower neighbour counts, and there is no difference; last row: only the right one.
    want[0][2] = 0
    want[1][0] = 1
    np.testing.assert_array_equal(mark(labels).astype(int), want)


def pairs_of_scipy(prediction, truth, radius):
    a, b = np.argwhere(prediction), np.argwhere(truth)
    near = ((a[:, None] - b[None]) ** 2).sum(axis=2) <= radius**2
    return int((maximum_bipartite_matching(csr_array(near), perm_type="column") >= 0).sum())


@pytest.mark.parametrize("radius", [0.5, 1, 2.3, 4])
def test_largest_matching(radius):
    rng = np.random.default_rng(0)
    for density in (0.02, 0.1, 0.3):
        prediction, truth = (rng.random((19, 27)) < density for _ in range(2))
        want = pairs_of_scipy(prediction, truth, radius)
        assert count_pairs(prediction, truth, radius) == want
        matched = cheapest_pairs(prediction, truth, radius)
        assert matched.sum() == want
        assert (matched <= prediction).all()


def test_cheapest_matching_takes_the_nearest():
    prediction, truth = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    truth[2, 4] = True
    prediction[2, [1, 5, 7]] = True
    assert np.argwhere(cheapest_pairs(prediction, truth, 4)).tolist() == [[2, 5]]


def test_nothing_to_match():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for prediction, truth in ((empty, full), (full, empty), (empty, empty)):
        assert count_pairs(prediction, truth, 2) == 0
        assert not cheapest_pairs(prediction, truth, 2).any()
    with pytest.raises(ValueError, match="of one size"):
        count_pairs(empty, np.zeros((5, 4), bool), 2)


def test_tolerance_is_a_fraction_of_the_diagonal():
    assert tolerance(0.01, (300, 400)) == pytest.approx(5)


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 110, 160])
def test_suppression_keeps_the_ridge(degrees):
    """A straight ridge in any direction but the exactly horizontal one, where the formula has no direction."""
    y, x = np.mgrid[-30:31, -30:31]
    across = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    ridge = np.exp(-(across**2) / 18).astype(np.float32)
    kept = boundaries.suppress(ridge)
    inside = np.hypot(x, y) < 24
    strong = inside & (ridge > 0.1)
    assert (np.abs(across[strong & (kept > 0)]) <= 0.75).all()
    assert (kept[inside & (np.abs(across) < 0.3)] > 0).all()
    assert set(np.unique(kept[inside])) <= {0, *ridge[inside]}


def test_suppression_damps_the_border():
    kept = boundaries.suppress(np.full((20, 20), 0.5, np.float32))
    np.testing.assert_allclose(kept[10, :6], [0, 0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(kept[-1], 0)
    assert kept[1, 1] == pytest.approx(0.5 * 0.2 * 0.2)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2)])
def test_small_maps(size):
    assert boundaries.suppress(np.ones(size, np.float32)).shape == size
