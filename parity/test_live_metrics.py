"""Scores of random data sets against the PyTorch twin's, where no numbers were recorded.

Batches of several sizes; ignored pixels, images without any label, classes that never occur, maps that are empty.
"""

import jax
import numpy as np
import pytest

from mtl_jax import metrics, protocol
from mtl_jax.tasks import TASKS

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity.reference import metrics as reference  # noqa: E402

SHAPES = [(3, 13, 17), (1, 24, 9), (4, 7, 20)]
# As in the final protocol, where NumPy arrays are reduced in float64, and as in training, where an image is reduced in
# float32 on the device. There logarithms of small depths are the least accurate.
KINDS = {"numpy": (lambda update: update, 1e-9), "jax": (jax.jit, 2e-5)}
HALF_A_BIN = 0.0005 + 1e-9  # degrees: our median comes from a histogram


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def ours(metric, batches, transform):
    accumulator, update = metrics.Accumulator(metric), transform(metric.update)
    for prediction, label in batches:
        accumulator.update(update(prediction, label))
    return accumulator.compute()


def images(batches):
    return [pair for batch in batches for pair in zip(*batch, strict=True)]


def check(got, wanted, rel):
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, rtol=rel, atol=0, err_msg=key)


def ignored(rng, label, share=0.2):
    """The label with a share of its pixels, all channels, at 255."""
    return np.where(rng.random((*label.shape[:-1], 1)) < share, label.dtype.type(255), label)


def class_maps(rng, num_classes):
    """Right in half of the pixels. The last class never occurs, the one before it only in labels."""
    out = []
    for shape in SHAPES:
        label = rng.integers(0, num_classes - 1, shape)
        wrong = rng.integers(0, num_classes - 2, shape)
        prediction = np.where((rng.random(shape) < 0.5) & (label < num_classes - 2), label, wrong)
        out.append((prediction.astype(np.int32), ignored(rng, label[..., None].astype(np.int32))))
    return out


@pytest.mark.parametrize("num_classes", [40, 21, 7])
def test_segmentation(rng, kind, num_classes):
    transform, rel = kind
    batches = class_maps(rng, num_classes)
    batches[0][1][1] = 255
    got = ours(metrics.build("semseg", num_classes=num_classes), batches, transform)
    check(got, reference.segmentation(images(batches), num_classes), rel)
    assert got["per_class_IoU"][-2:] == [0, 0]


@pytest.mark.parametrize("final", [False, True])
def test_human_parts(rng, kind, final):
    """One image without a label, one that is background only: the final protocol leaves both out."""
    transform, rel = kind
    batches = class_maps(rng, 7)
    batches[0][1][1], batches[2][1][2] = 255, 0
    metric = metrics.build("human_parts", num_classes=7, final=final, empty_is_unlabelled=True)
    got = ours(metric, batches, transform)
    check(got, reference.segmentation(images(batches), 7, skip_empty=final), rel)


def test_saliency(rng, kind):
    """One image without foreground in either map, one in the label only, one in the prediction only, two unlabelled."""
    transform, rel = kind
    batches = []
    for shape in SHAPES:
        label = (rng.random((*shape, 1)) < 0.3).astype(np.float32)
        prediction = (255 * np.clip(0.5 * label + 0.6 * rng.random((*shape, 1)), 0, 1)).astype(np.float32)
        batches.append((prediction, ignored(rng, label)))
    batches[0][0][0], batches[0][1][0] = 0, 0
    batches[0][1][2], batches[1][1][0] = 255, 255
    batches[2][1][1] = 0
    batches[2][0][2] = 0
    got = ours(metrics.build("saliency", num_classes=1), batches, transform)
    check(got, reference.saliency(images(batches)), rel)


def test_normals(rng, kind):
    """Directions that deviate little and much; labels of any length, some zero, some 255, one image without any."""
    transform, rel = kind
    batches = []
    for shape in SHAPES:
        label = rng.standard_normal((*shape, 3)).astype(np.float32)
        label[rng.random(shape) < 0.1] = 0
        vectors = label + rng.exponential(0.3, (*shape, 1)) * rng.standard_normal((*shape, 3))
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        batches.append(((255 * (unit + 1) / 2).astype(np.float32), ignored(rng, label)))
    batches[0][1][2] = 255
    got = ours(metrics.build("normals", num_classes=3), batches, transform)
    wanted = reference.normals(images(batches))
    assert got["median"] == pytest.approx(wanted.pop("median"), abs=HALF_A_BIN)
    check(got, wanted, rel)


@pytest.mark.parametrize("protocol", ["image", "pixel"])
def test_depth(rng, kind, protocol):
    """Labels of 0 and 255 are invalid, in one image all of them; some predictions are not positive."""
    transform, rel = kind
    batches = []
    for shape in SHAPES:
        label = rng.uniform(0.5, 9.5, (*shape, 1)).astype(np.float32)
        prediction = (label * np.exp(rng.normal(0, 0.4, label.shape)) - 0.1).astype(np.float32)
        label[rng.random(label.shape) < 0.1] = 0
        batches.append((prediction, ignored(rng, label)))
    batches[1][1][0] = 255
    batches[2][0][1, 0, :3] = [[-1], [0], [1e-12]]
    got = ours(metrics.build("depth", num_classes=1, depth_protocol=protocol), batches, transform)
    check(got, reference.depth(images(batches), protocol), rel)


def test_edge(rng, kind):
    """Some maps are saturated at 0 and 255, right and wrong; one image without a label."""
    transform, rel = kind
    batches = []
    for shape in SHAPES:
        label = (rng.random((*shape, 1)) < 0.1).astype(np.float32)
        prediction = rng.uniform(0, 255, label.shape).astype(np.float32)
        prediction[rng.random(label.shape) < 0.1] = 0
        prediction[rng.random(label.shape) < 0.1] = 255
        batches.append((prediction, ignored(rng, label)))
    batches[0][1][1] = 255
    got = ours(metrics.build("edge", num_classes=1), batches, transform)
    check(got, reference.edge(images(batches)), rel)


def test_multi_task_performance(rng):
    """The deciding score and its direction come from the task table."""

    def results():
        return {name: {criterion.name: rng.uniform(0.1, 2)} for name, criterion in criteria.items()}

    def deciding(results):
        return {name: results[name][criterion.name] for name, criterion in criteria.items()}

    criteria = protocol.get("survey").criteria(TASKS, final=True)

    several, single = results(), results()
    lower = [name for name, criterion in criteria.items() if not criterion.higher_is_better]
    wanted = reference.multi_task_performance(deciding(several), deciding(single), lower)
    assert metrics.delta_m(several, single, criteria) == pytest.approx(wanted, rel=1e-12)
