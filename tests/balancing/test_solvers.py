"""The small convex programs, against scipy on gradients of every awkward kind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mtl_jax.balancing import solvers
from tests.marks import slow

KINDS = ("random", "similar", "scaled", "rank_deficient", "ill_conditioned", "zero_row", "equal", "opposite")
TASKS = (1, 2, 3, 5, 8)
SEEDS = range(3)


# Compiled once for each number of tasks and precision, whatever the parameter.
min_norm, dual_cone = jax.jit(solvers.min_norm), jax.jit(solvers.dual_cone)
conflict_averse, power_point = jax.jit(solvers.conflict_averse), jax.jit(solvers.power_point)


def jacobian(kind, tasks, seed):
    """[tasks, 16] in float64, values that float32 holds exactly."""
    rng = np.random.default_rng([KINDS.index(kind), tasks, seed])
    j = rng.normal(size=(tasks, 16))
    if kind == "similar":
        j += 3 * rng.normal(size=16)
    elif kind == "scaled":
        j *= 10 ** rng.uniform(-3, 3, size=(tasks, 1))
    elif kind == "rank_deficient":
        rank = max(1, tasks // 2)
        j = rng.normal(size=(tasks, rank)) @ rng.normal(size=(rank, 16))
    elif kind == "ill_conditioned":
        j = j @ np.diag(np.logspace(0, -3, 16))
    elif kind == "zero_row":
        j[rng.integers(tasks)] = 0
    elif kind == "equal":
        j[0] = j[-1]
    elif kind == "opposite" and tasks > 1:
        j[1] = -j[0]
    return j.astype(np.float32).astype(np.float64)


def every_case(dtype):
    """The float64 Jacobian, unit gradients and norms of the tasks that are present, and the Gramian in dtype."""
    for tasks in TASKS:
        for kind in KINDS:
            for seed in SEEDS:
                j = jacobian(kind, tasks, seed)
                norms = np.linalg.norm(j, axis=1)
                if norms.any():
                    yield f"{kind} T={tasks} seed={seed}", j, norms, jnp.asarray(j @ j.T, dtype)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def precision(request):
    with jax.enable_x64(request.param is np.float64), jax.debug_nans(True):
        yield request.param, float(np.finfo(request.param).eps)


def nearest_point(j):
    """Norm of the least vector of the hull, by non-negative least squares (w and its sum scaled to the shortest)."""
    j = j[np.linalg.norm(j, axis=1) > 0]
    shortest = np.linalg.norm(j, axis=1).min()
    v, _ = scipy.optimize.nnls(np.vstack([j.T / shortest, np.ones(len(j))]), np.eye(j.shape[1] + 1)[-1], maxiter=1000)
    return np.linalg.norm(v / v.sum() @ j)


def test_min_norm(precision):
    dtype, eps = precision
    for name, j, norms, gramian in every_case(dtype):
        w = np.asarray(min_norm(gramian), np.float64)
        assert w.min() >= 0, name
        assert w.sum() == pytest.approx(1, abs=10 * eps), name
        assert not w[norms == 0].any(), name
        d = w @ j
        present = norms > 0
        shortest = norms[present].min()
        # eps of the Gramian's elements is eps of |d|², so sqrt(eps) of |d| where d is 0.
        assert d @ d <= nearest_point(j) ** 2 + 20 * eps * shortest**2, name
        assert (((j @ d) - d @ d)[present] / norms[present]).min() >= -20 * eps * shortest, name


def test_dual_cone(precision):
    dtype, eps = precision
    for name, j, norms, gramian in every_case(dtype):
        v = np.asarray(dual_cone(gramian), np.float64)
        units = j / np.where(norms > 0, norms, 1)[:, None]
        # In a Gramian of dependent gradients rounding moves the cone itself, by up to sqrt(eps) in the gradients.
        exact = not name.startswith(("rank_deficient", "ill_conditioned"))
        for i in np.flatnonzero(norms):
            u, _ = scipy.optimize.nnls(units.T, -units[i], maxiter=1000)
            projection = v[i] @ j / norms[i]
            assert (v[i] >= np.eye(len(j))[i]).all(), name
            assert (units @ projection).min() >= (-20 * eps if exact else -2 * eps**0.5), name
            if exact:
                np.testing.assert_allclose(projection, units[i] + u @ units, atol=40 * eps, err_msg=name)
        assert not v[norms == 0].any(), name


def cagrad_value(w, j, c):
    mean = j.mean(axis=0)
    return w @ j @ mean + c * np.linalg.norm(mean) * np.linalg.norm(w @ j)


def slsqp(start, j, c):
    """Least value that scipy finds from a start."""
    sum_to_one = {"type": "eq", "fun": lambda w: w.sum() - 1}
    bounds = [(0, 1)] * len(j)
    found = scipy.optimize.minimize(cagrad_value, start, (j, c), "SLSQP", bounds=bounds, constraints=sum_to_one)
    w = np.clip(found.x, 0, 1)
    return cagrad_value(w / w.sum(), j, c)


@pytest.mark.parametrize("c", [slow(0.0), 0.4, slow(0.9)])
def test_conflict_averse(precision, c):
    dtype, eps = precision
    for name, j, norms, gramian in every_case(dtype):
        w = np.asarray(conflict_averse(gramian, c), np.float64)
        assert w.min() >= 0, name
        assert w.sum() == pytest.approx(1, abs=10 * eps), name
        if c == 0 or len(j) == 1:
            continue
        present = norms > 0
        j, w, norms = j[present], w[present], norms[present]
        shortest, longest = norms.min(), norms.max()
        mean = j.mean(axis=0)
        # SLSQP is not exact, with badly scaled gradients least of all: it may only do worse, from ours too.
        best = min(slsqp(start, j / longest, c) for start in (np.full(len(j), 1 / len(j)), w)) * longest**2
        scale = np.linalg.norm(mean) * shortest + eps * longest * shortest
        assert cagrad_value(w, j, c) <= best + 20 * eps**0.5 * scale, name
        if np.linalg.norm(w @ j) > 30 * eps**0.5 * shortest:  # elsewhere the function has an edge
            slope = j @ (mean + c * np.linalg.norm(mean) * (w @ j) / np.linalg.norm(w @ j))
            gap = ((slope - w @ slope) / norms).min() / np.linalg.norm(mean)
            assert gap >= -40 * eps * shortest / np.linalg.norm(w @ j) * longest / np.linalg.norm(mean), name


@pytest.mark.parametrize("power", [slow(0.5), 1.0, slow(2.0)])
def test_power_point(precision, power):
    """The ridge of 16 eps is part of the equation: it is what makes it solvable in every case."""
    dtype, eps = precision
    for name, _, norms, gramian in every_case(dtype):
        a = np.asarray(power_point(gramian, power), np.float64)
        present = norms > 0
        assert (a[present] > 0).all(), name
        assert not a[~present].any(), name
        g = np.asarray(gramian, np.float64)[present][:, present]
        g[np.diag_indices_from(g)] *= 1 + 16 * eps
        a = a[present]
        size = np.abs(g) @ a + a**-power
        np.testing.assert_array_less(np.abs(g @ a - a**-power), 30 * eps * size, err_msg=name)


@pytest.mark.parametrize("power", [0.1, 10.0])
def test_power_point_far_from_one(power):
    """Powers of 1/10 and 10, with norms within a factor of 100 of one another."""
    rng = np.random.default_rng(0)
    with jax.debug_nans(True):
        for tasks in (2, 3, 5, 10):
            j = rng.normal(size=(tasks, 32)) * 10 ** rng.uniform(-1, 1, size=(tasks, 1))
            g = (j @ j.T).astype(np.float32)
            a = np.asarray(power_point(jnp.asarray(g), power), np.float64)
            np.testing.assert_array_less(np.abs(g @ a - a**-power), 1e-4 * (np.abs(g) @ a + a**-power))


def test_power_point_matches_scipy():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        for power in (0.5, 1.0, 2.0):
            for tasks in (2, 4, 7):
                j = rng.normal(size=(tasks, 16))
                g = j @ j.T
                root = scipy.optimize.least_squares(
                    lambda x, g=g, p=power: np.exp(p * x) * (g @ np.exp(x)) - 1, -np.log(np.diag(g)) / 2, xtol=1e-14
                )
                np.testing.assert_allclose(power_point(jnp.asarray(g), power), np.exp(root.x), rtol=1e-6)


def test_ten_tasks():
    rng = np.random.default_rng(2)
    j = rng.normal(size=(10, 12)).astype(np.float32).astype(np.float64)
    gramian = jnp.asarray(j @ j.T, jnp.float32)
    w = np.asarray(min_norm(gramian), np.float64)
    assert np.linalg.norm(w @ j) == pytest.approx(nearest_point(j), rel=1e-5)
    v = np.asarray(dual_cone(gramian), np.float64)
    assert (j @ (v @ j).T).min() >= -1e-4
    assert np.isfinite(conflict_averse(gramian, 0.5)).all()


def jacobian_of_many(kind, seed):
    """[40, 64], with the properties of `jacobian`'s."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    j = np.concatenate([jacobian(kind, 8, 5 * seed + part) for part in range(5)])
    return (
        j @ rng.normal(size=(16, 64))
        if kind == "rank_deficient"
        else np.hstack([j, rng.normal(size=(40, 48)) * j.std()])
    )


