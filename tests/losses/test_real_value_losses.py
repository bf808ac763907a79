"""Losses of depth and normals in float64, against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mtl_jax import losses
from mtl_jax.losses.real_values import extended_log
from tests.losses.examples import pair, unit
from tests.marks import slow


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def depth():
    """Predictions, of which some are negative, and labels; image 1 has none."""
    prediction, label = (x.astype(jnp.float64) for x in pair("depth_l1", 3))
    return 3 * prediction + 2, label.at[1].set(255)


def check(loss, prediction, label, expected):
    """The value, and the gradient by finite differences."""
    np.testing.assert_allclose(loss(prediction, label), expected, rtol=1e-12)
    check_grads(lambda x: loss(x, label), (prediction,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def valid(label, image):
    return np.asarray(label[image]) != 255


def test_l2():
    prediction, label = depth()
    difference = np.asarray(prediction - label)[np.asarray(label) != 255]
    check(losses.depth_l2, prediction, label, (difference**2).mean())


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_berhu(share):
    prediction, label = depth()
    terms = []
    for image in (0, 2):
        d = np.abs(np.asarray(prediction[image] - label[image]))[valid(label, image)]
        c = share * d.max()
        terms.append(np.where(d <= c, d, (d**2 + c**2) / (2 * c)))
    np.testing.assert_allclose(losses.depth_berhu(prediction, label, share), np.concatenate(terms).mean(), rtol=1e-12)
    number = sum(map(len, terms))
    gradient = jax.grad(losses.depth_berhu)(prediction, label, share)
    d = np.asarray(prediction[0] - label[0])
    c = share * np.abs(d[valid(label, 0)]).max()
    expected = np.where(np.abs(d) <= c, np.sign(d), d / c) / number
    np.testing.assert_allclose(gradient[0][valid(label, 0)], expected[valid(label, 0)], rtol=1e-12)


def test_berhu_of_an_exact_prediction():
    _, label = depth()
    value, gradient = jax.value_and_grad(losses.depth_berhu)(label, label)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def log(x, eps):
    return np.where(x >= eps, np.log(np.maximum(x, eps)), np.log(eps) + (x - eps) / eps)


@pytest.mark.parametrize("eps", [0.1, 2.0])
@pytest.mark.parametrize(("focus", "root"), [(0.5, False), (0.85, True), (1.0, False), (0.0, True)])
def test_silog(focus, root, eps):
    prediction, label = depth()
    assert (prediction < 0).any()
    terms = []
    for image in (0, 2):
        p, y = (np.asarray(x[image])[valid(label, image)] for x in (prediction, label))
        d = log(p, eps) - log(y, eps)
        error = (d**2).mean() - focus * d.mean() ** 2
        terms.append(np.sqrt(error) if root else error)
    check(lambda x, y: losses.depth_silog(x, y, focus, root, eps), prediction, label, np.mean(terms))


def test_silog_ignores_the_scale_with_lambda_1():
    _, label = depth()
    value, gradient = jax.value_and_grad(losses.depth_silog)(2 * label, label, 1.0, True)
    np.testing.assert_allclose(value, 0, atol=1e-7)  # the root of a rounding error
    assert np.isfinite(gradient).all()


def test_predictions_that_have_no_logarithm_are_raised():
    x = jnp.array([-50.0, 0.0, 0.05, 0.1, 1.0])
    np.testing.assert_allclose(extended_log(x[3:], 0.1), np.log(x[3:]), rtol=1e-15)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: extended_log(x, 0.1)))(x), [10, 10, 10, 10, 1], rtol=1e-12)
    gradient = jax.grad(losses.depth_silog)(jnp.full((1, 1, 1, 1), -5.0), jnp.full((1, 1, 1, 1), 2.0))
    assert np.isfinite(gradient).all()
    assert (gradient < 0).all()


@pytest.mark.parametrize(("scales", "as_log"), [(1, True), slow(4, True), (3, False)])
def test_gradient_matching(scales, as_log):
    prediction, label = depth()
    terms = []
    for image in (0, 2):
        mask = valid(label, image)[..., 0]
        p, y = (np.asarray(x[image, ..., 0]) for x in (prediction, label))
        residual = log(p, 0.1) - log(y, 0.1) if as_log else p - y
        total = 0.0
        for k in range(scales):
            r, m = residual[:: 2**k, :: 2**k], mask[:: 2**k, :: 2**k]
            height, width = r.shape
            for i in range(height):
                for j in range(width):
                    if j + 1 < width and m[i, j] and m[i, j + 1]:
                        total += abs(r[i, j + 1] - r[i, j]) / m.sum()
                    if i + 1 < height and m[i, j] and m[i + 1, j]:
                        total += abs(r[i + 1, j] - r[i, j]) / m.sum()
        terms.append(total)
    check(lambda x, y: losses.depth_gradient(x, y, scales, as_log), prediction, label, np.mean(terms))


def normals():
    prediction, label = (x.astype(jnp.float64) for x in pair("normals_l1", 3))
    return prediction, label.at[1].set(255)


def test_normals_by_their_angles():
    prediction, label = normals()
    mask = np.asarray(label[..., 0]) != 255
    cosine = (unit(np.asarray(prediction)) * np.asarray(label)).sum(-1)[mask]
    difference = (unit(np.asarray(prediction)) - np.asarray(label))[mask]
    check(losses.normals_l2, prediction, label, (difference**2).mean())
    check(losses.normals_cosine, prediction, label, (1 - cosine).mean())
    np.testing.assert_allclose(losses.normals_angular(prediction, label), np.arccos(cosine).mean(), rtol=1e-6)
    check_grads(lambda x: losses.normals_angular(x, label), (prediction,), 1, ["rev"], atol=1e-6, rtol=1e-6)


def test_the_cosine_of_a_prediction_without_a_direction_has_a_gradient_of_0():
    """Unlike `normals_l1` and `normals_l2`, whose recorded gradients are of the order of 1e12 there."""
    label = jnp.array([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    value, gradient = jax.value_and_grad(losses.normals_cosine)(0 * label, label)
    assert value == 1
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(("length", "angle"), [(2.0, 0.0), (-3.0, np.pi), (0.0, np.pi / 2)])
def test_angles_without_a_derivative_have_a_gradient_of_0(length, angle):
    label = jnp.array([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    value, gradient = jax.value_and_grad(losses.normals_angular)(length * label, label)
    np.testing.assert_allclose(value, angle, rtol=1e-15)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("tilt", [1e-3, 1e-6, 1e-9])
def test_small_angles_have_a_gradient_of_1_per_radian(tilt):
    label = jnp.array([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    prediction = jnp.array([np.sin(tilt), 0.0, np.cos(tilt)]).reshape(1, 1, 1, 3)
    value, gradient = jax.value_and_grad(losses.normals_angular)(prediction, label)
    np.testing.assert_allclose(value, tilt, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(gradient), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["depth_l1", "normals_l1"])
def test_differences_of_0_have_a_gradient_of_0(name):
    """As in torch; the gradient of `jnp.abs` at 0 is 1."""
    label = jnp.array([0.0, 0.0, 1.0], jnp.float32).reshape(1, 1, 1, 3)
    prediction = label if name == "depth_l1" else 5 * label
    gradient = jax.grad(losses.LOSSES[name])(prediction, label)
    np.testing.assert_array_equal(gradient, 0)


def test_the_absolute_value_is_that_of_jax_but_for_the_gradient_at_0():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0, -jnp.inf, jnp.inf], jnp.float32)
    np.testing.assert_array_equal(losses.absolute(x), jnp.abs(x))
    np.testing.assert_array_equal(jax.grad(lambda x: losses.absolute(x)[:4].sum())(x)[:4], [-1, 0, 0, 1])


@pytest.mark.parametrize("name", ["depth_l1", "normals_l1"])
def test_the_published_losses_keep_their_bits(name):
    """Values and gradients in float32 are those of `jnp.abs`, where no difference is 0."""
    prediction, label = pair(name, 4)

    def plain(prediction, label):
        if name == "normals_l1":
            prediction = prediction / (jnp.sqrt(jnp.square(prediction).sum(-1, keepdims=True)) + 1e-12)
        return losses.masked_mean(jnp.abs(prediction - label), label != 255)

    found, wanted = (jax.jit(jax.value_and_grad(f))(prediction, label) for f in (losses.LOSSES[name], plain))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
