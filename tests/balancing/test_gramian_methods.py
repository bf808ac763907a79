"""Methods that are functions of the Gramian: cases solved by hand, and what all of them promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.balancing import core
from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.average_norm import average_norm
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.fairgrad import fairgrad
from mtl_jax.balancing.gradnorm import gradnorm
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.mgda import mgda
from mtl_jax.balancing.nash_mtl import nash_mtl
from mtl_jax.balancing.upgrad import upgrad
from tests.marks import slow

METHODS = {
    "mgda": mgda(),
    "mgda_l2": mgda(normalization="l2"),
    "mgda_loss": mgda(normalization="loss"),
    "mgda_loss+": mgda(normalization="loss+"),
    "cagrad": cagrad(),
    "imtl_g": imtl_g(),
    "nash_mtl": nash_mtl(),
    "fairgrad": fairgrad(),
    "fairgrad_half": fairgrad(alpha=0.5),
    "aligned_mtl": aligned_mtl(),
    "upgrad": upgrad(),
    "average_norm": average_norm(),
    "gradnorm": gradnorm(),
}
every_method = pytest.mark.parametrize("method", METHODS)


@functools.cache
def compiled(update):
    """Shared by all tests of a method: loops in eager mode are compiled again at every call."""
    return jax.jit(update)


def weigh(balancer, jacobian, losses=None, steps=1):
    """Weights of the step after `steps - 1` others with the same gradients; gradnorm's first are always 1."""
    jacobian = jnp.asarray(jacobian)
    losses = jnp.ones(len(jacobian), jacobian.dtype) if losses is None else jnp.asarray(losses, jacobian.dtype)
    state = balancer.init(len(jacobian), ())
    for _ in range(steps):
        decision, state = compiled(balancer.update)(
            state, core.Signals(losses, jax.random.key(0), core.gramian(jacobian))
        )
    assert decision.gradient is None
    assert decision.weights.shape == losses.shape
    return np.asarray(decision.weights)


def random_jacobian(tasks=4, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(tasks, 16)).astype(dtype)


# By hand: g_1 = (1, 0), g_2 = (-1, 2). G = [[1, -1], [-1, 5]].
PAIR = np.array([[1, 0], [-1, 2]], np.float32)
ROOT5 = 5**0.5


def test_mgda_by_hand():
    # |d|² = w² - 2 w (1 - w) + 5 (1 - w)², least at 16 w = 12.
    np.testing.assert_allclose(weigh(mgda(), PAIR), [3 / 4, 1 / 4], rtol=1e-5)
    # Of unit gradients any two have their bisector.
    np.testing.assert_allclose(weigh(mgda(normalization="l2"), PAIR), [1 / 2, 1 / 2], rtol=1e-5)
    # Divided by losses of 1 and 2: G = [[1, -1/2], [-1/2, 5/4]], w = (5/4 + 1/2) / (9/4 + 1).
    np.testing.assert_allclose(weigh(mgda(normalization="loss"), PAIR, [1, 2]), [7 / 13, 6 / 13], rtol=1e-5)
    # Norms 1 and 2 after the division of unit gradients by losses 1 and 1/2; G = [[1, -2c], [-2c, 4]], c = 1/sqrt 5.
    expected = (4 + 2 / ROOT5) / (5 + 4 / ROOT5)
    np.testing.assert_allclose(weigh(mgda(normalization="loss+"), PAIR, [1, 0.5]), [expected, 1 - expected], rtol=1e-5)
    # One gradient beyond the other's end: all weight on the shorter one.
    np.testing.assert_allclose(weigh(mgda(), np.array([[1, 0], [2, 1]], np.float32)), [1, 0])