@pytest.mark.parametrize("kind", ["random", *map(slow, KINDS[1:])])
def test_forty_tasks(kind):
    """By what the programs' optima have to satisfy, relative to the gradients' norms; float32."""
    for seed in SEEDS:
        j = jacobian_of_many(kind, seed)
        norms = np.linalg.norm(j, axis=1)
        unit = j / np.where(norms > 0, norms, 1)[:, None]
        gramian = jnp.asarray(j @ j.T, jnp.float32)

        w = np.asarray(min_norm(gramian), np.float64)
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1, rel=1e-5)
        d = w @ j
        present = norms > 0
        scale = np.linalg.norm(d) if np.linalg.norm(d) > 1e-3 * norms[present].min() else norms[present].min()
        assert (unit @ d)[present].min() >= (d @ d / norms[present]).min() - 1e-3 * scale, (kind, seed)

        v = np.asarray(dual_cone(gramian), np.float64)
        projected = v @ j
        assert ((projected @ unit.T)[present] / norms[present, None]).min() >= -2e-3, (kind, seed)

        # Strong duality: the worst task's gain equals the value of the weights' program.
        w = np.asarray(conflict_averse(gramian, 0.5), np.float64)
        mean, combined = j[present].sum(0) / len(j), w @ j
        radius = 0.5 * np.linalg.norm(mean)
        direction = mean + radius * combined / np.linalg.norm(combined)
        value = combined @ mean + radius * np.linalg.norm(combined)
        assert (j @ direction)[present].min() >= value - 1e-3 * np.linalg.norm(direction) * norms[present].min(), (
            kind,
            seed,
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_agree(kind, monkeypatch):
    """Enumeration and the active-set method: the same directions."""
    for tasks in (2, 5):
        j = jacobian(kind, tasks, 0)
        gramian = jnp.asarray(j @ j.T, jnp.float32)
        programs = (solvers.min_norm, solvers.dual_cone, partial(solvers.conflict_averse, c=0.4))
        expected = [np.asarray(solve(gramian), np.float64) @ j for solve in programs]
        with monkeypatch.context() as patch:
            patch.setattr(solvers, "ENUMERATED", 1)
            found = [np.asarray(solve(gramian), np.float64) @ j for solve in programs]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-4 * np.linalg.norm(j, axis=1).max())


@pytest.mark.parametrize("scale", [1e-12, slow(1e-6), 1.0, slow(1e6), 1e12])
def test_scale_of_the_gradients_does_not_matter(scale):
    """Norms from 1e-12 to 1e12 in float32, whose smallest number is 1e-38."""
    j = jacobian("random", 4, 0)
    gramian, scaled = jnp.asarray(j @ j.T, jnp.float32), jnp.asarray(scale**2 * (j @ j.T), jnp.float32)
    for solve, exponent in (
        (min_norm, 0),
        (dual_cone, 0),
        (partial(conflict_averse, c=0.5), 0),
        (partial(power_point, power=1), -1),
        (partial(power_point, power=0.5), -4 / 3),
    ):
        expected = np.asarray(solve(gramian), np.float64) * scale**exponent
        np.testing.assert_allclose(
            np.asarray(solve(scaled), np.float64), expected, rtol=1e-4, atol=1e-6 * expected.max()
        )
