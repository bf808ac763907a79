"""Cross-stitch and NDDR-CNN: what their units compute, and where they stand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models
from mtl_jax.config import Config, Data, Model
from mtl_jax.models.cross_stitch import CrossStitchUnit
from mtl_jax.models.multi_task import SingleTask
from mtl_jax.models.nddr_cnn import NDDRLayer
from tests.marks import slow

TASKS = ("semseg", "depth")  # in task order, which is not the alphabet's
EPSILON = 1e-5  # of batch norm


def maps(*values):
    """{task: [1, 1, 2, 2] map}"""
    return {task: jnp.array(x, jnp.float32).reshape(1, 1, 2, 2) for task, x in zip(TASKS, values, strict=True)}


A = [[1, 2], [3, 4]]
B = [[10, 20], [30, 40]]


def test_cross_stitch_by_hand():
    unit = CrossStitchUnit(TASKS, 2, alpha=0.9, beta=0.1)
    out = unit(maps(A, B))
    np.testing.assert_allclose(out["semseg"][0, 0], 0.9 * np.array(A) + 0.1 * np.array(B), rtol=1e-6)
    np.testing.assert_allclose(out["depth"][0, 0], 0.1 * np.array(A) + 0.9 * np.array(B), rtol=1e-6)

    # A weight for each channel, and for each direction.
    unit.cross_stitch_unit["semseg"]["depth"].param[...] = jnp.array([0.0, 2.0])
    changed = unit(maps(A, B))
    np.testing.assert_allclose(changed["semseg"][0, 0], [[0.9, 1.8 + 40], [2.7, 3.6 + 80]], rtol=1e-6)
    np.testing.assert_array_equal(changed["depth"], out["depth"])


def test_nddr_by_hand():
    layer = NDDRLayer(TASKS, 2, alpha=0.8, beta=0.05, rngs=nnx.Rngs(0))
    eye = np.eye(2)
    kernels = {"semseg": [0.8 * eye, 0.05 * eye], "depth": [0.05 * eye, 0.8 * eye]}  # the blocks are in task order
    for task, blocks in kernels.items():
        np.testing.assert_allclose(layer.layer[task][0].kernel[0, 0], np.concatenate(blocks), rtol=1e-6)

    # One output channel takes the second task's first channel, the other is negative.
    layer.layer["semseg"][0].kernel[...] = jnp.array([[0, -1], [0, 0], [1, 0], [0, 0]], jnp.float32)[None, None]
    out = models.evaluation_view(layer)(maps(A, B))
    np.testing.assert_allclose(out["semseg"][0, 0], np.array([[10, 0], [30, 0]]) / np.sqrt(1 + EPSILON), rtol=1e-6)
    expected = (0.05 * np.array(A) + 0.8 * np.array(B)) / np.sqrt(1 + EPSILON)
    np.testing.assert_allclose(out["depth"][0, 0], expected, rtol=1e-6)


def test_nddr_moves_its_statistics_by_a_twentieth():
    layer = NDDRLayer(TASKS, 2, alpha=1, beta=0, rngs=nnx.Rngs(0))
    layer(maps(A, B))
    np.testing.assert_allclose(layer.layer["semseg"][1].mean[...], 0.05 * np.mean(A, 0), rtol=1e-6)
    np.testing.assert_allclose(layer.layer["depth"][1].var[...], 0.95 + 0.05 * np.var(B, 0, ddof=1), rtol=1e-6)


def build(name, backbone, alpha=1.0, beta=0.0):
    return models.build(Config(Data("nyud", TASKS), Model(name, backbone, options={"alpha": alpha, "beta": beta})))


LAYERS = ["layer1", "layer2", "layer3", "layer4"]
BRANCHES = ["stage1", "stage2_0", "stage2_1"]


@pytest.mark.parametrize(
    ("name", "backbone", "expected"),
    [
        ("cross_stitch", "tiny_resnet", LAYERS),
        ("nddr_cnn", "tiny_resnet", ["conv", *LAYERS]),
        ("cross_stitch", "tiny", BRANCHES),
        ("nddr_cnn", "tiny", ["conv", *BRANCHES]),
    ],
)
def test_units_follow_the_stages_and_every_map_has_its_own(name, backbone, expected):
    model = nnx.eval_shape(lambda: build(name, backbone))
    assert list(getattr(model, model.fusion)) == expected


# Identity units change nothing: exactly in cross-stitch, but each of NDDR's five batch norms in a row divides by
# sqrt(1 + epsilon). Its ReLU leaves maps alone that are positive already.
@pytest.mark.parametrize(("name", "tolerance"), [slow("cross_stitch", 1e-5), ("nddr_cnn", 5 * EPSILON)])
def test_identity_units_leave_single_task_networks(name, tolerance):
    model = models.evaluation_view(build(name, "tiny_resnet_dilated"))
    images = jax.random.normal(jax.random.key(0), (2, 33, 47, 3))
    shared = model(images).logits
    for task in TASKS:
        single = SingleTask(model.backbone[task], model.heads[task], task)(images).logits
        size = np.abs(single[task]).max()
        assert size > 0.01
        np.testing.assert_allclose(shared[task], single[task], rtol=0, atol=tolerance * size)
