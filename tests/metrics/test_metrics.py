"""Properties of all metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mtl_jax import metrics
from mtl_jax.tasks import TASKS

CLASSES, SIZE = 5, (6, 7)
NAMES = tuple(metrics.METRICS)
CASES = [(name, protocol) for name in NAMES for protocol in (("image", "pixel") if name == "depth" else ("image",))]


def build(name, protocol="image", final=False):
    return metrics.build(name, num_classes=CLASSES, depth_protocol=protocol, final=final)


def batch(name, images, seed=0):
    """Predictions and labels in float32 and int32, with ignored pixels."""
    rng = np.random.default_rng(seed)
    shape = (images, *SIZE)
    ignored = rng.random((*shape, 1)) < 0.2
    if name in ("semseg", "human_parts"):
        label = np.where(ignored, 255, rng.integers(0, CLASSES, (*shape, 1)))
        return rng.integers(0, CLASSES, shape).astype(np.int32), label.astype(np.int32)
    if name == "normals":
        label = rng.standard_normal((*shape, 3))
        label = np.where(ignored, 255, label / np.linalg.norm(label, axis=-1, keepdims=True))
        return rng.uniform(0, 255, (*shape, 3)).astype(np.float32), label.astype(np.float32)
    if name == "depth":
        label = np.where(ignored, 255, rng.uniform(1, 9, (*shape, 1)))
        return rng.uniform(-0.1, 9, (*shape, 1)).astype(np.float32), label.astype(np.float32)
    label = np.where(ignored, 255, rng.random((*shape, 1)) < 0.3)
    return rng.uniform(0, 255, (*shape, 1)).astype(np.float32), label.astype(np.float32)


def accumulate(metric, prediction, label, batch_size, order=None, pad=False):
    """The accumulator after batches of this size in this order of images, the last padded with other images."""
    accumulator = metrics.Accumulator(metric)
    order = np.arange(len(prediction)) if order is None else order
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        valid = np.arange(batch_size) < len(chosen)
        if pad:
            chosen = np.concatenate([chosen, np.arange(batch_size - len(chosen))])
        stats = metric.update(prediction[chosen], label[chosen])
        accumulator.update(stats, valid if pad else None)
    return accumulator


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_batches_padding_and_order_do_not_matter(name, protocol):
    metric = build(name, protocol)
    prediction, label = batch(name, 7)
    whole = accumulate(metric, prediction, label, 7).compute()
    assert accumulate(metric, prediction, label, 3, pad=True).compute() == whole
    shuffled = np.random.default_rng(1).permutation(7)
    assert accumulate(metric, prediction, label, 2, order=shuffled).compute() == whole
    merged = accumulate(metric, prediction[1::2], label[1::2], 2, pad=True)
    merged.merge(accumulate(metric, prediction[::2], label[::2], 3, pad=True))
    assert merged.compute() == whole


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_jit_agrees_with_numpy(name, protocol):
    metric = build(name, protocol)
    prediction, label = batch(name, 4)
    host, device = metrics.Accumulator(metric), metrics.Accumulator(metric)
    host.update(metric.update(prediction, label))
    with jax.numpy_rank_promotion("raise"):
        device.update(jax.jit(metric.update)(jnp.asarray(prediction), jnp.asarray(label)))
    expected, got = host.compute(), device.compute()
    for key, value in expected.items():
        # float32 sums over 42 pixels; the median is a bin of 0.001 degrees, and an angle may fall into the next one
        np.testing.assert_allclose(got[key], value, rtol=2e-6, atol=1.1e-3 if key == "median" else 1e-7, err_msg=key)
    for key, value in host.stats().items():
        if value.dtype == np.int64 and key != "histogram":
            np.testing.assert_array_equal(device.stats()[key], value, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharded_batch_gives_the_same_statistics_and_stays_sharded(name):
    metric = build(name)
    prediction, label = batch(name, 2 * jax.device_count())
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    update = jax.jit(metric.update)
    single = update(jnp.asarray(prediction), jnp.asarray(label))
    sharded = update(jax.device_put(prediction, sharding), jax.device_put(label, sharding))
    for key, value in sharded.items():
        assert value.sharding.is_equivalent_to(sharding, value.ndim)
        if key == "histogram":  # an angle at a bin's edge may fall on either side
            value, single[key] = value.sum(axis=1), single[key].sum(axis=1)
        np.testing.assert_allclose(value, single[key], rtol=2e-6, err_msg=key)  # float32 sums over 42 pixels


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_those_of_each_image(name):
    metric = build(name)
    prediction, label = batch(name, 3)
    stats, empty = metric.update(prediction, label), metric.empty()
    assert set(stats) == set(empty)
    for key, value in stats.items():
        assert value.shape == (3, *empty[key].shape[1:])
        assert value.dtype == empty[key].dtype
        for i in range(3):
            alone = metric.update(prediction[i : i + 1], label[i : i + 1])
            np.testing.assert_array_equal(value[i : i + 1], alone[key])


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_not_changed(name):
    prediction, label = batch(name, 2)
    before = prediction.copy(), label.copy()
    prediction.setflags(write=False)
    label.setflags(write=False)
    build(name).update(prediction, label)
    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(label, before[1])


@pytest.mark.parametrize(("name", "protocol"), CASES)
@pytest.mark.parametrize("final", [False, True])
def test_no_image_gives_nan(name, protocol, final):
    metric = build(name, protocol, final)
    accumulator = metrics.Accumulator(metric)
    expected = set(accumulate(metric, *batch(name, 2), 2).compute())
    result = accumulator.compute()
    assert set(result) == expected
    assert all(np.isnan(value).all() for key, value in result.items() if key != "thresholds")
    prediction, label = batch(name, 2)
    accumulator.update(metric.update(prediction, label), np.zeros(2, bool))  # a batch of padding only
    assert all(np.isnan(value).all() for key, value in accumulator.compute().items() if key != "thresholds")


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_no_valid_pixel_gives_nan(name, protocol):
    metric = build(name, protocol)
    prediction, label = batch(name, 2)
    ignored = np.full_like(label, 255)
    host, device = accumulate(metric, prediction, ignored, 2), metrics.Accumulator(metric)
    device.update(jax.jit(metric.update)(jnp.asarray(prediction), jnp.asarray(ignored)))
    for result in (host.compute(), device.compute()):
        assert all(np.isnan(value).all() for key, value in result.items() if key != "thresholds")


@pytest.mark.parametrize(("name", "protocol"), CASES)
@pytest.mark.parametrize("final", [False, True])
def test_unlabelled_images_change_no_score(name, protocol, final):
    metric = build(name, protocol, final)
    prediction, label = batch(name, 6)
    labelled = np.array([0, 2, 3, 5])
    label[[1, 4]] = 255
    subset = accumulate(metric, prediction[labelled], label[labelled], 4).compute()
    assert accumulate(metric, prediction, label, 3).compute() == subset


@pytest.mark.parametrize("name", NAMES)
def test_predictions_at_ignored_pixels_do_not_matter(name):
    metric = build(name)
    prediction, label = batch(name, 3)
    ignored = (label == 255).all(-1) if prediction.ndim == 3 else (label == 255).all(-1, keepdims=True)
    other = np.where(ignored, batch(name, 3, seed=1)[0], prediction)
    assert (other != prediction).any()
    assert accumulate(metric, other, label, 3).compute() == accumulate(metric, prediction, label, 3).compute()


def test_counts_beyond_float32():
    metric = build("semseg")
    accumulator = metrics.Accumulator(metric)
    many = np.full((1, CLASSES), 2**31 - 1, np.int32)
    for _ in range(3):
        accumulator.update({"tp": many, "fp": many * 0, "fn": many * 0})
    assert accumulator.stats()["tp"].sum() == 3 * CLASSES * (2**31 - 1)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_checked(name):
    prediction, label = batch(name, 2)
    with pytest.raises(ValueError, match="expected a prediction"):
        build(name).update(prediction[:, :-1], label)
    with pytest.raises(ValueError, match="expected a prediction"):
        build(name).update(prediction[0], label[0])


def test_the_accumulator_checks_what_it_gets():
    metric = build("depth")
    accumulator, stats = metrics.Accumulator(metric), metric.update(*batch("depth", 2))
    with pytest.raises(ValueError, match="mask"):
        accumulator.update(stats, np.ones(3, bool))
    with pytest.raises(ValueError, match="statistics"):
        accumulator.update({"pixels": stats["pixels"]})
    with pytest.raises(ValueError, match="merge"):
        accumulator.merge(metrics.Accumulator(build("edge")))


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"unknown metric 'miou'.*saliency"):
        metrics.build("miou", num_classes=3)


def test_every_task_has_its_metric_and_criterion():
    for task in TASKS.values():
        metric = build(task.metric)
        assert (task.streaming_criterion or task.criterion).name in metrics.Accumulator(metric).compute()
