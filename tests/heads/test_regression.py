import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import heads, models
from mtl_jax.heads import RegressionHead
from mtl_jax.heads.regression import Bins, Bounded, Rectified


def values(kind, logits):
    return np.asarray(kind(jnp.asarray(logits, jnp.float32).reshape(1, 1, -1, kind.num_logits))).ravel()


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        # Values 1, 2, 3; logits 0, 2, -1.
        (Bins(1, 3, 3), (0.1 * 1 + 2.1 * 2 + 0.1 * 3) / 2.3),
        (
            Bins(1, 3, 3, probabilities="softmax"),
            (1 + 2 * np.exp(2) + 3 * np.exp(-1)) / (1 + np.exp(2) + np.exp(-1)),
        ),
        (Bins(1, 3, 3, probabilities="sigmoid"), (0.5 + 2 * 0.880797 + 3 * 0.268941) / (0.5 + 0.880797 + 0.268941)),
        # Values 1, 2, 4.
        (Bins(1, 4, 3, "sid"), (0.1 * 1 + 2.1 * 2 + 0.1 * 4) / 2.3),
    ],
)
def test_bins(bins, expected):
    np.testing.assert_allclose(values(bins, [0, 2, -1]), expected, rtol=1e-5)


def test_single_channels():
    np.testing.assert_allclose(values(Rectified(0.5, 8), [-3, 2]), [0.5, 2.5])
    np.testing.assert_allclose(values(Bounded(0.5, 8), [0, np.log(3)]), [4, 6], rtol=1e-6)


class Constant(nnx.Module):
    def __call__(self, maps):
        return maps


def test_only_evaluation_keeps_values_within_their_range():
    head = RegressionHead(Constant(), Rectified(0.5, 2))
    logits = jnp.array([-1.0, 1.0, 9.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(models.training_view(head, nnx.Rngs(0))(logits).ravel(), [0.5, 1.5, 9.5])
    np.testing.assert_allclose(models.evaluation_view(head)(logits).ravel(), [0.5, 1.5, 2.0])


def test_values_of_bfloat16_logits_are_not_rounded_again():
    head = RegressionHead(Constant(), Bins(0.001, 10, 4))
    logits = jnp.array([0.0, 1, 2, 3], jnp.bfloat16).reshape(1, 1, 1, 4)
    assert head(logits).dtype == jnp.float32
    np.testing.assert_array_equal(head(logits), head(logits.astype(jnp.float32)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bin", r"unknown regression 'bin'; the regressions are bins, relu, sigmoid. Did you mean bins"),
        ("bins:count=3", r"'count=3' is no parameter=value of the regression bins; it takes low=0.001"),
        ("bins:spacing=log", "spacing of the regression bins is 'log'; it must be uniform or sid"),
        ("bins:number=1", "number is 1; give at least 2 bins"),
        ("bins:low=0,spacing=sid", "low is 0.0; bins of equal ratios begin above 0"),
        ("relu:low=3,high=2", "low is 3.0 and high 2.0; low must be below high"),
    ],
)
def test_impossible_regressions_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        heads.check_regression(text)


def test_others_may_add_a_regression():
    @heads.register_regression("exp")
    class Exponential(heads.Regression):
        def __call__(self, logits):
            return jnp.exp(logits)

    try:
        head = models.evaluation_view(heads.build("hrnet", (8,), 1, regression="exp:low=2", rngs=nnx.Rngs(0)))
    finally:
        del heads.REGRESSIONS["exp"]
    assert (head([jnp.ones((1, 2, 3, 8))]) >= 2).all()