def test_cagrad_by_hand():
    # g_1 = (1, 0), g_2 = (0, 1): by symmetry w = (1/2, 1/2), g_w = g_0, d = (1 + c) g_0.
    np.testing.assert_allclose(weigh(cagrad(c=0.5), np.eye(2, dtype=np.float32)), [0.75, 0.75], rtol=1e-6)
    # g_1 = (1, 0), g_2 = (0, 3), c = 1/2: the ball about (1/2, 3/2) has radius sqrt(10)/4, and the smaller of d's
    # components is its first, largest at the right end of the ball: w = (1, 0), d = (1/2 + sqrt(10)/4, 3/2).
    w = weigh(cagrad(c=0.5), np.diag([1.0, 3.0]).astype(np.float32))
    np.testing.assert_allclose(w, [0.5 + 10**0.5 / 4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(weigh(cagrad(c=0), PAIR), [0.5, 0.5])


def test_imtl_g_by_hand():
    # d = w g_1 + (1 - w) g_2 = (2 w - 1, 2 - 2 w): d · u_1 = 2 w - 1, d · u_2 = (5 - 6 w) / sqrt 5.
    w = (5 + ROOT5) / (2 * ROOT5 + 6)
    np.testing.assert_allclose(weigh(imtl_g(), PAIR), [w, 1 - w], rtol=1e-5)
    # Opposite gradients: only 0 has equal projections.
    np.testing.assert_allclose(weigh(imtl_g(), np.array([[1.0, 0], [-3, 0]], np.float32)), [3 / 4, 1 / 4], rtol=1e-5)


def test_nash_mtl_and_fairgrad_by_hand():
    # Two tasks: w_i = 1 / (|g_i| sqrt(1 + cosine)), the cosine is -1 / sqrt 5.
    share = (1 - 1 / ROOT5) ** -0.5
    np.testing.assert_allclose(weigh(nash_mtl(), PAIR), [share, share / ROOT5], rtol=1e-5)
    np.testing.assert_allclose(weigh(fairgrad(alpha=1), PAIR), [share, share / ROOT5], rtol=1e-5)
    # Orthogonal gradients: n² w = w^(-1/2), so w = n^(-4/3).
    lengths = np.array([1.0, 8.0], np.float32)
    np.testing.assert_allclose(weigh(fairgrad(alpha=2), np.diag(lengths)), [1, 1 / 16], rtol=1e-5)


def test_aligned_mtl_by_hand():
    # Orthogonal gradients are scaled to the shortest; the mean of both.
    np.testing.assert_allclose(weigh(aligned_mtl(), np.diag([1.0, 4.0]).astype(np.float32)), [1 / 2, 1 / 8], rtol=1e-6)
    weights = weigh(aligned_mtl(preference=(3, 1)), np.diag([1.0, 4.0]).astype(np.float32))
    np.testing.assert_allclose(weights, [3 / 4, 1 / 16], rtol=1e-6)
    # Unit gradients at a cosine of 3/5: eigenvalues 8/5 and 2/5, p along the first: scaled by 1/2.
    np.testing.assert_allclose(weigh(aligned_mtl(), np.array([[1, 0], [0.6, 0.8]], np.float32)), [1 / 4] * 2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"preference = \(1, 1, 1\) for 2 tasks"):
        aligned_mtl(preference=(1, 1, 1)).init(2, ())


def test_upgrad_by_hand():
    # g_1 freed of g_2: g_1 + g_2 / 5; g_2 freed of g_1: g_2 + g_1. Half of both.
    np.testing.assert_allclose(weigh(upgrad(), PAIR), [1, 0.6], rtol=1e-5)
    np.testing.assert_allclose(weigh(upgrad(), np.array([[1, 0], [1, 2]], np.float32)), [0.5, 0.5])


def test_average_norm_by_hand():
    np.testing.assert_allclose(weigh(average_norm(), np.diag([1.0, 3.0]).astype(np.float32)), [2, 2 / 3], rtol=1e-6)


def test_gradnorm_by_hand():
    balancer = gradnorm(alpha=1.0, learning_rate=0.1)
    gramian = jnp.diag(jnp.array([1.0, 9.0]))
    decision, state = balancer.update(balancer.init(2, ()), core.Signals(jnp.array([2.0, 4.0]), None, gramian))
    np.testing.assert_array_equal(decision.weights, [1, 1])
    np.testing.assert_array_equal(state.initial, [2, 4])
    # Norms 1 and 3, target 2 for both: the first weight rises, the second falls, by Adam's first step of 0.1.
    np.testing.assert_allclose(state.weights, [1.1, 0.9], rtol=1e-6)
    decision, after = balancer.update(state, core.Signals(jnp.array([2.0, 1.0]), None, gramian))
    np.testing.assert_allclose(decision.weights, [1.1, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(after.initial, [2, 4])
    # Lengths 1.1 and 2.7, mean 1.9; rates 1 and 1/4 over their mean, 1.6 and 0.4: the same signs again.
    assert after.weights[0] > 1.1
    np.testing.assert_allclose(after.weights.sum(), 2, rtol=1e-6)


def test_gradnorm_without_a_gradient():
    """A task keeps its weight, although Adam has momentum for it, up to the scaling; the other's goes on."""
    balancer = gradnorm(alpha=1.0, learning_rate=0.1)
    losses = jnp.array([2.0, 4.0])
    _, state = balancer.update(balancer.init(2, ()), core.Signals(losses, None, jnp.diag(jnp.array([1.0, 9.0]))))
    _, after = balancer.update(state, core.Signals(losses, None, jnp.diag(jnp.array([0.0, 9.0]))))
    # The second weight's slopes: 3 / 2, then 0.
    step = 0.1 * (0.9 * 0.1 * 1.5 / (1 - 0.9**2)) / np.sqrt(0.999 * 0.001 * 1.5**2 / (1 - 0.999**2))
    moved = np.array([1.1, 0.9 - step])
    np.testing.assert_allclose(after.weights, 2 * moved / moved.sum(), rtol=1e-5)


def test_gradnorm_learns_equal_lengths():
    """With losses that fall at one rate it ends where the weighted gradients are equally long, within Adam's steps."""
    jacobian = np.diag([1.0, 2.0, 4.0]).astype(np.float32)
    lengths = weigh(gradnorm(learning_rate=0.005), jacobian, steps=600) * [1, 2, 4]
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.05)


@every_method
def test_one_task_is_left_alone(method):
    np.testing.assert_array_equal(weigh(METHODS[method], 1e-3 * random_jacobian(1), steps=3), [1])


@every_method
@pytest.mark.parametrize("tasks", [slow(2), 3, slow(5)])
def test_order_of_the_tasks_does_not_matter(method, tasks):
    jacobian, losses = random_jacobian(tasks), np.linspace(0.5, 2, tasks)
    order = np.random.default_rng(1).permutation(tasks)
    weights = weigh(METHODS[method], jacobian, losses, steps=3)
    permuted = weigh(METHODS[method], jacobian[order], losses[order], steps=3)
    np.testing.assert_allclose(permuted, weights[order], rtol=1e-4, atol=1e-5)


@every_method
def test_equal_tasks_share(method):
    """Twice the same gradient has twice the same weight, also beside another task."""
    jacobian = random_jacobian(3)
    jacobian[1] = jacobian[0]
    weights = weigh(METHODS[method], jacobian, steps=3)
    assert weights[0] == pytest.approx(weights[1], rel=1e-4)
    all_equal = weigh(METHODS[method], np.repeat(jacobian[:1], 4, axis=0), steps=3)
    np.testing.assert_allclose(all_equal, all_equal[0], rtol=1e-4)
    assert all_equal[0] > 0


@every_method
def test_a_task_without_gradient_is_absent(method):
    """Weight 0 (gradnorm: untouched, it only renormalises) and the others' as without it."""
    jacobian, losses = random_jacobian(4), np.array([1.0, 2.0, 0.0, 3.0])
    jacobian[2] = 0
    rest = [0, 1, 3]
    with jax.debug_nans(True):
        weights = weigh(METHODS[method], jacobian, losses, steps=2)
        alone = weigh(METHODS[method], jacobian[rest], losses[rest], steps=2)
    if method == "gradnorm":
        assert weights.sum() == pytest.approx(4)
        moved = np.argsort(weights[rest])
        np.testing.assert_array_equal(moved, np.argsort(alone))
    else:
        assert weights[2] == 0
        np.testing.assert_allclose(weights[rest], alone, rtol=1e-4, atol=1e-6)


@every_method
def test_no_gradient_at_all_is_finite(method):
    with jax.debug_nans(True):
        for losses in (np.zeros(3), np.ones(3)):
            assert np.isfinite(weigh(METHODS[method], np.zeros((3, 8), np.float32), losses, steps=2)).all()


@every_method
@pytest.mark.parametrize("kind", ["opposite", slow("dependent"), "tiny", slow("huge"), slow("unequal")])
def test_hard_gradients_give_finite_weights(method, kind):
    jacobian = random_jacobian(4)
    if kind == "opposite":
        jacobian[1] = -jacobian[0]
    elif kind == "dependent":
        jacobian[:] = np.outer([1, -2, 3, -4], jacobian[0])
    else:
        scales = {"tiny": 1e-6, "huge": 1e6, "unequal": 10.0 ** np.arange(-6, 6, 3)[:, None]}
        jacobian = (jacobian * scales[kind]).astype(np.float32)
    with jax.debug_nans(True):
        weights = weigh(METHODS[method], jacobian, steps=2)
    assert np.isfinite(weights).all()
    if kind != "opposite" and kind != "dependent":
        assert weights.any()


@pytest.mark.slow
@every_method
def test_jit_agrees_with_eager(method):
    jacobian, losses = random_jacobian(4), jnp.array([0.5, 1.0, 2.0, 4.0])
    signals = core.Signals(losses, jax.random.key(0), core.gramian(jnp.asarray(jacobian)))
    eager, _ = METHODS[method].update(METHODS[method].init(4, ()), signals)
    np.testing.assert_allclose(weigh(METHODS[method], jacobian, losses), eager.weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@every_method
def test_precision_follows_the_gradients(method):
    """float64 in, float64 out, and float32 is near it."""
    jacobian = random_jacobian(4)
    single = weigh(METHODS[method], jacobian, steps=2)
    assert single.dtype == np.float32
    with jax.enable_x64(True):
        double = weigh(METHODS[method], jacobian.astype(np.float64), steps=2)
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["mgda", "upgrad", "nash_mtl", "fairgrad", "fairgrad_half", "imtl_g"])
def test_the_step_conflicts_with_no_task(method):
    """g · d >= 0 for all, within rounding; for Nash-MTL, FairGrad and IMTL-G of independent gradients."""
    for seed in range(20):
        jacobian = random_jacobian(5, seed) - (0.5 * random_jacobian(1, 100 + seed) if seed % 2 else 0)
        weights = weigh(METHODS[method], jacobian)
        d = weights.astype(np.float64) @ jacobian
        products = jacobian @ d / np.linalg.norm(jacobian, axis=1) / np.linalg.norm(d)
        assert products.min() >= -1e-5 or (method == "imtl_g" and products.max() <= 1e-5)


@pytest.mark.parametrize("method", ["imtl_g", "nash_mtl", "average_norm"])
def test_scale_of_a_loss_does_not_change_the_direction(method):
    jacobian, scales = random_jacobian(4), np.array([1, 10, 0.1, 100], np.float32)
    d = weigh(METHODS[method], jacobian) @ jacobian
    scaled = scales[:, None] * jacobian
    e = weigh(METHODS[method], scaled) @ scaled
    cosine = d @ e / np.linalg.norm(d) / np.linalg.norm(e)
    assert abs(cosine) == pytest.approx(1, abs=1e-5)
    if method == "nash_mtl":
        np.testing.assert_allclose(np.linalg.norm([d, e], axis=1), 2, rtol=1e-4)


def test_scale_of_a_loss_changes_the_others_as_documented():
    jacobian = np.eye(3, dtype=np.float32)
    scaled = np.diag([10.0, 1, 1]).astype(np.float32)
    # FairGrad: s^(-2 alpha / (1 + alpha)) for orthogonal gradients.
    np.testing.assert_allclose(weigh(fairgrad(alpha=2), scaled), [10 ** (-4 / 3), 1, 1], rtol=1e-5)
    # MGDA: 1 / s².
    np.testing.assert_allclose(weigh(mgda(), scaled), np.array([0.01, 1, 1]) / 2.01, rtol=1e-5)
    # UPGrad's projections do not change: the scaled task contributes in proportion.
    jacobian[0] = [1, -0.5, 0]
    steps = [weigh(upgrad(), s * jacobian) @ (s * jacobian) for s in np.array([[[1], [1], [1]], [[2], [1], [1]]])]
    only_first = weigh(upgrad(), np.array([[[3], [1], [1]]][0]) * jacobian) @ (np.array([[3], [1], [1]]) * jacobian)
    np.testing.assert_allclose(steps[1] - steps[0], only_first - steps[1], atol=1e-5)


def test_wrong_hyperparameters_are_refused():
    for wrong in (
        lambda: mgda(normalization="l1"),
        lambda: cagrad(c=-1),
        lambda: fairgrad(alpha=0),
    ):
        with pytest.raises(ValueError, match=r"'l1'|-1|0"):
            wrong()


def test_value_and_grad_uses_the_weights():
    def loss_fn(shared, specific):
        return {"a": jnp.sum(shared**2) * specific, "b": jnp.sum((shared - 1) ** 2)}, None

    step = jax.jit(core.value_and_grad(loss_fn, upgrad(), ("a", "b")))
    result = step((), jax.random.key(0), jnp.array([1.0, 0.0]), jnp.array(1.0))
    # Gradients (2, 0) and (0, -2): no conflict, the mean.
    np.testing.assert_allclose(result.shared, [1, -1])
    np.testing.assert_allclose(result.specific, 1)
