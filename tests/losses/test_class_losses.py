"""Losses of class ids and of foreground in float64, against their formulas in NumPy, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mtl_jax import losses
from tests.losses.examples import pair
from tests.marks import slow

WEIGHTS = (0.5, 2.0, 0.25)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def example(name, images=3, seed=0):
    prediction, label = pair(name, images, seed)
    return prediction.astype(jnp.float64), label.astype(jnp.float64).at[1].set(255)


def pixels(logits, label, image):
    """(probabilities [N, C], ids [N]) of the valid pixels of an image."""
    ids = np.asarray(label[image, ..., 0]).reshape(-1).astype(int)
    exponents = np.exp(np.asarray(logits[image])).reshape(len(ids), -1)
    probabilities = exponents / exponents.sum(-1, keepdims=True)
    return probabilities[ids != 255], ids[ids != 255]


def over_images(logits, label, of_image):
    """The mean over the labelled images, of which example 1 is none."""
    return np.mean([of_image(*pixels(logits, label, image)) for image in (0, 2)])


def all_pixels(logits, label):
    found = [pixels(logits, label, image) for image in range(len(logits))]
    return (np.concatenate(parts) for parts in zip(*found, strict=True))


def check(loss, prediction, label, expected):
    """The value, and the gradient by finite differences."""
    np.testing.assert_allclose(loss(prediction, label), expected, rtol=1e-12)
    check_grads(lambda x: loss(x, label), (prediction,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS, (0.0, 1.0, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing, weights):
    logits, label = example("softmax_cross_entropy")
    p, ids = all_pixels(logits, label)
    w = np.ones(3) if weights is None else np.array(weights)
    own = w[ids] * -np.log(p[np.arange(len(ids)), ids])
    values = (1 - smoothing) * own + smoothing / 3 * (w * -np.log(p)).sum(-1)
    check(
        lambda x, y: losses.softmax_cross_entropy(x, y, smoothing, weights),
        logits,
        label,
        values.sum() / w[ids].sum(),
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(gamma, weights):
    logits, label = example("softmax_focal")
    p, ids = all_pixels(logits, label)
    own, w = p[np.arange(len(ids)), ids], np.ones(3) if weights is None else np.array(weights)
    expected = (w[ids] * (1 - own) ** gamma * -np.log(own)).sum() / w[ids].sum()
    check(lambda x, y: losses.softmax_focal(x, y, gamma, weights), logits, label, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_finite_gradient_where_the_probability_is_1(gamma):
    logits = jnp.array([1000.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
    for label in (0, 1):
        gradient = jax.grad(losses.softmax_focal)(logits, jnp.full((1, 1, 1, 1), label), gamma)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize(("smooth", "squared"), [(1.0, True), (0.5, False), (0.0, True)])
def test_softmax_dice(smooth, squared, classes):
    logits, label = example("softmax_dice")
    label = jnp.where((label == 2) & (jnp.arange(3).reshape(3, 1, 1, 1) == 0), 0, label)  # image 0 lacks class 2

    def of_image(p, ids):
        terms = []
        for c in range(3):
            g = (ids == c).astype(float)
            if classes == "all" or g.any():
                size = ((p[:, c] ** 2) if squared else p[:, c]).sum() + g.sum()
                terms.append(1 - (2 * (p[:, c] * g).sum() + smooth) / (size + smooth))
        assert len(terms) == 3 or classes == "present"
        return np.mean(terms)

    expected = over_images(logits, label, of_image)
    check(lambda x, y: losses.softmax_dice(x, y, smooth, squared, classes), logits, label, expected)


@pytest.mark.parametrize(("smooth", "squared"), [(1.0, True), (0.5, False)])
def test_sigmoid_dice(smooth, squared):
    logits, label = example("sigmoid_dice")

    def of_image(image):
        y, x = np.asarray(label[image]).reshape(-1), np.asarray(logits[image]).reshape(-1)
        p, g = 1 / (1 + np.exp(-x[y != 255])), y[y != 255]
        return 1 - (2 * (p * g).sum() + smooth) / (((p**2) if squared else p).sum() + g.sum() + smooth)

    expected = np.mean([of_image(0), of_image(2)])
    check(lambda x, y: losses.sigmoid_dice(x, y, smooth, squared), logits, label, expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("thresh", "min_kept"),
    [(0.3, 5), (0.3, 20), (None, 6), (0.0, 4), (1.0, 0), (0.7, 100_000), (0.0, 0)],
)
def test_ohem(thresh, min_kept, weights):
    logits, label = example("ohem_cross_entropy")

    def of_image(p, ids):
        own = p[np.arange(len(ids)), ids]
        hardest = np.argsort(own)[:min_kept]
        kept = np.isin(np.arange(len(own)), hardest) | (own < (0 if thresh is None else thresh))
        w = (np.ones(3) if weights is None else np.array(weights))[ids]
        return (w * -np.log(own))[kept].sum() / w[kept].sum() if kept.any() else 0

    expected = over_images(logits, label, of_image)
    check(lambda x, y: losses.ohem_cross_entropy(x, y, thresh, min_kept, weights), logits, label, expected)


@pytest.mark.parametrize("classes", ["present", "all"])
def test_lovasz_softmax(classes):
    """The extension as the paper defines it: the errors, sorted, times the growth of the Jaccard loss of the set."""
    logits, label = example("lovasz_softmax")
    label = jnp.where((label == 2) & (jnp.arange(3).reshape(3, 1, 1, 1) == 0), 0, label)

    def jaccard_loss(wrong, truth):
        """1 - IoU of a class where the pixels of the set `wrong` are predicted wrongly."""
        predicted = truth ^ wrong
        union = (predicted | truth).sum()
        return 1 - (predicted & truth).sum() / union if union else 0.0

    def of_image(p, ids):
        terms = []
        for c in range(3):
            truth = ids == c
            if classes == "present" and not truth.any():
                continue
            errors = np.where(truth, 1 - p[:, c], p[:, c])
            wrong, before, total = np.zeros(len(ids), bool), 0.0, 0.0
            for pixel in np.argsort(-errors):
                wrong[pixel] = True
                after = jaccard_loss(wrong, truth)
                total, before = total + errors[pixel] * (after - before), after
            terms.append(total)
        return np.mean(terms)

    expected = over_images(logits, label, of_image)
    check(lambda x, y: losses.lovasz_softmax(x, y, classes), logits, label, expected)


def test_lovasz_of_a_hard_prediction_is_one_minus_the_mean_iou():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 3, (2, 1, 6, 8, 1))
    logits = 1000 * jax.nn.one_hot(predicted[..., 0], 3, dtype=jnp.float64)
    ious = [((label == c) & (predicted == c)).sum() / ((label == c) | (predicted == c)).sum() for c in range(3)]
    np.testing.assert_allclose(losses.lovasz_softmax(logits, jnp.asarray(label)), 1 - np.mean(ious), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("softmax_cross_entropy", {"smoothing": 0.1, "class_weights": WEIGHTS}),
        slow("softmax_focal", {"gamma": 1.5, "class_weights": WEIGHTS}),
        ("ohem_cross_entropy", {"thresh": 0.2, "min_kept": 7, "class_weights": WEIGHTS}),
        slow("softmax_dice", {"smooth": 0.0, "classes": "all"}),
        slow("lovasz_softmax", {"classes": "all"}),
    ],
)
def test_losses_of_parts_add_up_with_arguments_too(name, arguments):
    logits, label = example(name, images=6)
    label = label.at[3, :4].set(255)
    loss, counts = losses.LOSSES[name], losses.count(label)
    whole = loss(logits, label, **arguments)
    parts = [loss(logits[i], label[i], **arguments, counts=counts) for i in (slice(0, 2), slice(2, 6))]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-13)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_focal", "ohem_cross_entropy"])
def test_another_number_of_weights_than_classes(name):
    with pytest.raises(ValueError, match="class_weights has 2 values; there are 3 classes"):
        losses.LOSSES[name](*example(name), class_weights=(1.0, 2.0))
