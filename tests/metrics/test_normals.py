import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.metrics import Accumulator, Normals


def score(prediction, label):
    accumulator = Accumulator(Normals())
    accumulator.update(Normals().update(prediction, label))
    return accumulator.compute()


def rotated(degrees):
    """Predictions and labels `[1, 1, N, 3]` that differ by these angles."""
    radians = np.deg2rad(np.asarray(degrees, np.float64))
    vectors = np.stack([np.sin(radians), np.zeros_like(radians), np.cos(radians)], axis=-1)[None, None]
    return 255 * (vectors + 1) / 2, np.broadcast_to([0.0, 0.0, 1.0], vectors.shape)


def test_by_hand():
    result = score(*rotated([1, 2, 20, 27, 160]))
    assert result["mean"] == pytest.approx(42, abs=1e-9)
    assert result["median"] == pytest.approx(20, abs=1e-3)
    assert result["rmse"] == pytest.approx(np.sqrt((1 + 4 + 400 + 729 + 25600) / 5), abs=1e-9)
    assert [result[key] for key in ("11.25", "22.5", "30")] == [40, 60, 80]


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    assert score(*rotated([3, 5, 8, 100]))["median"] == pytest.approx(6.5, abs=1e-3)


def test_the_median_is_exact_to_a_thousandth_degree():
    angles = np.random.default_rng(0).uniform(0, 180, 5001)
    assert score(*rotated(angles))["median"] == pytest.approx(np.median(angles), abs=5.01e-4)


def test_small_angles_survive_float32():
    prediction, label = rotated([0.0, 0.01, 179.99])
    stats = jax.jit(Normals().update)(jnp.float32(prediction), jnp.float32(label))
    # 0..255 resolves 3.4e-6 degrees in float32 (2^-17 of 127.5 in radians); arccos would be off by 0.02 degrees
    assert float(stats["angle"][0]) == pytest.approx(180, abs=5e-4)


def test_length_does_not_matter_and_unlabelled_pixels_do_not_count():
    prediction, label = rotated([10, 20, 30, 40])
    label = 3 * label
    label[..., 2, :], label[..., 3, :] = 0, 255
    assert score(prediction, label)["mean"] == pytest.approx(15, abs=1e-9)


def test_a_vector_with_one_zero_component_counts():
    prediction, label = rotated([10, 20])
    assert Normals().update(prediction, label)["pixels"].tolist() == [2]
