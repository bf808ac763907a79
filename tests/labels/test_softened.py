"""Softened values: what is resized and averaged before a kind of label decides."""

import io
import tracemalloc

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mtl_jax import tasks
from mtl_jax.codecs import pictures
from mtl_jax.labels import Conventions, LabelKind

CLASSES, METRES, VECTORS, SHARE = (tasks.get(name).kind for name in ("semseg", "depth", "normals", "sal"))


def probabilities(height, width, classes, seed=0):
    logits = np.random.default_rng(seed).normal(0, 2, (height, width, classes))
    return np.asarray(CLASSES.soften(jnp.asarray(logits, jnp.float32)))


@pytest.mark.parametrize("size", [(37, 50), (7, 9), (5, 30)])
def test_classes_are_decided_after_resizing(size):
    """One class after another gives what resizing all of them at once does."""
    values = probabilities(7, 9, 41)
    whole = np.stack([cv2.resize(np.ascontiguousarray(values[..., i]), size[::-1]) for i in range(41)], axis=-1)
    decided = CLASSES.decide_at(values, *size)
    assert (decided.dtype, decided.shape) == (np.int32, size)
    np.testing.assert_array_equal(decided, whole.argmax(-1))


def test_borders_of_classes_are_smooth():
    """A slanted line between two classes, seen by 16 x 16 pixels and drawn on 160 x 160."""
    rows, columns = np.indices((16, 16)) + 0.5
    share = 1 / (1 + np.exp(-2 * (columns - 0.4 * rows - 5)))
    values = np.stack([1 - share, share], axis=-1).astype(np.float32)
    rows, columns = (np.indices((160, 160)) + 0.5) / 10
    truth = columns - 0.4 * rows - 5 > 0
    wrong = (CLASSES.decide_at(values, 160, 160) != truth).mean()
    blocks = (cv2.resize(CLASSES.decide(values), (160, 160), interpolation=cv2.INTER_NEAREST) != truth).mean()
    assert wrong < 0.004 < 0.012 < blocks


def test_memory_does_not_grow_with_the_number_of_classes():
    values = np.full((30, 40, 41), 1 / 41, np.float32)  # no class can be left out
    height, width = 600, 800
    tracemalloc.start()
    CLASSES.decide_at(values, height, width)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 4 * height * width  # all classes at this size would be 41 * 4 * height * width


def test_kinds_that_only_activate_are_softened_by_that():
    class Doubled(type(METRES)):
        def activate(self, logits):
            return 2 * logits

    assert Doubled().soften(jnp.ones((1, 2, 2, 1))).max() == 2
    assert Doubled.decide_at is LabelKind.decide_at


@pytest.mark.parametrize("name", ["sal", "edge", "normals", "depth"])
def test_a_decision_has_the_form_of_the_prediction(name):
    kind = tasks.get(name).kind
    logits = jnp.asarray(np.random.default_rng(1).normal(0, 3, (1, 5, 6, kind.num_logits(0))), jnp.float32)
    decided = kind.decide(np.asarray(kind.soften(logits))[0])
    np.testing.assert_allclose(kind.as_prediction(decided), np.asarray(kind.activate(logits))[0], rtol=1e-5, atol=1e-4)


def test_predictions_are_the_recorded_formulas_bit_for_bit():
    logits = jnp.asarray(np.random.default_rng(2).normal(0, 3, (2, 5, 6, 3)), jnp.float32)
    np.testing.assert_array_equal(SHARE.activate(logits), 255 * jax.nn.sigmoid(logits))
    norm = jnp.sqrt((logits * logits).sum(axis=-1, keepdims=True))
    np.testing.assert_array_equal(VECTORS.activate(logits), 255 * (logits / jnp.maximum(norm, 1e-12) + 1) / 2)


def test_vectors_keep_their_length():
    vectors = np.zeros((2, 2, 3), np.float32)
    vectors[0, :, 0], vectors[1, :, 2] = 1, -1
    decided = VECTORS.decide_at(vectors, 9, 8)
    np.testing.assert_allclose(np.linalg.norm(decided, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(decided[4, 3], [0.5**0.5, 0, -(0.5**0.5)], atol=0.01)


def test_files_of_class_ids_have_a_palette_whose_indices_are_the_ids():
    ids = np.array([[0, 1, 39], [7, 7, 12]], np.int32)
    files = CLASSES.map_files(ids, 40)
    assert set(files) == set(CLASSES.describe_map_files(Conventions())) == {".png"}
    assert pictures.has_palette(files[".png"])
    np.testing.assert_array_equal(CLASSES.decode_prediction(files[".png"], "semseg"), ids)
    seen = np.asarray(Image.open(io.BytesIO(files[".png"])).convert("RGB"))
    np.testing.assert_array_equal(seen, CLASSES.paint(ids[..., None], is_label=False))


def test_files_of_depth_are_millimetres_and_metres():
    depth = np.array([[0.0, 1.2344, 70.0, -0.1]], np.float32)[..., None]
    files = METRES.map_files(depth, 1)
    assert set(files) == set(METRES.describe_map_files(Conventions())) == {".png", ".npy"}
    stored = cv2.imdecode(np.frombuffer(files[".png"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1234, 65535, 0]]
    np.testing.assert_array_equal(np.load(io.BytesIO(files[".npy"])), depth[..., 0])


def test_files_of_vectors_and_shares():
    vector = np.array([[[1, 0, -1]]], np.float32)
    assert pictures.decode(VECTORS.map_files(vector, 3)[".png"], 3).tolist() == [[[255, 128, 0]]]
    assert "x right, y down" in VECTORS.describe_map_files(Conventions(axes="opencv"))[".png"]
    share = np.array([[[0.0], [0.5], [1.0]]], np.float32)
    assert pictures.decode(SHARE.map_files(share, 1)[".png"], 1)[..., 0].tolist() == [[0, 128, 255]]
